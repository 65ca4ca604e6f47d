"""What one call or stream wants done with its images, whichever protocol it came by."""

from __future__ import annotations

from longhand_server.calls import Call
from longhand_server.errors import InvalidImageError, LonghandError, ShuttingDownError
from longhand_server.metrics import Metrics
from longhand_server.options import RecognitionOptions
from longhand_server.registry import ModelRegistry, Reading, ServedModel


class Work:
    """The one way of an image from a call to a model's queue and back.

    Args:
        options: How to read the images.
        priority: Larger goes first; the call's token may allow less.
        wanted: The model's name and version; empty = the default, the newest.
        registry: The models served.
        call: The call.
        metrics: Counts the images.

    Attributes:
        model: The model that reads; a successor takes over where it is replaced meanwhile.
        turn: Whose fair turn the images take.
        deadline: Event loop time after which an answer is of no use, in seconds.

    Raises:
        ModelNotFoundError: No such model.
        InvalidRequestError: The options name a character that the model cannot write.
    """

    def __init__(
        self,
        options: RecognitionOptions,
        priority: int,
        wanted: tuple[str, str],
        registry: ModelRegistry,
        call: Call,
        metrics: Metrics,
    ) -> None:
        self.options = options
        self.priority = priority
        self.call = call
        self._registry = registry
        self._wanted = wanted
        self.model: ServedModel = registry.find(*wanted)
        options.check_characters(self.model.bundle.alphabet)
        self.turn = call.caller
        self.deadline = call.deadline
        self._metrics = metrics

    async def read(self, image: bytes, field: str, *, wait: bool = False) -> Reading:
        """Reads an image; ``field`` names it in errors.

        Args:
            image: The file.
            field: Path of the image in the request.
            wait: Whether to wait for room in a full queue instead of failing.

        Raises:
            LonghandError: As :meth:`longhand_server.pipeline.RecognitionPipeline.recognize` says.
        """
        try:
            reading = await self._read(image, wait)
        except Exception as error:
            self.failed(error)
            if isinstance(error, InvalidImageError):
                error.field = field
            raise
        self._metrics.line_read(reading.model.name, reading.result)
        reading.model.statistics.image_read(reading.result)
        self.call.span.line(reading.result)
        return reading

    def failed(self, error: Exception) -> None:
        """Counts an image that is not read for that reason; :meth:`read` does so itself."""
        reason = error.reason if isinstance(error, LonghandError) else LonghandError.reason
        self._metrics.line_failed(self.model.name, reason)

    async def _read(self, image: bytes, wait: bool) -> Reading:
        while True:
            # Another image of this call may bring in a successor while this one is read.
            model = self.model
            try:
                pipeline = await model.pipeline()
                result = await pipeline.recognize(
                    image,
                    self.options,
                    deadline=self.deadline,
                    priority=self.call.allowed_priority(self.priority),
                    caller=self.turn,
                    wait=wait,
                )
                return Reading(result, model)
            except ShuttingDownError:
                # The model may have been replaced since this call or stream began.
                successor = self._registry.find(*self._wanted)
                if successor is model:
                    raise
                self.options.check_characters(successor.bundle.alphabet)
                self.model = successor
