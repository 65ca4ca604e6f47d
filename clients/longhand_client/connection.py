"""Where the server is and how to talk to it: the gRPC target, credentials and channel arguments."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from longhand_client.checks import seconds, whole_number

DEFAULT_PORT = 50051
DEFAULT_ADDRESS = f"localhost:{DEFAULT_PORT}"
_SCHEMES = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:")
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1")
_TOKEN = re.compile("[!-~]+")
_SERVICE = "longhand.v1.RecognitionService"
# Requests up to this are kept for being sent again, which is what the server takes unless it is told otherwise.
_RETRY_BUFFER_BYTES = 32 * 1024 * 1024
LONGEST_S = 1e9  # thirty years
_LONGEST_KEEPALIVE_S = 1e6  # gRPC counts it in milliseconds, in 32 bits
# A stream is opened again by the client itself, which knows what is still unanswered.
_RETRIED_METHODS = ("Recognize", "BatchRecognize", "ListModels", "GetModel")


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Encryption, with the files' contents in PEM form.

    Attributes:
        root_certificates: whom to trust; None = the authorities that gRPC ships.
        private_key: this client's key, where the server asks for one.
        certificate_chain: this client's certificate, where the server asks for one.
        server_name: the name in the server's certificate, where it is not the address's host.

    Raises:
        ValueError: no PEM file, or a key without its certificate.
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    certificate_chain: bytes | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        # gRPC says of such contents on standard error only, and ends the program where one of a pair is missing.
        for name in ("root_certificates", "private_key", "certificate_chain"):
            content = getattr(self, name)
            if content is not None and not (isinstance(content, bytes) and b"-----BEGIN " in content):
                raise ValueError(f"tls: {name}: need the bytes of a PEM file")
        if (self.private_key is None) != (self.certificate_chain is None):
            raise ValueError("tls: private_key and certificate_chain go together")


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach a server.

    Attributes:
        address: "host", "host:port", "unix:path", or several of the former, among which calls take turns.
        tls: encryption; None = plain text.
        token: sent as "authorization: Bearer TOKEN", without space round it; None = nothing.
        retries: how often a call is tried again while the server is unavailable or full; 0 = never.
        keepalive_s: seconds of silence after which a call in progress pings the server.
        max_message_bytes: largest message accepted and sent.
    """

    address: str | Sequence[str] = DEFAULT_ADDRESS
    tls: Tls | None = None
    token: str | None = field(default=None, repr=False)
    retries: int = 3
    keepalive_s: float = 30.0
    max_message_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        # The end of the line that a token was read from is no part of it.
        token = self.token.strip() if isinstance(self.token, str) else self.token
        if token is not None and not (isinstance(token, str) and _TOKEN.fullmatch(token)):
            raise ValueError(
                "token: got no text, an empty one, or one with spaces or other than ASCII characters"
            )
        object.__setattr__(self, "token", token)
        addresses = self.address if isinstance(self.address, Iterable) else [self.address]
        if not all(isinstance(address, str) for address in addresses):
            raise ValueError(f"address: got {self.address!r}, need 'HOST:PORT', or a list of them")
        if self.tls is not None and not isinstance(self.tls, Tls):
            raise ValueError(f"tls: got {self.tls!r}, need Tls()")
        whole_number("retries", self.retries, 0)
        object.__setattr__(
            self, "keepalive_s", seconds("keepalive_s", self.keepalive_s, _LONGEST_KEEPALIVE_S)
        )

    @property
    def name(self) -> str:
        """The address as a person would write it."""
        return self.address if isinstance(self.address, str) else ", ".join(self.address)

    @property
    def described(self) -> str:
        """The address as messages about its failures name it: what was spoken there may be what is wrong."""
        return self.name if self.tls is None else f"{self.name} over TLS"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def target(self) -> str:
        """The gRPC target of the address.

        Raises:
            ValueError: the address is empty, its port no number, or (one of several) its name unknown.
        """
        if isinstance(self.address, str):
            return self.address if self.address.startswith(_SCHEMES) else _join(*_split(self.address))
        endpoints = list(dict.fromkeys(end for address in self.address for end in _resolve(address)))
        if not endpoints:
            raise ValueError("address: got an empty list, need at least one HOST:PORT")
        families = {family for family, _ in endpoints}
        if len(families) > 1:
            # A gRPC target holds one family; with both at hand the older one reaches every server named.
            endpoints = [end for end in endpoints if end[0] == socket.AF_INET]
        scheme = "ipv4" if endpoints[0][0] == socket.AF_INET else "ipv6"
        return f"{scheme}:{','.join(text for _, text in endpoints)}"

    def credentials(self) -> grpc.ChannelCredentials | None:
        """The channel credentials; None for plain text."""
        if self.tls is None:
            return None
        return grpc.ssl_channel_credentials(
            self.tls.root_certificates, self.tls.private_key, self.tls.certificate_chain
        )

    def options(self) -> list[tuple[str, Any]]:
        """The channel arguments."""
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.keepalive_time_ms", round(1000 * self.keepalive_s)),
            # Also the time that sent bytes may stay unconfirmed (TCP_USER_TIMEOUT): a host that vanished without a
            # reset loses its calls after this, and they are tried elsewhere.
            ("grpc.keepalive_timeout_ms", 3_000),
            # A server that has been restarted is found again within seconds, not after gRPC's two minutes.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # Nor does a new client wait for the pause in which an older one of this process is.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", int(self.retries > 0)),
            # By default a larger one than 256 KiB is sent once only.
            ("grpc.per_rpc_retry_buffer_size", min(self.max_message_bytes, _RETRY_BUFFER_BYTES)),
            ("grpc.service_config", json.dumps(self._service_config())),
        ]
        if self._on_this_machine():
            # gRPC would ask the proxy that http_proxy names, which knows another machine by these addresses.
            options.append(("grpc.enable_http_proxy", 0))
        if self.tls is not None and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def _on_this_machine(self) -> bool:
        addresses = [self.address] if isinstance(self.address, str) else self.address
        return all(
            not address.startswith(_SCHEMES) and _LOOPBACK.fullmatch(_split(address)[0])
            for address in addresses
        )

    def _service_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
        if self.retries > 0:
            policy = {
                # gRPC caps the attempts at 5, the first one included.
                "maxAttempts": min(self.retries + 1, 5),
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                # Both mean that nothing was done. A server that knows better pushes back with its own delay.
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            }
            names = [{"service": _SERVICE, "method": method} for method in _RETRIED_METHODS]
            config["methodConfig"] = [{"name": names, "retryPolicy": policy}]
        return config


def _split(address: str) -> tuple[str, int]:
    if not address.strip():
        raise ValueError("address: got an empty one, need HOST:PORT")
    if "//" in address:
        raise ValueError(f"address: got {address!r}, need HOST:PORT without http:// or the like")
    host, separator, port = address.rpartition(":")
    if not separator or address.endswith("]") or (":" in host and not host.startswith("[")):
        return address.strip("[]"), DEFAULT_PORT  # a bare name, or an IPv6 address without a port
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"address: got {address!r}, need HOST:PORT with a port from 1 to 65535")
    return host.strip("[]") or "localhost", int(port)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _resolve(address: str) -> list[tuple[socket.AddressFamily, str]]:
    host, port = _split(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"address: {address!r} cannot be resolved ({error})") from error
    return [(family, _join(str(end[0]), port)) for family, _, _, _, end in found]
