"""The page as programs use it: what models find, what it refuses, and that it goes on afterwards."""

import base64
import html
import io
import itertools
import re
import shutil
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.pipelines.repositories import READ, TEXTS

gradio_client = pytest.importorskip("gradio_client", reason="needs gradio: pip install 'vl-alignment[demo]'")

import httpx  # noqa: E402  (of gradio)

from vl_alignment.serving import app as app_module  # noqa: E402
from vl_alignment.serving import limits  # noqa: E402
from vl_alignment.serving.app import build_app, load, panel, read_model  # noqa: E402
from vl_alignment.serving.markup import heat_uri  # noqa: E402

NOTHING = app_module.NOTHING
TABLE = {
    "headers": ["word", "left", "top", "right", "bottom"],
    "data": [[word, *box] for word, box in zip(READ["ocr_tokens"], READ["ocr_boxes"], strict=True)],
    "metadata": None,
}
EMPTY_TABLE = {**TABLE, "data": [["", "", "", "", ""]]}


@pytest.fixture(scope="module")
def client(page):
    return gradio_client.Client(page, verbose=False)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return path


def given(path):
    return gradio_client.handle_file(str(path))


def bars(found):
    pairs = re.findall(r'<span class="label">(.*?)</span>.*?<b>(.*?)</b>', found)
    return [tuple(map(html.unescape, pair)) for pair in pairs]


def decoded(source):
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def message_in(found):
    (text,) = re.findall(r'role="alert">(.*?)</div>', found, flags=re.DOTALL)
    assert "Traceback" not in text and "\n" not in text
    return html.unescape(text)


def test_captions_are_ranked_by_two_functions_and_each_word_lights_the_picture(client, picture, tiny_models):
    found = client.predict("dot", "general key", given(picture), "\n".join(TEXTS), api_name="/match")
    assert found.count("<section>") == 2
    assert "<h3>dot</h3>" in found and "f(Q, K) = Q (W K)" in found
    matches = load(tiny_models["scan", "dot"], "scan")(str(picture), TEXTS)
    first = found[: found.index("</section>")]
    assert bars(first) == [(f"{match['rank']}.", f"{match['score']:+.3f}") for match in matches]
    words = re.findall(r'<span class="word[^>]*>(\w+)<small>', first)
    assert words == [word for match in matches for word in match["text"].split()]
    assert first.count('type="radio"') == len(words) + 1  # and the picture without a word
    # The words of a caption have one value in both panels, by which they are chosen together.
    values = re.findall(r'name="(look-\d+)" value="(.*?)"', found)
    assert len({name for name, _ in values}) == 2
    assert len({value for _, value in values}) == len(values) / 2


def test_mac_shows_its_answers_and_a_step_a_line(client, picture, tiny_models):
    found = client.predict("general key", NOTHING, given(picture), "two dogs?", api_name="/ask")
    answers = load(tiny_models["mac", "general_key"], "mac")(str(picture), "two dogs?")
    assert bars(found) == [(answer["answer"], f"{answer['score']:.1%}") for answer in answers[:3]]
    assert re.findall(r">(step \d)<small>", found) == ["step 1", "step 2", "step 3"]


@pytest.mark.parametrize(
    ("table", "words"), [(TABLE, READ["ocr_tokens"]), (EMPTY_TABLE, ["exit"])], ids=["typed", "read"]
)
def test_m4c_answers_with_the_words_that_are_typed_or_else_read(client, picture, tiny_models, table, words):
    found = client.predict("additive", NOTHING, given(picture), "a red car?", table, api_name="/read")
    ask = load(tiny_models["m4c", "additive"], "m4c")
    boxes = READ["ocr_boxes"] if table is TABLE else [[0.5, 0.5, 0.9, 0.7]]
    answers = ask(str(picture), "a red car?", ocr_tokens=words, ocr_boxes=boxes, output_attentions=True)
    assert bars(found) == [(answer["answer"] or "(no words)", f"{answer['score']:.1%}") for answer in answers[:3]]
    sources = re.findall(r"<small>(copied|known)</small>", found)
    assert sources == ["copied" if word["source"] == "ocr" else "known" for word in answers[0]["sources"]]
    assert all(f">{word}</span>" in found for word in words)


def test_the_reader_fills_the_table(client, picture):
    assert client.predict(given(picture), api_name="/read_words")["data"] == [["exit", 0.5, 0.5, 0.9, 0.7]]


