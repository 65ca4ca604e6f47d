"""Reads one line with nothing but the generated code: python examples/raw_stub.py IMAGE [HOST:PORT]."""

import sys
from pathlib import Path

import grpc

from longhand.v1 import recognition_pb2, recognition_pb2_grpc

if len(sys.argv) < 2:
    sys.exit(__doc__)
address = sys.argv[2] if len(sys.argv) > 2 else "localhost:50051"
with grpc.insecure_channel(address) as channel:
    stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
    request = recognition_pb2.RecognizeRequest(image=Path(sys.argv[1]).read_bytes())
    try:
        print(stub.Recognize(request, timeout=10).result.text)
    except grpc.RpcError as error:
        sys.exit(f"{address}: {error.details()}")
