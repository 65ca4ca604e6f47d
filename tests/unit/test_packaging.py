"""What is installed, what `make` offers and what documents say of both agree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import longhand_client
import longhand_server

ROOT = Path(__file__).parents[2]
MAKEFILES = (ROOT / "Makefile", *sorted(ROOT.glob("*/*.mk")))
DOCUMENTS = [
    path
    for folder in (".", "clients", "decoder_ext", "evaluation", "examples", "server", "training")
    for path in sorted((ROOT / folder).glob("*.md"))
]
# Says what setup.py would build, and builds nothing.
SETUP = """
import runpy, setuptools
setuptools.setup = lambda **k: print(*sorted(k["packages"]), *(e.name for e in k["ext_modules"]))
runpy.run_path("setup.py")
"""


def what_setup_builds(client_only: str) -> set[str]:
    environment = os.environ | {"LONGHAND_CLIENT_ONLY": client_only}
    done = subprocess.run(
        [sys.executable, "-c", SETUP], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_all_packages_are_installed() -> None:
    files = [*ROOT.glob("*/longhand*/**/*.py"), *ROOT.glob("clients/web/longhand*/**/*.py")]
    folders = {path.parent for path in files}
    packages = {str(folder)[str(folder).index("/longhand", len(str(ROOT))) + 1 :] for folder in folders}
    assert what_setup_builds("") == {name.replace("/", ".") for name in packages} | {"longhand_decoder._core"}


def test_files_that_are_not_code_are_installed_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib"]
    done = subprocess.run(
        [*command, str(tmp_path / "lib")], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "would be ignored" not in done.stdout + done.stderr
    for name in (
        "server/longhand_server/models/en",
        "training/longhand_training/iam_partitions",
        "clients/web/longhand_web/static",
    ):
        installed = tmp_path / "lib" / name[name.index("longhand_") :]
        assert {path.name for path in installed.iterdir()} == {path.name for path in (ROOT / name).iterdir()}


def test_the_client_alone_has_no_decoder_and_no_model() -> None:
    built = what_setup_builds("1")
    assert {"longhand.v1", "longhand_client.command"} < built
    assert {name.partition(".")[0] for name in built} == {"longhand", "longhand_client"}


def test_every_requirement_is_pinned_within_its_range() -> None:
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pinned[canonicalize_name(name)] = version
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = configuration["project"]
    texts = [*configuration["build-system"]["requires"], *project["dependencies"]]
    texts += [text for extra in project["optional-dependencies"].values() for text in extra]
    requirements = [Requirement(text) for text in texts]
    for requirement in requirements:
        if requirement.name not in ("longhand", "pip"):
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert longhand_client.__version__ == longhand_server.__version__ == version
    for path in (ROOT / "server" / "deploy").rglob("*.yaml"):
        tags = re.findall(r"newTag: (\S+)|image: longhand[\w-]*:(\S+)", path.read_text())
        assert {tag or image for tag, image in tags} <= {version}, path


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_help_lists_every_command() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    listed = re.findall(r"^  ([a-z-]+) +\S", done.stdout, re.MULTILINE)
    text = "".join(path.read_text() for path in MAKEFILES)
    assert sorted(listed) == sorted(re.findall(r"^\.PHONY: (\S+)$", text, re.MULTILINE))
    assert sorted(listed) == sorted(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    # Wrapped, not cut.
    shown = " ".join(done.stdout.split())
    for description in re.findall(r"^[a-z][a-z-]*:.*?## (.*)$", text, re.MULTILINE):
        assert description in shown


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_example_in_cpp_installs_what_it_needs(tmp_path: Path) -> None:
    # A new environment of Python 3.12 or later has no setuptools, which kenlm_build imports.
    command = ["make", "--dry-run", f"VENV={tmp_path / 'venv'}", "decoder-example"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    commands = done.stdout
    assert 0 < commands.find(".ci/install package") < commands.find("import kenlm_build")
    assert f"{tmp_path}/venv/bin/python -c" in commands


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("folder", ["proto/longhand", "decoder_ext/src", "decoder_ext/include"])
def test_a_change_of_any_source_is_built_again(folder: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("bin/python", ".stamp-runtime"):
        (tmp_path / name).touch()
    command = ["make", "--dry-run", f"VENV={tmp_path}", "demo"]
    suffixes = (".proto", ".cc", ".h", ".inc")
    sources = [path for path in (ROOT / folder).rglob("*.*") if path.suffix in suffixes]
    assert sources
    for source in [None, *sources]:
        changed = [] if source is None else [f"--what-if={source.relative_to(ROOT)}"]
        done = subprocess.run([*command, *changed], cwd=ROOT, capture_output=True, text=True, check=True)
        assert (".ci/install rebuild" in done.stdout) == bool(changed), source


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_an_environment_of_another_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("bin/python", ".stamp-runtime"):
        (tmp_path / name).touch()
    command = ["make", f"VENV={tmp_path}", str(tmp_path / ".stamp-runtime")]
    for folder, code in ((ROOT.resolve(), 0), (tmp_path / "old name", 2)):
        (tmp_path / ".made-in").write_text(f"{folder}\n")
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
    assert f"was made in {tmp_path}/old name" in done.stderr
    assert "`make clean`" in done.stderr


def test_documents_name_commands_and_files_that_exist() -> None:
    commands = set(re.findall(r"^\.PHONY: (\S+)$", "".join(p.read_text() for p in MAKEFILES), re.MULTILINE))
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for words in re.findall(r"(?:`|^\$ )make ((?:[a-z][a-z-]* ?)+)", text, re.MULTILINE):
            assert set(words.split()) <= commands, f"{path}: make {words}"
        for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
            assert (path.parent / link).exists(), f"{path}: {link}"
