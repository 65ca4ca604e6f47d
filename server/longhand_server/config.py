"""Settings as frozen dataclasses, parsed once at the edge and passed inward."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LineFormat:
    """The shape of a normalised line image, shared by training and serving.

    Attributes:
        height: rows of the normalised image, px.
        margin: columns of paper on either side of the ink, px.
        max_width: widest normalised image, px; a longer line is squeezed to it.
        frame_stride: columns of the normalised image that one CTC frame covers, px.
    """

    height: int = 64
    margin: int = 8
    max_width: int = 3072
    frame_stride: int = 4

    def __post_init__(self) -> None:
        for name, low, high in (
            ("height", 16, 256),
            ("margin", 0, 64),
            ("max_width", 64, 16384),
            ("frame_stride", 1, 16),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f"line.{name}: got {value!r}, need an integer from {low} to {high}")


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the residual CRNN (:mod:`longhand_server.network`).

    Attributes:
        labels: size of the output alphabet, blank included.
        channels: channels of the stem and of the three residual stages.
        blocks: residual blocks in each stage.
        hidden: units of one direction of an LSTM layer.
        layers: bidirectional LSTM layers.
        dropout: probability of dropping a feature between trunk, LSTM layers and output, in training.
    """

    labels: int
    channels: tuple[int, int, int, int] = (16, 32, 64, 128)
    blocks: tuple[int, int, int] = (1, 2, 2)
    hidden: int = 256
    layers: int = 2
    dropout: float = 0.1

    def __post_init__(self) -> None:
        # JSON gives lists; tuples keep the dataclass hashable.
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if len(self.channels) != 4 or len(self.blocks) != 3:
            raise ValueError(
                "network: need 4 channels and 3 block counts, "
                f"got {self.channels!r} and {self.blocks!r}"
            )
        if self.labels < 2 or min(*self.channels, *self.blocks, self.hidden, self.layers) < 1:
            raise ValueError(f"network: every size must be positive and labels >= 2, got {self!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"network.dropout: got {self.dropout!r}, need 0 <= dropout < 1")


@dataclass(frozen=True)
class ImageLimits:
    """What an image file may be at most; everything beyond is refused before a pixel is decoded.

    The defaults keep the worst files that pass (a lossy WebP of noise, a progressive JPEG of 20 scans) below
    0.2 s of CPU and 100 MB on a core of 2020.

    Attributes:
        max_bytes: size of the file, bytes.
        max_pixels: width times height, px. A line of 16 cm at 600 dpi has about 1.5 million.
        max_side: width or height, px.
        max_scans: scans of a progressive JPEG; cameras and editors write about 10.
    """

    max_bytes: int = 4 * 1024 * 1024
    max_pixels: int = 3_000_000
    max_side: int = 32_768
    max_scans: int = 20

    def __post_init__(self) -> None:
        for name, low, high in (
            ("max_bytes", 1, 1 << 30),
            ("max_pixels", 9, 1 << 26),
            ("max_side", 3, 1 << 16),
            ("max_scans", 1, 100),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f"image.{name}: got {value!r}, need an integer from {low} to {high}")


DEFAULT_IMAGE_LIMITS = ImageLimits()
