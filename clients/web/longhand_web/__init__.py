"""Longhand's web page and its gateway: a client of the gRPC service like any other."""
