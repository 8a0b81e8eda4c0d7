import errno
import json
import logging

import datasets
import numpy as np
import pytest
from PIL import Image

from vl_alignment.data import text_recognition
from vl_alignment.data.text_recognition import (
    RecognizedText,
    TextStore,
    build_text_reader,
    read_texts,
    register_text_reader,
    text_reader_names,
)
from vl_alignment.models.errors import ConfigurationError, DataError


class GreyReader:
    """Reads as many words as a picture's first pixel is bright; stops as a killed process would, when told."""

    name, version = "grey", "1"

    def __init__(self, stop_after=None):
        self.read_pictures, self.stop_after = 0, stop_after

    def read(self, image):
        if self.read_pictures == self.stop_after:
            raise KeyboardInterrupt
        self.read_pictures += 1
        number = image.getpixel((0, 0))[0]
        boxes = np.arange(4 * number, dtype=np.float32).reshape(number, 4) / 100
        return RecognizedText([f"wörd{n}" for n in range(number)], boxes, np.full(number, 0.5, dtype=np.float32))


@pytest.fixture
def data(tmp_path):
    splits = {}
    for name, levels in {"train": [2, 0, 1], "test": [3]}.items():
        paths = []
        for level in levels:
            paths.append(str(tmp_path / f"{level}.png"))
            Image.new("L", (4, 4), level).save(paths[-1])
        table = datasets.Dataset.from_dict({"image_id": [f"p{level}" for level in levels], "image": paths})
        splits[name] = table.cast_column("image", datasets.Image())
    return datasets.DatasetDict(splits)


def test_the_text_of_a_data_set_is_read_once(data, tmp_path):
    path = tmp_path / "texts" / "grey.jsonl"
    reader = GreyReader()
    store = read_texts(data, reader, path, progress=False)
    assert (len(store), store.reader, store.reader_version, store.failures) == (4, "grey", "1", {})
    assert store["p2"].tokens == ["wörd0", "wörd1"]
    np.testing.assert_allclose(store["p2"].boxes, np.arange(8).reshape(2, 4) / 100, atol=1e-6)
    assert store["p0"].tokens == [] and store["p0"].boxes.shape == (0, 4) and store["p0"].confidences.shape == (0,)
    written = path.read_bytes()
    assert [json.loads(line).get("image_id") for line in written.splitlines()] == [None, "p2", "p0", "p1", "p3"]
    again = read_texts(data, reader, path, progress=False)
    assert reader.read_pictures == 4 and path.read_bytes() == written and len(again) == 4
    assert not path.with_name("grey.jsonl.part").exists()


@pytest.mark.parametrize("torn", [b"", b'{"image_id": "p1", "tok'])
def test_a_stopped_reading_goes_on_and_ends_with_the_same_bytes(torn, data, tmp_path):
    read_texts(data, GreyReader(), tmp_path / "whole.jsonl", progress=False)
    path, part = tmp_path / "stopped.jsonl", tmp_path / "stopped.jsonl.part"
    with pytest.raises(KeyboardInterrupt):
        read_texts(data, GreyReader(stop_after=2), path, progress=False)
    with pytest.raises(DataError, match="stopped.jsonl: the text is not all read yet"):
        TextStore.open(path)
    part.write_bytes(part.read_bytes() + torn)
    reader = GreyReader()
    read_texts(data, reader, path, progress=False)
    assert reader.read_pictures == 2
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes() and not part.exists()


@pytest.mark.parametrize("torn", [b"", b'{"schema_version": 1, "rea'])
@pytest.mark.parametrize("finished", [False, True])
def test_a_part_without_a_whole_header_counts_as_absent(torn, finished, data, tmp_path):
    read_texts(data, GreyReader(), tmp_path / "whole.jsonl", progress=False)
    path, reader = tmp_path / "torn.jsonl", GreyReader()
    if finished:
        read_texts(data, GreyReader(), path, progress=False)
    (tmp_path / "torn.jsonl.part").write_bytes(torn)
    read_texts(data, reader, path, progress=False)
    assert reader.read_pictures == (0 if finished else 4)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("stop_after", [0, 2])
def test_a_full_disk_is_one_error_and_what_was_read_is_still_there(stop_after, data, tmp_path, monkeypatch):
    read_texts(data, GreyReader(), tmp_path / "whole.jsonl", progress=False)
    path = tmp_path / "full.jsonl"
    if stop_after:
        with pytest.raises(KeyboardInterrupt):
            read_texts(data, GreyReader(stop_after=stop_after), path, progress=False)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(DataError, match="full.jsonl.part: The disk is full; make room"):
            read_texts(data, GreyReader(), path, progress=False)
    assert not list(tmp_path.glob(".*")) and not path.exists()
    read_texts(data, GreyReader(), path, progress=False)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_finished_store_is_extended(data, tmp_path):
    path = tmp_path / "grey.jsonl"
    read_texts(datasets.DatasetDict(train=data["train"]), GreyReader(), path, progress=False)
    reader = GreyReader()
    store = read_texts(data, reader, path, progress=False)
    assert reader.read_pictures == 1 and len(store) == 4


