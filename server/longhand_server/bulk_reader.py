"""Reads one chunk of a bulk run after the other and writes their rows."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longhand_server.bulk_plan import Chunk, Plan, import_parquet, read_chunk, tar_images, write_whole
from longhand_server.config import ServerConfig
from longhand_server.errors import InvalidImageError, InvalidRequestError, LonghandError
from longhand_server.memory import keep_freed_memory
from longhand_server.metrics import Metrics
from longhand_server.options import RecognitionOptions
from longhand_server.registry import ModelRegistry

# Rows of a Parquet file that are in memory at a time.
_PARQUET_ROWS = 64
# Images that are with the pipeline at a time: on a CPU enough to keep the cores busy, on a GPU four batches' worth.
_CPU_AHEAD, _GPU_AHEAD = 8, 256


@dataclass(frozen=True)
class Row:
    """What becomes of one image.

    Attributes:
        number: Its place among all images of the run.
        name: The image's path, or its file and its place in there.
        text: What was read; None where nothing was.
        confidence: 0 to 1; None where nothing was read.
        error: Why nothing was read; None where something was.
    """

    number: int
    name: str
    text: str | None
    confidence: float | None
    error: str | None


class ChunkReader:
    """Reads chunks with a model of its own, in the same pipeline as the server.

    Args:
        plan: The run.
        config: Model, device, threads, limits of images.
        options: How to read.

    Raises:
        LonghandError: The model cannot be loaded, or the device is not there.
    """

    def __init__(self, plan: Plan, config: ServerConfig, options: RecognitionOptions) -> None:
        keep_freed_memory()
        self._plan = plan
        self._config = config
        self._options = options
        self._runner = asyncio.Runner()
        self._registry = self._runner.run(self._load())

    def read(self, offset: int) -> tuple[int, int]:
        """Reads the chunk at that place in the plan and writes its rows.

        Returns:
            Its images, and how many of them were not read.

        Raises:
            OSError: The rows cannot be written.
        """
        chunk = read_chunk(self._plan.folder, offset)
        output = self._plan.output(chunk.number)
        rows = self._runner.run(self._read(chunk))
        if len(rows) != chunk.count:
            raise RuntimeError(f"chunk {chunk.number}: {chunk.count} images gave {len(rows)} rows")
        errors = sum(row.error is not None for row in rows)
        self._plan.note_errors(chunk.number, errors)
        write_whole(output, encode_rows(rows, output.suffix))
        return chunk.count, errors

    def close(self) -> None:
        """Ends the model's workers."""
        self._runner.run(self._registry.close())
        self._runner.close()

    async def _load(self) -> ModelRegistry:
        registry = ModelRegistry(self._config, Metrics())
        await registry.load()
        return registry

    async def _read(self, chunk: Chunk) -> list[Row]:
        pipeline = await self._registry.default.pipeline()
        ahead = _CPU_AHEAD if self._registry.device == "cpu" else _GPU_AHEAD
        slots = asyncio.Semaphore(ahead)
        rows: list[Row] = []

        async def read_one(number: int, name: str, image: bytes | LonghandError) -> None:
            try:
                if isinstance(image, LonghandError):
                    raise image
                result = await pipeline.recognize(image, self._options, wait=True)
            except LonghandError as error:
                rows.append(Row(number, name, None, None, error.message))
            else:
                rows.append(Row(number, name, result.text, result.confidence, None))
            finally:
                slots.release()

        async with asyncio.TaskGroup() as tasks:
            for index, (name, image) in enumerate(
                images_of(chunk, self._config.image.max_bytes, self._plan.settings["column"])
            ):
                await slots.acquire()
                tasks.create_task(read_one(chunk.first + index, name, image))
        rows.sort(key=lambda row: row.number)
        return rows


def images_of(chunk: Chunk, most: int, column: str) -> Iterator[tuple[str, bytes | LonghandError]]:
    """Name and content of each image of a chunk, or why there is none; exactly ``chunk.count`` of them.

    Args:
        chunk: The chunk.
        most: Largest image file, bytes; of larger ones nothing is read.
        column: The Parquet files' column with the images.
    """
    found = 0
    problem = "it held more images when the run began"
    source = {"files": _from_files, "parquet": _from_parquet, "tar": _from_tar}[chunk.kind]
    try:
        for name, image in source(chunk, most, column):
            yield name, image
            found += 1
            if found == chunk.count:
                return
    except (OSError, LonghandError, ValueError, NotImplementedError) as error:  # Arrow raises the last two
        problem = str(error)
    # A file that was changed or damaged after the plan was made still gives a row for each of its images.
    for missing in range(found, chunk.count):
        yield f"{chunk.path}#{chunk.place + missing}", InvalidImageError(f"{chunk.path}: {problem}")


