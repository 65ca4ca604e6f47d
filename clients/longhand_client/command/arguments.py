"""The command line's arguments, and what they mean for a connection and a request."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from longhand_client._version import __version__
from longhand_client.client import RecognizerClient
from longhand_client.command.inputs import text_rows
from longhand_client.connection import DEFAULT_ADDRESS, Tls
from longhand_client.options import RecognitionOptions, with_language_weight

ARCHIVE_FORMATS = ("alto", "hocr", "page")  # of a document an image
FORMATS = ("text", "json", "tsv", *ARCHIVE_FORMATS)
EPILOG = """\
longhand serve ...    run a server (as `python -m longhand_server`)
longhand models       list what a server can read with
longhand health       whether a server is ready
longhand batch ...    read any number of images into Parquet or JSON lines,
                      without a server

exit codes: 0 all read, 1 some image failed (named on stderr), 2 usage,
3 no server, 130 stopped by Ctrl-C
"""


def connection_parser() -> argparse.ArgumentParser:
    """The arguments that say where the server is; a parent of every parser."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("server")
    group.add_argument(
        "--address",
        action="append",
        metavar="HOST:PORT",
        help=f"where the server is (default {DEFAULT_ADDRESS}); repeated: calls take turns",
    )
    group.add_argument(
        "--timeout",
        type=positive,
        default=30.0,
        metavar="S",
        help="seconds a call may take (default: %(default)s)",
    )
    add_credentials(group)
    return parser


def add_credentials(group: argparse._ActionsContainer) -> None:
    """Adds the arguments that `credentials` reads."""
    group.add_argument("--token-file", metavar="FILE", help="a file with the bearer token")
    group.add_argument("--tls", action="store_true", help="encrypt, and trust the usual authorities")
    group.add_argument("--tls-ca", metavar="FILE", help="encrypt, and trust the authorities of this PEM file")
    group.add_argument(
        "--tls-cert", metavar="FILE", help="this client's certificate (PEM), if it is asked for"
    )
    group.add_argument("--tls-key", metavar="FILE", help="its key (PEM)")


def connects(options: argparse.Namespace) -> bool:
    """Whether an argument says where a server is, or how to reach it."""
    names = ("address", "token_file", "tls", "tls_ca", "tls_cert", "tls_key")
    return any(getattr(options, name) for name in names)


def read_parser() -> argparse.ArgumentParser:
    """The parser of `longhand IMAGE ...`."""
    parser = argparse.ArgumentParser(
        prog="longhand",
        usage="longhand [--help] [options] IMAGE ...",
        description="Reads images of handwritten lines with a Longhand server and prints their text.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[connection_parser()],
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="an image of one line, a folder (searched recursively), a pattern, or - for standard input",
    )
    parser.add_argument("--version", action="version", version=f"longhand {__version__}")
    parser.add_argument("--manifest", metavar="TSV", help="also read the images named in the first column")
    parser.add_argument("--local", action="store_true", help="read in this process, without a server")
    _add_output(parser.add_argument_group("output"))
    _add_recognition(parser.add_argument_group("how to read"))
    return parser


def parse_read(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parses them; options may stand between images, and what follows `--` is images only."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    # Behind `--`, Python 3.11 would take images for options here.
    options = parser.parse_intermixed_args(arguments[:end])
    options.images += arguments[end + 1 :]
    return options


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--format", choices=FORMATS, default="text", help="how to write readings (default: %(default)s)"
    )
    for name in ("json", "tsv"):
        group.add_argument(
            f"--{name}", dest="format", action="store_const", const=name, help=f"short for --format {name}"
        )
    group.add_argument(
        "--out",
        metavar="PATH",
        help="write to this file (ALTO, hOCR, PAGE: into this folder); - = standard output",
    )
    group.add_argument(
        "--resume", action="store_true", help="go on with --out: skip the images that it holds"
    )
    group.add_argument("--words", action="store_true", help="give each word with its place and confidence")
    group.add_argument("--characters", action="store_true", help="give each character likewise")
    group.add_argument(
        "--reference", metavar="TSV", help="rows of image TAB text: print error rates, and what was misread"
    )
    group.add_argument("--show", metavar="PNG", help="draw the reading under the line (a folder for several)")
    group.add_argument(
        "--look-ahead",
        type=count,
        default=64,
        metavar="N",
        help="images on their way at once (default: %(default)s)",
    )


