"""How the programs end: exit codes, and what they say."""

from __future__ import annotations

import pytest

from longhand_client import errors
from longhand_client.command.program import run_program


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.ServerUnavailableError("nobody answers"), 3, "reader: nobody answers; start one"),
        # It runs, and another one would help as little.
        (
            errors.ServerUnavailableError("no secure connection", reason="TLS"),
            3,
            "reader: no secure connection",
        ),
        (errors.AuthenticationError("no token"), 1, "reader: no token (--token-file FILE)"),
        (errors.ServerError("broken"), 1, "reader: broken"),
        (KeyboardInterrupt(), 130, "reader: stopped"),
        (BrokenPipeError(), 0, ""),
        (OSError(28, "No space left on device", "out.txt"), 1, "reader: out.txt: No space left on device"),
    ],
)
def test_each_failure_has_its_exit_code_and_its_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert run_program("reader", work, "start one") == code
    assert capsys.readouterr().err.splitlines() == [said][: bool(said)]
