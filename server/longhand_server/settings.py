"""The settings tree of :mod:`longhand_server.config` from command line, environment and TOML file.

In rising order of precedence: defaults, TOML file, environment, command line. A setting ``max_queue`` of the
section ``batching`` is ``--max-queue``, ``LONGHAND_MAX_QUEUE`` and ``max_queue`` under ``[batching]``.
"""

from __future__ import annotations

import argparse
import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

from longhand_server.config import ServerConfig, Settings, check_value
from longhand_server.errors import ConfigurationError

_PREFIX = "LONGHAND_"
_SWITCHES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def parse_arguments(
    arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[ServerConfig, argparse.Namespace]:
    """Puts the configuration together.

    Args:
        arguments: The command line without the program's name.
        environment: Environment variables.

    Returns:
        The configuration and the parsed arguments (``print_config`` among them).

    Raises:
        ConfigurationError: An unknown key, or a wrong value: both are named with what is allowed.
    """
    parser = _parser()
    parsed = parser.parse_args(arguments)
    values: dict[tuple[str, str], object] = {}
    path = environment.get(_PREFIX + "CONFIG") if parsed.config is None else parsed.config
    if path:
        values.update(_from_file(Path(path)))
    for section, item in settings():
        variable = _variable(item)
        if variable in environment:
            values[section, item.name] = _from_text(item, environment[variable], variable)
        given = getattr(parsed, flag_name(item).replace("-", "_"))
        if given is not None:
            values[section, item.name] = _from_text(item, given, f"--{flag_name(item)}")
    return _build(values), parsed


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Environment variables that are named like settings, and are none."""
    known = {_variable(item) for _, item in settings()} | {_PREFIX + "CONFIG"}
    return sorted(name for name in environment if name.startswith(_PREFIX) and name not in known)


def settings() -> Iterator[tuple[str, Field[Any]]]:
    """Every setting with the name of its section."""
    for section, kind in _sections().items():
        for item in fields(kind):  # type: ignore[arg-type]
            yield section, item


def _sections() -> dict[str, type[Settings]]:
    # Their fields have defaults, and those are of the sections' own types.
    return {section.name: type(section.default) for section in fields(ServerConfig)}  # type: ignore[misc]


def _variable(item: Field[Any]) -> str:
    return _PREFIX + flag_name(item).replace("-", "_").upper()


def flag_name(item: Field[Any]) -> str:
    """The name of a setting on the command line, without the dashes before it."""
    return str(item.metadata["flag"] or item.name.replace("_", "-"))


def allowed(item: Field[Any]) -> str:
    """What a setting may be, for people; empty where anything goes."""
    if item.metadata["choices"]:
        return " | ".join(item.metadata["choices"])
    low, high = item.metadata["low"], item.metadata["high"]
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{low:,} to {high:,}" if isinstance(item.default, int) else f"{low:g} to {high:g}"


def to_toml(config: ServerConfig) -> str:
    """A TOML file that gives this configuration, with a comment on each setting."""
    lines: list[str] = []
    last = ""
    for section, item in settings():
        if section != last:
            lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
            last = section
        value = getattr(getattr(config, section), item.name)
        bounds = f" ({allowed(item)})" if allowed(item) else ""
        lines.append(f"# {item.metadata['description']}{bounds}")
        # JSON's text, numbers and booleans are TOML's, but for two things: TOML has no pairs of surrogates, and
        # wants U+007F escaped.
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        lines.append(f"{item.name} = {text}")
    return "\n".join(lines) + "\n"


def to_arguments(config: ServerConfig) -> list[str]:
    """The command line that gives this configuration, whatever environment and file say."""
    return [
        f"--{flag_name(item)}={getattr(getattr(config, section), item.name)}" for section, item in settings()
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m longhand_server",
        description="Serves handwritten text line recognition over gRPC.",
        epilog="Every setting is also an environment variable (LONGHAND_MAX_QUEUE for --max-queue) and a key "
        "of the TOML file; the command line wins over the environment, the environment over the file.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings; see --print-config")
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings in force as a TOML file and stop"
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for section, item in settings():
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        text = item.metadata["description"].replace("%", "%%")
        bounds = f"; {allowed(item)}" if allowed(item) else ""
        default = item.default if item.default != "" else "none"
        switch: dict[str, Any] = {"nargs": "?", "const": "true"} if isinstance(item.default, bool) else {}
        groups[section].add_argument(
            f"--{flag_name(item)}",
            metavar=type(item.default).__name__.upper(),
            help=f"{text} (default {default}{bounds})",
            **switch,
        )
    return parser


def _from_file(path: Path) -> dict[tuple[str, str], object]:
    try:
        tree = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # editors on Windows begin with a mark
    except OSError as error:
        raise ConfigurationError(f"config: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"config: {path} is no TOML file: {error}") from error
    return check_tree(tree, _sections(), f"config: {path}")


def config_from_tree(tree: Mapping[str, Any], source: str) -> ServerConfig:
    """The configuration that a tree of sections and keys gives, as a TOML or YAML file holds one.

    Args:
        tree: Section to key to value.
        source: Where it stands, for messages.

    Raises:
        ConfigurationError: An unknown key, or a wrong value: both are named with what is allowed.
    """
    return _build(check_tree(tree, _sections(), source))


def check_tree(
    tree: Mapping[str, Any], sections: Mapping[str, type[Settings]], source: str
) -> dict[tuple[str, str], object]:
    """The values in a tree of sections and keys, by section and key.

    Args:
        tree: Section to key to value.
        sections: What there is.
        source: Where the tree stands, for messages.

    Raises:
        ConfigurationError: An unknown key, or a wrong value: both are named with what is allowed.
    """
    known = {
        (section, item.name): item
        for section, kind in sections.items()
        for item in fields(kind)  # type: ignore[arg-type]
    }
    values: dict[tuple[str, str], object] = {}
    for section, entries in tree.items():
        if section not in sections:
            raise ConfigurationError(
                f"{source}: unknown section {section!r}, need one of {', '.join(sorted(sections))}"
            )
        if not isinstance(entries, Mapping):
            raise ConfigurationError(f"{source}: [{section}] must hold keys, got {entries!r}")
        for name, value in entries.items():
            if (section, name) not in known:
                names = ", ".join(sorted(other for group, other in known if group == section))
                raise ConfigurationError(
                    f"{source}: unknown key {name!r} in [{section}], need one of {names}"
                )
            _check(known[section, name], value, f"{source}: [{section}] {name}")
            values[section, name] = value
    return values


def _from_text(item: Field[Any], text: str, source: str) -> object:
    default: Any = item.default
    wanted: type = type(default)
    value: object = text
    if wanted is bool:
        value = _SWITCHES.get(text.lower(), text)
    elif wanted in (int, float):
        try:
            value = wanted(text)
        except ValueError:
            value = text
    _check(item, value, source)
    return value


def _check(item: Field[Any], value: object, source: str) -> None:
    try:
        check_value(item, value)
    except ConfigurationError as error:
        # The message begins with the setting's own name; where it came from says more.
        raise ConfigurationError(source + error.message[len(item.name) :]) from None


def _build(values: Mapping[tuple[str, str], object]) -> ServerConfig:
    sections: dict[str, Any] = {}
    for section in fields(ServerConfig):
        changes = {name: value for (group, name), value in values.items() if group == section.name}
        defaults: Any = section.default
        sections[section.name] = replace(defaults, **changes)
    return ServerConfig(**sections)
