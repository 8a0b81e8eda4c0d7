import json

import pytest

from vl_alignment.data.json_text import parse_json


@pytest.mark.parametrize("content", [[1, {"a": None}], "Zürich \U0001f600", 10**30, {}])
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_json_comes_back_from_text_and_from_bytes(content, ensure_ascii):
    text = json.dumps(content, ensure_ascii=ensure_ascii)
    assert parse_json(text) == parse_json(text.encode()) == parse_json(text.encode("utf-16")) == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 50_000 + "]" * 50_000, "nested too deeply"),
        ('{"a":' * 50_000, "nested too deeply"),
        ('["\\ud800"]', "half of a character"),
        ('{"\\uDFFF": 1}', "half of a character"),
        ("9" * 5_000, "digits"),
        ("[1", "delimiter"),
        (b"\xff\xfe\xfd", "decode"),
    ],
)
def test_all_else_is_one_kind_of_error(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)
