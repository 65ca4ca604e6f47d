"""Every sort of bad image, with what its error must say."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from helpers import image_samples as samples

_LINE = Image.fromarray(samples.line_pixels())


def _cut(kind: str, share: float, **options: object) -> bytes:
    data = samples.encode(_LINE, kind, **options)
    return data[: int(len(data) * share)]


def _two_pages() -> bytes:
    return samples.encode(_LINE, "TIFF", save_all=True, append_images=[_LINE])


def _animated(kind: str) -> bytes:
    other = Image.fromarray(255 - samples.line_pixels())
    return samples.encode(_LINE, kind, save_all=True, append_images=[other], duration=100)


def _broken_data() -> bytes:
    return samples.png(64, 64, samples.chunk(b"IDAT", os.urandom(500)), samples.END)


def bad_images() -> dict[str, tuple[bytes, str]]:
    """Name -> (file, a part of the message that must come)."""
    thin = Image.fromarray(np.zeros((40, 2), np.uint8))
    return {
        "empty": (b"", "got 0 bytes"),
        "text": (b"dear sir, please find attached\n" * 40, "bytes of"),
        "random": (np.random.default_rng(1).bytes(5_000), "unknown format"),
        "gif": (b"GIF89a" + bytes(200), "a GIF"),
        "pdf": (b"%PDF-1.7" + bytes(200), "a PDF"),
        "heic": (b"\x00\x00\x00\x18ftypheic" + bytes(200), "HEIC"),
        "bigtiff": (b"II+\x00" + bytes(200), "BigTIFF"),
        "only PNG magic": (b"\x89PNG\r\n\x1a\n", "truncated PNG"),
        "only JPEG magic": (b"\xff\xd8\xff", "truncated JPEG"),
        "only WebP magic": (b"RIFF\x04\x00\x00\x00WEBP", "truncated WebP"),
        "only TIFF magic": (b"II*\x00", "truncated TIFF"),
        "only BMP magic": (b"BM", "truncated BMP"),
        **{
            f"cut {kind} {share}": (_cut(kind, share), f"truncated {name}")
            for kind, name in (("PNG", "PNG"), ("JPEG", "JPEG"), ("WEBP", "WebP"), ("BMP", "BMP"))
            for share in (0.1, 0.5, 0.99)
        },
        "cut TIFF": (_cut("TIFF", 0.5), "truncated TIFF"),
        "0 x 0 PNG": (samples.png(0, 0, samples.chunk(b"IDAT", b""), samples.END), "0x0"),
        "0 high PNG": (samples.png(40, 0, samples.chunk(b"IDAT", b""), samples.END), "40x0"),
        "0 wide BMP": (samples.bmp(0, 40), "width of 0"),
        "0 high BMP": (samples.bmp(40, 0), "40x0"),
        "0 x 0 TIFF": (samples.plain_tiff(0, 0), "TIFF"),
        "219 bytes that claim 4 GB": (samples.png_with_lying_chunk(), "claims 4294967280 bytes"),
        "20000 x 20000": (samples.png_of_zeros(20_000, 20_000), "20000x20000"),
        "2 px wide": (samples.encode(thin, "PNG"), "2x40"),
        "2 px high": (samples.encode(thin.transpose(Image.Transpose.ROTATE_90), "PNG"), "40x2"),
        "huge BMP": (samples.bmp(2_000_000_000, 2_000_000_000), "truncated BMP"),
        "BMP with RLE": (samples.bmp(64, 64, 8, 1, bytes(5_000)), "compression 1"),
        "huge TIFF strips": (samples.plain_tiff(60_000, 60_000), "TIFF"),
        "TIFF without pixels": (samples.plain_tiff(64, 64, tag_273=1 << 30), "truncated TIFF"),
        "TIFF of JPEG": (samples.plain_tiff(64, 64, tag_259=7), "compression 7"),
        "TIFF of 0-row strips": (samples.plain_tiff(64, 64, tag_278=0), "strips of 0 rows"),
        "TIFF without sample sizes": (
            samples.tiff([(256, 4, 1, 9), (257, 4, 1, 9), (258, 3, 0, 0), (273, 4, 1, 8), (279, 4, 1, 9)]),
            "TIFF",
        ),
        "TIFF of two pages": (_two_pages(), "several pages"),
        "TIFF of 200 huge fields": (
            samples.tiff([(256 + n, 4, 0x0FFFFFFF, 8) for n in range(200)]),
            "field 256 has 268435455 values",
        ),
        "TIFF with a field out of the file": (
            samples.tiff([(256, 4, 1, 64), (257, 4, 1, 64), (273, 4, 60_000, 8)]),
            "truncated TIFF",
        ),
        "TIFF of two widths": (samples.tiff_of_two_sizes(8_000, 16), "field 256 is there twice"),
        "TIFF of one huge tile": (samples.tiled_tiff(3, 32_768, 1_024, 65_536), "tiles of 1024x65536"),
        "TIFF of 2,048 thin tiles": (samples.tiled_tiff(32_768, 3, 16, 65_536), "tiles of 16x65536"),
        "TIFF of two orders of samples": (
            samples.plain_tiff(64, 64, tag_258=(11, 8)),
            "field 258 has 1 values of type 11",
        ),
        "WebP of two pictures": (samples.webp_of_two_pictures(8_000), "two pictures"),
        "animated PNG": (_animated("PNG"), "animated"),
        "animated WebP": (_animated("WEBP"), "animated"),
        "PNG of 40,000 chunks": (
            samples.png(64, 64, samples.chunk(b"tEXt", b"") * 40_000, samples.END),
            "more than",
        ),
        "PNG with noise for data": (_broken_data(), "damaged PNG"),
        "JPEG of 400 scans": (samples.progressive_jpeg_of_scans(256, 256, 400), "scans"),
        "5 MB": (samples.encode(_LINE, "PNG") + bytes(5_000_000), "at most 4194304"),
    }
