"""What one visitor may ask of the page's server, and the message where it is more."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from PIL import Image, ImageOps
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

__all__ = [
    "LIMITS",
    "MOST_PICTURES",
    "SESSIONS",
    "UPLOAD_BYTES",
    "WAITING",
    "RequestLimit",
    "answer_in_time",
    "begin_turn",
    "checked_captions",
    "checked_text",
    "open_picture",
    "printed_words",
]

logger = logging.getLogger(__name__)

MOST_PIXELS = 25_000_000
# Of a text as the handler of an Inference Endpoint takes it.
MOST_CHARACTERS, MOST_CAPTIONS, MOST_PRINTED_WORDS, MOST_PICTURES = 1_000, 32, 100, 8
UPLOAD_BYTES, REQUEST_BYTES = 20 * 2**20, 2**20
WAITING = 16
# Whose copy of the page gradio keeps, 80 KB each and 10,000 of them unless told otherwise; every call of a program is a
# session of its own. Ours keep no state, so that one that is dropped loses nothing.
SESSIONS = 4 * WAITING
# At once, by all visitors: each keeps one or two open while the page waits for an answer. Apart from these are the
# signs of life that gradio sends to a page for as long as it is open.
OPEN_REQUESTS, OPEN_PAGES = 200, 400
BODY_SECONDS = 60
MAX_SECONDS = 60  # until its turn, and again until its answer, as in the handler of an Inference Endpoint
# Without a word but gradio's signs of life: nobody is still waiting for an answer then.
IDLE_SECONDS = 3 * MAX_SECONDS
LONGEST_SIGN_OF_LIFE = 100  # bytes
ARRIVED = "vl_alignment.arrived"  # in a request's scope, when it came (time.monotonic)
RETRY_SECONDS = 5
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
LIMITS = (
    f"Pictures of at most {MOST_PIXELS // 10**6} megapixels and {UPLOAD_BYTES // 2**20} MB, texts of at most "
    f"{MOST_CHARACTERS:,} characters each. Requests are answered one by one; at most {WAITING} wait, each for at most "
    f"{MAX_SECONDS} seconds, and for as long again for its answer."
)
_COMPUTING = ThreadPoolExecutor(1, thread_name_prefix="answers")


class RequestLimit:
    """Refuses what is too large, too slow or too much at once, each with its status.

    413: a body larger than the page ever sends (of files gradio itself counts the bytes). 408: a body that takes too
    long to arrive. 429 with Retry-After: too many requests are open, or a program's request finds the queue full. One
    that is idle, the stream of a session that waits for nothing or a client that does not read, is ended.
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app
        self.open: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve an ASGI request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        kind, most = ("page", OPEN_PAGES) if "/heartbeat/" in scope["path"] else ("request", OPEN_REQUESTS)
        if self.open[kind] >= most:
            answer = PlainTextResponse("Too many requests are open; try again later.", 429, _retry_headers())
            await answer(scope, receive, send)
            return
        self.open[kind] += 1
        scope = {**scope, ARRIVED: time.monotonic()}
        try:
            send = _telling_when_to_retry(scope, send)
            if kind == "page":
                await self._serve(scope, receive, send)
            else:
                await self._serve_until_idle(scope, receive, send)
        finally:
            self.open[kind] -= 1

    async def _serve_until_idle(self, scope: Any, receive: Any, send: Any) -> None:
        begun = False

        async def sent(message: Any) -> None:
            nonlocal begun
            await send(message)
            begun = True
            if not _is_sign_of_life(message):
                idle.reschedule(asyncio.get_running_loop().time() + IDLE_SECONDS)

        idle = asyncio.timeout(IDLE_SECONDS)
        try:
            async with idle:
                await self._serve(scope, receive, sent)
        except Exception as error:  # of streams that are ended gradio raises errors of other kinds as well
            if not idle.expired():
                raise
            logger.info("%s was idle and is ended (%s)", scope["path"], type(error).__name__)
        if idle.expired() and not begun:
            await PlainTextResponse("No answer came in time; try again later.", 503)(scope, receive, send)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        limit = REQUEST_BYTES + UPLOAD_BYTES * scope["path"].endswith("/upload")
        reason = f"The request is larger than {limit:,} bytes."
        if int(dict(scope["headers"]).get(b"content-length", 0)) > limit:
            await PlainTextResponse(reason, 413)(scope, receive, send)
            return
        taken, whole = 0, scope["method"] in ("GET", "HEAD")
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS

        async def counted() -> Any:  # a body may come without saying how long it is
            nonlocal taken, whole
            try:  # after the body the application waits for the end of the connection
                async with asyncio.timeout_at(None if whole else deadline):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, f"The request took more than {BODY_SECONDS} seconds to arrive.") from error
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > limit:
                raise HTTPException(413, reason)
            return message

        await self.app(scope, counted, send)


