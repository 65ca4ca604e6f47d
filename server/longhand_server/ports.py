"""Telling other processes which port was taken."""

from __future__ import annotations

from pathlib import Path


def write_port(path: Path, port: int) -> None:
    """Writes a port number to a file, which appears at once and whole."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(f"{port}\n", encoding="ascii")
    partial.replace(path)
