"""`python -m longhand_web`: serves the page."""

from __future__ import annotations

import argparse
import errno
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from longhand_client import DEFAULT_ADDRESS, LonghandError
from longhand_client.command.arguments import add_credentials, connects, credentials
from longhand_client.command.program import EXIT_FAILED, EXIT_OK, errors_of_usage
from longhand_client.command.standard_streams import announce, open_closed_streams, tell
from longhand_client.connection import Connection
from longhand_client.images import MAX_IMAGE_BYTES
from longhand_client.local_server import LocalServer

# Each request may hold an image in memory.
MOST_AT_ONCE = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the page until Ctrl-C.

    Args:
        arguments: the command line without the program's name; None = the process's own.

    Returns:
        The exit code: 0, 1 (could not start), 2 (usage).
    """
    open_closed_streams()
    usage = _parser()
    options = usage.parse_args(arguments)
    if options.local and connects(options):
        usage.error("--local starts a server of its own: leave out --address, --token-file and --tls")
    options.address = options.address or DEFAULT_ADDRESS
    with errors_of_usage(usage):
        tls, token = credentials(options)
        Connection(address=options.address).target()
    try:
        import uvicorn

        from longhand_web.gateway import GatewayConfig, build_app
    except ModuleNotFoundError as error:
        tell(f"longhand_web: {error}: pip install '.[web]' in Longhand's folder")
        return EXIT_FAILED
    try:
        with ExitStack() as resources:
            # Before anything else starts, and before the page is announced: the port may be taken.
            listeners = [resources.enter_context(one) for one in _listen(options.host, options.port)]
            address = resources.enter_context(LocalServer()).address if options.local else options.address
            config = GatewayConfig(
                address=address, tls=tls, token=token, max_image_bytes=options.max_image_mib * 1024 * 1024
            )
            settings = uvicorn.Config(
                build_app(config), log_level="warning", server_header=False, limit_concurrency=MOST_AT_ONCE
            )
            host = f"[{options.host}]" if ":" in options.host else options.host
            announce(f"Longhand's page is at http://{host}:{options.port} (server: {address})")
            uvicorn.Server(settings).run(sockets=listeners)
    except (LonghandError, ValueError) as error:
        tell(f"longhand_web: {error}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        pass
    return EXIT_OK


def _listen(host: str, port: int) -> list[socket.socket]:
    """Listens on every address that the name stands for: a browser may take `localhost` for ::1 or for 127.0.0.1."""
    listeners: list[socket.socket] = []
    missing: OSError | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            try:
                listeners.append(socket.create_server(address, family=family))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error  # the name may be known by an address that this machine has not
        if missing is not None and not listeners:
            raise missing
    except OSError as error:
        for listener in listeners:
            listener.close()
        reason = str(error.strerror).partition(" (")[0]  # Python adds the address again
        raise LonghandError(f"cannot listen on {host} port {port}: {reason}") from error
    return listeners


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="longhand_web", description="Serves Longhand's web page.")
    parser.add_argument(
        "--address", metavar="HOST:PORT", help=f"where the recognition server is (default: {DEFAULT_ADDRESS})"
    )
    parser.add_argument("--local", action="store_true", help="start a recognition server for this page")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=_port, default=8080, help="port to listen on (default: %(default)s)")
    parser.add_argument(
        "--max-image-mib",
        type=_mebibytes,
        default=4,
        metavar="N",
        help="largest image accepted, in MiB (default: %(default)s)",
    )
    add_credentials(parser)
    return parser


def _port(text: str) -> int:
    return _whole(text, 65_535)


def _mebibytes(text: str) -> int:
    return _whole(text, MAX_IMAGE_BYTES // 1024 // 1024)  # the client sends none that is larger


def _whole(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"got {text}, need 1 to {most}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
