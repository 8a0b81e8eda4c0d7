"""What the page's server refuses, by requests as the server's own layer sees them, and the limits of the handler."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("starlette", reason="needs gradio's server: pip install 'vl-alignment[demo]'")

from starlette.applications import Starlette  # noqa: E402
from starlette.responses import PlainTextResponse, StreamingResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

from vl_alignment.serving import handler as handler_file  # noqa: E402
from vl_alignment.serving import limits  # noqa: E402
from vl_alignment.serving.handler import EndpointHandler  # noqa: E402


async def read_all(request):
    await request.body()
    return PlainTextResponse("read")


async def full_queue(request):
    return PlainTextResponse("Queue is full.", 503)


async def never(request):
    await asyncio.Event().wait()


async def stream(request):
    """Signs of life of a queue, or those of an open page."""
    alive = "data: ALIVE\n\n" if "/heartbeat/" in request.url.path else 'data: {"msg":"heartbeat"}\n\n'

    async def signs():
        for number in range(int(request.query_params["number"])):
            yield alive if number % 10 else "data: an estimate\n\n"
            await asyncio.sleep(0.02)

    return StreamingResponse(signs(), media_type="text/event-stream")


PATHS = {
    "/read": read_all,
    "/call/ask": full_queue,
    "/queue/join": full_queue,
    "/never": never,
    "/queue/data": stream,
    "/heartbeat/a": stream,
}


def limited():
    return limits.RequestLimit(Starlette(routes=[Route(path, PATHS[path], methods=["GET", "POST"]) for path in PATHS]))


async def ask(app, path="/read", pieces=(b"body",)):
    """The status and headers of the answer to a request whose body comes in pieces, None being one that never comes."""
    waiting, sent = list(pieces), []

    async def receive():
        piece = waiting.pop(0) if waiting else None
        if piece is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    path, _, query = path.partition("?")
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": query.encode()}
    await app(scope, receive, send)
    if query:
        return sent
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers


def answered(request):
    """Run a request to its end on a thread: a browser of another test may have left a loop running on this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, request).result()


def test_a_body_that_does_not_come_is_given_up(monkeypatch):
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.05)
    app = limited()
    assert answered(ask(app, pieces=(b"some", None)))[0] == 408
    assert answered(ask(app))[0] == 200 and app.open.total() == 0


def test_a_request_that_is_idle_is_ended(monkeypatch):
    monkeypatch.setattr(limits, "IDLE_SECONDS", 0.3)
    app = limited()
    status, headers = answered(ask(app, "/never"))
    assert status == 503 and headers["retry-after"] == str(limits.RETRY_SECONDS)
    # An estimate of the queue comes every tenth time: such a stream lives as long as it likes.
    whole = answered(ask(app, "/queue/data?number=30"))
    assert not whole[-1]["more_body"] and len(whole) == 32
    assert answered(ask(app, "/heartbeat/a?number=30"))[-1]["more_body"] is False
    monkeypatch.setattr(limits, "IDLE_SECONDS", 0.1)
    cut = answered(ask(app, "/queue/data?number=30"))
    assert cut[-1]["more_body"] and len(cut) < 12
    assert not answered(ask(app, "/heartbeat/a?number=30"))[-1]["more_body"] and app.open.total() == 0


def test_open_pages_take_no_place_of_a_request(monkeypatch):
    monkeypatch.setattr(limits, "OPEN_REQUESTS", 1)
    monkeypatch.setattr(limits, "OPEN_PAGES", 2)

    async def several():
        app = limited()
        pages = [asyncio.ensure_future(ask(app, "/heartbeat/a?number=10")) for _ in range(3)]
        await asyncio.sleep(0.05)
        status, _ = await ask(app)
        return status, [sent[0]["status"] for sent in await asyncio.gather(*pages)]

    assert answered(several()) == (200, [200, 200, 429])


