"""Builds the protobuf stubs and the C++ decoder, and says which folder holds which package.

Everything else about the distribution stands in pyproject.toml.

Environment:
    LONGHAND_CLIENT_ONLY: where it is set to 1, only the client and the protocol are built and installed: no decoder,
        so that no compiler is needed, and no model.
    KENLM_SOURCE_DIR: see decoder_ext/kenlm_build.py.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import ClassVar

from setuptools import Command, find_packages, setup
from setuptools.command.build import build
from setuptools.errors import ExecError

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "decoder_ext"))

from kenlm_build import BuildExtension, decoder_extension  # noqa: E402

PROTO_ROOT = "proto"
PROTO_FILES = ("longhand/v1/recognition.proto", "longhand/oip/inference.proto")

# Each importable package lies one level below the top folder that owns it.
PACKAGE_ROOTS = {
    "longhand": PROTO_ROOT,
    "longhand_client": "clients",
    "longhand_decoder": "decoder_ext",
    "longhand_server": "server",
    "longhand_training": "training",
    "longhand_web": "clients/web",
}
CLIENT_PACKAGES = ("longhand", "longhand_client")
CLIENT_ONLY = os.environ.get("LONGHAND_CLIENT_ONLY") == "1"


class BuildStubs(Command):
    """Writes `longhand/*/*_pb2*.py` and their type stubs from the .proto files.

    A wheel gets them through the build folder; an editable install gets them beside their .proto file.
    """

    description = "generate the protobuf and gRPC modules"
    user_options: ClassVar = [
        ("inplace", "i", "write them beside their .proto files"),
        ("descriptor-set=", None, "only write this file of descriptors, which `buf lint` reads"),
    ]
    boolean_options: ClassVar = ["inplace"]

    def initialize_options(self) -> None:
        self.build_lib: str | None = None
        self.editable_mode = False
        self.inplace = False
        self.descriptor_set: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        from grpc_tools import protoc

        arguments = [
            "protoc",
            f"--proto_path={ROOT / PROTO_ROOT}",
            *(f"--proto_path={folder}" for folder in _google_protos()),
            *self._outputs(),
            *PROTO_FILES,
        ]
        if protoc.main(arguments) != 0:
            raise ExecError(f"protoc could not compile {', '.join(PROTO_FILES)} (its messages stand above)")

    def _outputs(self) -> list[str]:
        if self.descriptor_set is not None:
            Path(self.descriptor_set).parent.mkdir(parents=True, exist_ok=True)
            return [
                "--include_imports",
                "--include_source_info",
                f"--descriptor_set_out={self.descriptor_set}",
            ]
        destination = self._destination()
        destination.mkdir(parents=True, exist_ok=True)
        return [
            f"--plugin=protoc-gen-mypy={_plugin('protoc-gen-mypy')}",
            f"--plugin=protoc-gen-mypy_grpc={_plugin('protoc-gen-mypy_grpc')}",
            f"--python_out={destination}",
            f"--grpc_python_out={destination}",
            f"--mypy_out={destination}",
            f"--mypy_grpc_out={destination}",
        ]

    def get_source_files(self) -> list[str]:
        return [f"{PROTO_ROOT}/{name}" for name in PROTO_FILES]

    def get_outputs(self) -> list[str]:
        suffixes = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
        stems = [self._destination() / Path(name).with_suffix("") for name in PROTO_FILES]
        return [f"{stem}{suffix}" for stem in stems for suffix in suffixes]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def _destination(self) -> Path:
        if self.editable_mode or self.inplace or self.build_lib is None:
            return ROOT / PROTO_ROOT
        return Path(self.build_lib)


def _google_protos() -> tuple[Path, Path]:
    """The folders that hold google/protobuf/*.proto (grpcio-tools) and google/rpc/*.proto (googleapis)."""
    import grpc_tools
    from google.rpc import status_pb2

    return Path(grpc_tools.__file__).parent / "_proto", Path(status_pb2.__file__).parents[2]


def _plugin(name: str) -> str:
    # A virtual environment that is used without being activated has its scripts beside its interpreter,
    # an isolated build has them on PATH.
    folders = [os.environ.get("PATH", ""), str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise ExecError(f"{name} not found: pip install -c constraints.txt mypy-protobuf")
    return found


def _packages() -> list[str]:
    names: list[str] = []
    for package in CLIENT_PACKAGES if CLIENT_ONLY else PACKAGE_ROOTS:
        root = PACKAGE_ROOTS[package]
        names += find_packages(str(ROOT / root), include=[package, f"{package}.*"])
    return names


class Build(build):
    """The standard build, with the stubs made first."""

    sub_commands: ClassVar = [("build_stubs", None), *build.sub_commands]

    def run(self) -> None:
        # What an earlier build left there would go into the wheel, also where its source is gone. What was compiled
        # stays: it takes minutes.
        for path in Path(self.build_lib).rglob("*"):
            if path.is_file() and path.suffix != ".so":
                path.unlink()
        super().run()


setup(
    packages=_packages(),
    # What is not code is named below; setuptools would take folders of it for packages and warn.
    include_package_data=False,
    package_dir={package: f"{root}/{package}" for package, root in PACKAGE_ROOTS.items()},
    package_data={
        "longhand": ["py.typed", "*/*.proto"],
        "longhand_client": ["py.typed"],
        "longhand_decoder": ["py.typed", "*.pyi"],
        "longhand_server": ["py.typed", "models/**/*"],
        "longhand_training": ["py.typed", "iam_partitions/*.txt"],
        "longhand_web": ["py.typed", "static/*"],
    },
    ext_modules=[] if CLIENT_ONLY else [decoder_extension()],
    cmdclass={"build": Build, "build_stubs": BuildStubs, "build_ext": BuildExtension},
)
