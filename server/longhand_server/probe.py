"""``python -m longhand_server.probe [HOST:PORT]``: asks a server's health; exit code 0 where it is serving.

Where ``LONGHAND_TLS_CERT`` is set, as in a container that encrypts, and no ``--tls-ca`` is given, it is asked for an
encrypted connection only.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_S = 2.5


def main() -> int:
    """Returns 0 (serving), 1 (not serving) or 2 (no answer, or wrong arguments)."""
    parser = argparse.ArgumentParser(prog="longhand_server.probe", description="Asks a server's health.")
    default = f"127.0.0.1:{os.environ.get('LONGHAND_PORT', '50051')}"
    parser.add_argument(
        "address", nargs="?", default=default, metavar="HOST:PORT", help="default: %(default)s"
    )
    parser.add_argument(
        "--tls-ca", type=_content, metavar="FILE", help="encrypt, and trust the authorities of this PEM file"
    )
    parser.add_argument("--tls-name", metavar="NAME", help="the name in the certificate, if it is another")
    options = parser.parse_args()
    if options.tls_ca is None and os.environ.get("LONGHAND_TLS_CERT"):
        return _greet(options.address)
    with _channel(options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            print(f"{options.address}: {error.code().name}: {error.details()}", file=sys.stderr)
            return 2
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {file}: {error.strerror}") from error


def _greet(address: str) -> int:
    """Whether a server that encrypts answers at all: whom its certificate comes from is not known here."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S) as plain:
            context.wrap_socket(plain).close()
    except (OSError, ValueError) as error:
        print(f"{address}: {error}", file=sys.stderr)
        return 2
    return 0


def _channel(options: argparse.Namespace) -> grpc.Channel:
    direct = [("grpc.enable_http_proxy", 0)]  # the server is on this machine or next door
    if options.tls_ca is None:
        return grpc.insecure_channel(options.address, direct)
    credentials = grpc.ssl_channel_credentials(options.tls_ca)
    name = [("grpc.ssl_target_name_override", options.tls_name)] if options.tls_name else []
    return grpc.secure_channel(options.address, credentials, [*direct, *name])


if __name__ == "__main__":
    sys.exit(main())
