"""A client program that checks every answer against its own image; test_many_hosts.py runs it on a host of its own.

``python -m helpers.checking_client SECONDS CALLS_A_SECOND ADDRESS ...`` makes single calls and feeds one stream, both
with the client's default settings, and prints a JSON object for each image when its answer is there.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

from helpers.toy_model import ALPHABET, draw_image
from longhand_client import AsyncRecognizerClient, LonghandError


@dataclass(frozen=True)
class Answer:
    """What became of one image.

    Attributes:
        kind: "call" or "stream".
        number: which image, counted for each kind.
        sent: when it should have left, seconds of the monotonic clock.
        seconds: until its answer was there.
        wrong: "" or what was wrong with the answer.
    """

    kind: str
    number: int
    sent: float
    seconds: float
    wrong: str


class _Checker:
    def __init__(self, seconds: float, rate: float) -> None:
        self._begun = time.monotonic()
        self._seconds, self._rate = seconds, rate
        self._sent: dict[int, float] = {}

    def text(self, kind: str, number: int) -> str:
        """Another one for each image; a blank at either end would be cut off."""
        letters = ALPHABET.replace(" ", "")
        return "".join(random.Random(f"{kind} {number}").choices(letters, k=8))

    async def times(self) -> AsyncIterator[tuple[int, float]]:
        """Numbers and the times at which they are due, for as long as the test lasts."""
        for number in range(round(self._seconds * self._rate)):
            due = self._begun + number / self._rate
            await asyncio.sleep(due - time.monotonic())
            yield number, due

    def note(self, kind: str, number: int, due: float, text: str, error: LonghandError | None) -> None:
        expected = self.text(kind, number)
        wrong = repr(error) if error else "" if text == expected else f"got {text!r}, need {expected!r}"
        print(json.dumps(asdict(Answer(kind, number, due, time.monotonic() - due, wrong))), flush=True)

    async def call(self, client: AsyncRecognizerClient, number: int, due: float) -> None:
        try:
            text = (await client.recognize(draw_image(self.text("call", number)))).text
        except LonghandError as error:
            self.note("call", number, due, "", error)
        else:
            self.note("call", number, due, text, None)

    async def images(self) -> AsyncIterator[bytes]:
        async for number, due in self.times():
            self._sent[number] = due
            yield draw_image(self.text("stream", number))

    async def stream(self, client: AsyncRecognizerClient) -> None:
        async for outcome in client.recognize_stream(self.images(), ordered=False):
            due = self._sent.pop(outcome.index)  # a second answer to the same image fails here
            text = outcome.transcription.text if outcome.transcription else ""
            self.note("stream", outcome.index, due, text, outcome.error)


async def _run(seconds: float, rate: float, addresses: list[str]) -> None:
    checker = _Checker(seconds, rate)
    async with AsyncRecognizerClient(addresses) as client, asyncio.TaskGroup() as group:
        group.create_task(checker.stream(client))
        async for number, due in checker.times():
            group.create_task(checker.call(client, number, due))


if __name__ == "__main__":
    asyncio.run(_run(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
