"""tritonclient and perf_analyzer, unmodified and in their own environments, against a real server.

`make test-scale` makes the environments. They are apart because tritonclient's message types have the names of ours.
"""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from helpers.server_process import ServerProcess
from helpers.toy_model import draw_image
from longhand.oip import inference_pb2

pytestmark = pytest.mark.scale
_ROOT = Path(__file__).parents[2]
_VERSIONS = ("2.40.0", "2.73.0")
_SCRIPT = _ROOT / "tests" / "helpers" / "tritonclient_session.py"


def environment_of(version: str) -> Path:
    folder = _ROOT / "build" / "tritonclient" / version
    if not (folder / ".done").exists():
        pytest.skip(f"no {folder.relative_to(_ROOT)}: `make test-scale` makes it")
    return folder


def run_script(version: str, *arguments: str) -> Any:
    command = [str(environment_of(version) / "bin" / "python"), str(_SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def count(statistics: dict[str, Any], *path: str) -> int:
    """A number in protobuf's JSON, which leaves out zeros."""
    value: Any = statistics
    for name in path:
        value = value.get(name, {})
    return int(value or 0)


@pytest.mark.parametrize("version", _VERSIONS)
def test_tritonclient_does_all_it_can(server: ServerProcess, tmp_path: Path, version: str) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(draw_image("bad ace"))
    found = run_script(version, "session", server.address, str(image))
    assert found["health"] == [True, True, True]
    assert not found["missing"]
    assert found["server"]["name"] == "longhand"
    assert "statistics" in found["server"]["extensions"]
    assert found["metadata"]["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": ["-1"]}]
    assert found["config"]["name"] == "toy"
    assert found["config"]["dynamic_batching"]["priority_levels"] == "3"
    assert found["index"]["models"] == [{"name": "toy", "version": "1.0.0", "state": "READY"}]
    assert found["infer"][0] == ["bad ace"]
    assert 0.5 < found["infer"][1] <= 1
    assert found["infer"][2] == "one"
    assert found["batch"]["text"] == ["bad ace", ""]
    assert found["batch"]["error"][1].startswith("INVALID_IMAGE: ")
    assert json.loads(found["batch"]["json"][0])["text"] == "bad ace"
    assert found["refused"][0] == "StatusCode.INVALID_ARGUMENT"
    assert found["async"] == [["bad ace"]] * 4
    assert found["stream"][3].startswith("[request id: 3] INVALID_IMAGE: ")
    assert found["stream"][:3] + found["stream"][4:] == [[str(n), "bad ace"] for n in (0, 1, 2, 4, 5)]
    before, after = found["before"], found["after"]
    # 1 alone, 1 of a batch, 4 asynchronous, 5 of the stream; the call for two images is one request.
    assert count(after, "inference_count") - count(before, "inference_count") == 11
    assert count(after, "execution_count") - count(before, "execution_count") == 11
    for outcome, number in (("success", 11), ("fail", 2)):
        path = ("inference_stats", outcome, "count")
        assert count(after, *path) - count(before, *path) == number


@pytest.fixture(params=[(), ("-a", "--streaming")], ids=["unary", "stream"])
def mode(request: pytest.FixtureRequest) -> tuple[str, ...]:
    flags: tuple[str, ...] = request.param
    return flags


@pytest.fixture
def perf_analyzer() -> tuple[list[str], dict[str, str]]:
    """The command and its environment variables."""
    folder = environment_of("2.40.0")
    libraries = next(folder.glob("lib/python*/site-packages/nvidia/cuda_runtime/lib"))
    variables = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    command = [str(folder / "bin" / "perf_analyzer")]
    tried = subprocess.run(
        [*command, "--version"], env=variables, capture_output=True, text=True, check=False
    )
    if "cannot open shared object" in tried.stderr:
        pytest.skip(f"perf_analyzer: {tried.stderr.strip()} (Debian: apt-get install libb64-0d)")
    return command, variables


@pytest.mark.parametrize("concurrency", [1, 16])
def test_perf_analyzer_measures(
    server: ServerProcess,
    tmp_path: Path,
    perf_analyzer: tuple[list[str], dict[str, str]],
    mode: tuple[str, ...],
    concurrency: int,
) -> None:
    image = draw_image("bad ace")
    # Its base64 stands for a tensor's raw contents, so the element's length goes first.
    raw = base64.b64encode(struct.pack("<I", len(image)) + image).decode()
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"data": [{"image": {"b64": raw}}]}))
    command, variables = perf_analyzer
    options = [
        "-m",
        "toy",
        "-i",
        "grpc",
        "-u",
        server.address,
        "--input-data",
        str(data),
        "--shape",
        "image:1",
    ]
    # Windows of requests, and no demand for steadiness: this asks whether it works, on however busy a machine.
    options += [
        "--measurement-mode",
        "count_windows",
        "--measurement-request-count",
        "50",
        "-s",
        "999",
        "-r",
        "3",
    ]
    done = subprocess.run(
        [*command, *options, "--concurrency-range", str(concurrency), *mode],
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    rate = re.search(rf"Concurrency: {concurrency}, throughput: ([\d.]+) infer/sec", done.stdout)
    assert rate is not None
    assert float(rate[1]) > 0
    for line in ("Inference count", "Execution count", "Successful request count"):
        number = re.search(rf"{line}: (\d+)", done.stdout)
        assert number is not None
        assert int(number[1]) >= 50


def fields_of(messages: Any, prefix: str = "") -> Iterator[tuple[str, tuple[object, ...]]]:
    """Every field of messages and of those within them: number, type, label, type's name, oneof."""
    for message in messages:
        name = f"{prefix}{message.name}"
        for field in message.field:
            oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
            yield f"{name}.{field.name}", (field.number, field.type, field.label, field.type_name, oneof)
        yield from fields_of(message.nested_type, f"{name}.")


def methods_of(file: descriptor_pb2.FileDescriptorProto) -> dict[str, tuple[str, str, bool, bool]]:
    """The service's methods by their full names: request, answer, which of them are streams."""
    (service,) = file.service
    return {
        f"{file.package}.{service.name}/{method.name}": (
            method.input_type,
            method.output_type,
            method.client_streaming,
            method.server_streaming,
        )
        for method in service.method
    }


def enums_of(messages: Any) -> Iterator[Any]:
    for message in messages:
        yield from message.enum_type
        yield from enums_of(message.nested_type)


@pytest.mark.parametrize("version", _VERSIONS)
def test_our_proto_is_theirs_on_the_wire(version: str) -> None:
    theirs = [
        descriptor_pb2.FileDescriptorProto.FromString(bytes.fromhex(text))
        for text in run_script(version, "descriptors")
    ]
    ours = descriptor_pb2.FileDescriptorProto()
    inference_pb2.DESCRIPTOR.CopyToProto(ours)
    assert methods_of(ours) == methods_of(theirs[0])
    known = {key: value for file in theirs for key, value in fields_of(file.message_type)}
    own = dict(fields_of(ours.message_type))
    assert {key: value for key, value in own.items() if known.get(key) != value} == {}
    # What a request may say is never overlooked.
    spoken = {key for key in known if key.split(".")[0].endswith("Request") or key.startswith("Infer")}
    answers = ("InferStatistics", "InferBatchStatistics", "InferResponseStatistics")
    assert {key for key in spoken - set(own) if not key.startswith(answers)} == set()
    numbers = {
        (enum.name, value.name): value.number
        for file in theirs
        for enum in (*file.enum_type, *enums_of(file.message_type))
        for value in enum.value
    }
    for enum in (*ours.enum_type, *enums_of(ours.message_type)):
        for value in enum.value:
            assert numbers[enum.name, value.name] == value.number
