"""Builds the extension with AddressSanitizer and UndefinedBehaviorSanitizer into `build/sanitize/`.

`make sanitize` runs the decoder's tests and the fuzzer on it. KenLM is built with AddressSanitizer only: its packed
arrays are read at odd addresses on purpose.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kenlm_build import (
    BUILD_DIRECTORY,
    KENLM_DEFINES,
    ROOT,
    compile_objects,
    kenlm_source,
    query_sources,
    require_compiler,
)

COMMON = ["-g", "-O1", "-fPIC", "-std=c++17", "-fno-omit-frame-pointer", "-DLONGHAND_NO_CLONES", "-Wno-psabi"]
CHECKS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-D_GLIBCXX_ASSERTIONS"]


def main() -> None:
    """Builds and prints the folder to put on PYTHONPATH."""
    import pybind11

    compiler = require_compiler(["g++"])
    source = kenlm_source()
    own = ROOT / "decoder_ext"
    defines = [f"-D{name}={value}" for name, value in KENLM_DEFINES if value is not None]
    includes = [own / "include", own / "src", pybind11.get_include(), sysconfig.get_path("include")]
    flags = [*COMMON, *CHECKS, *defines, f"-isystem{source}", *(f"-I{folder}" for folder in includes)]
    kenlm_flags = [*COMMON, "-w", "-DNDEBUG", "-fsanitize=address", *defines, f"-I{source}"]
    objects = BUILD_DIRECTORY / "objects"
    headers = [*own.glob("src/*.h"), *own.glob("include/longhand_decoder/*.h")]
    newest = max(header.stat().st_mtime for header in headers)
    linked = compile_objects(compiler, query_sources(source), objects, kenlm_flags)
    linked += compile_objects(compiler, sorted(own.glob("src/*.cc")), objects, flags, newest)
    package = BUILD_DIRECTORY / "sanitize" / "longhand_decoder"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(own / "longhand_decoder", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    target = package / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run([*compiler, "-shared", "-pthread", *CHECKS, "-o", target, *linked], check=True)
    print(package.parent)


if __name__ == "__main__":
    main()
