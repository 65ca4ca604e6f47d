"""Reading images over a stream to its end, with the synchronous and the asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from longhand_client import AsyncRecognizerClient, Outcome, RecognizerClient

ReadAll: TypeAlias = Callable[..., list[Outcome]]


def read_all_sync(
    address: str,
    images: Iterable[Any],
    *,
    take: int | None = None,
    timeout_s: float = 30.0,
    retries: int = 3,
    token: str | None = None,
    **keywords: Any,
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with RecognizerClient(address, timeout_s=timeout_s, retries=retries, token=token) as client:
        for outcome in client.recognize_stream(images, **keywords):
            outcomes.append(outcome)
            if len(outcomes) == take:
                break
    return outcomes


def read_all_async(
    address: str,
    images: Iterable[Any],
    *,
    take: int | None = None,
    timeout_s: float = 30.0,
    retries: int = 3,
    token: str | None = None,
    **keywords: Any,
) -> list[Outcome]:
    async def read() -> list[Outcome]:
        outcomes: list[Outcome] = []
        async with AsyncRecognizerClient(
            address, timeout_s=timeout_s, retries=retries, token=token
        ) as client:
            async for outcome in client.recognize_stream(images, **keywords):
                outcomes.append(outcome)
                if len(outcomes) == take:
                    break
        return outcomes

    return asyncio.run(read())


def lines(count: int) -> list[bytes]:
    return [f"text:{index}".encode() for index in range(count)]


def texts(outcomes: list[Outcome]) -> list[str]:
    return [outcome.result().text for outcome in outcomes]


def endless_after(images: Iterator[bytes]) -> Iterator[bytes]:
    yield from images
    while True:
        yield b"text:more"
