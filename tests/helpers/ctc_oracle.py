"""The decoder's objective from its formula, in plain Python: every path of a tiny line is enumerated.

Slow on purpose, and shares nothing with the decoder: no beam, no prefix, no automaton.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from helpers.tiny_ngram import TinyNgram

SPACE_TOKEN = "\u2581"


def log_add(values: Sequence[float]) -> float:
    """log(sum(exp(values)))."""
    largest = max(values)
    if largest == -math.inf:
        return -math.inf
    return largest + math.log(sum(math.exp(value - largest) for value in values))


def collapse(path: Sequence[int], blank: int) -> tuple[int, ...]:
    """The labels a path spells: repeats joined, then blanks left out."""
    joined = [label for label, _ in itertools.groupby(path)]
    return tuple(label for label in joined if label != blank)


def text_log_probabilities(
    log_probs: NDArray[np.float64], labels: Sequence[str], *, best_path: bool = False
) -> dict[str, float]:
    """log P(text) for every text that some path spells, by going through all paths."""
    frames, count = log_probs.shape
    rows: list[list[float]] = log_probs.tolist()
    blank = list(labels).index("")
    scores: dict[str, list[float]] = {}
    for path in itertools.product(range(count), repeat=frames):
        score = sum(row[label] for row, label in zip(rows, path, strict=True))
        if score > -math.inf:
            text = "".join(labels[label] for label in collapse(path, blank))
            scores.setdefault(text, []).append(score)
    return {text: max(values) if best_path else log_add(values) for text, values in scores.items()}


def kind(character: str) -> str:
    """The class of a character for the word model."""
    if character in "'\u2019":
        return "apostrophe"
    category = unicodedata.category(character)
    if character.isspace():
        return "space"
    if category == "Nd":
        return "digit"
    return "letter" if category[0] in "LM" else "other"


def word_tokens(text: str, *, spaces_only: bool = False) -> list[str]:
    """The tokens of the word model, by looking at the neighbours of each character."""
    if spaces_only:
        return text.split()
    tokens: list[str] = []
    for i, character in enumerate(text):
        this, before = kind(character), kind(text[i - 1]) if i else "space"
        after = kind(text[i + 1]) if i + 1 < len(text) else "space"
        if this == "space":
            continue
        inside = this == "apostrophe" and before == "letter" and after == "letter"
        # A letter also goes on with the word if only an apostrophe that is inside the word stands between.
        over = this == "letter" and before == "apostrophe" and i > 1 and kind(text[i - 2]) == "letter"
        goes_on = inside or over or (this == before and this in ("letter", "digit"))
        if goes_on:
            tokens[-1] += character
        else:
            tokens.append(character)
    return tokens


def hotword_count(text: str, hotword: str, *, spaces_only: bool = False) -> int:
    """How often `hotword` stands in `text` as whole words."""

    def splits(a: str, b: str) -> bool:
        if spaces_only:
            return a == " " or b == " "
        return kind(a) != kind(b) or kind(a) not in ("letter", "digit")

    found = 0
    for i in range(len(text) - len(hotword) + 1):
        end = i + len(hotword)
        begins = i == 0 or splits(text[i - 1], text[i])
        ends = end == len(text) or splits(text[end - 1], text[end])
        found += text[i:end] == hotword and begins and ends
    return found


def is_figure(text: str, at: int) -> bool:
    """A digit, what follows one, or a capital that follows one with only capitals between them."""
    if kind(text[at]) == "digit" or (at > 0 and kind(text[at - 1]) == "digit"):
        return True
    capitals = itertools.takewhile(str.isupper, reversed(text[: at + 1]))
    before = at - sum(1 for _ in capitals)
    return text[at].isupper() and before >= 0 and kind(text[before]) == "digit"


def figure_tokens(text: str, tokens: Sequence[str]) -> list[bool]:
    """Of each of the text's tokens whether it is a number, or a word in capitals beside a digit."""
    figures, end = [], 0
    for token in tokens:
        start = text.index(token, end)
        end = start + len(token)
        beside = [kind(character) for character in text[max(start - 1, 0) : start] + text[end : end + 1]]
        capitals = all(character.isupper() for character in token)
        figures.append(kind(token[0]) == "digit" or (capitals and "digit" in beside))
    return figures


