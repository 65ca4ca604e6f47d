"""Builds the bundle's language models with KenLM: ``python -m longhand_training.language_model --help``.

A word model over the tokens of :func:`longhand_decoder.tokenize_words` and a character model over single
characters, space written as U+2581; both modified Kneser-Ney (Heafield et al., 2013), pruned, and packed as
quantised tries. Prints size, perplexity and out-of-vocabulary rate on held-out text. Beside the corpora of the data
folder (those that are there) they take the words of :mod:`longhand_training.word_lists`, made-up entries of forms
(``--form-entries``) and any text of one's own (``--text``), every word of which is in the word model's vocabulary.
"""

from __future__ import annotations

import argparse
import itertools
import math
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from longhand_decoder import NgramLanguageModel, tokenize_words
from longhand_training.command_line import HelpFormatter, exit_status
from longhand_training.config import DATA, number
from longhand_training.kenlm_tools import KenlmTools, kenlm_tools
from longhand_training.packs import SCAN_PACKS, read_tar
from longhand_training.text import (
    DEFAULT_CHARACTERS,
    PhraseSource,
    default_corpora,
    read_characters,
    read_sentences,
    shown,
)
from longhand_training.word_lists import listed_words, word_lines

SPACE = "\u2581"
# What may ship (reuters is for research only), and how much of it: the novels would drown everyday prose.
SHARES = {
    "brown": 1.0,
    "state_union": 1.0,
    "inaugural": 1.0,
    "gutenberg": 1.0,
    "standardebooks_nonfiction": 1.0,
    "standardebooks_fiction": 0.5,
}
FORM_ENTRIES = 100_000
# Lines run over the ends of sentences: the models must know what follows a full stop.
_JOINED = 4
# Of each text, for the words of e-mail addresses.
_MOST_SENTENCES = 20_000
# Part of a text's characters that the alphabet may lack: more is told, or in --text refused.
_FEW_FOREIGN = 0.001
_MOST_FOREIGN = 0.2
# Of a quantised probability and of a back-off weight.
_BITS = "8"
# Of a trie's pointer, those that go into an array of offsets, at most.
_POINTER_BITS = "22"
# KenLM is built for no higher order, and its tries start at two.
_ORDERS = range(2, 7)


@dataclass(frozen=True)
class ModelOptions:
    """How a model is estimated.

    Attributes:
        prune: for each order, n-grams that occur no more often than this are dropped.
        vocabulary: at most this many of the commonest tokens, beside those that are kept anyway; 0 for all.
    """

    prune: tuple[int, ...]
    vocabulary: int = 0


WORD_MODEL = ModelOptions(prune=(0, 0, 1), vocabulary=100_000)
CHARACTER_MODEL = ModelOptions(prune=(0, 0, 0, 0, 0, 1))


def character_tokens(text: str, characters: Collection[str]) -> list[str]:
    """Tokens of the character model; what is not among the alphabet's characters is left out."""
    return [SPACE if c == " " else c for c in text if c in characters]


def missing_corpora(data: Path, shares: Mapping[str, float]) -> list[Path]:
    """The files of :func:`corpus` that are not there."""
    files = [*(data / "text" / f"{name}.txt.xz" for name in shares), *(data / tar for tar in SCAN_PACKS)]
    return [path for path in files if not path.is_file()]


def corpus(data: Path, shares: Mapping[str, float], texts: Sequence[Path] = ()) -> Iterator[str]:
    """Passages of a few sentences, from the text folder, the labels of the scanned training lines, and other texts.

    Args:
        data: the data folder; what is not there (:func:`missing_corpora`) is left out.
        shares: of each corpus, by name: how much of it is taken.
        texts: one's own.

    Raises:
        ValueError: a text cannot be read.
    """
    for name, share in shares.items():
        path = data / "text" / f"{name}.txt.xz"
        if not path.is_file():
            continue
        passage: list[str] = []
        kept = 0.0
        for sentence in read_sentences(path):
            passage.append(sentence)
            if len(passage) == _JOINED:
                kept += share
                if kept >= 1.0:
                    kept -= 1.0
                    yield " ".join(passage)
                passage = []
        if passage and share:
            yield " ".join(passage)
    for tar in SCAN_PACKS:
        if (data / tar).is_file():
            for line in read_tar(data / tar, "train"):
                yield line.text
    for path in texts:
        yield from read_sentences(path)


