"""`python clients/benchmark.py`: measures a running server."""

from longhand_client.benchmark import main

if __name__ == "__main__":
    raise SystemExit(main())
