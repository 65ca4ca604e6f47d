"""Longhand's published protocol, generated from the .proto files beside it."""
