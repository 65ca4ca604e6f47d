"""`python clients/cli.py`: the command line without installing its name (`longhand`)."""

from longhand_client.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
