"""The handler with a tiny model of each task: the Hub's payloads, and everything that a stranger may send."""

import base64
import io
import json
import os
import subprocess
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import InferenceClient
from PIL import Image
from tests.pipelines.repositories import READ, TEXTS, tiny_pipeline

from vl_alignment.hub.flat_code import save_with_code
from vl_alignment.serving import handler as handler_file
from vl_alignment.serving.handler import EndpointHandler


def encoded(picture, file_format="png"):
    content = io.BytesIO()
    picture.save(content, format=file_format)
    return base64.b64encode(content.getvalue()).decode()


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
IMAGE = encoded(PICTURE)
GOOD = {
    "scan": {"image": IMAGE, "text": TEXTS},
    "mac": {"image": IMAGE, "question": TEXTS[0]},
    "m4c": {"image": IMAGE, "question": TEXTS[0], **READ},
    "attngan": TEXTS[0],
}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """Folders of pushed models, and their own pipelines."""
    made = {}
    for name in GOOD:
        run, folder = tiny_pipeline(name), tmp_path_factory.mktemp(name)
        save_with_code(run.model, run.processor, folder)
        made[name] = (folder, run)
    return made


@pytest.fixture(scope="module")
def handlers(repositories):
    return {name: EndpointHandler(str(folder)) for name, (folder, _) in repositories.items()}


@pytest.fixture
def lives(handlers):
    """After a test every handler still answers."""
    yield
    for name, handler in handlers.items():
        answer = handler({"inputs": GOOD[name]})
        assert isinstance(answer, list) and "error" not in answer[0], answer
        json.dumps(answer, allow_nan=False)


def close(answer, expected):
    return json.dumps(_rounded(answer)) == json.dumps(_rounded(expected))


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def test_answers_are_those_of_the_pipelines(handlers, repositories):
    run = {name: pipe for name, (_, pipe) in repositories.items()}
    data_url = f"data:image/png;base64,{IMAGE}"
    for image in (IMAGE, data_url, base64.b64decode(IMAGE), PICTURE):
        found = handlers["scan"]({"inputs": {"image": image, "text": TEXTS}})
        assert close(found, run["scan"](PICTURE, TEXTS))
    with_attention = {"inputs": {"image": IMAGE, "text": TEXTS[0]}, "parameters": {"output_attentions": True}}
    assert close(handlers["scan"](with_attention), run["scan"](PICTURE, TEXTS[0], output_attentions=True))
    request = {"inputs": GOOD["mac"], "parameters": {"top_k": 2, "output_attentions": True}}
    assert close(handlers["mac"](request), run["mac"](PICTURE, TEXTS[0], top_k=2, output_attentions=True))
    assert close(handlers["m4c"]({"inputs": GOOD["m4c"]}), run["m4c"](PICTURE, TEXTS[0], **READ))
    request = {"inputs": TEXTS[0], "parameters": {"num_images": 2, "seed": 3}}
    drawn = run["attngan"](TEXTS[0], num_images=2, seed=3)
    for answer, picture in zip(handlers["attngan"](request), drawn, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["image"])))), picture)


def test_labels_get_shares(handlers, repositories):
    request = {"inputs": {"image": IMAGE, "candidate_labels": ["dog", "car"]}}
    template = {"hypothesis_template": "a red {}"}
    found = handlers["scan"]({**request, "parameters": template})
    scores = {entry["text"]: entry["score"] for entry in repositories["scan"][1](PICTURE, ["a red dog", "a red car"])}
    shares = torch.tensor([scores["a red dog"], scores["a red car"]]).softmax(dim=0).tolist()
    assert {entry["label"]: entry["score"] for entry in found} == pytest.approx(
        dict(zip(["dog", "car"], shares, strict=True))
    )
    assert found[0]["score"] >= found[1]["score"]
    elsewhere = {"inputs": IMAGE, "parameters": {"candidate_labels": ["dog", "car"], **template}}
    assert close(handlers["scan"](elsewhere), found)


def test_a_list_of_inputs_has_a_list_of_answers(handlers, lives):
    for name, handler in handlers.items():
        one = handler({"inputs": GOOD[name]})
        bad = {"image": "?"} if name != "attngan" else 3
        first, error, last = handler({"inputs": [GOOD[name], bad, GOOD[name]]})
        assert close([first, last], [one, one])
        assert set(error) == {"error", "kind"}


