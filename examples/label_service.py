"""A web service of one's own that calls Longhand: it takes the photo of a parcel label's line and finds its number.

uvicorn examples.label_service:app     (LONGHAND_ADDRESS names the Longhand server)
curl --data-binary @line.png http://localhost:8000/label
"""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from longhand_client import AsyncRecognizerClient, InvalidImageError, LonghandError, RecognitionOptions

OPTIONS = RecognitionOptions(alternatives=3, priority="high")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    # One client for the whole service: it keeps its connection and may be used by any number of tasks.
    async with AsyncRecognizerClient(
        os.environ.get("LONGHAND_ADDRESS", "localhost:50051"), timeout_s=5
    ) as client:
        app.state.client = client
        yield


async def label(request: Request) -> JSONResponse:
    try:
        reading = await request.app.state.client.recognize(await request.body(), OPTIONS)
    except InvalidImageError as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    except LonghandError as error:
        return JSONResponse({"error": str(error)}, status_code=503)
    numbers = [re.sub(r"\D", "", one.text) for one in reading.alternatives]
    return JSONResponse({"text": reading.text, "number": numbers[0], "confidence": reading.confidence})


app = Starlette(routes=[Route("/label", label, methods=["POST"])], lifespan=lifespan)
