"""Character and word error rates against reference texts, with an alignment that a person can read."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from longhand_client.command.outputs import printable

_OPEN_BOX = "\u2423"  # stands for a space
RED, GREEN, PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Edit:
    """One step of an alignment: equal parts, or what was read instead of what stands there.

    Attributes:
        expected: the reference's part, "" where something was read that is not there.
        read: the reading's part, "" where something was missed.
    """

    expected: str
    read: str


def align(expected: Sequence[str], read: Sequence[str]) -> list[Edit]:
    """Aligns two sequences with the fewest insertions, deletions and substitutions (Levenshtein 1966).

    Args:
        expected: the reference's characters or words.
        read: the reading's.

    Returns:
        The steps from left to right; those whose sides differ are the errors.
    """
    rows, columns = len(expected), len(read)
    costs = [list(range(columns + 1))]
    for row in range(1, rows + 1):
        previous, current = costs[-1], [row]
        for column in range(1, columns + 1):
            change = previous[column - 1] + (expected[row - 1] != read[column - 1])
            current.append(min(change, previous[column] + 1, current[-1] + 1))
        costs.append(current)
    steps: list[Edit] = []
    row, column = rows, columns
    while row or column:
        here = costs[row][column]
        if row and column and here == costs[row - 1][column - 1] + (expected[row - 1] != read[column - 1]):
            row, column = row - 1, column - 1
            steps.append(Edit(expected[row], read[column]))
        elif row and here == costs[row - 1][column] + 1:
            row -= 1
            steps.append(Edit(expected[row], ""))
        else:
            column -= 1
            steps.append(Edit("", read[column]))
    return steps[::-1]


def errors_of(steps: Sequence[Edit]) -> int:
    """How many steps of an alignment are errors."""
    return sum(step.expected != step.read for step in steps)


def paint(steps: Sequence[Edit], *, colour: bool) -> str:
    """The reading with its errors marked.

    Args:
        steps: an alignment of characters.
        colour: red for what is missing and green for what was read instead; otherwise [-a-] and {+b+}.
    """
    missing, extra = (f"{RED}%s{PLAIN}", f"{GREEN}%s{PLAIN}") if colour else ("[-%s-]", "{+%s+}")
    parts: list[str] = []
    lost = gained = ""
    for step in [*steps, Edit("\0", "\0")]:
        read = printable(step.read)
        if step.expected != step.read:
            lost, gained = lost + step.expected, gained + read
            continue
        if colour:  # a space has none
            lost, gained = lost.replace(" ", _OPEN_BOX), gained.replace(" ", _OPEN_BOX)
        parts += [missing % lost if lost else "", extra % gained if gained else "", read]
        lost = gained = ""
    return "".join(parts[:-1])


@dataclass
class Score:
    """Running error rates over many lines: all errors over all reference characters (or words)."""

    lines: int = 0
    exact: int = 0
    character_errors: int = 0
    characters: int = 0
    word_errors: int = 0
    words: int = 0
    without_reference: list[str] = field(default_factory=list)

    def add(self, expected: str, read: str) -> tuple[list[Edit], float]:
        """Counts one line.

        Args:
            expected: the reference.
            read: the reading.

        Returns:
            The alignment of their characters (in Unicode form NFC), and this line's character error rate.
        """
        expected, read = unicodedata.normalize("NFC", expected), unicodedata.normalize("NFC", read)
        steps = align(expected, read)
        errors = errors_of(steps)
        self.lines += 1
        self.exact += expected == read
        self.character_errors += errors
        self.characters += len(expected)
        self.word_errors += errors_of(align(expected.split(), read.split()))
        self.words += len(expected.split())
        return steps, errors / max(len(expected), 1)

    def summary(self) -> str:
        """The error rates in one line."""
        if not self.lines:
            return "no line scored"
        return (
            f"CER {100 * self.character_errors / max(self.characters, 1):.2f} %  "
            f"WER {100 * self.word_errors / max(self.words, 1):.2f} %  "
            f"exact {self.exact} of {self.lines} lines"
        )