def test_what_is_no_request_is_refused(handlers, lives):
    many_numbers = [0] * (handler_file.MAX_REQUEST_CHARACTERS + 1)
    for handler in handlers.values():
        for request, kind in [
            (None, "request"),
            ([], "request"),
            ("text", "request"),
            ({}, "request"),
            ({"inputs": None}, None),
            ({"inputs": []}, "limit"),
            ({"inputs": [None] * 17}, "limit"),
            ({"inputs": {}}, None),
            ({"inputs": {"image": IMAGE, "command": "rm"}}, None),
            ({"inputs": TEXTS[0], "parameters": [1]}, "parameters"),
            ({"inputs": TEXTS[0], "parameters": {"guidance_scale": 7}}, "parameters"),
            ({"inputs": ["A" * 1_000_000] * 25}, "limit"),
            ({"inputs": [many_numbers]}, "limit"),
        ]:
            answer = handler(request)
            assert set(answer) == {"error", "kind"}, (request, answer)
            assert kind in (None, answer["kind"])
            assert len(answer["error"]) < 600


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mac", {"top_k": 0}),
        ("mac", {"top_k": 10**9}),
        ("m4c", {"top_k": True}),
        ("mac", {"top_k": "5"}),
        ("mac", {"output_attentions": 1}),
        ("attngan", {"num_images": 17}),
        ("attngan", {"num_images": -1}),
        ("attngan", {"seed": -1}),
        ("attngan", {"seed": 2**64}),
        ("attngan", {"seed": 0.5}),
        ("attngan", {"output_attentions": True}),
        ("scan", {"text_reader": "os.system"}),
    ],
)
def test_parameters_are_checked(name, parameters, handlers, lives):
    answer = handlers[name]({"inputs": GOOD[name], "parameters": parameters})
    assert answer["kind"] == "parameters"


