"""Which images of a stream go into the next message."""

from __future__ import annotations

import time

import pytest

from longhand.v1 import recognition_pb2 as pb
from longhand_client.outbox import Outbox

KIB = 1024


def filled(count: int, look_ahead: int, size: int = 10, *, grouping: bool = True) -> Outbox:
    outbox = Outbox(look_ahead)
    if grouping:
        outbox.arrived(answer())
    for index in range(count):
        outbox.add(index, b"source", bytes(size))
    return outbox


def answer(
    *indices: int, max_images: int = 256, max_image_bytes: int = 1 << 24
) -> pb.StreamingRecognizeResponse:
    answers = pb.StreamingRecognizeAnswers(
        answers=[pb.StreamingRecognizeResponse(request_id=str(index)) for index in indices],
        max_images=max_images,
        max_image_bytes=max_image_bytes,
    )
    return pb.StreamingRecognizeResponse(answers=answers)


def taken(outbox: Outbox) -> list[int]:
    request = outbox.take()
    assert request is not None
    if request.HasField("image"):
        return [int(request.image.request_id)]
    return [int(image.request_id) for image in request.images.images]


def test_one_by_one_until_the_server_is_known_to_know_groups() -> None:
    outbox = filled(5, 64, grouping=False)
    assert taken(outbox) == [0]
    outbox.arrived(pb.StreamingRecognizeResponse(request_id="0"))
    assert taken(outbox) == [1]
    outbox.arrived(answer(1))
    assert taken(outbox) == [2, 3, 4]


def test_a_message_holds_sixteen_images_and_256_kib() -> None:
    assert taken(filled(40, 100)) == list(range(16))
    assert taken(filled(40, 100, 100 * KIB)) == [0, 1]
    assert taken(filled(40, 100, 128 * KIB)) == [0, 1]
    assert taken(filled(40, 100, 1000 * KIB)) == [0]


def test_a_server_may_want_smaller_messages() -> None:
    outbox = filled(40, 100)
    outbox.arrived(answer(max_images=5))
    assert taken(outbox) == [0, 1, 2, 3, 4]
    outbox.arrived(answer(max_image_bytes=39))
    assert taken(outbox) == [5, 6, 7]
    outbox.arrived(answer(max_images=1))
    assert taken(outbox) == [8]
    outbox.arrived(answer(max_images=0, max_image_bytes=0))
    assert taken(outbox) == [9]
    assert outbox.ready()


def test_images_wait_for_a_group_while_the_server_has_enough_to_do() -> None:
    outbox = filled(40, 64)
    for _ in range(3):
        assert outbox.ready()
        taken(outbox)
    assert not outbox.ready()  # 40 are on their way, more than half of 64
    for index in range(40, 55):
        outbox.add(index, b"", b"")
        assert not outbox.ready()
    outbox.add(55, b"", b"")
    assert outbox.ready()
    assert taken(outbox) == list(range(40, 56))


def test_images_do_not_wait_where_they_are_large() -> None:
    outbox = filled(40, 64)
    while outbox.ready():
        taken(outbox)
    outbox.add(40, b"", bytes(255 * KIB))
    assert not outbox.ready()
    outbox.add(41, b"", bytes(1 * KIB))
    assert outbox.ready()


def test_images_do_not_wait_for_a_server_that_has_little_to_do() -> None:
    outbox = filled(40, 64)
    while outbox.ready():
        taken(outbox)
    outbox.add(40, b"", b"")
    assert len(outbox.arrived(answer(*range(8)))) == 8
    assert outbox.ready()  # 32 are on their way
    assert taken(outbox) == [40]


def test_the_end_waits_for_nothing() -> None:
    outbox = filled(40, 64)
    while outbox.ready():
        taken(outbox)
    outbox.add(40, b"", b"")
    outbox.close()
    assert outbox.ready()
    assert not outbox.complete()
    assert taken(outbox) == [40]
    assert outbox.complete()
    assert outbox.take() is None


def test_a_new_call_gets_what_is_unanswered_one_by_one() -> None:
    outbox = filled(20, 64)
    taken(outbox)
    outbox.arrived(answer(0, 3))
    outbox.restart()
    sent = []
    while outbox.ready():
        sent.append(taken(outbox))
    assert sent == [[index] for index in range(20) if index not in (0, 3)]
    assert len(outbox) == 18


def test_a_new_call_knows_how_much_is_unsent() -> None:
    outbox = filled(6, 8, 100 * KIB)
    while outbox.ready():
        taken(outbox)
    outbox.restart()
    for index in range(5):
        assert taken(outbox) == [index]
    outbox.arrived(answer())
    assert not outbox.ready()  # five are on their way, more than half of eight
    for index in (6, 7):
        outbox.add(index, b"", bytes(100 * KIB))
    assert outbox.ready()


def test_silence_is_counted_from_the_last_answer_or_call_while_images_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    outbox = Outbox(8)
    now += 5
    outbox.add(0, b"", b"")
    now += 2
    outbox.add(1, b"", b"")
    now += 1
    assert outbox.silence_s() == 3
    outbox.arrived(answer(0))
    assert outbox.silence_s() == 0
    now += 4
    assert outbox.silence_s() == 4
    outbox.restart()
    now += 1
    assert outbox.silence_s() == 1
    outbox.arrived(answer(1))
    now += 9
    assert outbox.silence_s() == 0  # none waits


def test_strange_answers_are_no_answers() -> None:
    outbox = filled(2, 64)
    arrived = outbox.arrived(answer(1, 1, 7))
    assert [(pending.index, message.request_id) for pending, message in arrived] == [(1, "1")]
    assert [pending.index for pending in outbox.give_up()] == [0]
    assert len(outbox) == 0
