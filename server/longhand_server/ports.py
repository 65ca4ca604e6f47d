"""Telling other processes which port was taken."""

from __future__ import annotations

from pathlib import Path

from longhand_server.errors import ConfigurationError


def write_port(path: Path, port: int) -> None:
    """Writes a port number to a file, which appears at once and whole; into a device, pipe or link as it is.

    Raises:
        ConfigurationError: It cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_text(f"{port}\n", encoding="ascii")
            return
        partial.write_text(f"{port}\n", encoding="ascii")
        partial.replace(path)
    except OSError as error:
        raise ConfigurationError(f"port_file: cannot write {path}: {error.strerror}") from error
