"""How the decoder is built: where KenLM's source comes from, and how it is compiled into the extension.

KenLM (LGPL) is not part of this repository. The build downloads its source distribution by name and version,
checks its sha256, compiles the query part (no Boost needed) and links it statically into
`longhand_decoder._core`. Source and objects are kept in `build/`: a second build compiles only what changed.

Environment:
    KENLM_SOURCE_DIR: an unpacked KenLM source tree to use instead of downloading one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

KENLM_VERSION = "0.3.0"
KENLM_SHA256 = "c4628bb9fb63c8a6f9240035b8b037385cfc404cb72e933cf48878291edac1e8"
# The highest n-gram order a language model may have; the decoder's state sizes follow it.
KENLM_MAX_ORDER = 6

ROOT = Path(__file__).resolve().parent.parent
BUILD_DIRECTORY = ROOT / "build"
EXTENSION_NAME = "longhand_decoder._core"

KENLM_DEFINES = [("NDEBUG", None), ("KENLM_MAX_ORDER", str(KENLM_MAX_ORDER))]
_DEFINES = [f"-D{name}" if value is None else f"-D{name}={value}" for name, value in KENLM_DEFINES]
# Hidden visibility keeps every lm:: and util:: symbol inside the extension: another copy of KenLM in the same
# process (its own Python module, say) never meets ours.
KENLM_FLAGS = ["-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-w"]
# The math flags let the compiler vectorise the frame arithmetic; infinities keep their meaning.
DECODER_FLAGS = [
    "-O3",
    "-g0",
    "-std=c++17",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
    "-Wall",
    "-Wextra",
]
# The decoder's small functions are inlined across its files: as one, so that GCC asks for no make to share the work
# out. Clang would need another linker.
GCC_FLAGS = ["-flto", "-flto-partition=one"]


class BuildProblem(SystemExit):
    """Ends the build with one clear line instead of a traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(f"longhand: {message}")


def kenlm_source(cache: Path = BUILD_DIRECTORY) -> Path:
    """The folder that holds KenLM's `lm/` and `util/`, downloaded and checked if need be.

    Args:
        cache: where the unpacked source is kept between builds.

    Returns:
        The path of the unpacked tree.

    Raises:
        BuildProblem: KENLM_SOURCE_DIR names no KenLM tree, the package index cannot be reached, or the
            downloaded file is not the one whose hash stands here.
    """
    override = os.environ.get("KENLM_SOURCE_DIR")
    if override:
        if not (Path(override) / "lm" / "model.hh").is_file():
            raise BuildProblem(f"KENLM_SOURCE_DIR={override} holds no KenLM source (no lm/model.hh in it)")
        return Path(override).resolve()
    tree = cache / f"kenlm-{KENLM_VERSION}"
    if not (tree / "lm" / "model.hh").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            archive = _download(Path(scratch))
            _unpack(archive, Path(scratch) / "unpacked")
            # A rename puts the whole tree in place at once: a build that is cut short leaves no half of it.
            shutil.rmtree(tree, ignore_errors=True)
            (Path(scratch) / "unpacked" / f"kenlm-{KENLM_VERSION}").rename(tree)
    return tree


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [
        "--no-binary",
        "kenlm",
        "--no-build-isolation",
        "--dest",
        str(folder),
        f"kenlm=={KENLM_VERSION}",
    ]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = folder / f"kenlm-{KENLM_VERSION}.tar.gz"
    if outcome.returncode != 0 or not archive.is_file():
        reason = (outcome.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise BuildProblem(
            f"cannot download KenLM {KENLM_VERSION} from the Python package index ({reason}); "
            "connect to the network or set KENLM_SOURCE_DIR to an unpacked kenlm source"
        )
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != KENLM_SHA256:
        raise BuildProblem(
            f"{archive.name} has sha256 {digest}, expected {KENLM_SHA256}: not building from it"
        )
    return archive


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        # Debian 12's Python 3.11.2 has no filters yet; the archive's hash was checked before.
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:
            tar.extractall(folder)


def query_sources(source: Path) -> list[Path]:
    """KenLM's files that are needed to query a model, without its programs and tests."""
    folders = [source / "lm", source / "util", source / "util" / "double-conversion"]
    return [
        file
        for folder in folders
        for file in sorted(folder.glob("*.cc"))
        if not file.name.endswith(("main.cc", "test.cc"))
    ]


def compile_objects(
    compiler: Sequence[str],
    sources: Iterable[Path],
    folder: Path,
    flags: Sequence[str],
    newest_header: float = 0.0,
) -> list[Path]:
    """Compiles each source whose object in `folder` is missing or old, on all cores.

    Args:
        compiler: the compiler's command line, such as `["g++"]`.
        sources: C++ files.
        folder: where the objects go; files compiled with other flags go to another subfolder of it.
        flags: everything but `-c`, `-o` and the file.
        newest_header: modification time (seconds) of the newest header that the sources may include.

    Returns:
        The object files, in the order of `sources`.

    Raises:
        BuildProblem: the compiler is missing or refuses a file.
    """
    key = hashlib.sha256("\0".join([*compiler, *flags]).encode()).hexdigest()[:12]
    folder = folder / key
    folder.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.parent.name}_{source.stem}.o"
        if target.is_file() and target.stat().st_mtime >= max(source.stat().st_mtime, newest_header):
            return target
        partial = target.with_suffix(f".{os.getpid()}.partial")
        command = [*compiler, *flags, "-c", str(source), "-o", str(partial)]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
        if outcome.stderr:
            sys.stderr.write(outcome.stderr)
        if outcome.returncode != 0:
            raise BuildProblem(f"the C++ compiler failed on {source} (its messages stand above)")
        partial.replace(target)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, sources))


