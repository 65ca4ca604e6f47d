"""`python clients/benchmark.py`: measures a running server."""

try:
    from longhand_client.benchmark import main
except ModuleNotFoundError as error:
    raise SystemExit(
        f"benchmark: {error}; activate the environment that it is installed in: . .venv/bin/activate"
    ) from None

if __name__ == "__main__":
    raise SystemExit(main())
