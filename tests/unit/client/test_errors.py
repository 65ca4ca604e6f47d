"""What a status of the service becomes, and where the answers of a batch go."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from longhand.v1 import recognition_pb2 as pb
from longhand_client import errors
from longhand_client.batch import fill_batch, place_outcomes

CLASSES = {
    "CANCELLED": errors.ServerError,
    "UNKNOWN": errors.ServerError,
    "INVALID_ARGUMENT": errors.InvalidRequestError,
    "DEADLINE_EXCEEDED": errors.DeadlineExceededError,
    "NOT_FOUND": errors.ModelNotFoundError,
    "ALREADY_EXISTS": errors.ServerError,
    "PERMISSION_DENIED": errors.AuthenticationError,
    "RESOURCE_EXHAUSTED": errors.OverloadedError,
    "FAILED_PRECONDITION": errors.InvalidRequestError,
    "ABORTED": errors.ServerError,
    "OUT_OF_RANGE": errors.InvalidRequestError,
    "UNIMPLEMENTED": errors.UnsupportedError,
    "INTERNAL": errors.ServerError,
    "UNAVAILABLE": errors.ServerUnavailableError,
    "DATA_LOSS": errors.ServerError,
    "UNAUTHENTICATED": errors.AuthenticationError,
}


@pytest.mark.parametrize(("number", "name"), list(enumerate(CLASSES, 1)))
def test_each_code_has_its_class(number: int, name: str) -> None:
    error = errors.from_status(status_pb2.Status(code=number, message="so it is"))
    assert (type(error), error.code, str(error)) == (CLASSES[name], name, "so it is")


def test_answers_of_a_batch_for_images_that_were_not_sent_are_no_answers() -> None:
    request = pb.BatchRecognizeRequest()
    outcomes = fill_batch(request, [b"one", b"two"], 100)
    answer = pb.BatchRecognizeResponse()
    for request_id in ("1", "2", "-1", "x", ""):
        answer.outcomes.add(request_id=request_id, result=pb.RecognitionResult(text=f"text {request_id}"))
    place_outcomes(outcomes, answer)
    assert [outcome.transcription and outcome.transcription.text for outcome in outcomes] == [None, "text 1"]
    assert isinstance(outcomes[0].error, errors.ServerError)


def test_details_are_read() -> None:
    status = status_pb2.Status(code=8, message="full")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="OVERLOADED", domain="longhand"))
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1250)
    status.details.add().Pack(retry)
    error = errors.from_status(status)
    assert (error.reason, error.retry_after_s, error.field) == ("OVERLOADED", 1.25, None)
    status = status_pb2.Status(code=3, message="no such width")
    request = error_details_pb2.BadRequest()
    for field in ("options.beam_width", "options.alternatives"):
        request.field_violations.add(field=field)
    status.details.add().Pack(request)
    assert errors.from_status(status).field == "options.beam_width"


def test_a_server_that_turns_a_call_away_is_not_said_to_be_away() -> None:
    status = status_pb2.Status(code=14, message="the server is stopping")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="SHUTTING_DOWN", domain="longhand"))
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    failed = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailers, details=status.message
    )
    error = errors.from_rpc_error(failed, "here:1")
    assert (str(error), error.reason) == ("here:1: the server is stopping", "SHUTTING_DOWN")


def test_what_a_server_says_cannot_steer_a_terminal() -> None:
    status = status_pb2.Status(code=13, message="\x1b[2J\x1b]0;title\x07gone\n\0\x85 \x9b1m!")
    assert str(errors.from_status(status)) == "[2J ]0;title gone 1m!"
