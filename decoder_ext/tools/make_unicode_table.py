"""Writes `src/unicode_table.inc` (which code points are letters, digits, spaces) and `src/case_table.inc` (capitals).

Letters are the categories L* and M*, digits Nd, spaces what `str.isspace` says; capitals are the code points that
have one small letter of which they are the one capital.
The files are committed; run this again with a Python of a newer Unicode.
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "src"


def character_class(code: int) -> str | None:
    """The name of the class of one code point; None for everything that is its own token."""
    character = chr(code)
    category = unicodedata.category(character)
    if character.isspace():
        return "kSpace"
    if category == "Nd":
        return "kDigit"
    return "kLetter" if category[0] in "LM" else None


def ranges() -> list[tuple[int, int, str]]:
    """Maximal runs (first, last, class) in ascending order."""
    found: list[tuple[int, int, str]] = []
    for code in range(sys.maxunicode + 1):
        name = character_class(code)
        if name is None:
            continue
        if found and found[-1][1] == code - 1 and found[-1][2] == name:
            found[-1] = (found[-1][0], code, name)
        else:
            found.append((code, code, name))
    return found


def capital_runs() -> list[tuple[int, int, int, int]]:
    """Runs of capitals (first, last, step, distance to the small letters), ascending; the step is 1 or 2."""
    runs: list[tuple[int, int, int, int]] = []
    for code in range(sys.maxunicode + 1):
        small = chr(code).lower()
        if len(small) != 1 or small == chr(code) or small.upper() != chr(code):
            continue
        distance = ord(small) - code
        if runs:
            first, last, step, before = runs[-1]
            gap = code - last
            if distance == before and gap <= 2 and (first == last or gap == step):
                runs[-1] = (first, code, gap, distance)
                continue
        runs.append((code, code, 1, distance))
    return runs


def write(name: str, rows: list[str]) -> None:
    """Writes one table."""
    head = f"// Made by tools/make_unicode_table.py from Unicode {unicodedata.unidata_version}."
    (FOLDER / name).write_text("\n".join([head, *rows]) + "\n")


def main() -> None:
    """Writes the tables."""
    write(
        "unicode_table.inc",
        [f"{{0x{first:X}, 0x{last:X}, CharacterClass::{name}}}," for first, last, name in ranges()],
    )
    write(
        "case_table.inc",
        [f"{{0x{first:X}, 0x{last:X}, {step}, {far}}}," for first, last, step, far in capital_runs()],
    )


if __name__ == "__main__":
    main()
