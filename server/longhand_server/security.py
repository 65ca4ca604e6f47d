"""Who may call: bearer tokens with rate limits, TLS files that may change, and where it is safe to listen."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import math
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import grpc

from longhand_server.config import ListenConfig, SecurityConfig
from longhand_server.errors import ConfigurationError, RateLimitedError, UnauthenticatedError

_LOG = logging.getLogger(__name__)
_MAX_TOKEN_BYTES = 1024
_HASH_DIGITS = 64
# Images a second; one in a thousand seconds.
_LEAST_RATE = 0.001
_MAY_GO_FIRST = "high"
_ROW = f"NAME SHA256 [IMAGES-PER-SECOND] [{_MAY_GO_FIRST}]"
# Images by which sums of many small shares may be off.
_ROUNDING = 1e-6


@dataclass
class Caller:
    """Somebody with a token.

    Attributes:
        name: For logs and fairness.
        digest: SHA-256 of the token.
        lines_per_s: Images a second that it may send, inf for any number; bursts of one second's worth.
        may_go_first: Whether its images may go before those of others.
    """

    name: str
    digest: bytes
    lines_per_s: float = math.inf
    may_go_first: bool = False
    _allowance: float = field(default=0.0, init=False, compare=False)
    _counted_at: float = field(default=-math.inf, init=False, compare=False)
    # Its streams wait for their turns one after the other.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, compare=False, repr=False)

    def spend(self, images: int, now: float, *, leave: int = 0) -> None:
        """Takes images off the allowance.

        Args:
            images: How many.
            now: Of a clock that never goes back, seconds.
            leave: Images that must still be allowed afterwards: who can wait leaves some to those who cannot.

        Raises:
            RateLimitedError: It is used up; the error says when to come back.
        """
        if self.lines_per_s == math.inf:
            return
        grown = self._allowance + max(0.0, now - self._counted_at) * self.lines_per_s
        self._allowance = min(self.lines_per_s, grown)
        self._counted_at = now
        # What is more than the allowance can be may pass when that is full, and is paid for afterwards.
        needed = min(float(images + leave), self.lines_per_s)
        if self._allowance < needed - _ROUNDING:
            wait_ms = math.ceil((needed - self._allowance) / self.lines_per_s * 1000)
            raise RateLimitedError(
                f"caller {self.name} may send {self.lines_per_s:g} images a second",
                retry_after_ms=wait_ms,
                metadata={"lines_per_s": f"{self.lines_per_s:g}"},
            )
        self._allowance -= images

    def change_to(self, other: Caller) -> None:
        """Takes over token and rights; what it has left stays, and streams that are open know of it at once."""
        self.digest, self.lines_per_s, self.may_go_first = other.digest, other.lines_per_s, other.may_go_first

    def revoke(self) -> None:
        """No token is this caller's any more."""
        self.digest = b""


