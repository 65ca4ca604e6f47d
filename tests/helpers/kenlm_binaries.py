"""Binary language models of every kind, written by KenLM's own program."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Any

from setuptools._distutils.ccompiler import new_compiler
from setuptools._distutils.sysconfig import customize_compiler

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
    """`build_binary`, linked from the objects that the decoder's build left (no Boost needed) if need be."""
    spec = importlib.util.spec_from_file_location("kenlm_build", ROOT / "decoder_ext" / "kenlm_build.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    program = ROOT / "build" / "test-tools" / "build_binary"
    if not program.is_file():
        compiler: Any = new_compiler()
        customize_compiler(compiler)  # to the command line of the build: KenLM anew would take a minute
        source = recipe.kenlm_source()
        objects = recipe.kenlm_objects(compiler.compiler_so_cxx, source, "lm/build_binary_main.cc")
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
