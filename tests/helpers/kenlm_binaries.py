"""Binary language models of every kind, written by KenLM's own program."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY_KINDS = (
    ("probing",),
    ("trie",),
    ("-q", "8", "-b", "8", "trie"),
    ("-a", "22", "trie"),
    ("-q", "8", "-b", "8", "-a", "22", "trie"),
)


@functools.cache
def build_binary_program() -> Path:
    """`build_binary`, compiled from the decoder's own copy of KenLM's source (no Boost needed) if need be."""
    spec = importlib.util.spec_from_file_location("kenlm_build", ROOT / "decoder_ext" / "kenlm_build.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    program = ROOT / "build" / "test-tools" / "build_binary"
    if not program.is_file():
        source = recipe.kenlm_source()
        flags = [
            "-O2",
            "-w",
            "-std=c++17",
            "-DNDEBUG",
            f"-DKENLM_MAX_ORDER={recipe.KENLM_MAX_ORDER}",
            f"-I{source}",
        ]
        sources = [*recipe.query_sources(source), source / "lm" / "build_binary_main.cc"]
        objects = recipe.compile_objects(["g++"], sources, ROOT / "build" / "objects", flags)
        program.parent.mkdir(parents=True, exist_ok=True)
        partial = program.with_suffix(f".{os.getpid()}")
        subprocess.run(["g++", "-pthread", "-o", partial, *objects], check=True)
        partial.replace(program)
    return program


def build_binary(arpa: Path, target: Path, kind: tuple[str, ...]) -> Path:
    """Writes `arpa` as a binary file of one of `BINARY_KINDS`."""
    # Without the sanitizers that the caller may run under: they belong to it, not to this program.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command: list[str | Path] = [build_binary_program(), "-s", *kind, arpa, target]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return target
