"""Writes `src/unicode_table.inc`: which code points are letters, digits and spaces.

Letters are the categories L* and M*, digits Nd, spaces what `str.isspace` says.
The file is committed; run this again with a Python of a newer Unicode.
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "src" / "unicode_table.inc"


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


def main() -> None:
    """Writes the table."""
    lines = [f"// Made by tools/make_unicode_table.py from Unicode {unicodedata.unidata_version}."]
    lines += [f"{{0x{first:X}, 0x{last:X}, CharacterClass::{name}}}," for first, last, name in ranges()]
    TARGET.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