def test_each_word_of_a_caption_lights_every_drawn_picture(client, tiny_models):
    found = client.predict("cosine", NOTHING, TEXTS[0], 3, 5, api_name="/draw")
    drawn = load(tiny_models["attngan", "cosine"], "attngan")(TEXTS[0], num_images=3, seed=5)
    sources = re.findall(r'<img src="(data:image/webp[^"]*)"', found)
    assert len(sources) == 3
    for source, expected in zip(sources, drawn, strict=True):
        difference = np.abs(np.asarray(decoded(source), dtype=int) - np.asarray(expected))
        assert difference.mean() < 12  # what the compression changes in noise
    stages, words = 2, 3
    assert found.count("data:image/png") == stages * words * 3


def test_a_veil_is_clearest_where_the_largest_weight_is():
    weights = np.zeros((3, 4))
    weights[1, 2] = 1
    opacity = np.asarray(decoded(heat_uri(weights)).convert("RGBA"))[..., 3]
    place = np.unravel_index(opacity.argmin(), opacity.shape)
    assert [number * sides // 48 for number, sides in zip(place, (3, 4), strict=True)] == [1, 2]
    boxes = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]])
    opacity = np.asarray(decoded(heat_uri(np.array([0.1, 0.9]), boxes)).convert("RGBA"))[..., 3]
    assert opacity[:, :24].min() > opacity[:, 24:].max()
    # Equal weights point nowhere.
    even = np.asarray(decoded(heat_uri(np.full((3, 4), 1 / 12))).convert("RGBA"))[..., 3]
    assert even.min() == even.max() > opacity.min()


def test_what_is_typed_is_no_markup(client, picture):
    found = client.predict("dot", NOTHING, given(picture), "<img src=x onerror=alert(1)> dog", api_name="/match")
    assert "<img src=x" not in found and "onerror=alert(1)&gt; dog" in found
    assert "never learned" in found  # its words are not the model's


