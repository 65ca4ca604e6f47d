"""Settings as frozen dataclasses, parsed once at the edge and passed inward."""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field, fields
from typing import Any

from longhand_server.errors import ConfigurationError

# Files of folders and archives that are taken for line images.
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})


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
        dropout: probability of dropping a feature between the LSTM layers and before the output, in training.
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
                f"network: need 4 channels and 3 block counts, got {self.channels!r} and {self.blocks!r}"
            )
        if self.labels < 2 or min(*self.channels, *self.blocks, self.hidden, self.layers) < 1:
            raise ValueError(f"network: every size must be positive and labels >= 2, got {self!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"network.dropout: got {self.dropout!r}, need 0 <= dropout < 1")


def setting(
    default: Any,
    description: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    choices: tuple[str, ...] = (),
    flag: str = "",
) -> Any:
    """A field that an operator can set, with its help text and its bounds (both inclusive).

    ``flag`` names it on the command line where the field's own name would not be unique there.
    """
    metadata = {"description": description, "low": low, "high": high, "choices": choices, "flag": flag}
    return field(default=default, metadata=metadata)


class Settings:
    """Base of the operator's settings: every value is checked against its type and its bounds."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError naming the key, the value and what is allowed."""
        for item in fields(self):  # type: ignore[arg-type]
            if item.metadata:
                check_value(item, getattr(self, item.name))


def check_value(item: Field[Any], value: object) -> None:
    """Raises ConfigurationError unless ``value`` has the type of the field's default and keeps its bounds."""
    wanted = type(item.default)
    # A bool is an int to Python, but `--port true` is a mistake; an int does for a float.
    fits = type(value) is wanted or (wanted is float and type(value) is int)
    if not fits:
        raise ConfigurationError(f"{item.name}: got {value!r}, need {_KINDS[wanted]}")
    low, high, choices = item.metadata["low"], item.metadata["high"], item.metadata["choices"]
    if choices and value not in choices:
        raise ConfigurationError(f"{item.name}: got {value!r}, need one of {', '.join(choices)}")
    if isinstance(value, int | float) and not low <= value <= high:
        raise ConfigurationError(f"{item.name}: got {value!r}, need {low} to {high}")
    if isinstance(value, str) and "\0" in value:
        raise ConfigurationError(f"{item.name}: got {value!r}, need text without the character U+0000")


_KINDS: dict[type, str] = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


@dataclass(frozen=True)
class ImageLimits(Settings):
    """What an image file may be at most; everything beyond is refused before a pixel is decoded.

    The defaults keep the worst files that pass (a lossy WebP of noise, a progressive JPEG of 20 scans) below
    0.2 s of CPU and 100 MB on a core of 2020. A line of 16 cm at 600 dpi has about 1.5 million pixels;
    cameras and editors write JPEGs of about 10 scans.
    """

    max_bytes: int = setting(
        4 << 20, "largest image file, bytes", low=64, high=1 << 28, flag="max-image-bytes"
    )
    max_pixels: int = setting(
        3_000_000, "width times height, px", low=9, high=1 << 26, flag="max-image-pixels"
    )
    max_side: int = setting(32_768, "width or height, px", low=3, high=65_535, flag="max-image-side")
    max_scans: int = setting(20, "scans of a progressive JPEG", low=1, high=100, flag="max-image-scans")


DEFAULT_IMAGE_LIMITS = ImageLimits()


@dataclass(frozen=True)
class ListenConfig(Settings):
    """Where the server listens and how it stops."""

    host: str = setting(
        "127.0.0.1", "address to listen on; 0.0.0.0 or [::] = every interface, unix:PATH = a Unix socket"
    )
    port: int = setting(50051, "gRPC port; 0 = a free one", low=0, high=65_535)
    port_file: str = setting("", "file that gets the port once the server answers")
    workers: int = setting(1, "processes that share the port; a dead one is restarted", low=1, high=256)
    reuse_port: bool = setting(False, "let other servers listen on the same port (SO_REUSEPORT)")
    grace_s: float = setting(
        20.0, "seconds that accepted calls get to finish, after drain_delay_s", low=0, high=3600
    )
    drain_delay_s: float = setting(
        0.0,
        "seconds after SIGTERM in which new calls are still taken, so that load balancers notice",
        low=0,
        high=600,
    )
    max_connection_age_s: float = setting(
        0.0,
        "seconds after which a client is asked to connect again, so that it learns of new servers; open calls may "
        "finish; 0 = never",
        low=0,
        high=86_400,
    )
    max_request_bytes: int = setting(32 << 20, "largest request message, bytes", low=1 << 12, high=1 << 30)
    max_calls: int = setting(1000, "most calls and streams that are open at a time", low=1, high=1_000_000)
    max_batch_items: int = setting(256, "most images in one BatchRecognize call", low=1, high=10_000)
    max_stream_in_flight: int = setting(
        64,
        "images of one stream that are worked on at a time; the stream is not read further meanwhile",
        low=1,
        high=10_000,
    )
    stream_idle_s: float = setting(
        600.0, "seconds without an image after which a stream is ended; 0 = never", low=0, high=86_400
    )


@dataclass(frozen=True)
class SecurityConfig(Settings):
    """Who may call, and how the line to them is protected."""

    tls_cert: str = setting("", "PEM file with the server's certificate chain; read again when it changes")
    tls_key: str = setting("", "PEM file with its private key")
    tls_client_ca: str = setting("", "PEM file with the authority whose clients alone may connect (mTLS)")
    token_file: str = setting("", "file with callers: NAME SHA256-OF-TOKEN [IMAGES-PER-SECOND] [high] a line")
    insecure: bool = setting(False, "serve other machines without TLS and without tokens")


@dataclass(frozen=True)
class ObserveConfig(Settings):
    """What an operator sees."""

    metrics_port: int = setting(-1, "HTTP port of /metrics; 0 = a free one, -1 = none", low=-1, high=65_535)
    metrics_host: str = setting("127.0.0.1", "address of the metrics port")
    log_level: str = setting(
        "info", "least severe message logged", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting("text", "how log lines look", choices=("text", "json"))
    otlp_endpoint: str = setting("", "OpenTelemetry collector for traces, such as http://localhost:4317")
    log_calls: bool = setting(False, "log calls that succeed too, not only those that fail")


@dataclass(frozen=True)
class ModelsConfig(Settings):
    """What is served."""

    model: str = setting(
        "en", "default model: a name in the models folder or a shipped one, or a bundle's folder"
    )
    models: str = setting("", "folder whose subfolders are bundles that are served as well")
    lazy: bool = setting(False, "load all models but the default one when they are first asked for")


@dataclass(frozen=True)
class RuntimeConfig(Settings):
    """What computes."""

    device: str = setting(
        "auto", "auto, cpu, cuda or cuda:N; auto = cuda where the driver shows a GPU and PyTorch can use it"
    )
    precision: str = setting(
        "auto",
        "arithmetic of the network: full = single precision; auto = 8-bit on a CPU where the model has such a "
        "network (twice as fast), half precision on a GPU",
        choices=("auto", "full"),
    )
    threads: int = setting(
        0, "images worked on at the same time; 0 = one per core that this process may use", low=0, high=1024
    )
    second_look: bool = setting(
        True,
        "read lines of which the model is unsure again, smaller and more upright, and those that make no sense "
        "upside down, and keep the likelier text: fewer errors for more work",
    )


@dataclass(frozen=True)
class BatchingConfig(Settings):
    """How images wait and are put together."""

    max_batch_size: int = setting(
        0,
        "most images in one run of the network; 0 = 1 on a CPU (more gains nothing there), 64 on a GPU",
        low=0,
        high=1024,
    )
    max_delay_ms: float = setting(
        0.0, "longest wait for a batch to fill while a worker is free, ms", low=0, high=10_000
    )
    max_queue: int = setting(256, "most images that wait; more are refused at once", low=1, high=1_000_000)


@dataclass(frozen=True)
class ServerConfig:
    """Everything an operator can set, by section."""

    listen: ListenConfig = ListenConfig()
    models: ModelsConfig = ModelsConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    batching: BatchingConfig = BatchingConfig()
    security: SecurityConfig = SecurityConfig()
    observe: ObserveConfig = ObserveConfig()
    image: ImageLimits = DEFAULT_IMAGE_LIMITS
