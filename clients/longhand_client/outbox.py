"""The images of a stream that have no outcome yet, and which of them go into the next message.

A message costs more than an image. So images go out in groups, and answers come in groups, where the server knows
them, which its first answer shows with what a group may be.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from longhand.v1 import recognition_pb2 as pb
from longhand_client.images import ImageSource

# A group at most. Larger ones save nothing more.
_GROUP_IMAGES = 16
_GROUP_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Pending:
    """An image without an outcome yet."""

    index: int
    source: ImageSource
    image: bytes


class Outbox:
    """Keeps what is unanswered; not safe for threads.

    While more than half of `look_ahead` is on its way, images wait for a whole group to form: the server has
    enough to do meanwhile. Otherwise whatever there is goes out at once.

    Args:
        look_ahead: images that may be on their way at once.
    """

    def __init__(self, look_ahead: int) -> None:
        self._enough = look_ahead // 2
        self._unanswered: dict[str, Pending] = {}
        self._unsent: deque[Pending] = deque()
        self._unsent_bytes = 0
        self._closed = False
        self._waiting_since = 0.0
        self._one_by_one()

    def _one_by_one(self) -> None:
        self._group_images = 1
        self._group_bytes = 0

    def __len__(self) -> int:
        """The number of images without an outcome."""
        return len(self._unanswered)

    def silence_s(self) -> float:
        """Seconds for which images have waited without any answer; 0 where none waits."""
        return time.monotonic() - self._waiting_since if self._unanswered else 0.0

    def complete(self) -> bool:
        """Whether every image there will be has been taken."""
        return self._closed and not self._unsent

    def ready(self) -> bool:
        """Whether a message is to go out now, or none any more."""
        waiting = len(self._unsent)
        return self._closed or (
            waiting > 0
            and (
                len(self._unanswered) - waiting <= self._enough
                or waiting >= self._group_images
                or self._unsent_bytes >= self._group_bytes
            )
        )

    def add(self, index: int, source: ImageSource, image: bytes) -> None:
        """Takes one more image to send."""
        if not self._unanswered:
            self._waiting_since = time.monotonic()
        pending = Pending(index, source, image)
        self._unanswered[str(index)] = pending
        self._unsent.append(pending)
        self._unsent_bytes += len(image)

    def close(self) -> None:
        """Says that no image follows."""
        self._closed = True

    def restart(self) -> None:
        """Sends everything unanswered once more, over a new call, whose server may not know groups."""
        self._one_by_one()
        self._waiting_since = time.monotonic()
        self._unsent = deque(self._unanswered.values())
        self._unsent_bytes = sum(len(one.image) for one in self._unsent)

    def take(self) -> pb.StreamingRecognizeRequest | None:
        """The next message; None where all images have been taken. Only while it is `ready`."""
        if not self._unsent:
            return None
        group = [self._unsent.popleft()]
        room = self._group_bytes - len(group[0].image)
        while self._unsent and len(group) < self._group_images and len(self._unsent[0].image) <= room:
            group.append(self._unsent.popleft())
            room -= len(group[-1].image)
        request = pb.StreamingRecognizeRequest()
        for one in group:
            self._unsent_bytes -= len(one.image)
            message = request.images.images.add() if len(group) > 1 else request.image
            message.request_id, message.image = str(one.index), one.image
        return request

    def arrived(
        self, response: pb.StreamingRecognizeResponse
    ) -> list[tuple[Pending, pb.StreamingRecognizeResponse]]:
        """The images that a message answers, each with its answer; none of them is pending any longer."""
        self._waiting_since = time.monotonic()
        answers: Collection[pb.StreamingRecognizeResponse] = (response,)
        if response.HasField("answers"):
            answers = response.answers.answers
            self._group_images = max(1, min(_GROUP_IMAGES, response.answers.max_images))
            self._group_bytes = min(_GROUP_BYTES, response.answers.max_image_bytes)
        found = ((self._unanswered.pop(answer.request_id, None), answer) for answer in answers)
        return [(pending, answer) for pending, answer in found if pending is not None]

    def give_up(self) -> list[Pending]:
        """Everything unanswered, which is then forgotten."""
        rest = list(self._unanswered.values())
        self._unanswered.clear()
        return rest
