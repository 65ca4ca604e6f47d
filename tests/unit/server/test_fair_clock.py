"""The virtual start times by which the batcher's queue is fair."""

from __future__ import annotations

from longhand_server.batching import _FairClock


def test_a_place_that_was_given_up_goes_to_its_caller_s_next_work() -> None:
    clock = _FairClock()
    first = clock.start("hasty", 1)
    assert clock.start("steady", 1) == first
    assert clock.start("hasty", 1) == first + 1
    clock.give_up("hasty", first, 1)
    assert clock.start("hasty", 1) == first
    assert clock.start("hasty", 1) == first + 2


def test_callers_who_are_gone_are_forgotten_though_the_queue_is_never_empty() -> None:
    clock = _FairClock()
    for number in range(3000):
        start = clock.start(str(number), 1)
        clock.give_up(str(number), start, 1)
        clock.advance(start + 1)
    assert len(clock._last_finish) < 1000
    assert len(clock._given_up) < 1000
