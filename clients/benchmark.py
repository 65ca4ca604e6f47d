"""`python clients/benchmark.py`: measures a running server."""

from longhand_client.benchmark import main

raise SystemExit(main())
