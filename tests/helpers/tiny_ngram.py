"""Back-off n-gram models small enough to write into an ARPA file and to score by hand."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TinyNgram:
    """Probabilities and back-off weights, as log10, of n-grams up to `order`."""

    order: int
    log10_probability: dict[tuple[str, ...], float]
    log10_backoff: dict[tuple[str, ...], float]

    @functools.cached_property
    def vocabulary(self) -> set[str]:
        """The words, without the three special ones."""
        return {gram[0] for gram in self.log10_probability if len(gram) == 1} - {"<unk>", "<s>", "</s>"}

    def log_probability(self, context: Sequence[str], tokens: Sequence[str]) -> float:
        """Natural log P(tokens | context) by Katz back-off."""
        history = [self._known(token) for token in context]
        total = 0.0
        for token in tokens:
            total += self._one(tuple(history[-(self.order - 1) :]), self._known(token))
            history.append(self._known(token))
        return total * math.log(10)

    def _known(self, token: str) -> str:
        return token if (token,) in self.log10_probability else "<unk>"

    def _one(self, history: tuple[str, ...], token: str) -> float:
        if (*history, token) in self.log10_probability:
            return self.log10_probability[*history, token]
        return self.log10_backoff.get(history, 0.0) + self._one(history[1:], token)

    def write_arpa(self, path: Path) -> Path:
        """Writes the model as an ARPA file."""
        by_length = [
            [gram for gram in self.log10_probability if len(gram) == n] for n in range(1, self.order + 1)
        ]
        lines = ["\\data\\", *(f"ngram {n}={len(grams)}" for n, grams in enumerate(by_length, 1)), ""]
        for n, grams in enumerate(by_length, 1):
            lines.append(f"\\{n}-grams:")
            for gram in grams:
                entry = f"{self.log10_probability[gram]:.6f}\t{' '.join(gram)}"
                lines.append(
                    entry if n == self.order else f"{entry}\t{self.log10_backoff.get(gram, 0.0):.6f}"
                )
            lines.append("")
        path.write_text("\n".join([*lines, "\\end\\", ""]), encoding="utf-8")
        return path


def random_ngram(words: Sequence[str], order: int, seed: int) -> TinyNgram:
    """A model over `words` with random numbers and about half of all possible n-grams."""
    rng = random.Random(seed)
    grams: list[tuple[str, ...]] = [("<unk>",), ("<s>",), ("</s>",), *((word,) for word in words)]
    latest = [gram for gram in grams if gram != ("<unk>",)]
    for _ in range(order - 1):
        # KenLM wants an n-gram's first and last n - 1 words among the shorter ones; <s> only comes first.
        known = set(latest)
        longer = [
            (*gram, last)
            for gram, last in itertools.product(latest, ["</s>", *words])
            if gram[-1] != "</s>" and (len(gram) == 1 or (*gram[1:], last) in known)
        ]
        latest = [gram for gram in longer if rng.random() < 0.5] or longer[:1]
        grams += latest
    probability = {gram: round(rng.uniform(-2.5, -0.1), 6) for gram in grams}
    probability["<s>",] = -99.0
    backoff = {gram: round(rng.uniform(-1.0, 0.0), 6) for gram in grams if len(gram) < order}
    # These end no context: KenLM keeps no back-off weight for them.
    backoff = {gram: weight for gram, weight in backoff.items() if gram[-1] not in ("</s>", "<unk>")}
    return TinyNgram(order, probability, backoff)