def test_what_waits_or_computes_for_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(limits, "MAX_SECONDS", 0.1)
    now = time.monotonic()
    with pytest.raises(ValueError, match=r"No turn came within 0.1 seconds"):
        limits.begin_turn({limits.ARRIVED: now - 0.2})
    assert limits.begin_turn({limits.ARRIVED: now}) == pytest.approx(limits.begin_turn({}), abs=0.05)
    begin, done = time.monotonic(), []

    def work(seconds):
        time.sleep(seconds)
        done.append(seconds)

    for seconds in (0.5, 0):  # the second waits for the first, which goes on
        with pytest.raises(ValueError, match=r"No answer came within 0.1 seconds"):
            limits.answer_in_time(limits.begin_turn({}), work, seconds)
    assert time.monotonic() - begin < 0.45
    assert limits.answer_in_time(time.monotonic() + 60, lambda one: one + 1, 1) == 2 and done == [0.5]


def test_a_full_queue_is_a_429_for_programs_and_says_when_to_ask_again():
    status, headers = answered(ask(limited(), "/call/ask"))
    assert status == 429 and headers["retry-after"] == str(limits.RETRY_SECONDS)
    status, headers = answered(ask(limited(), "/queue/join"))  # gradio's page has words for its 503
    assert status == 503 and headers["retry-after"] == str(limits.RETRY_SECONDS)


def test_only_so_many_requests_are_open_at_once(monkeypatch):
    monkeypatch.setattr(limits, "OPEN_REQUESTS", 2)
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.1)

    async def several():
        app = limited()
        answers = await asyncio.gather(*(ask(app, pieces=(b"some", None)) for _ in range(4)))
        return [status for status, _ in answers], (await ask(app))[0]

    statuses, afterwards = answered(several())
    assert sorted(statuses) == [408, 408, 429, 429] and afterwards == 200


def test_page_and_handler_take_texts_of_one_length_for_one_time():
    assert limits.MOST_CHARACTERS == handler_file.MAX_TEXT_CHARACTERS
    assert limits.MAX_SECONDS == handler_file.MAX_SECONDS
    assert f"{limits.MOST_CHARACTERS:,} characters" in limits.LIMITS
    assert limits.checked_captions("\n".join(["x" * limits.MOST_CHARACTERS] * 3))[2] == "x" * limits.MOST_CHARACTERS
    with pytest.raises(ValueError, match="1,001 characters"):
        limits.checked_captions("a\n" + "x" * (limits.MOST_CHARACTERS + 1))
    with pytest.raises(ValueError, match="Type a caption first"):
        limits.checked_captions("  \n ")


class SlowAnswer(EndpointHandler):
    """A handler whose model takes its time: what waits for it is under test, not the model."""

    def __init__(self, seconds):
        self._parameters = set()
        self._answer = lambda one, parameters: time.sleep(seconds) or [one]
        self._places, self._turn = EndpointHandler.queue()


def asked_at_once(handler, number):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(handler({"inputs": "a"}))) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_the_handler_lets_so_many_wait_and_refuses_more(monkeypatch):
    monkeypatch.setattr(handler_file, "MAX_WAITING", 2)
    handler = SlowAnswer(0.2)
    answers = asked_at_once(handler, 5)
    assert sorted(answer["kind"] for answer in answers if isinstance(answer, dict)) == ["busy", "busy"]
    assert answers.count(["a"]) == 3 and handler({"inputs": "a"}) == ["a"]


def test_the_handler_bounds_the_time(monkeypatch):
    monkeypatch.setattr(handler_file, "MAX_SECONDS", 0.15)
    handler = SlowAnswer(0.4)
    first, second = sorted(asked_at_once(handler, 2), key=str)
    assert first == ["a"] and second["kind"] == "busy" and "within 0.15 seconds" in second["error"]
    assert handler({"inputs": ["a", "b"]})[1]["kind"] == "limit"
