"""Tokens, rate limits and where it is safe to listen."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest

from longhand_server.config import ListenConfig, SecurityConfig
from longhand_server.errors import ConfigurationError, RateLimitedError, UnauthenticatedError
from longhand_server.security import Caller, TokenStore, check_exposure, is_loopback, server_credentials


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# callers\narchive {digest('first')}\n\nweb {digest('second')} 10  # ten a second\n")
    return path


def test_known_tokens_name_their_caller(tokens: Path) -> None:
    store = TokenStore(tokens)
    assert store.authenticate("Bearer first").name == "archive"
    assert store.authenticate(b"bearer second").name == "web"
    assert store.authenticate("Bearer first").lines_per_s == math.inf


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic first", "first", "Bearer third"])
def test_anything_else_is_unauthenticated(tokens: Path, header: str | None) -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        TokenStore(tokens).authenticate(header)
    assert "third" not in str(caught.value)
    with pytest.raises(UnauthenticatedError):
        TokenStore(tokens).authenticate("Bearer " + "x" * 100_000)


def test_reload_replaces_and_a_damaged_file_keeps_the_callers(tokens: Path) -> None:
    store = TokenStore(tokens)
    tokens.write_text(f"new {digest('third')}\n")
    store.use(store.read())
    assert store.authenticate("Bearer third").name == "new"
    with pytest.raises(UnauthenticatedError):
        store.authenticate("Bearer first")
    tokens.write_text("nonsense\n")
    with pytest.raises(ConfigurationError, match="line 1"):
        store.read()
    assert store.authenticate("Bearer third").name == "new"


def test_a_reload_reaches_who_is_already_in(tokens: Path) -> None:
    store = TokenStore(tokens)
    holder = store.authenticate("Bearer second")  # as an open stream keeps it
    tokens.write_text(f"web {digest('third')} 200 high\n")
    store.use(store.read())
    holder.spend(200, 1_000.0)
    with pytest.raises(RateLimitedError, match="200 images a second"):
        holder.spend(1, 1_000.0)
    assert holder.may_go_first


def test_who_may_go_first_is_said_in_the_last_word(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"high {digest('a')}\nb {digest('b')} high\nc {digest('c')} 5 high\nd {digest('d')} 5\n")
    callers = TokenStore(path).read()
    assert [caller.may_go_first for caller in callers] == [False, True, True, False]
    assert [caller.lines_per_s for caller in callers] == [math.inf, math.inf, 5, 5]


@pytest.mark.parametrize("rate", ["5", "6"])
def test_a_reload_forgives_no_debt(tokens: Path, rate: str) -> None:
    tokens.write_text(f"archive {digest('first')} 5\n")
    store = TokenStore(tokens)
    store.authenticate("Bearer first").spend(200, 1_000.0)
    tokens.write_text(f"archive {digest('first')} {rate}\n")
    store.use(store.read())
    with pytest.raises(RateLimitedError):
        store.authenticate("Bearer first").spend(1, 1_001.0)


def test_a_byte_order_mark_is_no_part_of_a_name(tokens: Path) -> None:
    tokens.write_text(f"archive {digest('first')}\n", encoding="utf-8-sig")
    assert TokenStore(tokens).authenticate("Bearer first").name == "archive"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no caller"),
        ("archive\n", "line 1: need NAME SHA256"),
        (f"a {'0' * 64}\nb {'0' * 64} 5\n", "line 2: the token of b is that of a as well"),
        ("archive 1234\n", "line 1: need 64 hexadecimal digits"),
        (f"a {digest('x')}\na {digest('y')}\n", "line 2: the name a stands twice"),
        (f"a {digest('x')} fast\n", "line 1: need NAME SHA256"),
        (f"a {digest('x')} high 5\n", "line 1: need NAME SHA256"),
        (f"a {digest('x')} 5 low\n", "line 1: need NAME SHA256"),
        (f"a {digest('x')} 5 5 high\n", "line 1: need NAME SHA256"),
        (f"a {digest('x')} 5 high high high\n", "line 1: need NAME SHA256"),
        (f"a {digest('x')} 0\n", "rate of at least 0.001"),
        (f"a {digest('x')} 1e-310\n", "rate of at least 0.001"),
        (f"a {digest('x')} nan\n", "rate of at least 0.001"),
    ],
)
def test_damaged_token_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        TokenStore(path)


def test_rate_limit_refills_with_time() -> None:
    caller = Caller("web", b"", 10.0)
    for _ in range(10):
        caller.spend(1, now=100.0)
    with pytest.raises(RateLimitedError, match="may send 10 images a second") as caught:
        caller.spend(1, now=100.0)
    assert caught.value.retry_after_ms == 100
    caller.spend(1, now=100.1)
    with pytest.raises(RateLimitedError):
        caller.spend(1, now=100.1)
    for _ in range(10):
        caller.spend(1, now=200.0)  # no more than a second's worth was saved up
    with pytest.raises(RateLimitedError):
        caller.spend(1, now=200.0)


def test_a_large_batch_passes_and_is_paid_for_afterwards() -> None:
    caller = Caller("web", b"", 10.0)
    caller.spend(50, now=100.0)
    with pytest.raises(RateLimitedError) as caught:
        caller.spend(1, now=101.0)
    assert caught.value.retry_after_ms is not None
    assert caught.value.retry_after_ms > 3000
    caller.spend(1, now=104.2)


def test_who_can_wait_leaves_something_to_those_who_cannot() -> None:
    caller = Caller("web", b"", 10.0)
    for _ in range(9):
        caller.spend(1, now=100.0, leave=1)
    with pytest.raises(RateLimitedError) as caught:
        caller.spend(1, now=100.0, leave=1)
    assert caught.value.retry_after_ms == 100
    caller.spend(1, now=100.0)
    slow = Caller("slow", b"", 0.5)  # never has two at hand
    slow.spend(1, now=100.0, leave=1)
    slow.spend(1, now=102.0, leave=1)


def test_a_clock_that_jumps_back_locks_nobody_out_for_long() -> None:
    caller = Caller("web", b"", 10.0)
    caller.spend(10, now=1000.0)
    with pytest.raises(RateLimitedError):
        caller.spend(1, now=900.0)
    caller.spend(1, now=900.2)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.0.1", "localhost", "::1", "[::1]", "unix:/tmp/x"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    check_exposure(ListenConfig(host=host), SecurityConfig())


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "reader.example"])
def test_other_machines_need_protection_or_insecure(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigurationError, match="--insecure"):
        check_exposure(ListenConfig(host=host), SecurityConfig())
    for security in (
        SecurityConfig(insecure=True),
        SecurityConfig(token_file="f"),
        SecurityConfig(tls_cert="c"),
    ):
        check_exposure(ListenConfig(host=host), security)


def test_wrong_tls_files_are_named(tmp_path: Path) -> None:
    assert server_credentials(SecurityConfig()) is None
    with pytest.raises(ConfigurationError, match="both are needed"):
        server_credentials(SecurityConfig(tls_cert="x"))
    with pytest.raises(ConfigurationError, match="cannot read /no/such: No such file"):
        server_credentials(SecurityConfig(tls_cert="/no/such", tls_key="/no/such"))
    text = tmp_path / "text"
    text.write_text("hello")
    with pytest.raises(ConfigurationError, match="holds no PEM certificate"):
        server_credentials(SecurityConfig(tls_cert=str(text), tls_key=str(text)))
