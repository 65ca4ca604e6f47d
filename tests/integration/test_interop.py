"""What callers from other languages have nothing but the .proto files for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from longhand_server import errors

PROTOS = Path(__file__).parents[2] / "proto" / "longhand"


def kinds(root: type[errors.LonghandError]) -> Iterator[type[errors.LonghandError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def test_the_contract_lists_every_reason_with_its_code() -> None:
    lines = re.findall(
        r"^//   \* ([A-Z_, ]+) \(([A-Z_]+)\): ", (PROTOS / "v1/recognition.proto").read_text(), re.M
    )
    listed = {(reason, code) for reasons, code in lines for reason in reasons.split(", ")}
    # No call ends with a setting; what is not offered is so in the other protocol alone.
    elsewhere = {"INVALID_CONFIGURATION", "UNSUPPORTED"}
    told = {(kind.reason, kind.code) for kind in kinds(errors.LonghandError) if kind.reason not in elsewhere}
    assert listed == told


def test_go_needs_no_options_for_the_place_of_its_code() -> None:
    for path in PROTOS.glob("*/*.proto"):
        assert re.search(rf'^option go_package = "longhand/{path.parent.name};', path.read_text(), re.M)