def form_entries(
    data: Path, count: int, texts: Sequence[Path] = (), passages: Iterable[str] = ()
) -> Iterator[str]:
    """Made-up lines as they stand in forms, always the same: prose knows next to nothing of dates, prices or codes.

    Args:
        data: folder whose corpora the words of e-mail addresses are taken from.
        count: of lines.
        texts: one's own, which they are taken from, too.
        passages: what they are taken from where there is neither.

    Raises:
        ValueError: no text is there, or one is damaged.
    """
    if count == 0:
        return
    own = [sentence for path in texts for sentence in itertools.islice(read_sentences(path), _MOST_SENTENCES)]
    if not own and not default_corpora(data / "text"):
        own = list(itertools.islice(passages, _MOST_SENTENCES))
    source = PhraseSource.from_folder(data / "text", _MOST_SENTENCES, own)
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield source.form_entry(rng)


def estimate(
    tools: KenlmTools,
    sentences: Iterable[list[str]],
    options: ModelOptions,
    out: Path,
    work: Path,
    kept: Collection[str] = (),
) -> None:
    """Estimates a model from tokenised sentences, the kept tokens in its vocabulary, and packs it into ``out``.

    Raises:
        ValueError: there is no token in the sentences.
        RuntimeError: one of KenLM's programs failed; its last words are in the message.
    """
    text, arpa = work / "corpus.txt", work / "model.arpa"
    counts: Counter[str] = Counter()
    with text.open("w", encoding="utf-8") as file:
        for tokens in sentences:
            counts.update(tokens)
            file.write(" ".join(tokens) + "\n")
    if not counts:
        raise ValueError(f"no text to learn {out.name} from")
    command = [
        str(tools.lmplz),
        "-o",
        str(len(options.prune)),
        "-S",
        "30%",
        "-T",
        str(work),
        "--discount_fallback",
    ]
    command += ["--text", str(text), "--arpa", str(arpa), "--prune", *map(str, options.prune)]
    if options.vocabulary:
        common = {token for token, _ in counts.most_common(options.vocabulary)}
        vocabulary = work / "vocabulary.txt"
        vocabulary.write_text(" ".join(sorted(common.union(kept))), encoding="utf-8")
        command += ["--limit_vocab_file", str(vocabulary)]
    _run(command)
    packing = ["-q", _BITS, "-b", _BITS, "-a", _POINTER_BITS]
    _run([str(tools.build_binary), *packing, "trie", str(arpa), str(out)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed: {done.stderr.strip()[-400:]}")


def report(path: Path, sentences: list[list[str]]) -> str:
    """Size, perplexity (with <s> and </s>) and out-of-vocabulary rate on tokenised held-out sentences, if any."""
    model = NgramLanguageModel(path)
    described = f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, order {model.order}"
    if not sentences:
        return f"{described}, perplexity not measured: no held-out text (--held-out)"
    total, tokens = 0.0, 0
    for sentence in sentences:
        total += model.score(sentence, bos=True, eos=True)
        tokens += len(sentence) + 1
    unknown = sum(token not in model for sentence in sentences for token in sentence)
    unknown_rate = unknown / max(sum(map(len, sentences)), 1)
    return (
        f"{described}, perplexity {math.exp(-total / tokens):.1f},"
        f" out of vocabulary {100 * unknown_rate:.2f} %, on {len(sentences)} held-out sentences"
    )


def _held_out(options: argparse.Namespace) -> Path | None:
    """The text that perplexity is measured on; None where there is none."""
    path: Path = options.held_out or options.data / "text" / "heldout.txt.xz"
    return path if options.held_out or path.is_file() else None


def foreign_share(path: Path, characters: Collection[str]) -> float:
    """Reads a text; what part of its characters an alphabet lacks. Where it is not tiny, stderr says so.

    Raises:
        ValueError: it cannot be read.
    """
    counts: Counter[str] = Counter()
    for sentence in read_sentences(path):
        counts.update(sentence)
    foreign = Counter({character: n for character, n in counts.items() if character not in characters})
    share = foreign.total() / max(counts.total(), 1)
    if share > _FEW_FOREIGN:
        commonest = shown(character for character, _ in foreign.most_common(10))
        print(
            f"{path}: {100 * share:.1f} % of its characters are not in the alphabet, and left out: {commonest}",
            file=sys.stderr,
        )
    return share


def _thresholds(option: str, values: Sequence[int]) -> tuple[int, ...]:
    if len(values) not in _ORDERS or min(values) < 0 or list(values) != sorted(values):
        raise ValueError(
            f"{option}: got {' '.join(map(str, values))}, need {_ORDERS[0]} to {_ORDERS[-1]} whole numbers from 0 "
            "on, one for each order, none less than the one before"
        )
    return tuple(values)


def _build(options: argparse.Namespace) -> None:
    word_prune = _thresholds("--word-prune", options.word_prune)
    char_prune = _thresholds("--char-prune", options.char_prune)
    shares = {**SHARES, "standardebooks_fiction": options.fiction}
    characters = DEFAULT_CHARACTERS if options.characters is None else read_characters(options.characters)
    held_out = _held_out(options)
    # Every text is read once before minutes are spent on another one.
    read = [*options.text, *options.corpus, *([held_out] if held_out else [])]
    foreign = {path: foreign_share(path, frozenset(characters)) for path in read}
    for path in options.text if options.only != "word" else ():
        if foreign[path] > _MOST_FOREIGN:
            raise ValueError(
                f"--text {path}: {100 * foreign[path]:.0f} % of its characters are not in the alphabet; name a text "
                "with the right ones (--characters)"
            )
    own_words = {
        word for path in options.text for text in read_sentences(path) for word in tokenize_words(text)
    }
    missing = missing_corpora(options.data, shares)
    nothing = len(missing) == len(shares) + len(SCAN_PACKS)
    if nothing and not (options.text or options.corpus):
        raise ValueError(f"no text to learn from: {options.data} holds no corpus, and no --text is named")
    if missing:
        which = f"every corpus of {options.data}" if nothing else ", ".join(map(str, missing))
        print(f"not there, left out: {which}", file=sys.stderr)
    listed = [] if options.no_word_lists else listed_words()
    wanted: dict[str, tuple[str, ModelOptions, Callable[[str], list[str]]]] = {
        "word": ("word.klm", ModelOptions(word_prune, options.word_vocabulary), tokenize_words),
        "char": (
            "char.klm",
            ModelOptions(char_prune),
            partial(character_tokens, characters=frozenset(characters)),
        ),
    }
    tools = kenlm_tools()
    options.out.mkdir(parents=True, exist_ok=True)
    for key, (file, settings, tokenise) in wanted.items():
        if options.only not in (None, key):
            continue
        print(f"estimating {file} ...", flush=True)
        with tempfile.TemporaryDirectory() as work:
            prose = partial(corpus, options.data, shares, [*options.corpus, *options.text])
            passages = itertools.chain(
                prose(),
                word_lines(listed),
                form_entries(options.data, options.form_entries, options.text, prose()),
            )
            kept = own_words.union(listed)
            estimate(tools, map(tokenise, passages), settings, options.out / file, Path(work), kept)
        sentences = [tokenise(sentence) for sentence in read_sentences(held_out)] if held_out else []
        print(report(options.out / file, sentences), flush=True)


@exit_status("language_model", ValueError, RuntimeError, OSError)
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the packs (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for word.klm and char.klm")
    parser.add_argument("--only", choices=("word", "char"), help="build just this one")
    parser.add_argument(
        "--word-prune",
        type=int,
        nargs="+",
        default=list(WORD_MODEL.prune),
        help="for each order, n-grams that occur no more often are dropped",
    )
    parser.add_argument(
        "--word-vocabulary",
        type=number(int, 0),
        default=WORD_MODEL.vocabulary,
        help="commonest words kept beside those of --text and of the lists; 0: all (default: %(default)s)",
    )
    parser.add_argument(
        "--fiction",
        type=number(float, 0, 1),
        default=SHARES["standardebooks_fiction"],
        help="share of the novels that is kept, 0 to 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--text",
        type=Path,
        action="append",
        default=[],
        help="more sentences, one a line: .txt (UTF-8) or .txt.xz",
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        action="append",
        default=[],
        help="more sentences like those of the packs, of whose words only the common ones are kept",
    )
    parser.add_argument(
        "--held-out", type=Path, help="text to measure perplexity on (default: text/heldout.txt.xz in --data)"
    )
    parser.add_argument(
        "--characters", type=Path, help="UTF-8 text with the characters of the alphabet, as in training"
    )
    parser.add_argument("--no-word-lists", action="store_true", help="only words of the corpora")
    parser.add_argument(
        "--form-entries",
        type=number(int, 0),
        default=FORM_ENTRIES,
        help="made-up dates, amounts, codes, addresses",
    )
    parser.add_argument("--char-prune", type=int, nargs="+", default=list(CHARACTER_MODEL.prune))
    options = parser.parse_args()
    _build(options)


if __name__ == "__main__":
    sys.exit(main())
