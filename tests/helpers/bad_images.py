"""Every sort of bad image, with what its error must say."""

from __future__ import annotations

import base64
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


def _damaged_tiff(packing: str) -> bytes:
    """A TIFF whose packed pixels are 0 from the middle of the file on, where its directory comes first."""
    data = samples.encode(_LINE, "TIFF", compression=packing)
    directory = int.from_bytes(data[4:8], "little")
    if directory > 8:
        middle = directory // 2
        return data[:middle] + bytes(directory - middle) + data[directory:]
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def _damaged_tiles() -> bytes:
    data = samples.tiled_tiff(256, 64, 64, 64, samples=1, bits=8)
    packed = samples.packed_zeros(64 * 64)
    return data.replace(packed, packed[: len(packed) // 2] + bytes(len(packed) - len(packed) // 2))


def _short_strips() -> bytes:
    """A TIFF of 16 x 4 pixels in two strips, the second of which is too short."""
    start = 8 + 2 + 12 * 8 + 4
    fields = [(256, 4, 1, 16), (257, 4, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    fields += [(273, 3, 2, start | start << 16), (278, 3, 1, 2), (279, 3, 2, 32 | 20 << 16)]
    return samples.tiff(fields, bytes(64))


def _uncompressed_tile(side: int) -> bytes:
    start = 8 + 2 + 12 * 9 + 4
    fields = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    fields += [(322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, start), (325, 4, 1, side * side)]
    return samples.tiff(fields, bytes(side * side))


def _utf8_of_png() -> bytes:
    return samples.encode(_LINE, "PNG").decode("utf-8", "replace").encode()


def bad_images() -> dict[str, tuple[bytes, str]]:
    """Name -> (file, a part of the message that must come)."""
    thin = Image.fromarray(np.zeros((40, 2), np.uint8))
    return {
        "empty": (b"", "got 0 bytes"),
        "text": (b"dear sir, please find attached\n" * 40, "1240 bytes of text"),
        "French text": ("reçu de M. Lefèvre\n".encode() * 40, "bytes of text"),
        "text cut in a letter": (b"x" * 511 + "è".encode(), "513 bytes of text"),
        "random": (np.random.default_rng(1).bytes(5_000), "unknown format"),
        "gif": (b"GIF89a" + bytes(200), "a GIF"),
        "pdf": (b"%PDF-1.7" + bytes(200), "a PDF"),
        "svg": (b"\n <svg/>", "HTML, SVG or XML"),
        "web page": (b"\xef\xbb\xbf\r\n<!DOCTYPE html>", "HTML, SVG or XML"),
        "heic": (b"\x00\x00\x00\x18ftypheic" + bytes(200), "a HEIC"),
        "avif": (b"\x00\x00\x00\x18ftypavif" + bytes(200), "an AVIF"),
        "mp4": (b"\x00\x00\x00\x18ftypisom" + bytes(200), "a video"),
        "jpeg 2000": (b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(200), "a JPEG 2000"),
        "jpeg xl": (b"\xff\x0a" + bytes(200), "a JPEG XL"),
        "djvu": (b"AT&TFORM\x00\x00\x00\x99DJVU" + bytes(200), "a DjVu"),
        "zeros": (bytes(5_000), "5000 bytes that are all 0"),
        "PNG in base64": (base64.b64encode(samples.encode(_LINE, "PNG")), "an image in base64"),
        "BMP in base64": (base64.b64encode(samples.encode(_LINE, "BMP")), "an image in base64"),
        "PNG as UTF-8": (_utf8_of_png(), "converted to UTF-8"),
        "PNG as lines": (samples.encode(_LINE, "PNG").replace(b"\r\n", b"\n"), "line ends converted"),
        "JPEG-LS": (b"\xff\xd8\xff\xf7\x00\x0b\x08" + bytes(200), "lossless"),
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
        **{
            f"damaged TIFF, {packing}": (_damaged_tiff(packing), "240x48 pixels cannot be decoded")
            for packing in ("tiff_lzw", "tiff_deflate", "packbits")
        },
        "damaged tiles": (_damaged_tiles(), "256x64 pixels cannot be decoded"),
        "TIFF of short strips": (_short_strips(), "strip or tile 1 has 20 bytes, 32 are needed"),
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
        "BMP of odd colours": (
            samples.bitfield_bmp(np.zeros((8, 8, 4), np.uint8), (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
            "32 bits a pixel with colours in",
        ),
        "BMP of OS/2 2.0": (
            b"BM" + bytes(8) + b"\x00\x00\x00\x00\x10" + bytes(99),
            "not read: its header claims 16 bytes",
        ),
        "BMP with RLE": (samples.bmp(64, 64, 8, 1, bytes(5_000)), "compression 1"),
        "huge TIFF strips": (samples.plain_tiff(60_000, 60_000), "TIFF"),
        "TIFF of a huge width, packed": (
            samples.tiff(
                [
                    *(
                        (256, 4, 1, 0xFFFFFFFF),
                        (257, 4, 1, 3),
                        (258, 3, 1, 8),
                        (259, 3, 1, 5),
                        (262, 3, 1, 2),
                    ),
                    *((273, 4, 1, 8), (277, 3, 1, 4), (279, 4, 1, 9)),
                ]
            ),
            "4294967295x3 pixels: at most",
        ),
        "TIFF without pixels": (samples.plain_tiff(64, 64, tag_273=1 << 30), "truncated TIFF"),
        "4-bit grey TIFF": (
            samples.plain_tiff(64, 64, tag_258=4),
            "photometric interpretation 1 in samples of 4",
        ),
        "16-bit CMYK TIFF": (
            samples.tiff_of(np.zeros((8, 8, 4), np.uint16), 5),
            "photometric interpretation 5 in samples of 16",
        ),
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
        "TIFF of tiles that OpenCV refuses": (_uncompressed_tile(48), "uncompressed tiles of 48x48"),
        "TIFF of too many tiles": (samples.tiled_tiff(2_000, 1_500, 16, 16, 1, 8), "11750 tiles of 16x16"),
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
