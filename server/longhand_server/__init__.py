"""Longhand's server: handwritten text line recognition over gRPC."""

__version__ = "0.1.0"