def begin_turn(scope: Mapping[str, Any]) -> float:
    """Return until when (time.monotonic) a request whose turn has come must be answered.

    Args:
        scope: Of the request, ASGI's.

    Raises:
        ValueError: It waited too long for its turn.
    """
    now = time.monotonic()
    if now - scope.get(ARRIVED, now) > MAX_SECONDS:
        raise ValueError(f"No turn came within {MAX_SECONDS} seconds. Try again later.")
    return now + MAX_SECONDS


def answer_in_time(deadline: float, compute: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function computes, on the one thread on which all is computed.

    A function that has begun goes on to its end, for which those that come next wait.

    Raises:
        ValueError: The deadline (time.monotonic) passed before.
    """
    task = _COMPUTING.submit(compute, *arguments)
    if not wait([task], max(0.0, deadline - time.monotonic())).done:
        task.cancel()
        raise ValueError(f"No answer came within {MAX_SECONDS} seconds. Try again later, or ask for less.")
    return task.result()


def _is_sign_of_life(message: Mapping[str, Any]) -> bool:
    body = message.get("body", b"")
    return len(body) <= LONGEST_SIGN_OF_LIFE and b"heartbeat" in body


def _retry_headers() -> dict[str, str]:
    return {"retry-after": str(RETRY_SECONDS)}


def _telling_when_to_retry(scope: Any, send: Any) -> Any:
    """Let a full queue be answered with 429 to programs, and to all with Retry-After (gradio's page knows its 503)."""

    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] == 503:
            retry = [(name.encode(), value.encode()) for name, value in _retry_headers().items()]
            status = 429 if "/call/" in scope["path"] else 503
            message = {**message, "status": status, "headers": [*message.get("headers", ()), *retry]}
        await send(message)

    return sent


def open_picture(path: str | None) -> Image.Image:
    """Read an uploaded picture in RGB, turned as its camera says.

    Raises:
        ValueError: There is none, it is too large, or it is no picture that can be read.
    """
    if path is None:
        raise ValueError("Choose a picture first.")
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(
                    f"The picture has {picture.width} x {picture.height} pixels; at most {MOST_PIXELS // 10**6} "
                    "megapixels are taken here. Make it smaller."
                )
            return ImageOps.exif_transpose(picture).convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError("The picture is far too large once it is unpacked. Make it smaller.") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"The picture cannot be read. Give a complete file: {', '.join(FORMATS)}.") from error


def checked_text(text: str | None, what: str) -> str:
    """Return a text without the space around it.

    Raises:
        ValueError: It is empty or too long.
    """
    text = (text or "").strip()
    if not text:
        raise ValueError(f"Type {what} first.")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"The text has {len(text):,} characters; at most {MOST_CHARACTERS:,} are taken here.")
    return text


def checked_captions(text: str | None) -> list[str]:
    """Return the captions of a text that has one a line.

    Raises:
        ValueError: There are none, or too many, or one is too long.
    """
    captions = [line for line in (text or "").splitlines() if line.strip()] or [""]
    if len(captions) > MOST_CAPTIONS:
        raise ValueError(f"There are {len(captions)} captions; at most {MOST_CAPTIONS} are taken here.")
    return [checked_text(caption, "a caption") for caption in captions]


def printed_words(table: Sequence[Sequence[Any]]) -> tuple[list[str], list[list[float]]]:
    """Read words and boxes from a table's rows (word, left, top, right, bottom); rows without a word are left out.

    Raises:
        ValueError: There are too many, or a box is not four fractions.
    """
    rows = [row for row in table if row and str(row[0] or "").strip()]
    if len(rows) > MOST_PRINTED_WORDS:
        raise ValueError(f"{len(rows)} words stand in the table; at most {MOST_PRINTED_WORDS} are taken here.")
    words = [checked_text(str(row[0]), "a word") for row in rows]
    try:
        boxes = [[float(edge) for edge in row[1:5]] for row in rows]
    except (TypeError, ValueError):
        boxes = [[]]
    for box in boxes:
        if len(box) != 4 or not all(0 <= edge <= 1 for edge in box):
            raise ValueError("Each word needs its box: left, top, right, bottom, from 0 to 1 of the picture's sides.")
    return words, boxes