class TokenStore:
    """The callers of a token file.

    Each line is ``NAME SHA256-OF-TOKEN-IN-HEX [IMAGES-PER-SECOND] [high]``; empty lines and ``#`` comments are
    skipped.

    Raises:
        ConfigurationError: The file cannot be read, or a line is wrong (named).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._callers = self.read()

    def use(self, callers: list[Caller]) -> None:
        """From now on these are known; those who were known before go on with what they have left."""
        before = {caller.name: caller for caller in self._callers}
        for index, caller in enumerate(callers):
            known = before.pop(caller.name, None)
            if known is not None:
                known.change_to(caller)
                callers[index] = known
        for caller in before.values():
            caller.revoke()
        self._callers = callers

    def read(self) -> list[Caller]:
        """The callers that the file names now.

        Raises:
            ConfigurationError: As the class says.
        """
        try:
            text = self._path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"token_file: cannot read {self._path}: {error}") from error
        return _parse_callers(text, self._path)

    def authenticate(self, header: str | bytes | None) -> Caller:
        """The caller whose token an ``authorization`` header holds.

        Raises:
            UnauthenticatedError: No header, no bearer token, or an unknown one.
        """
        if header is None:
            raise UnauthenticatedError("send a token: metadata 'authorization' with 'Bearer TOKEN'")
        text = header.decode("latin-1") if isinstance(header, bytes) else header
        scheme, _, token = text.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN_BYTES:
            raise UnauthenticatedError("metadata 'authorization' must be 'Bearer TOKEN'")
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found: Caller | None = None
        # Every caller is compared, so that the time taken tells nothing.
        for caller in self._callers:
            if hmac.compare_digest(caller.digest, digest):
                found = caller
        if found is None:
            raise UnauthenticatedError("the token is not known here")
        return found


def _parse_callers(text: str, path: Path) -> list[Caller]:
    callers: dict[str, Caller] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"token_file: {path}, line {number}"
        if len(words) not in (2, 3, 4):
            raise ConfigurationError(f"{where}: need {_ROW}, got {len(words)} words")
        if words[0] in callers:
            raise ConfigurationError(f"{where}: the name {words[0]} stands twice")
        wishes = words[2:]
        may_go_first = bool(wishes) and wishes[-1] == _MAY_GO_FIRST
        if may_go_first:
            wishes.pop()
        try:
            digest = bytes.fromhex(words[1])
            (rate,) = [float(word) for word in wishes] or [math.inf]
        except ValueError:
            raise ConfigurationError(f"{where}: need {_ROW}") from None
        if len(words[1]) != _HASH_DIGITS or not rate >= _LEAST_RATE:
            raise ConfigurationError(
                f"{where}: need 64 hexadecimal digits and a rate of at least {_LEAST_RATE:g}"
            )
        for other in callers.values():
            if other.digest == digest:
                raise ConfigurationError(f"{where}: the token of {words[0]} is that of {other.name} as well")
        callers[words[0]] = Caller(words[0], digest, rate, may_go_first)
    if not callers:
        raise ConfigurationError(f"token_file: {path} names no caller")
    return list(callers.values())


def check_exposure(listen: ListenConfig, security: SecurityConfig) -> None:
    """Refuses to serve other machines without TLS or tokens.

    Raises:
        ConfigurationError: Neither is set, the address is not this machine's own, and nobody said ``insecure``.
    """
    if is_loopback(listen.host) or security.tls_cert or security.token_file or security.insecure:
        return
    raise ConfigurationError(
        f"host: {listen.host} can be reached from other machines; set --tls-cert and --tls-key or --token-file, "
        "or say --insecure"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def server_credentials(security: SecurityConfig) -> grpc.ServerCredentials | None:
    """TLS from the configured files, read again for new connections when they change; None without TLS.

    Raises:
        ConfigurationError: A file is missing or unreadable, or only one of certificate and key is set.
    """
    if not (security.tls_cert or security.tls_key or security.tls_client_ca):
        return None
    if not (security.tls_cert and security.tls_key):
        raise ConfigurationError("tls_cert and tls_key: both are needed for TLS")
    files = _TlsFiles(security)
    # None from the second argument means "unchanged", which its type stubs do not know.
    fetch = cast(Callable[[], grpc.ServerCertificateConfiguration], files.read_if_changed)
    return grpc.dynamic_ssl_server_credentials(
        files.read(), fetch, require_client_authentication=bool(security.tls_client_ca)
    )


class _TlsFiles:
    """Certificate, key and client authority, as they are on disk."""

    def __init__(self, security: SecurityConfig) -> None:
        names = (security.tls_cert, security.tls_key, security.tls_client_ca)
        self._paths = [Path(name) if name else None for name in names]
        self._stamps: list[float] = []

    def read(self) -> grpc.ServerCertificateConfiguration:
        """What they hold now.

        Raises:
            ConfigurationError: They cannot be used.
        """
        try:
            self._stamps = self._now()
            certificate, key, authority = (path.read_bytes() if path else None for path in self._paths)
        except OSError as error:
            raise ConfigurationError(f"tls: cannot read {error.filename}: {error.strerror}") from error
        if not certificate or b"BEGIN CERTIFICATE" not in certificate:
            raise ConfigurationError(f"tls: {self._paths[0]} holds no PEM certificate")
        if not key or b"PRIVATE KEY" not in key:
            raise ConfigurationError(f"tls: {self._paths[1]} holds no PEM private key")
        try:
            # gRPC says of files that do not belong together only that it cannot listen.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.set_ciphers("DEFAULT@SECLEVEL=0")  # how strong a key must be is not asked here
            context.load_cert_chain(str(self._paths[0]), str(self._paths[1]), password=b"")
            if authority is not None:
                context.load_verify_locations(cafile=str(self._paths[2]))
        except OSError as error:  # ssl.SSLError is one; a file may have gone meanwhile
            names = ", ".join(str(path) for path in self._paths if path is not None)
            problem = getattr(error, "reason", None) or error.strerror or str(error)
            raise ConfigurationError(
                f"tls: {names}: no usable PEM certificate, key and authority: {problem}"
            ) from error
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def read_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What new connections are to use, or None for what was used so far."""
        try:
            if self._now() == self._stamps:
                return None
        except OSError:
            return None  # being replaced just now; the old ones still hold
        try:
            return self.read()
        except ConfigurationError as error:
            _LOG.error("%s; new connections go on with the files from before", error)
            return None

    def _now(self) -> list[float]:
        return [path.stat().st_mtime for path in self._paths if path is not None]
