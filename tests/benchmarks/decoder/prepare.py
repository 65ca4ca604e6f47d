"""Makes what `make bench-decoder` measures on, where it is not there yet.

Network outputs: of the shipped model, for the pen lines of ../shared/data that training has not seen; made again when
the model changes. Every fourth is for tuning; the others, drawn plainly and as worn ink, are measured.

The peers split text at spaces alone, so they get a word model of their own, a 4-gram over words as they stand.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import subprocess
import sys
from pathlib import Path

from longhand_server.bundle import load_bundle
from longhand_training.dataset import Sample
from longhand_training.kenlm_tools import kenlm_tools
from longhand_training.line_sets import validation_sets
from longhand_training.outputs import compute_outputs

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT.parent / "shared" / "data"
BUNDLE = ROOT / "server" / "longhand_server" / "models" / "en"
CORPORA = (
    "brown",
    "state_union",
    "inaugural",
    "standardebooks_nonfiction",
    "standardebooks_fiction",
    "gutenberg",
)


def make_outputs(development: Path, lines: Path) -> None:
    """Writes both archives."""
    bundle = load_bundle(BUNDLE)
    sets = validation_sets(DATA, bundle.line)
    for_tuning: list[Sample] = sets["pen"][::4]
    measured = [s for name in ("pen", "ink") for i, s in enumerate(sets[name]) if i % 4 != 0]
    for path, samples in ((development, for_tuning), (lines, measured)):
        path.parent.mkdir(parents=True, exist_ok=True)
        compute_outputs(bundle, samples).save(path)


def make_peer_model(model: Path, unigrams: Path) -> None:
    """Writes a 4-gram over words that end at spaces, and the list of its words."""
    tools = kenlm_tools()
    arpa = model.with_suffix(".arpa")
    command: list[str | Path] = [tools.lmplz, "-o", "4", "-S", "2G", "--arpa", arpa]
    command += ["--prune", "0", "0", "1", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as lmplz:
        assert lmplz.stdin is not None
        for name in CORPORA:
            with lzma.open(DATA / "text" / f"{name}.txt.xz") as corpus:
                while block := corpus.read(1 << 20):
                    lmplz.stdin.write(block)
    if lmplz.returncode != 0:
        raise SystemExit(f"lmplz failed with status {lmplz.returncode}")
    packed: list[str | Path] = [
        tools.build_binary,
        "-s",
        "-q",
        "8",
        "-b",
        "8",
        "-a",
        "22",
        "trie",
        arpa,
        model,
    ]
    subprocess.run(packed, check=True, capture_output=True)
    unigrams.write_text("\n".join(read_vocabulary(arpa)), encoding="utf-8")
    arpa.unlink()


def read_vocabulary(arpa: Path) -> list[str]:
    """The words of an ARPA file, without the three special ones."""
    words = []
    inside = False
    with arpa.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("\\"):
                if inside:
                    break
                inside = line.startswith("\\1-grams")
            elif inside and "\t" in line:
                words.append(line.split("\t")[1].strip())
    return [word for word in words if word not in ("<unk>", "<s>", "</s>")]


def main() -> int:
    """Makes what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--out", "--development", "--lines", "--peer-word-model", "--peer-unigrams"):
        parser.add_argument(name, type=Path, required=True)
    arguments = parser.parse_args()
    outputs = arguments.development, arguments.lines
    peer = arguments.peer_word_model, arguments.peer_unigrams
    missing = [group for group in (outputs, peer) if not all(path.is_file() for path in group)]
    stamp = arguments.out / "outputs.sha256"
    model = hashlib.sha256(BUNDLE.joinpath("bundle.json").read_bytes()).hexdigest()
    ours = all(path.parent == arguments.out for path in outputs)
    if outputs not in missing and ours and not (stamp.is_file() and stamp.read_text() == model):
        missing.append(outputs)  # another model's
    if missing and not DATA.is_dir():
        print(
            f"longhand: {DATA} is not there: name archives and models with DEVELOPMENT=, LINES=, ...",
            file=sys.stderr,
        )
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    if outputs in missing:
        make_outputs(*outputs)
        stamp.write_text(model)
    if peer in missing:
        make_peer_model(*peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
