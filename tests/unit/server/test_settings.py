"""Settings from command line, environment and file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from longhand_server.config import ServerConfig
from longhand_server.errors import ConfigurationError
from longhand_server.settings import flag_name, parse_arguments, settings, to_toml


def test_defaults() -> None:
    config, _ = parse_arguments([], {})
    assert config == ServerConfig()


def test_flags_are_unique_and_described() -> None:
    flags = [flag_name(item) for _, item in settings()]
    assert len(set(flags)) == len(flags)
    assert all(item.metadata["description"] for _, item in settings())


def test_command_line_wins_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "longhand.toml"
    file.write_text(
        '[listen]\nport = 1\nhost = "::1"\n[batching]\nmax_queue = 5\nmax_delay_ms = 3\n'
        '[security]\ntoken_file = "tokens"\n'
    )
    environment = {"LONGHAND_PORT": "2", "LONGHAND_MAX_QUEUE": "6", "LONGHAND_CONFIG": str(file)}
    environment["LONGHAND_TOKEN_FILE"] = ""  # set to nothing is set, too
    config, _ = parse_arguments(["--port", "3"], environment)
    assert config.listen.port == 3
    assert config.batching.max_queue == 6
    assert config.batching.max_delay_ms == 3
    assert config.listen.host == "::1"
    assert config.security.token_file == ""


def test_a_file_that_was_edited_on_windows(tmp_path: Path) -> None:
    file = tmp_path / "longhand.toml"
    file.write_bytes(b"\xef\xbb\xbf[listen]\r\nport = 7\r\n")
    assert parse_arguments(["--config", str(file)], {})[0].listen.port == 7


def test_printed_configuration_reads_back_the_same(tmp_path: Path) -> None:
    config, _ = parse_arguments(
        ["--port", "0", "--max-delay-ms", "2.5", "--model", 'a "b" \\ ü \U0001f600 \x7f'], {}
    )
    file = tmp_path / "printed.toml"
    file.write_text(to_toml(config), encoding="utf-8")
    tomllib.loads(to_toml(config))
    assert parse_arguments(["--config", str(file)], {})[0] == config


def test_an_empty_config_on_the_command_line_means_no_file() -> None:
    assert parse_arguments(["--config="], {"LONGHAND_CONFIG": "/no/such/file"})[0] == ServerConfig()


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--port", "66000"], {}, "--port: got 66000, need 0 to 65535"),
        (["--port", "many"], {}, "--port: got 'many', need an integer"),
        (["--max-delay-ms", "nan"], {}, "--max-delay-ms: got nan, need 0 to 10000"),
        ([], {"LONGHAND_MAX_QUEUE": "0"}, "LONGHAND_MAX_QUEUE: got 0, need 1 to 1000000"),
        (["--config", "/no/such/file"], {}, "cannot read /no/such/file: No such file or directory"),
    ],
)
def test_wrong_values_name_key_value_and_range(
    arguments: list[str], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_arguments(arguments, environment)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[listen]\nprot = 1\n", "unknown key 'prot' in [listen], need one of"),
        ("[server]\nport = 1\n", "unknown section 'server', need one of"),
        ("port = 1\n", "unknown section 'port'"),
        ('[listen]\nport = "1"\n', "[listen] port: got '1', need an integer"),
        ("[listen]\nport = true\n", "[listen] port: got True, need an integer"),
        ('[security]\ntoken_file = "a\\u0000"\n', r"[security] token_file: got 'a\x00', need text without"),
        ("[listen\n", "is no TOML file"),
        pytest.param("a = " + "[" * 5000, "is no TOML file", id="too deep"),
    ],
)
def test_wrong_files_name_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        parse_arguments(["--config", str(file)], {})
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
