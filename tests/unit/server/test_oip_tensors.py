"""Tensors and parameters of the Open Inference Protocol."""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longhand.oip import inference_pb2 as oip
from longhand_server.errors import InvalidRequestError, LonghandError, UnsupportedError
from longhand_server.oip_parameters import named_as_here, read_parameters
from longhand_server.oip_tensors import (
    Outcome,
    join_elements,
    read_images,
    read_outputs,
    split_elements,
    write_response,
)
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Timings, Transcription
from longhand_server.registry import Reading, ServedModel

MOST = 4
elements = st.lists(st.binary(max_size=40), min_size=1, max_size=8)


def request_of(images: list[bytes]) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="toy")
    request.inputs.add(name="image", datatype="BYTES", shape=[len(images)])
    request.raw_input_contents.append(b"".join(struct.pack("<I", len(data)) + data for data in images))
    return request


def parameters_of(**values: object) -> dict[str, oip.InferParameter]:
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    return {name: oip.InferParameter(**{kinds[type(value)]: value}) for name, value in values.items()}  # type: ignore[arg-type]


@given(elements)
def test_what_is_joined_is_split_again(images: list[bytes]) -> None:
    raw = join_elements(images)
    assert raw == b"".join(struct.pack("<I", len(data)) + data for data in images)
    assert split_elements(raw, len(images), "raw") == images


@given(elements, st.data())
def test_whatever_is_cut_off_is_noticed(images: list[bytes], data: st.DataObject) -> None:
    raw = join_elements(images)
    end = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(InvalidRequestError, match=r"^raw: got "):
        split_elements(raw[:end], len(images), "raw")


@given(elements, st.binary(min_size=1, max_size=20))
def test_whatever_is_too_much_is_noticed(images: list[bytes], more: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"^raw: got \d+ bytes after element"):
        split_elements(join_elements(images) + more, len(images), "raw")


@given(st.binary(max_size=60), st.integers(1, 5))
def test_any_bytes_are_elements_or_a_clear_error(raw: bytes, count: int) -> None:
    with contextlib.suppress(InvalidRequestError):
        found = split_elements(raw, count, "raw")
        assert len(found) == count
        assert join_elements(found) == raw


def test_typed_contents_do_as_well() -> None:
    request = request_of([b"one", b""])
    del request.raw_input_contents[:]
    request.inputs[0].contents.bytes_contents.extend([b"one", b""])
    assert read_images(request, MOST) == [b"one", b""]