def png_that_claims(width, height):
    """A PNG of a few bytes whose header promises a huge picture."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(bytes(10**6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"no picture at all", "cannot be read"),
        (b"", "cannot be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read"),
        (png_that_claims(200, 200)[:60], "cannot be read"),
        (png_that_claims(10_000, 5_000), "10000 x 5000 pixels; at most 25 megapixels"),
        (png_that_claims(100_000, 100_000), "far too large"),
    ],
    ids=["text", "empty", "svg", "truncated", "50 megapixels", "bomb"],
)
def test_a_picture_that_cannot_be_taken_gives_one_message(client, picture, tmp_path, content, part):
    path = tmp_path / "upload.png"
    path.write_bytes(content)
    found = client.predict("dot", "general key", given(path), "a dog", api_name="/match")
    assert part in message_in(found)
    assert bars(client.predict("dot", NOTHING, given(picture), "a dog", api_name="/match"))  # the server lives on


def test_what_is_missing_or_too_much_gives_one_message(client, picture):
    def match(path, text):
        return message_in(client.predict("dot", NOTHING, path, text, api_name="/match"))

    assert match(None, "a dog") == "Choose a picture first."
    assert match(given(picture), " \n ") == "Type a caption first."
    assert match(given(picture), "x" * 100_000) == "The text has 100,000 characters; at most 1,000 are taken here."
    assert match(given(picture), "a\n" * 33) == "There are 33 captions; at most 32 are taken here."
    assert "has no words" in match(given(picture), "?!")
    long = client.predict("cosine", NOTHING, "dog " * 25_000, 1, 0, api_name="/draw")
    assert "99,999 characters" in message_in(long)
    assert "no word of the vocabulary" in message_in(client.predict("cosine", NOTHING, "zebra", 1, 0, api_name="/draw"))
    assert "with a seed from 0" in message_in(client.predict("cosine", NOTHING, "a dog", 1, -1, api_name="/draw"))


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([["exit", 0, 0, 2, 1]], "Each word needs its box"),
        ([["exit", 0, 0, "wide", 1]], "Each word needs its box"),
        ([["exit", "", "", "", ""]], "Each word needs its box"),
        ([["exit", 0, 0, "nan", 1]], "Each word needs its box"),
        ([["exit", 0, 0, 1, 1]] * 101, "101 words stand in the table"),
        ([["x" * 5000, 0, 0, 1, 1]], "5,000 characters"),
    ],
)
def test_a_wrong_table_of_words_gives_one_message(rows, part):
    with pytest.raises(ValueError, match=part):
        limits.printed_words(rows)


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/upload"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_request_that_is_too_large_is_refused(page, path, announced):
    size = limits.REQUEST_BYTES + 1 + limits.UPLOAD_BYTES * path.endswith("upload")
    begin = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    content = (
        bytes(size) if announced else itertools.chain([begin], itertools.repeat(bytes(100_000), size // 100_000 + 1))
    )
    headers = {"content-type": "multipart/form-data; boundary=b" if "upload" in path else "application/json"}
    try:
        answer = httpx.post(page + path, content=content, headers=headers)
    except httpx.WriteError:  # refused before all was sent
        answer = None
    assert answer is None or answer.status_code == 413
    assert httpx.get(page + "/config").status_code == 200


def test_a_file_that_is_too_large_is_refused(page):
    answer = httpx.post(page + "/gradio_api/upload", files={"files": ("a.png", bytes(limits.UPLOAD_BYTES + 1))})
    assert answer.status_code == 413
    assert f"{limits.UPLOAD_BYTES} bytes" in answer.text


def test_requests_wait_for_one_another_and_not_too_many(page, served_app):
    config = httpx.get(page + "/config").json()
    assert limits.LIMITS in str(config["components"]) and not config["analytics_enabled"]
    computing = [
        own for own in served_app.fns.values() if own.api_name in ("match", "ask", "read", "read_words", "draw")
    ]
    assert len(computing) == 5
    assert {(own.concurrency_id, own.concurrency_limit, own.queue) for own in computing} == {("model", 1, True)}
    assert served_app._queue.max_size == limits.WAITING


def test_few_sessions_are_kept_and_one_that_was_dropped_asks_on(page, served_app, picture):
    client = gradio_client.Client(page, verbose=False)
    sessions = served_app.state_holder
    assert sessions.capacity == limits.SESSIONS
    before = bars(client.predict("dot", NOTHING, given(picture), "a red cube", api_name="/match"))
    for _ in range(limits.SESSIONS):
        sessions[f"another {time.monotonic_ns()}"]  # as a call of another program does
    assert len(sessions.session_data) <= limits.SESSIONS and client.session_hash not in sessions
    assert before and bars(client.predict("dot", NOTHING, given(picture), "a red cube", api_name="/match")) == before


def test_gradio_writes_nothing_beside_the_page():
    # It does where a module has a component of its own.
    assert not list(Path(app_module.__file__).parent.glob("*.pyi"))


def test_an_answer_that_takes_too_long_is_a_message(client, picture, monkeypatch):
    monkeypatch.setattr(limits, "MAX_SECONDS", 0.5)
    monkeypatch.setattr(app_module, "panel", lambda model, find: time.sleep(1.5) or "an answer")
    found = client.predict("dot", "general key", given(picture), "a dog", api_name="/match")
    assert found.count("No answer came within 0.5 seconds") == 2 and "<h3>dot</h3>" in found
    assert "an answer" not in found
    # The first of these is computed after the one above; they are answered in any order.
    waiting = [client.submit("dot", NOTHING, given(picture), "a dog", api_name="/match") for _ in range(6)]
    messages = [message_in(job.result()) for job in waiting]
    assert all("within 0.5 seconds" in text for text in messages)
    assert any("No turn came" in text for text in messages)


def test_faults_are_messages_and_the_log_has_the_rest(tiny_models, caplog):
    model = read_model(tiny_models["scan", "dot"])

    def fail(loaded):
        return {}["a key"]

    assert message_in(panel(model, fail)) == "A fault of ours (KeyError); the server's log says more."
    assert "Traceback" in caplog.text


def test_weights_that_are_gone_are_a_message(tiny_models, tmp_path):
    folder = tmp_path / "scan-gone"
    shutil.copytree(tiny_models["scan", "dot"], folder)
    (folder / "model.safetensors").unlink()
    found = panel(read_model(str(folder)), lambda loaded: None)
    assert "safetensors" in message_in(found)


def test_models_that_no_page_is_for_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one model"):
        build_app([])
    with pytest.raises(ValueError, match="config.json"):
        build_app([str(tmp_path)])
    (tmp_path / "config.json").write_text('{"model_type": "damsm"}')
    with pytest.raises(ValueError, match="no page for a model of type 'damsm'; choose from scan, mac, m4c, attngan"):
        build_app([str(tmp_path)])
