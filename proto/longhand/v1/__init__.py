"""Version 1 of the protocol: `recognition_pb2` and `recognition_pb2_grpc`."""
