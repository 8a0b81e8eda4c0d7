"""Many clients at once against the page's interface for programs and against the handler of an Inference Endpoint.

python benchmarks/load.py --output benchmarks/results/load.json

Each server is a process of its own on this machine's loopback address, with an untrained SCAN that sees pixels. Clients
ask without pause; whoever is refused (429 with Retry-After) asks again after half a second. Answers count while the
time runs. The program ends with status 1 after any error, without an answer, and where memory grew beyond its bound.
"""

import argparse
import base64
import http.client
import io
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Figure, report, say
from PIL import Image
from transformers import ResNetConfig

CAPTIONS = ["a red cube left of a sphere", "two green cylinders", "a blue sphere", "nothing at all"]
PAUSE, ANSWER_SECONDS, RETRY_SECONDS = 0.5, 120, 1
MEMORY_GROWTH = 1.05  # of the resident memory at the end over that after a sixth of the time, when all is warm
REQUEST_BYTES = 25 * 2**20
STATUS_OF_KIND = {"busy": 429, "limit": 413, "internal": 500}


# The servers


def write_repository(folder: Path) -> None:
    """Write an untrained SCAN of the size of the blocks presets, with its code and handler, as a push does."""
    from vl_alignment import ScanConfig, ScanForImageTextRetrieval, ScanProcessor, build_word_tokenizer
    from vl_alignment.hub.flat_code import save_with_code
    from vl_alignment.models import SquareImageProcessorPil

    torch.manual_seed(0)
    backbone = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")
    tokenizer = build_word_tokenizer(CAPTIONS, minimum_count=1)
    config = ScanConfig(
        vision_config=backbone,
        vocab_size=len(tokenizer),
        hidden_size=64,
        word_embedding_size=32,
        alignment_function="dot",
    )
    processor = ScanProcessor(SquareImageProcessorPil(size={"height": 96, "width": 96}), tokenizer)
    save_with_code(ScanForImageTextRetrieval(config).eval(), processor, folder)


