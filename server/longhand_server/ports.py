"""Taking a port, and telling other processes which one was taken."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from longhand_server.config import ListenConfig
from longhand_server.errors import ConfigurationError, LonghandError, PortTakenError


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


def reserve_port(listen: ListenConfig) -> socket.socket:
    """A socket that holds a port for workers without listening on it.

    Raises:
        PortTakenError: Another program has it.
        ConfigurationError: It cannot be had, with the system's reason.
    """
    host = listen.host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, listen.port, type=socket.SOCK_STREAM)[0]
        if not listen.reuse_port:
            # Workers share the port, and would share it with another server's workers as well.
            with socket.socket(family, kind, protocol) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(address)
        reserved = socket.socket(family, kind, protocol)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except (OSError, UnicodeError) as error:  # the latter of what can be no host's name
        raise cannot_listen("port", listen.host, listen.port, error) from error
    return reserved


def join_address(host: str, port: int) -> str:
    """Host and port as gRPC takes them and browsers do."""
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host and host[0] != "[" else f"{host}:{port}"


def cannot_listen(setting: str, host: str, port: int, error: OSError | UnicodeError) -> LonghandError:
    """The error to raise where the port that a setting names cannot be had."""
    reason = getattr(error, "strerror", None) or error
    is_taken = getattr(error, "errno", None) == errno.EADDRINUSE
    kind = PortTakenError if is_taken else ConfigurationError
    return kind(f"{setting}: cannot listen on {join_address(host, port)}: {reason}")
