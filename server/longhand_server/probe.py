"""``python -m longhand_server.probe [HOST:PORT]``: asks a server's health; exit code 0 where it is serving."""

from __future__ import annotations

import os
import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_S = 2.5


def main() -> int:
    """Returns 0 (serving), 1 (not serving) or 2 (no answer)."""
    default = f"127.0.0.1:{os.environ.get('LONGHAND_PORT', '50051')}"
    address = sys.argv[1] if len(sys.argv) > 1 else default
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            print(f"{address}: {error.code().name}", file=sys.stderr)
            return 2
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