def serve_page(folder: Path) -> None:
    from vl_alignment.serving.app import build_app, serve

    app = build_app([str(folder)])
    serve(app, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    print(app.local_url, flush=True)
    sys.stdin.read()  # ends with the program that measures
    app.close()


def serve_handler(folder: Path) -> None:
    """Serve what an Inference Endpoint does with `handler.py`: a request's JSON to it, its answer back."""
    from vl_alignment.serving.handler import EndpointHandler

    answer = EndpointHandler(str(folder))

    class Endpoint(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30  # seconds without a byte

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if length > REQUEST_BYTES:
                self.close_connection = True
                self.send(413, {"error": "too large", "kind": "limit"})
                return
            found = answer(json.loads(self.rfile.read(length)))
            refused = isinstance(found, dict) and "error" in found
            self.send(STATUS_OF_KIND.get(found["kind"], 400) if refused else 200, found)

        def send(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 429:
                self.send_header("Retry-After", str(RETRY_SECONDS))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 128

    server = Server(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    sys.stdin.read()


# The clients


class Refused(Exception):
    """A 429 that says when to come again."""


def read_answer(connection: http.client.HTTPConnection) -> bytes:
    response = connection.getresponse()
    content = response.read()
    if response.status == 429 and response.headers.get("Retry-After"):
        raise Refused
    if response.status != 200:
        raise OSError(f"status {response.status}: {content[:200]!r}")
    return content


def handler_client(host: str, picture: bytes) -> Callable[[], None]:
    connection = http.client.HTTPConnection(host, timeout=ANSWER_SECONDS)
    image = base64.b64encode(picture).decode()
    body = json.dumps({"inputs": {"image": image, "text": CAPTIONS}, "parameters": {"output_attentions": True}})

    def ask() -> None:
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        if len(json.loads(read_answer(connection))) != len(CAPTIONS):
            raise OSError("an answer without all captions")

    return ask


def page_client(host: str, picture: bytes) -> Callable[[], None]:
    connection = http.client.HTTPConnection(host, timeout=ANSWER_SECONDS)
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    uploaded: list[str] = []

    def ask() -> None:
        if not uploaded:
            connection.request("POST", "/gradio_api/upload", head + picture + b"\r\n--b--\r\n", form)
            uploaded.extend(json.loads(read_answer(connection)))
        file = {"path": uploaded[0], "meta": {"_type": "gradio.FileData"}}
        body = json.dumps({"data": ["dot", "nothing", file, "\n".join(CAPTIONS)]})
        connection.request("POST", "/gradio_api/call/match", body, {"Content-Type": "application/json"})
        event = json.loads(read_answer(connection))["event_id"]
        connection.request("GET", f"/gradio_api/call/match/{event}")
        content = read_answer(connection)
        if b"event: complete" not in content or b"alert" in content or b"<section>" not in content:
            raise OSError(f"no answer: {content[:200]!r}")

    return ask


@dataclass
class Load:
    """What clients met."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    errors: Counter = field(default_factory=Counter)
    bytes_by_second: dict[float, int] = field(default_factory=dict)


def run_client(ask: Callable[[], None], load: Load, stop: threading.Event, until: float) -> None:
    """Ask until `stop` is set; answers that come after `until` (time.perf_counter) are not counted."""
    while not stop.is_set():
        begin = time.perf_counter()
        try:
            ask()
        except Refused:
            load.refused += time.perf_counter() <= until
            stop.wait(PAUSE)
        except (OSError, http.client.HTTPException, ValueError) as error:
            load.errors[f"{type(error).__name__}: {error}"[:200]] += 1
            stop.wait(PAUSE)
        else:
            if time.perf_counter() <= until:
                load.seconds.append(time.perf_counter() - begin)


def resident_bytes(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def put_load(kind: str, folder: Path, clients: int, seconds: float) -> Load:
    """Start a server, let the clients ask for so long, and end it."""
    command = [sys.executable, __file__, "--serve", kind, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        host = server.stdout.readline().strip().removeprefix("http://").rstrip("/")
        if not host:
            raise SystemExit(f"the {kind} did not start")
        content = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(content, format="png")
        load, stop = Load(), threading.Event()
        make = {"page": page_client, "handler": handler_client}[kind]
        make(host, content.getvalue())()  # the model is loaded at the first question
        asking = [make(host, content.getvalue()) for _ in range(clients)]
        begin = time.perf_counter()
        threads = [threading.Thread(target=run_client, args=(ask, load, stop, begin + seconds)) for ask in asking]
        for thread in threads:
            thread.start()
        for step in itertools.count(1):
            at = seconds * step / 6
            time.sleep(max(0.0, begin + at - time.perf_counter()))
            load.bytes_by_second[at] = resident_bytes(server.pid)
            said = f"{len(load.seconds)} answers, {load.refused} refused, {load.errors.total()} errors"
            say(f"{kind}, {at:.0f} s: {said}, {load.bytes_by_second[at] / 2**20:.0f} MiB")
            if step == 6:
                break
        stop.set()
        for thread in threads:
            thread.join()
        server.communicate()  # its input ends, and so does it
    return load


def add_figures(figures: dict[str, Figure], kind: str, load: Load, clients: int, seconds: float) -> None:
    beside = f"{clients} clients for {seconds:.0f} s"
    first, last = list(load.bytes_by_second)[0], list(load.bytes_by_second)[-1]
    growth = load.bytes_by_second[last] / load.bytes_by_second[first]
    ordered = sorted(load.seconds) or [float("nan")]
    figures[f"{kind}_errors"] = Figure(load.errors.total(), "", f"{beside}; neither an answer nor a 429", 0)
    figures[f"{kind}_answers"] = Figure(len(load.seconds), "", beside, 1, at_least=True)
    figures[f"{kind}_refused"] = Figure(load.refused, "", "429 with Retry-After")
    figures[f"{kind}_seconds_median"] = Figure(statistics.median(ordered), "s", "from question to answer, waiting too")
    figures[f"{kind}_seconds_95"] = Figure(ordered[int(0.95 * (len(ordered) - 1))], "s", "the slowest twentieth")
    reference = f"resident memory at {last:.0f} s over {first:.0f} s"
    figures[f"{kind}_memory_growth"] = Figure(growth, "", reference, MEMORY_GROWTH)
    figures[f"{kind}_memory"] = Figure(load.bytes_by_second[last] / 2**20, "MiB", f"resident at {last:.0f} s")


def exit_status(figures: dict[str, Figure]) -> int:
    """Tell what does not meet its bound, and return 1 where anything does not."""
    unmet = [name for name, figure in figures.items() if figure.verdict == "not met"]
    for name in unmet:
        say(f"{name} is {figures[name].value:.4g}, {figures[name].target}")
    return 1 if unmet else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each server")
    parser.add_argument("--output", type=Path, help="the JSON file to write")
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        torch.set_num_threads(1)
        {"page": serve_page, "handler": serve_handler}[arguments.serve[0]](Path(arguments.serve[1]))
        return
    figures: dict[str, Figure] = {}
    failed: Counter = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "scan-load-dot"
        write_repository(folder)
        for kind in ("page", "handler"):
            load = put_load(kind, folder, arguments.clients, arguments.seconds)
            add_figures(figures, kind, load, arguments.clients, arguments.seconds)
            failed += load.errors
    report(figures, __file__, arguments.output)
    for message, times in failed.most_common(10):
        say(f"{times} times: {shlex.quote(message)}")
    sys.exit(exit_status(figures))


if __name__ == "__main__":
    main()
