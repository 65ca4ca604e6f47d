"""Builds KenLM's programs `lmplz` (estimates an n-gram model) and `build_binary` (packs it).

Only people who train a language model need them, so they are no part of the package: they are compiled once,
from the same hash-checked source as the decoder, into a cache folder. Needs g++ and Boost.

Run `python -m longhand_training.kenlm_tools` to build them and print where they lie.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from longhand_training.command_line import exit_status

DEBIAN_PACKAGES = "g++ libboost-program-options-dev libboost-system-dev libboost-thread-dev"
PROGRAMS = {"lmplz": "lm/builder/lmplz_main.cc", "build_binary": "lm/build_binary_main.cc"}


class KenlmToolsError(RuntimeError):
    """KenLM's programs cannot be built here; the message says what is missing."""


@dataclass(frozen=True)
class KenlmTools:
    """KenLM's two programs."""

    lmplz: Path
    """Estimates a modified Kneser-Ney model from text on its standard input, as ARPA."""
    build_binary: Path
    """Turns an ARPA file into a binary file that loads at once."""


def default_cache() -> Path:
    """`~/.cache/longhand/kenlm`, or below `XDG_CACHE_HOME` where that is set."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "longhand" / "kenlm"


def kenlm_tools(directory: Path | None = None) -> KenlmTools:
    """KenLM's programs, compiled on the first call (about two minutes on two cores).

    Args:
        directory: cache folder for source, objects and programs; None for `default_cache()`.

    Returns:
        Where the programs lie.

    Raises:
        KenlmToolsError: Boost or the compiler is missing, or the source cannot be had.
    """
    directory = (directory or default_cache()).resolve()
    tools = KenlmTools(lmplz=directory / "bin" / "lmplz", build_binary=directory / "bin" / "build_binary")
    if not (tools.lmplz.is_file() and tools.build_binary.is_file()):
        _build(directory)
    return tools


def _build(directory: Path) -> None:
    recipe = _recipe()
    compiler = os.environ.get("CXX", "g++").split()
    _require_boost(compiler)
    try:
        source: Path = recipe.kenlm_source(directory)
        flags = [
            "-O3",
            "-std=c++17",
            "-w",
            "-DNDEBUG",
            f"-DKENLM_MAX_ORDER={recipe.KENLM_MAX_ORDER}",
            f"-I{source}",
        ]
        library = _library_sources(source, recipe.query_sources(source))
        mains = [source / main for main in PROGRAMS.values()]
        *objects, lmplz, build_binary = recipe.compile_objects(
            compiler, [*library, *mains], directory / "objects", flags
        )
    except SystemExit as problem:
        raise KenlmToolsError(str(problem)) from None
    (directory / "bin").mkdir(exist_ok=True)
    boost = ["-lboost_program_options", "-lboost_thread", "-lboost_system", "-pthread"]
    for name, main in zip(PROGRAMS, (lmplz, build_binary), strict=True):
        # Linked under another name and renamed, so that two builds at a time never see half a program.
        partial = directory / "bin" / f"{name}.{os.getpid()}"
        _run([*compiler, "-o", str(partial), str(main), *map(str, objects), *boost])
        partial.replace(directory / "bin" / name)


def _library_sources(source: Path, query: Sequence[Path]) -> list[Path]:
    folders = ("lm/builder", "lm/common", "util/stream")
    extra = [file for folder in folders for file in sorted((source / folder).glob("*.cc"))]
    return [*query, *(file for file in extra if not file.name.endswith(("main.cc", "test.cc")))]


def _recipe() -> ModuleType:
    """The decoder's build recipe, which knows where KenLM's source comes from."""
    file = Path(__file__).resolve().parents[2] / "decoder_ext" / "kenlm_build.py"
    spec = importlib.util.spec_from_file_location("kenlm_build", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise KenlmToolsError(
            f"KenLM's programs are built from a checkout of Longhand, and {file} is not there"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _require_boost(compiler: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        probe = Path(scratch) / "probe.cc"
        probe.write_text(
            "#include <boost/program_options.hpp>\n#include <boost/thread.hpp>\n"
            "int main() { boost::program_options::options_description o; return 0; }\n"
        )
        command = [*compiler, str(probe), "-o", str(Path(scratch) / "probe")]
        _run([*command, "-lboost_program_options", "-lboost_thread", "-lboost_system", "-pthread"])


def _run(command: Sequence[str]) -> None:
    try:
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise KenlmToolsError(
            f"no C++ compiler ({command[0]}); on Debian: apt-get install {DEBIAN_PACKAGES}"
        ) from None
    if outcome.returncode != 0:
        first = (outcome.stderr.strip().splitlines() or ["no message"])[0]
        raise KenlmToolsError(
            f"cannot build KenLM's programs ({first}); on Debian: apt-get install {DEBIAN_PACKAGES}"
        )


@exit_status("kenlm_tools", KenlmToolsError, OSError)
def main() -> None:
    """Command line."""
    found = kenlm_tools()
    print(found.lmplz)
    print(found.build_binary)


if __name__ == "__main__":
    sys.exit(main())
