"""Reads one line with nothing but the generated code: python examples/raw_stub.py IMAGE [HOST:PORT]."""

import sys
from pathlib import Path

import grpc

from longhand.v1 import recognition_pb2, recognition_pb2_grpc

address = sys.argv[2] if len(sys.argv) > 2 else "localhost:50051"
with grpc.insecure_channel(address) as channel:
    stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
    request = recognition_pb2.RecognizeRequest(image=Path(sys.argv[1]).read_bytes())
    answer = stub.Recognize(request, timeout=10)
print(answer.result.text)