def kenlm_objects(compiler: Sequence[str], source: Path, *programs: str) -> list[Path]:
    """Compiles KenLM's query part, or takes what is compiled already.

    Args:
        compiler: the compiler's command line.
        source: KenLM's tree.
        programs: files with a `main` to compile besides, such as `lm/build_binary_main.cc`.

    Returns:
        The object files, those of the programs last.
    """
    sources = [*query_sources(source), *(source / program for program in programs)]
    flags = [*KENLM_FLAGS, *_DEFINES, f"-I{source}"]
    return compile_objects(compiler, sources, BUILD_DIRECTORY / "objects", flags)


def require_compiler(command: Sequence[str]) -> list[str]:
    """The C++ compiler's command line, checked to exist.

    Args:
        command: what the environment or Python's own configuration names.

    Raises:
        BuildProblem: there is no such program, or Python's headers are missing.
    """
    if not command or shutil.which(command[0]) is None:
        name = command[0] if command else "g++"
        raise BuildProblem(f"no C++ compiler ({name}): the decoder needs one; on Debian: apt-get install g++")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        raise BuildProblem(f"no Python headers ({header}): on Debian: apt-get install python3-dev")
    return list(command)


def is_gcc(compiler: Sequence[str]) -> bool:
    """Whether a compiler's command line runs GCC, whatever its name is."""
    answer = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False)
    return "Free Software Foundation" in answer.stdout


def decoder_extension() -> Extension:
    """The extension `longhand_decoder._core`; `BuildExtension` adds KenLM to it."""
    sources = sorted((ROOT / "decoder_ext" / "src").glob("*.cc"))
    return Extension(EXTENSION_NAME, [str(file.relative_to(ROOT)) for file in sources], language="c++")


class BuildExtension(build_ext):
    """Compiles KenLM and the decoder and links them into one extension module."""

    def build_extension(self, ext: Extension) -> None:
        """Builds `ext`; any extension but the decoder's is left to setuptools."""
        if ext.name != EXTENSION_NAME:
            super().build_extension(ext)
            return
        import pybind11

        compiler = require_compiler(self.compiler.compiler_so_cxx)
        source = kenlm_source()
        linked = kenlm_objects(compiler, source)
        own = ROOT / "decoder_ext"
        headers = [
            path
            for pattern in ("src/*.h", "src/*.inc", "include/longhand_decoder/*.h")
            for path in own.glob(pattern)
        ]
        includes = [own / "include", own / "src", pybind11.get_include(), sysconfig.get_path("include")]
        own_flags = [*DECODER_FLAGS, *(GCC_FLAGS if is_gcc(compiler) else [])]
        flags = [*own_flags, *_DEFINES, f"-isystem{source}", *(f"-I{folder}" for folder in includes)]
        newest = max(header.stat().st_mtime for header in headers)
        sources = [ROOT / file for file in ext.sources]
        linked += compile_objects(compiler, sources, BUILD_DIRECTORY / "objects", flags, newest)
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(
            [str(file) for file in linked],
            str(target),
            extra_postargs=[*own_flags, "-pthread", "-Wl,--exclude-libs,ALL"]
            if sys.platform == "linux"
            else [*own_flags, "-pthread"],
            target_lang="c++",
        )
