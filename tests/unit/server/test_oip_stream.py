"""Answers of an Open Inference Protocol stream: in order, and with a bound on the images between."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from longhand.oip import inference_pb2 as oip
from longhand_server.errors import InvalidRequestError
from longhand_server.oip_stream import OrderedInference
from longhand_server.streaming import AnswerStream


def request_of(number: int, images: int = 1) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(id=str(number))
    request.inputs.add(name="image", shape=[images])
    return request


async def numbered(count: int, images: int = 1) -> AsyncIterator[oip.ModelInferRequest]:
    for number in range(count):
        yield request_of(number, images)


async def test_answers_come_in_the_order_of_the_requests() -> None:
    finished: list[str] = []

    async def infer(request: oip.ModelInferRequest) -> oip.ModelStreamInferResponse:
        await asyncio.sleep(0.02 * (7 - int(request.id) % 8))
        finished.append(request.id)
        return oip.ModelStreamInferResponse(infer_response=oip.ModelInferResponse(id=request.id))

    ordered = OrderedInference(infer, 8)
    stream = AnswerStream(ordered.paced(numbered(24)), ordered.answer, 8)
    answers = [answer.infer_response.id async for answer in stream.answers()]
    assert answers == [str(number) for number in range(24)]
    assert finished != answers  # they were worked on at the same time


async def test_nothing_is_answered_behind_a_request_that_failed() -> None:
    async def infer(request: oip.ModelInferRequest) -> oip.ModelStreamInferResponse:
        await asyncio.sleep(0.02 if request.id in "02" else 0.0)
        if request.id in "13":
            raise InvalidRequestError(f"no {request.id}")
        return oip.ModelStreamInferResponse(infer_response=oip.ModelInferResponse(id=request.id))

    ordered = OrderedInference(infer, 8)
    stream = AnswerStream(ordered.paced(numbered(6)), ordered.answer, 8)
    answers = stream.answers()
    assert (await anext(answers)).infer_response.id == "0"
    with pytest.raises(InvalidRequestError, match="no 1"):
        await anext(answers)


async def test_a_failed_request_is_not_kept_until_a_collection() -> None:
    async def infer(request: oip.ModelInferRequest) -> oip.ModelStreamInferResponse:
        raise InvalidRequestError("no")

    gc.collect()
    gc.disable()
    try:
        ordered = OrderedInference(infer, 8)
        seen = weakref.ref(ordered)
        with pytest.raises(InvalidRequestError):
            await anext(AnswerStream(ordered.paced(numbered(6)), ordered.answer, 8).answers())
        del ordered
        await asyncio.sleep(0.02)
        assert seen() is None
    finally:
        gc.enable()


class _Request:
    """Stands for a message, to which there are no weak references."""

    inputs: tuple[()] = ()


async def test_an_idle_stream_keeps_nothing_of_what_came_on_it() -> None:
    async def requests() -> AsyncIterator[Any]:
        yield _Request()
        await asyncio.Event().wait()

    async def infer(request: oip.ModelInferRequest) -> oip.ModelStreamInferResponse:
        seen.append(weakref.ref(request))
        return oip.ModelStreamInferResponse()

    seen: list[weakref.ref[oip.ModelInferRequest]] = []
    ordered = OrderedInference(infer, 8)
    answers = AnswerStream(ordered.paced(requests()), ordered.answer, 8).answers()
    await anext(answers)
    waiting = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0.02)
    assert seen[0]() is None
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_no_more_is_read_while_many_images_are_in_flight() -> None:
    in_flight = most = 0

    async def infer(request: oip.ModelInferRequest) -> oip.ModelStreamInferResponse:
        nonlocal in_flight, most
        in_flight += 10
        most = max(most, in_flight)
        await asyncio.sleep(0.002)
        in_flight -= 10
        return oip.ModelStreamInferResponse()

    ordered = OrderedInference(infer, 20)
    stream = AnswerStream(ordered.paced(numbered(30, 10)), ordered.answer, 64)
    assert len([answer async for answer in stream.answers()]) == 30
    assert most == 20


async def test_a_request_that_lies_about_its_size_blocks_nothing() -> None:
    async def infer(request: oip.ModelInferRequest) -> oip.ModelStreamInferResponse:
        return oip.ModelStreamInferResponse(error_message="no")

    ordered = OrderedInference(infer, 8)
    for images in (-(1 << 63), 0, (1 << 63) - 1):
        stream = AnswerStream(ordered.paced(numbered(5, images)), ordered.answer, 2)
        assert len([answer async for answer in stream.answers()]) == 5


async def test_a_cancelled_stream_leaves_nobody_waiting() -> None:
    async def infer(request: oip.ModelInferRequest) -> oip.ModelStreamInferResponse:
        await asyncio.Event().wait()
        return oip.ModelStreamInferResponse()

    ordered = OrderedInference(infer, 8)
    stream = AnswerStream(ordered.paced(numbered(5)), ordered.answer, 8)
    reading = asyncio.ensure_future(anext(stream.answers()))
    await asyncio.sleep(0.05)
    reading.cancel()
    await asyncio.wait([reading])
    await asyncio.sleep(0.05)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others
