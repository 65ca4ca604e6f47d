"""What the interpreter's own threads, signals and end do while lines are being read."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

READER = """
    import sys, threading, time
    import numpy as np
    from longhand_decoder import CtcBeamSearchDecoder

    decoder = CtcBeamSearchDecoder(["", "a", "b", " "], threads=2)
    line = np.log(np.random.default_rng(0).dirichlet(np.ones(4), size=3000)).astype(np.float32)

    def streamed():
        stream = decoder.start()
        stream.push(line)
        stream.finish()

    calls = {
        "decode": lambda: decoder.decode(line),
        "decode_batch": lambda: decoder.decode_batch([line] * 3),
        "decode_greedy": lambda: decoder.decode_greedy(line),
        "decode_text": lambda: decoder.decode_text(line),
        "stream": streamed,
        "make": lambda: CtcBeamSearchDecoder(["", "a"]),
    }

    def work():
        while True:
            calls[sys.argv[1]]()

    for _ in range(3):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.2)
"""


@pytest.mark.parametrize("call", ["decode", "decode_batch", "decode_greedy", "decode_text", "stream", "make"])
def test_the_interpreter_may_end_while_threads_read(call: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(READER), call],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


INTERRUPTED = """
    import os, signal, sys, threading, time
    import numpy as np
    from longhand_decoder import CtcBeamSearchDecoder

    decoder = CtcBeamSearchDecoder(["", "a", "b", " "])
    line = np.log(np.random.default_rng(0).dirichlet(np.ones(4), size=40)).astype(np.float32)
    started = time.process_time()
    decoder.decode_batch([line] * 500)
    a_line = (time.process_time() - started) / 500
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.process_time()
    try:
        decoder.decode_batch([line] * 20_000)
    except KeyboardInterrupt:
        print((time.process_time() - started) / a_line)
"""


def test_a_batch_can_be_interrupted() -> None:
    # In a process of its own: hooks of the test runner could swallow the exception.
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert float(ended.stdout) < 10_000