def bomb(width, height):
    """A PNG of a few kilobytes that unpacks to so many pixels, black or white."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    packer = zlib.compressobj(9)
    rows = packer.compress(bytes((width // 8 + 1) * height)) + packer.flush()
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        for kind, content in chunks
    )


def text_bomb():
    """A PNG whose comment unpacks to a hundred megabytes."""
    good = base64.b64decode(IMAGE)
    content = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    chunk = len(content).to_bytes(4, "big") + b"zTXt" + content + zlib.crc32(b"zTXt" + content).to_bytes(4, "big")
    return good[:33] + chunk + good[33:]


def test_bad_pictures_are_refused(handlers, lives, tmp_path):
    path = tmp_path / "secret.png"
    PICTURE.save(path)
    as_text = base64.b64encode
    for image, kind, message in [
        (as_text(bomb(8000, 6250)).decode(), "limit", "8000 x 6250 pixels"),  # 50 megapixels
        (as_text(bomb(12000, 12000)).decode(), "limit", "12000 x 12000 pixels"),
        (as_text(bomb(20000, 20000)).decode(), "limit", "too large"),
        (as_text(text_bomb()).decode(), "image", "cannot be read"),
        (IMAGE[: len(IMAGE) // 8 * 4], "image", "cannot be read"),
        (as_text(b"no picture").decode(), "image", "cannot be read"),
        (as_text(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").decode(), "image", "cannot be read"),
        ("http://127.0.0.1/picture.png", "image", "addresses are not opened"),
        (f"file://{path}", "image", "addresses are not opened"),
        (str(path), "image", "paths are not opened"),
        ("data:text/html;base64,AAAA", "image", "no data URL"),
        ("data:image/png,abc", "image", "no data URL"),
        ("", "image", "cannot be read"),
        (None, "image", "not NoneType"),
        (7, "image", "not int"),
        ({"url": "x"}, "image", "not dict"),
        (Image.new("1", (8000, 6250)), "limit", "8000 x 6250 pixels"),
    ]:
        for name in ("scan", "mac", "m4c"):
            answer = handlers[name]({"inputs": {**GOOD[name], "image": image}})
            assert answer["kind"] == kind and message in answer["error"], answer
            assert len(answer["error"]) < 600


def test_pictures_of_other_kinds_are_read(handlers):
    for mode, file_format in [
        ("L", "png"),
        ("RGBA", "png"),
        ("P", "gif"),
        ("CMYK", "jpeg"),
        ("RGB", "webp"),
        ("1", "bmp"),
    ]:
        image = encoded(PICTURE.convert(mode), file_format)
        assert len(handlers["mac"]({"inputs": {"image": image, "question": TEXTS[0]}})) == 5


@pytest.mark.parametrize(
    ("text", "kind"),
    [("a " * 50_000, "limit"), ("", "input"), ("?!", "input"), (None, "text"), (3, "text"), ("dog \ud800", "text")],
)
def test_bad_texts_are_refused(text, kind, handlers, lives):
    inputs = {
        "scan": [{"image": IMAGE, "candidate_labels": ["a dog", text]}, {"image": IMAGE, "text": ["a dog", text]}],
        "mac": [{"image": IMAGE, "question": text}],
        "m4c": [{"image": IMAGE, "question": text, **READ}],
        "attngan": [text],
    }
    for name, several in inputs.items():
        for one in several:
            answer = handlers[name]({"inputs": one})
            assert answer["kind"] == kind, answer
            json.dumps(answer).encode()


def test_other_bad_inputs_are_refused(handlers, lives):
    for name, change, kind, message in [
        ("scan", {"text": None}, "text", "either text or candidate_labels"),
        ("scan", {"candidate_labels": ["a"]}, "text", "either text or candidate_labels"),
        ("scan", {"text": []}, "limit", "0 texts"),
        ("scan", {"text": ["a dog"] * 101}, "limit", "101 texts"),
        ("scan", {"text": {"a": 1}}, "request", "must be a list"),
        ("mac", {"ocr_tokens": ["STOP"]}, "input", "MAC reads no text"),
        ("m4c", {"ocr_tokens": None, "ocr_boxes": None}, "input", "ocr_tokens"),
        ("m4c", {"ocr_tokens": ["a"] * 501}, "limit", "501 ocr_tokens"),
        ("m4c", {"ocr_tokens": ["a" * 2000]}, "limit", "2000 characters"),
        ("m4c", {"ocr_tokens": "STOP"}, "request", "ocr_tokens must be a list"),
        ("m4c", {"ocr_boxes": [[0, 0, 1]] * 3}, "request", "ocr_boxes must be"),
        ("m4c", {"ocr_boxes": [[0, 0, 1, "1"]] * 3}, "request", "ocr_boxes must be"),
        ("m4c", {"ocr_boxes": [[0, 0, 1, float("nan")]] * 3}, "input", "not finite"),
        ("m4c", {"ocr_boxes": [[0, 0, 1, 1]]}, "input", "3 rows are needed"),
    ]:
        answer = handlers[name]({"inputs": {**GOOD[name], **change}})
        assert answer["kind"] == kind and message in answer["error"], answer
    template = {"candidate_labels": ["dog"], "hypothesis_template": "a {0.__class__}"}
    assert handlers["scan"]({"inputs": IMAGE, "parameters": template})["kind"] == "parameters"
    template["hypothesis_template"] = "a {} of {0.__class__}"
    assert "class" not in json.dumps(handlers["scan"]({"inputs": IMAGE, "parameters": template}))
    many = {"inputs": TEXTS, "parameters": {"num_images": 6}}
    assert handlers["attngan"](many)["kind"] == "limit"
    assert handlers["attngan"]({"inputs": {"image": IMAGE}})["kind"] == "text"


def test_what_fails_within_the_model_is_an_answer(handlers, monkeypatch, caplog, lives):
    """A model that was damaged in memory stands for whatever may happen inside: the process does not end."""
    model = handlers["mac"].pipeline.model
    with monkeypatch.context() as damaged:
        damaged.setattr(model.model.stem, "grid_size", 4)
        answer = handlers["mac"]({"inputs": GOOD["mac"]})
    assert answer == {"error": "the model failed on this input (RuntimeError)", "kind": "internal"}
    assert "an input could not be answered" in caplog.text


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no config.json of a model can be read"):
        EndpointHandler(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="config.json names no pipeline of image-text-matching"):
        EndpointHandler(str(tmp_path))


def test_the_hubs_client_asks_and_understands(handlers, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # the endpoint is on this machine

    class Endpoint(BaseHTTPRequestHandler):
        model = ""

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(handlers[self.model](request)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = InferenceClient(model=f"http://127.0.0.1:{server.server_port}")
        content = base64.b64decode(IMAGE)
        Endpoint.model = "mac"
        answers = client.visual_question_answering(content, TEXTS[0], top_k=2)
        expected = handlers["mac"]({"inputs": GOOD["mac"], "parameters": {"top_k": 2}})
        assert [(one.answer, one.score) for one in answers] == [(one["answer"], one["score"]) for one in expected]
        Endpoint.model = "scan"
        labels = client.zero_shot_image_classification(content, candidate_labels=TEXTS)
        expected = handlers["scan"]({"inputs": {"image": IMAGE, "candidate_labels": TEXTS}})
        assert [(one.label, one.score) for one in labels] == [(one["label"], one["score"]) for one in expected]
        server.shutdown()


def test_the_handler_answers_where_the_package_is_not_installed(handlers, repositories, tmp_path):
    folders = {name: folder for name, (folder, _) in repositories.items()}
    refused = {"inputs": {"image": "http://127.0.0.1/", "question": "?", "text": "a dog"}}
    for name, folder in folders.items():
        assert (folder / "handler.py").read_text() == Path(handler_file.__file__).read_text()
        (folder / "requests.json").write_text(json.dumps([{"inputs": GOOD[name]}, refused, {"inputs": [GOOD[name]]}]))
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HUB_OFFLINE": "1",
    }
    finished = subprocess.run(
        [sys.executable, Path(__file__).with_name("run_handler.py"), *folders.values()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    for name, folder in folders.items():
        answer, error, several = json.loads((folder / "answers.json").read_text())
        assert close(answer, handlers[name]({"inputs": GOOD[name]}))
        assert set(error) == {"error", "kind"}
        assert close(several, [answer])
