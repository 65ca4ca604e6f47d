"""Throws damaged language models and odd arguments at the decoder; any crash ends the process.

Meant to run on a build with sanitizers (`make sanitize`). Only LanguageModelError, ValueError and TypeError may come
back. What it tries is random; the seed is printed, and `--seed` repeats a run.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from helpers.kenlm_binaries import BINARY_KINDS, build_binary
from helpers.tiny_ngram import random_ngram
from longhand_decoder import (
    BeamSearchOptions,
    CtcBeamSearchDecoder,
    LanguageModelError,
    NgramLanguageModel,
    build_ctcdecoder,
    tokenize_words,
)

# Bytes of a binary model's header, the counts of its n-grams included.
HEADER = 136
LABELS = ["", "a", "b", "A", "B", " ", "'", ",", "1", "é"]


def damage(content: bytes, rng: random.Random, header: int) -> bytes:
    """A copy that is cut short, or has bytes of its first `header` ones changed, removed or put in."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(min(len(data), header)) if data else 0
        action = rng.randrange(5)
        if action == 0:
            del data[rng.randrange(len(data) + 1) :]
        elif action == 1 and data:
            data[place] = rng.randrange(256)
        elif action == 2:
            data[place : place + 8] = rng.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]).to_bytes(
                8, "little"
            )
        elif action == 3:
            del data[place : place + rng.randrange(1, 20)]
        else:
            data[place:place] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20)))
    return bytes(data)


def try_model(path: Path) -> bool:
    """Loads a file that may be anything; true if it was taken."""
    try:
        NgramLanguageModel(path)
    except LanguageModelError:
        return False
    return True


def try_arpa(path: Path) -> bool:
    """As `try_model`, and uses what was taken: a model read from text is consistent or refused."""
    try:
        model = NgramLanguageModel(path)
    except LanguageModelError:
        return False
    model.score(["a", "b", "zz", "a"], bos=True, eos=True)
    line = np.log(np.random.default_rng(0).dirichlet(np.ones(len(LABELS)), size=12))
    decoder = CtcBeamSearchDecoder(
        LABELS, word_model=model, character_model=model, label_priors=np.arange(len(LABELS), dtype=np.float64)
    )
    for prior_weight in (1.0, 1e6):
        decoder.decode(line, BeamSearchOptions(prior_weight=prior_weight))
    return True


def try_call(rng: random.Random) -> None:
    """Decodes odd arrays with odd options."""
    shape = [rng.choice([0, 1, 2, 9, 30]) for _ in range(rng.choice([1, 2, 2, 2, 2, 3]))]
    if len(shape) == 2 and rng.random() < 0.7:
        shape[1] = len(LABELS)
    numbers = np.random.default_rng(rng.randrange(2**32)).normal(
        scale=rng.choice([0.1, 3, 100, 1e30]), size=shape
    )
    values = np.asarray(numbers if rng.random() < 0.3 else -np.abs(numbers))
    if values.size and rng.random() < 0.3:
        values.flat[rng.randrange(values.size)] = rng.choice([np.nan, np.inf, -np.inf, 1e308])
    if values.ndim == 2 and rng.random() < 0.3:
        values = values[:: rng.choice([-1, 1, 2]), ::1]
    with np.errstate(over="ignore"):
        array = values.astype(rng.choice(["f2", "f4", "f8", ">f8", "i4", "c8"]))
    text = "".join(rng.choice("abAB c',1é\0\n") for _ in range(rng.randrange(6)))
    try:
        options = BeamSearchOptions(
            beam_width=rng.choice([-1, 1, 2, 50, 2000]),
            beam_threshold=rng.choice([-np.inf, -10, -0.0, 1.0]),
            token_threshold=rng.choice([-np.inf, -5, 0.0]),
            temperature=rng.choice([1.0, 1e-3, 1e3, 0.5, 1e-39]),
            input=rng.choice(["log_probs", "logits"]),
            hotwords=[text] if rng.random() < 0.5 else {text: rng.uniform(-1.1e6, 1.1e6)},
            allowed_characters=rng.choice([None, text]),
            alternatives=rng.choice([0, 1, 100]),
            fold_capitals=rng.random() < 0.5,
            closed_lexicon=rng.random() < 0.3,
            context=text,
        )
        decoder = CtcBeamSearchDecoder(
            LABELS, lexicon=rng.choice([None, ["a", "".join(text.split()) or text, "é'b"]]), threads=2
        )
        decoder.decode(array, options)
        decoder.decode_batch([array, array], options, return_exceptions=True)
        stream = decoder.start(options)
        stream.push(array)
        stream.finish()
        build_ctcdecoder(LABELS).decode(array, hotwords=[text])
    except (ValueError, TypeError):
        pass
    tokenize_words(text)


def main() -> int:
    """Fuzzes until the time is up and says how much was tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(2**32)
    print(f"fuzzing with --seed {seed}", flush=True)
    rng = random.Random(seed)
    np.seterr(all="ignore")
    tried = {"arpa": 0, "binary": 0, "call": 0}
    taken = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        arpa = random_ngram(["a", "b", "ab", "é", ","], 3, 1).write_arpa(folder / "good.arpa")
        binaries = [build_binary(arpa, folder / f"good-{i}.klm", kind) for i, kind in enumerate(BINARY_KINDS)]
        target = folder / "damaged"
        end = time.monotonic() + arguments.seconds
        while time.monotonic() < end:
            target.write_bytes(damage(arpa.read_bytes(), rng, 10**9))
            taken += try_arpa(target)
            tried["arpa"] += 1
            # Behind its header a binary model is trusted (see language_model.cc).
            target.write_bytes(damage(rng.choice(binaries).read_bytes(), rng, HEADER))
            taken += try_model(target)
            tried["binary"] += 1
            try_call(rng)
            tried["call"] += 1
    print(f"no crash in {tried}, {taken} damaged models were still usable")
    return 0


if __name__ == "__main__":
    sys.exit(main())
