"""`python clients/cli.py`: the command line without installing its name (`longhand`)."""

try:
    from longhand_client.cli import main
except ModuleNotFoundError as error:
    raise SystemExit(
        f"longhand: {error}; activate the environment that it is installed in (. .venv/bin/activate), "
        "or run .venv/bin/longhand"
    ) from None

if __name__ == "__main__":
    raise SystemExit(main())
