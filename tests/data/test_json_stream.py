import json

import pytest

from vl_alignment.data import json_stream
from vl_alignment.data.json_stream import stream_json_list
from vl_alignment.models.errors import DataError

CONTENT = {
    "info": {"version": "1.0", "questions": ["not these"]},
    "numbers": [1, 22, 333],
    "number": 12345,
    "questions": [{"text": "Wie groß ist er?", "inputs": [[0], {}], "answer": None}, 17, 3.5, "a ] in a string", []],
    "license": 'with a "quote"',
}


@pytest.mark.parametrize("block", [1, 2, 7, 2**20])
@pytest.mark.parametrize("indent", [None, 2])
def test_entries_are_those_of_json_load(tmp_path, monkeypatch, block, indent):
    monkeypatch.setattr(json_stream, "BLOCK_CHARACTERS", block)
    path = tmp_path / "data.json"
    path.write_text(json.dumps(CONTENT, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert list(stream_json_list(path, "questions")) == CONTENT["questions"]
    assert list(stream_json_list(path, "numbers")) == CONTENT["numbers"]


def test_an_empty_list_has_no_entries(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(' {"questions" : [ ] }\n')
    assert list(stream_json_list(path, "questions")) == []


def test_a_file_cut_anywhere_is_an_error(tmp_path):
    text = json.dumps(CONTENT)
    path = tmp_path / "data.json"
    for length in range(len(text)):
        path.write_text(text[:length], encoding="utf-8")
        with pytest.raises(DataError, match="data.json: not complete, valid JSON"):
            list(stream_json_list(path, "questions"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "expected '{', found '\\['"),
        ("{}", 'there is no list "questions"'),
        ('{"questions": 3}', 'there is no list "questions"'),
        ('{"questions": [1 2]}', "expected '\\]', found '2'"),
        ('{"questions": [1]} {}', "more text after the end"),
    ],
)
def test_another_layout_is_an_error(tmp_path, text, message):
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(stream_json_list(path, "questions"))


def test_damage_is_noticed_without_reading_all_that_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "BLOCK_CHARACTERS", 10)
    monkeypatch.setattr(json_stream, "MAXIMUM_ENTRY_CHARACTERS", 100)
    path = tmp_path / "data.json"
    path.write_text('{"questions": [{"a": 1}, {"b" 2}' + ", {}" * 10_000 + "]}")
    entries = stream_json_list(path, "questions")
    assert next(entries) == {"a": 1}
    reader = entries.gi_yieldfrom.gi_frame.f_locals["self"]
    with pytest.raises(DataError, match="not complete, valid JSON"):
        next(entries)
    assert reader.file.closed and len(reader.text) < 1000


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="nowhere.json: cannot be read"):
        list(stream_json_list(tmp_path / "nowhere.json", "questions"))
    path = tmp_path / "data.json"
    path.write_bytes(b'{"questions": ["\xff"]}')
    with pytest.raises(DataError, match="not UTF-8"):
        list(stream_json_list(path, "questions"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("9" * 5_000, "4300 digits"),
        ('["\\ud800"]', "half of a character"),
    ],
)
def test_entries_that_nothing_can_take_are_refused(tmp_path, entry, message):
    path = tmp_path / "data.json"
    path.write_text(f'{{"questions": [{entry}]}}')
    with pytest.raises(DataError, match=f"data.json: .*{message}"):
        list(stream_json_list(path, "questions"))


def test_characters_in_two_halves_are_whole(tmp_path):
    path = tmp_path / "data.json"
    path.write_text('{"questions": ["\\ud83d\\ude00"]}')
    assert list(stream_json_list(path, "questions")) == ["\U0001f600"]