@dataclass(frozen=True)
class Objective:
    """What the decoder maximises; the names are those of BeamSearchOptions."""

    word_model: TinyNgram | None = None
    character_model: TinyNgram | None = None
    lexicon: frozenset[str] | None = None
    word_weight: float = 0.5
    word_bonus: float = 1.0
    unknown_word_penalty: float = 5.0
    character_weight: float = 0.5
    character_bonus: float = 0.0
    figures_weight: float = 1.0
    spaces_only: bool = False
    closed_lexicon: bool = False
    sentence_start: bool = False
    sentence_end: bool = False
    context: str = ""
    hotwords: Mapping[str, float] = field(default_factory=dict)

    def models(self, text: str) -> float:
        """What the models add to log P(text); -inf for a text that a closed lexicon forbids."""
        shares = [self._share(is_figure(text, i)) for i in range(len(text))]
        total = self.character_bonus * sum(shares)
        total += sum(
            boost * hotword_count(text, word, spaces_only=self.spaces_only)
            for word, boost in self.hotwords.items()
        )
        if self.character_model is not None and self.character_weight > 0:
            scores = [self.character_score(text[:i], end=False) for i in range(len(text) + 1)]
            total += self.character_weight * self._weighted(scores, shares, self.character_score(text))
        known = self.known_words()
        if known is not None:
            tokens = word_tokens(text, spaces_only=self.spaces_only)
            shares = [self._share(figure) for figure in figure_tokens(text, tokens)]
            total += self.word_bonus * sum(shares)
            for token, share in zip(tokens, shares, strict=True):
                if token in known:
                    continue
                if self.closed_lexicon:
                    return -math.inf
                if self.spaces_only or kind(token[0]) != "digit":
                    total -= self.unknown_word_penalty * share
            scores = [self._token_score(tokens[:i], end=False) for i in range(len(tokens) + 1)]
            total += self.word_weight * self._weighted(scores, shares, self.word_score(text))
        return total

    def _share(self, is_figure: bool) -> float:
        return self.figures_weight if is_figure and not self.spaces_only else 1.0

    @staticmethod
    def _weighted(scores: Sequence[float], shares: Sequence[float], whole: float) -> float:
        """The steps between growing beginnings, each by its share, and what the end of the sentence adds."""
        steps = [after - before for before, after in itertools.pairwise(scores)]
        end = whole - scores[-1]
        return sum(step * share for step, share in zip(steps, shares, strict=True)) + end

    def known_words(self) -> set[str] | None:
        """The vocabulary with the hotwords' own words; None if words have no say."""
        if self.lexicon is None and self.word_model is None:
            return None
        words = set(self.lexicon if self.lexicon is not None else self.word_model.vocabulary)  # type: ignore[union-attr]
        for hotword in self.hotwords:
            words.update(word_tokens(hotword, spaces_only=self.spaces_only))
        return words

    def word_score(self, text: str) -> float:
        """log P_word, unweighted."""
        return self._token_score(word_tokens(text, spaces_only=self.spaces_only), end=True)

    def _token_score(self, tokens: Sequence[str], *, end: bool) -> float:
        if self.word_model is None:
            return 0.0
        known = self.lexicon if self.lexicon is not None else self.word_model.vocabulary
        tokens = [token if token in known else "<unk>" for token in tokens]
        return self._score(
            self.word_model, word_tokens(self.context, spaces_only=self.spaces_only), tokens, end
        )

    def character_score(self, text: str, *, end: bool = True) -> float:
        """log P_char, unweighted."""
        assert self.character_model is not None
        begins_inside = self.context[-1] != " " if self.context else not self.sentence_start
        context = self.context + " " if begins_inside else self.context
        before, after = ([SPACE_TOKEN if c == " " else c for c in part] for part in (context, text))
        return self._score(self.character_model, before, after, end)

    def _score(self, model: TinyNgram, context: list[str], tokens: list[str], end: bool) -> float:
        before = (["<s>"] if self.sentence_start else []) + context
        return model.log_probability(before, tokens + (["</s>"] if self.sentence_end and end else []))


def all_scores(acoustic: Mapping[str, float], objective: Objective) -> dict[str, float]:
    """The total score of every text that is possible, from its log P(text)."""
    totals = {text: score + objective.models(text) for text, score in acoustic.items()}
    return {text: total for text, total in totals.items() if total > -math.inf}
