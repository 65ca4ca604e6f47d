"""What the synchronous and the asynchronous client share about batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from longhand.v1 import recognition_pb2 as pb
from longhand_client.errors import InvalidImageError, InvalidRequestError, LonghandError, ServerError
from longhand_client.images import ImageSource, image_bytes, several
from longhand_client.results import Outcome, outcome_from_proto


def fill_batch(
    request: pb.BatchRecognizeRequest, images: Iterable[ImageSource], max_image_bytes: int
) -> list[Outcome]:
    """Adds the images to a request.

    Args:
        request: gets one item for each image that can be read here.
        images: what was handed in.
        max_image_bytes: larger ones are refused here.

    Returns:
        One outcome for each image: its own error where it cannot be read here, otherwise that no answer
        came, which `place_outcomes` replaces.
    """
    outcomes: list[Outcome] = []
    error: LonghandError
    for index, source in enumerate(several(images)):
        try:
            request.items.add(request_id=str(index), image=image_bytes(source, max_image_bytes))
            error = ServerError(f"the server gave no answer for image {index}")
        except InvalidImageError as unreadable:
            error = unreadable
        outcomes.append(Outcome(index, None, error, source))
    return outcomes


@contextlib.contextmanager
def named_as_batch() -> Iterator[None]:
    """Where the call as a whole is too large, it is the batch that is, and no image."""
    try:
        yield
    except InvalidImageError as error:
        raise InvalidRequestError(
            f"the batch is too large; send fewer images in one call, or a stream ({error})", code=error.code
        ) from error


def place_outcomes(outcomes: list[Outcome], answer: pb.BatchRecognizeResponse) -> None:
    """Puts the server's outcomes in their places."""
    for item in answer.outcomes:
        if item.request_id.isdecimal() and int(item.request_id) < len(outcomes):
            index = int(item.request_id)
            outcomes[index] = outcome_from_proto(index, item, outcomes[index].source)