def _add_recognition(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        default="",
        metavar="NAME",
        help="the model (default: the server's); with --local also a model's folder",
    )
    group.add_argument("--decoder", choices=("greedy", "beam"), help="default: the model's choice")
    group.add_argument("--beam-width", type=count, metavar="N", help="hypotheses kept after each frame")
    group.add_argument(
        "--alternatives",
        type=count,
        default=1,
        metavar="N",
        help="give the N best readings (beam search only)",
    )
    group.add_argument(
        "--lm-weight",
        type=not_negative,
        metavar="F",
        help="multiply the weights of the language models by F (0 = none; beam search only)",
    )
    group.add_argument(
        "--hotwords",
        metavar="FILE",
        help="words to expect, one a line, or word TAB boost (default: 2; 2 to 5 helps, more than 8 harms)",
    )
    group.add_argument("--allowed-characters", default="", metavar="CHARS", help="read only these")


def make_client(options: argparse.Namespace) -> RecognizerClient:
    """The client for the arguments.

    Raises:
        ValueError: an address or a token that makes no sense.
        OSError: a file that cannot be read.
    """
    tls, token = credentials(options)
    addresses = options.address or [DEFAULT_ADDRESS]
    return RecognizerClient(
        addresses[0] if len(addresses) == 1 else addresses, timeout_s=options.timeout, tls=tls, token=token
    )


def credentials(options: argparse.Namespace) -> tuple[Tls | None, str | None]:
    """How to encrypt, and the token, from the arguments of `add_credentials`.

    Raises:
        ValueError: a file that holds no token or is no PEM file, or a key without its certificate.
        OSError: a file that cannot be read.
    """
    authorities, certificate, key = map(_read_pem, (options.tls_ca, options.tls_cert, options.tls_key))
    if (certificate is None) != (key is None):
        raise ValueError("--tls-cert and --tls-key go together")
    tls = None
    if options.tls or authorities is not None or certificate is not None:
        tls = Tls(root_certificates=authorities, certificate_chain=certificate, private_key=key)
    if options.token_file is None:
        return tls, None
    token = Path(options.token_file).read_bytes().strip().decode("ascii", "replace")
    if not (token and token.isascii() and token.isprintable()):
        raise ValueError(f"{options.token_file}: need one token, one line of ASCII characters")
    return tls, token


def _read_pem(name: str | None) -> bytes | None:
    if name is None:
        return None
    content = Path(name).read_bytes()
    if b"-----BEGIN " not in content:
        raise ValueError(f"{name}: no PEM file")
    return content


def recognition_options(options: argparse.Namespace, client: RecognizerClient) -> RecognitionOptions:
    """How to read, from the arguments.

    Args:
        options: parsed arguments.
        client: asked for the model's own weights where --lm-weight scales them.

    Raises:
        ValueError: the file of hotwords makes no sense.
        OSError: it cannot be read.
        LonghandError: the server cannot say what its weights are.
    """
    archive = options.format in ARCHIVE_FORMATS
    request = RecognitionOptions(
        model=options.model,
        decoder=options.decoder,
        beam_width=options.beam_width,
        hotwords={} if options.hotwords is None else read_hotwords(options.hotwords),
        alternatives=options.alternatives,
        words=options.words or archive,
        characters=options.characters or archive or options.show is not None,
        allowed_characters=options.allowed_characters,
    )
    if options.lm_weight is None:
        return request
    return with_language_weight(request, client.model(options.model), options.lm_weight)


def read_hotwords(path: str) -> dict[str, float | None]:
    """Reads a file of `word` or `word TAB boost` rows.

    Raises:
        ValueError: a boost is no number, or a row no UTF-8 text (which one is named).
        OSError: the file cannot be read.
    """
    words: dict[str, float | None] = {}
    for number, line in text_rows(path):
        word, separator, boost = line.partition("\t")
        if not word.strip():
            continue
        try:
            words[word.strip()] = float(boost) if separator else None
        except ValueError as error:
            raise ValueError(f"{path} line {number}: the boost {boost!r} is no number") from error
    return words


def positive(text: str) -> float:
    """An argument that is a number above 0."""
    value = _number(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"got {text}, need a number above 0")
    return value


def not_negative(text: str) -> float:
    """An argument that is a number of at least 0."""
    value = _number(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"got {text}, need a number of at least 0")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def count(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"got {text}, need a whole number of at least 1")
    return int(text)