def test_unreadable_pictures_are_left_out_and_tried_again(data, tmp_path, caplog):
    path, picture = tmp_path / "grey.jsonl", tmp_path / "1.png"
    whole = picture.read_bytes()
    picture.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 images could not be opened \(the limit is 0\), the last is p1"):
        read_texts(data, GreyReader(), path, maximum_failures=0, progress=False)
    with caplog.at_level(logging.WARNING):
        store = read_texts(data, GreyReader(), path, progress=False)
    assert "left out image p1" in caplog.text
    assert list(store.failures) == ["p1"] and len(store) == 3 and "p1" not in store
    with pytest.raises(DataError, match="record p1: there is no text of this picture: .*1.png"):
        store["p1"]
    picture.write_bytes(whole)
    reader = GreyReader()
    store = read_texts(data, reader, path, progress=False)
    assert reader.read_pictures == 1 and len(store) == 4 and not store.failures


def test_text_becomes_columns(data, tmp_path):
    store = read_texts(data, GreyReader(), tmp_path / "grey.jsonl", progress=False)
    images = store.add_to(data["train"].add_column("ocr_tokens", [["old"]] * 3))
    assert images["ocr_tokens"][:] == [["wörd0", "wörd1"], [], ["wörd0"]]
    assert images["ocr_confidences"][:] == [[0.5, 0.5], [], [0.5]]
    np.testing.assert_allclose(images[2]["ocr_boxes"], [[0, 0.01, 0.02, 0.03]], atol=1e-6)
    other = data["train"].remove_columns("image_id").add_column("image_id", ["p2", "p0", "p9"])
    with pytest.raises(DataError, match="record p9: there is no text of this picture: it was not read"):
        store.add_to(other)


def test_another_reader_is_refused(data, tmp_path):
    read_texts(data, GreyReader(), tmp_path / "grey.jsonl", progress=False)
    reader = GreyReader()
    reader.version = "2"
    with pytest.raises(DataError, match="grey.jsonl: holds text with reader_version '1', this is '2'"):
        read_texts(data, reader, tmp_path / "grey.jsonl", progress=False)


HEAD = '{"schema_version": 1, "reader": "grey", "reader_version": "1"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        ("{}\n", "record 1: .*lacks reader"),
        (HEAD + '{"image_id": "a"}\n', "record 2: .*lacks boxes"),
        (HEAD + "x\n", "record 2: no line of a store of text"),
        (HEAD + "7\n", "record 2: no line of a store of text"),
        (HEAD + '{"image_id": "a"', "truncated"),
        (HEAD.replace("1,", "9,"), "schema version 9, this vl-alignment reads up to 1"),
    ],
)
def test_damaged_stores_are_named(content, message, tmp_path):
    path = tmp_path / "grey.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=f"grey.jsonl.*{message}"):
        TextStore.open(path)


def test_missing_stores_and_doubled_ids_are_named(data, tmp_path):
    with pytest.raises(DataError, match="none.jsonl: there is no text here"):
        TextStore.open(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="record p3: this image id occurs twice"):
        read_texts(
            datasets.DatasetDict(a=data["test"], b=data["test"]), GreyReader(), tmp_path / "x.jsonl", progress=False
        )


def test_readers_by_name(monkeypatch):
    monkeypatch.setattr(text_recognition, "_FACTORIES", dict(text_recognition._FACTORIES))
    assert text_reader_names() == ["rapidocr"]
    register_text_reader("grey", GreyReader)
    assert build_text_reader("grey", stop_after=1).stop_after == 1
    with pytest.raises(ConfigurationError, match="already registered"):
        register_text_reader("grey", GreyReader)
    with pytest.raises(ConfigurationError, match="unknown text reader 'tesseract'; the known ones are grey, rapidocr"):
        build_text_reader("tesseract")
    with pytest.raises(ConfigurationError, match="'grey': .*unexpected keyword argument 'stop'"):
        build_text_reader("grey", stop=1)


@pytest.mark.parametrize(
    "text",
    [
        {"tokens": ["a"], "boxes": ["left"], "confidences": [1]},
        {"tokens": ["a"], "boxes": [[0, 0, 1]], "confidences": [1]},
        {"tokens": 7, "boxes": [], "confidences": []},
        {"tokens": ["a"], "boxes": [[0, 0, 1, 1]], "confidences": [[1], [2, 3]]},
    ],
)
def test_text_of_another_form_is_named(tmp_path, text):
    path = tmp_path / "text.jsonl"
    lines = [{"schema_version": 1, "reader": "grey", "reader_version": "1"}, {"image_id": "a", **text}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match="text.jsonl, record a"):
        TextStore.open(path).add_to(datasets.Dataset.from_dict({"image_id": ["a"]}))


@pytest.mark.parametrize("line", ['{"image_id": ["a"], "failure": "x"}', "7", '["image_id", "failure"]', "[" * 50_000])
def test_lines_of_another_form_are_named(tmp_path, line):
    path = tmp_path / "text.jsonl"
    path.write_text('{"schema_version": 1, "reader": "grey", "reader_version": "1"}\n' + line + "\n")
    with pytest.raises(DataError, match="text.jsonl, record 2: no line of a store of text"):
        TextStore.open(path)