Change = Callable[[oip.ModelInferRequest], object]
WRONG: dict[str, tuple[Change, str]] = {
    "no tensor": (lambda r: r.ClearField("inputs"), "inputs"),
    "two tensors": (lambda r: r.inputs.add(name="mask"), "inputs"),
    "name": (lambda r: setattr(r.inputs[0], "name", "INPUT0"), "inputs[0].name"),
    "datatype": (lambda r: setattr(r.inputs[0], "datatype", "UINT8"), "inputs[0].datatype"),
    "no shape": (lambda r: r.inputs[0].ClearField("shape"), "inputs[0].shape"),
    "two dimensions": (lambda r: r.inputs[0].shape.append(1), "inputs[0].shape"),
    "negative": (lambda r: r.inputs[0].shape.__setitem__(0, -1), "inputs[0].shape"),
    "none": (lambda r: r.inputs[0].shape.__setitem__(0, 0), "inputs[0].shape"),
    "too many": (lambda r: r.inputs[0].shape.__setitem__(0, MOST + 1), "inputs[0].shape"),
    "fewer than said": (lambda r: r.inputs[0].shape.__setitem__(0, 3), "raw_input_contents[0]"),
    "more than said": (lambda r: r.inputs[0].shape.__setitem__(0, 1), "raw_input_contents[0]"),
    "two contents": (lambda r: r.raw_input_contents.append(b""), "raw_input_contents"),
    "no contents": (lambda r: r.ClearField("raw_input_contents"), "inputs[0].contents.bytes_contents"),
    "both": (lambda r: r.inputs[0].contents.bytes_contents.append(b""), "inputs[0].contents"),
    "parameter": (lambda r: r.inputs[0].parameters["x"], "inputs[0].parameters"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_tensor_is_named(name: str) -> None:
    change, field = WRONG[name]
    request = request_of([b"one", b"two"])
    assert read_images(request, MOST) == [b"one", b"two"]
    change(request)
    with pytest.raises(InvalidRequestError) as caught:
        read_images(request, MOST)
    assert caught.value.field == field
    assert field in caught.value.message


def test_contents_of_another_type_are_refused() -> None:
    request = request_of([b"one"])
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.append(1.0)
    with pytest.raises(InvalidRequestError, match="fp32_contents"):
        read_images(request, MOST)


def test_shared_memory_is_refused_with_the_reason() -> None:
    request = request_of([b"one"])
    request.inputs[0].parameters["shared_memory_region"].string_param = "mine"
    with pytest.raises(UnsupportedError, match="shared memory is not offered"):
        read_images(request, MOST)


def test_outputs() -> None:
    request = request_of([b"one"])
    assert read_outputs(request) == ("text", "confidence", "error")
    request.outputs.add(name="json")
    request.outputs.add(name="text")
    assert read_outputs(request) == ("json", "text")
    request.outputs.add(name="json")
    with pytest.raises(InvalidRequestError, match="json stands twice"):
        read_outputs(request)
    request.outputs[2].name = "logits"
    with pytest.raises(InvalidRequestError, match=r"outputs\[2\].name: got 'logits'"):
        read_outputs(request)
    del request.outputs[1:]
    request.outputs[0].parameters["classification"].int64_param = 3
    with pytest.raises(InvalidRequestError, match="classification"):
        read_outputs(request)


def test_an_answer_names_the_version_that_read_it() -> None:
    old, new = (cast(ServedModel, SimpleNamespace(name="toy", version=version)) for version in "12")
    failed = LonghandError("no")
    read = Reading(Transcription("a", 1.0, (), (), (), 9, 9, Timings()), new)
    cases: list[tuple[list[Outcome], str]] = [([failed, read], "2"), ([failed, failed], "1")]
    for outcomes, version in cases:
        response = oip.ModelInferResponse()
        write_response(old, ("text",), outcomes, response)
        assert response.model_version == version


def test_parameters_become_options() -> None:
    wishes = read_parameters(
        parameters_of(
            decoder="greedy",
            beam_width=7,
            word_weight=1,
            temperature=0.5,
            hotwords='{"Anna": 3, "Bern": 0.5}',
            alternatives=2,
            allowed_characters="ab",
            include_words=True,
            priority=1,
            timeout=250_000,
            sequence_id=7,
        )
    )
    assert wishes.options == RecognitionOptions(
        greedy=True,
        beam_width=7,
        word_weight=1.0,
        temperature=0.5,
        hotwords=(("Anna", 3.0), ("Bern", 0.5)),
        alternatives=2,
        allowed_characters="ab",
        include_words=True,
    )
    assert (wishes.priority, wishes.timeout_s) == (1, 0.25)
    assert read_parameters({}).options == RecognitionOptions()
    assert [read_parameters(parameters_of(priority=level)).priority for level in (0, 1, 2, 3)] == [
        0,
        1,
        0,
        -1,
    ]
    assert read_parameters(parameters_of(hotwords='["Bern"]')).options.hotwords == (("Bern", 2.0),)


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("beam", 5, "parameters: there is no parameter 'beam'; there is: decoder, beam_width"),
        ("decoder", "fast", r"parameters\[decoder\]: got 'fast', need 'beam' or 'greedy'"),
        ("decoder", 1, r"parameters\[decoder\]: got int64_param, need text"),
        ("beam_width", True, r"parameters\[beam_width\]: got bool_param, need an integer"),
        ("beam_width", 0, r"parameters\[beam_width\]: got 0, need 1 to 1000"),
        ("beam_width", 1 << 62, r"parameters\[beam_width\]: got"),
        ("temperature", float("nan"), r"parameters\[temperature\]: got nan"),
        ("alternatives", -1, r"parameters\[alternatives\]: got -1"),
        ("hotwords", "Anna", r"parameters\[hotwords\]: got 'Anna', need JSON"),
        ("hotwords", "[" * 100_000, r"parameters\[hotwords\]: got"),
        (
            "hotwords",
            "[" + " " * (1 << 20) + "]",
            r"parameters\[hotwords\]: got 1048578 characters, need at most",
        ),
        ("hotwords", '["\\ud800"]', r"parameters\[hotwords\]: .*halves of surrogate pairs"),
        ("hotwords", '["a", 1]', r"parameters\[hotwords\]: got"),
        ("hotwords", '{"a": true}', r"parameters\[hotwords\]: got"),
        ("hotwords", '{"a": 1' + "0" * 400 + "}", r"parameters\[hotwords\]: got"),
        ("hotwords", '{"a": 99}', r"parameters\[hotwords\]\[0\].boost: got 99"),
        ("priority", 4, r"parameters\[priority\]: got 4, need 1 \(first\) to 3"),
        ("timeout", -1, r"parameters\[timeout\]: got -1"),
    ],
)
def test_a_wrong_parameter_is_named(parameter: str, value: object, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught, named_as_here():
        read_parameters(parameters_of(**{parameter: value}))

    assert re.match(message, caught.value.message), caught.value.message
    assert (caught.value.field or "").startswith("parameters")


@given(st.text(max_size=30))
def test_any_hotwords_are_words_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(InvalidRequestError):
        words = read_parameters(parameters_of(hotwords=text)).options.hotwords
        assert all(word in json.loads(text) for word, _ in words)
