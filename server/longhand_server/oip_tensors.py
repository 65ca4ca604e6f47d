"""Tensors of the Open Inference Protocol: images out of a request, text into an answer."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterable, Sequence

from google.protobuf import json_format

from longhand.oip import inference_pb2 as oip
from longhand.v1 import recognition_pb2 as pb
from longhand_server import messages
from longhand_server.errors import InvalidRequestError, LonghandError, UnsupportedError
from longhand_server.registry import Reading, ServedModel

INPUT = "image"
# Name and datatype of each output; the last one is given on request only.
OUTPUTS = {"text": "BYTES", "confidence": "FP32", "error": "BYTES", "json": "BYTES"}
_BY_DEFAULT = ("text", "confidence", "error")
_LENGTH_BYTES = 4
_MAX_SHOWN = 60
_SHARED_MEMORY = "shared_memory_"

# What became of one image.
Outcome = Reading | LonghandError


def read_images(request: oip.ModelInferRequest, most: int) -> list[bytes]:
    """The image files of a request.

    Args:
        request: The request.
        most: Most images that it may hold.

    Raises:
        InvalidRequestError: A wrong name, datatype, shape or content; its ``field`` says where.
        UnsupportedError: The images are to be found in shared memory.
    """
    if len(request.inputs) != 1:
        names = ", ".join(shown(tensor.name) for tensor in request.inputs[:5]) or "none"
        raise wrong("inputs", f"{len(request.inputs)} tensors ({names})", f"one, {INPUT!r}")
    tensor = request.inputs[0]
    if tensor.name != INPUT:
        raise wrong("inputs[0].name", shown(tensor.name), repr(INPUT))
    _check_parameters(tensor.parameters, "inputs[0].parameters")
    if tensor.datatype != "BYTES":
        raise wrong("inputs[0].datatype", shown(tensor.datatype), "'BYTES' (encoded images)")
    if len(tensor.shape) != 1 or not 1 <= tensor.shape[0] <= most:
        raise wrong("inputs[0].shape", str(list(tensor.shape[:8])), f"[N], N from 1 to {most}")
    return _read_contents(request, tensor, tensor.shape[0])


def read_outputs(request: oip.ModelInferRequest) -> tuple[str, ...]:
    """The names of the outputs wanted, in the order wanted.

    Raises:
        InvalidRequestError: An unknown name, or one that stands twice.
        UnsupportedError: An output is to be put into shared memory.
    """
    if not request.outputs:
        return _BY_DEFAULT
    wanted: list[str] = []
    for index, output in enumerate(request.outputs):
        field = f"outputs[{index}]"
        if output.name not in OUTPUTS:
            raise wrong(f"{field}.name", shown(output.name), f"one of {', '.join(OUTPUTS)}")
        if output.name in wanted:
            raise InvalidRequestError(f"{field}.name: {output.name} stands twice", field=f"{field}.name")
        _check_parameters(output.parameters, f"{field}.parameters")
        wanted.append(output.name)
    return tuple(wanted)


def write_response(
    model: ServedModel,
    outputs: Sequence[str],
    outcomes: Sequence[Outcome],
    response: oip.ModelInferResponse,
) -> None:
    """Fills an answer.

    Args:
        model: The model that was to read the images; a successor that read some of them is named instead.
        outputs: Names of the outputs wanted.
        outcomes: What became of each image.
        response: The answer.
    """
    read_by = [outcome.model for outcome in outcomes if isinstance(outcome, Reading)]
    response.model_name = model.name
    response.model_version = (read_by[-1] if read_by else model).version
    failed = sum(isinstance(outcome, LonghandError) for outcome in outcomes)
    response.parameters["failed_count"].int64_param = failed
    for name in outputs:
        response.outputs.add(name=name, datatype=OUTPUTS[name], shape=[len(outcomes)])
        response.raw_output_contents.append(_write_output(name, outcomes))


def split_elements(raw: bytes, count: int, field: str) -> list[bytes]:
    """The elements of a BYTES tensor's raw contents.

    Args:
        raw: Before each element its length, uint32, little-endian.
        count: Elements that there must be.
        field: Where the contents stand, for errors.

    Raises:
        InvalidRequestError: The contents end within an element, or hold more or fewer elements.
    """
    elements: list[bytes] = []
    view, place = memoryview(raw), 0
    while place < len(view):
        if len(elements) == count:
            raise wrong(field, f"{len(view) - place} bytes after element {count - 1}", "none, by the shape")
        start = place + _LENGTH_BYTES
        if start > len(view):
            raise wrong(
                field, f"{len(view) - place} bytes of element {len(elements)}'s length", str(_LENGTH_BYTES)
            )
        (length,) = struct.unpack_from("<I", view, place)
        place = start + length
        if place > len(view):
            raise wrong(field, f"{len(view) - start} bytes of element {len(elements)}", str(length))
        elements.append(bytes(view[start:place]))
    if len(elements) != count:
        raise wrong(field, f"{len(elements)} elements", f"{count}, by the shape")
    return elements


def join_elements(elements: Sequence[bytes]) -> bytes:
    """The raw contents of a BYTES tensor; see :func:`split_elements`."""
    return b"".join(
        itertools.chain.from_iterable((struct.pack("<I", len(element)), element) for element in elements)
    )


def shown(text: str) -> str:
    """What somebody sent, quoted and not too long for an error message."""
    return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")


def wrong(field: str, got: str, needed: str) -> InvalidRequestError:
    """The error for a field of a request that is not what it must be."""
    return InvalidRequestError(f"{field}: got {got}, need {needed}", field=field)


def _read_contents(
    request: oip.ModelInferRequest, tensor: oip.ModelInferRequest.InferInputTensor, count: int
) -> list[bytes]:
    raw = request.raw_input_contents
    fields = [field.name for field, _ in tensor.contents.ListFields()]
    if raw:
        if fields:
            raise wrong("inputs[0].contents", "elements here and in raw_input_contents", "one of the two")
        if len(raw) != 1:
            raise wrong("raw_input_contents", f"{len(raw)} of them", "one for each of 1 tensors")
        return split_elements(raw[0], count, "raw_input_contents[0]")
    if fields not in ([], ["bytes_contents"]):
        raise wrong("inputs[0].contents", ", ".join(fields), "bytes_contents alone, as the datatype is BYTES")
    elements = list(tensor.contents.bytes_contents)
    if len(elements) != count:
        where = "inputs[0].contents.bytes_contents"
        raise wrong(where, f"{len(elements)} elements", f"{count}, by the shape")
    return elements


def _check_parameters(parameters: Iterable[str], field: str) -> None:
    for name in parameters:
        if name.startswith(_SHARED_MEMORY):
            raise UnsupportedError(
                f"{field}[{name}]: shared memory is not offered here; send the bytes themselves", field=field
            )
        raise InvalidRequestError(f"{field}: there is no parameter {shown(name)} here", field=field)


def _write_output(name: str, outcomes: Sequence[Outcome]) -> bytes:
    if name == "confidence":
        values = (
            0.0 if isinstance(outcome, LonghandError) else outcome.result.confidence for outcome in outcomes
        )
        return struct.pack(f"<{len(outcomes)}f", *values)
    return join_elements([_write_element(name, outcome).encode() for outcome in outcomes])


def _write_element(name: str, outcome: Outcome) -> str:
    if name == "json":
        return _write_json(outcome)
    if isinstance(outcome, LonghandError):
        return f"{outcome.reason}: {outcome.message}" if name == "error" else ""
    return outcome.result.text if name == "text" else ""


def _write_json(outcome: Outcome) -> str:
    if isinstance(outcome, LonghandError):
        error = {"code": outcome.code, "reason": outcome.reason, "message": outcome.message}
        return json.dumps({"error": error}, ensure_ascii=False)
    message = pb.RecognitionResult()
    messages.write_result(outcome, message)
    return str(
        json_format.MessageToJson(
            message,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
            indent=None,
            ensure_ascii=False,
        )
    )