def encode_rows(rows: list[Row], suffix: str) -> bytes:
    """The rows as a file: ``.jsonl`` or ``.parquet``."""
    if suffix == ".jsonl":
        return "".join(json.dumps(_in_utf_8(row), ensure_ascii=False) + "\n" for row in rows).encode()
    pyarrow, parquet = import_parquet()
    schema = pyarrow.schema(
        [
            ("number", pyarrow.int64()),
            ("name", pyarrow.string()),
            ("text", pyarrow.string()),
            ("confidence", pyarrow.float32()),
            ("error", pyarrow.string()),
        ]
    )
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist([_in_utf_8(row) for row in rows], schema), buffer)
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def _in_utf_8(row: Row) -> dict[str, Any]:
    """The row's fields; file names need not be UTF-8, and then have escapes for their odd bytes."""
    fields = asdict(row)
    return {key: _escaped(value) if isinstance(value, str) else value for key, value in fields.items()}


def _escaped(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _from_files(chunk: Chunk, most: int, column: str) -> Iterator[tuple[str, bytes | LonghandError]]:
    for name, path, problem in chunk.entries:
        if problem:
            yield name, InvalidImageError(problem)
            continue
        try:
            about = Path(path).stat()
            if not stat.S_ISREG(about.st_mode):
                yield name, InvalidImageError(f"{path}: no regular file")
                continue
            yield name, _too_large(about.st_size, most) or Path(path).read_bytes()
        except OSError as error:
            yield name, InvalidImageError(f"{path}: {error.strerror or error}")
        except UnicodeEncodeError as error:  # a manifest's name, where file names are of another encoding
            yield name, InvalidImageError(f"{path}: no name of a file here: {error}")


def _from_parquet(chunk: Chunk, most: int, column: str) -> Iterator[tuple[str, bytes | LonghandError]]:
    _, parquet = import_parquet()
    skip, number = chunk.start, 0
    with parquet.ParquetFile(chunk.path) as file:
        if column not in file.schema_arrow.names:
            raise InvalidRequestError(f"it had a column {column!r} when the run began")
        if chunk.row_group >= file.num_row_groups:
            return
        before = sum(file.metadata.row_group(group).num_rows for group in range(chunk.row_group))
        batches = file.iter_batches(_PARQUET_ROWS, row_groups=[chunk.row_group], columns=[column])
        for batch in batches:
            if number + len(batch) > skip:
                for index, value in enumerate(batch.column(0)):
                    if number + index >= skip:
                        yield (
                            f"{chunk.path}#{before + number + index}",
                            _image_in(value.as_py(), most, column),
                        )
            number += len(batch)


def _image_in(value: Any, most: int, column: str) -> bytes | LonghandError:
    # Hugging Face's data sets hold structs of bytes and path.
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        return InvalidImageError(
            f"column {column!r}: got {type(content).__name__}, need the image file's bytes"
        )
    return _too_large(len(content), most) or content


def _from_tar(chunk: Chunk, most: int, column: str) -> Iterator[tuple[str, bytes | LonghandError]]:
    with Path(chunk.path).open("rb") as file:
        for member in tar_images(chunk.path, chunk.start):
            name = f"{chunk.path}/{member.name}"
            if not member.isfile():
                problem = f"{member.name}: a link to {member.linkname}, which is not followed"
                yield name, InvalidImageError(problem)
                continue
            refused = _too_large(member.size, most)
            if refused is not None:
                yield name, refused
                continue
            file.seek(member.offset_data)
            content = file.read(member.size)
            if len(content) < member.size:
                raise InvalidRequestError(f"ends in the middle of {member.name}")
            yield name, content


def _too_large(size: int, most: int) -> InvalidImageError | None:
    if size <= most:
        return None
    return InvalidImageError(f"image file of {size} bytes, at most {most} are read (--max-image-bytes)")
