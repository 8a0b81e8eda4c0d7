import pytest

from vl_alignment.data.yaml_text import MAXIMUM_CHARACTERS, parse_yaml


def test_plain_values_and_aliases_of_them_come_back():
    assert parse_yaml("a: &x [1, two]\nb: *x\nc: {d: 0.5}") == {"a": [1, "two"], "b": [1, "two"], "c": {"d": 0.5}}


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 6)}]" for n in range(1, 30))]
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 100,000 values"),
        ("&a [*a]", "more than 100,000 values"),
        ("a: " + "[" * 20_000, "nested too deeply"),
        ("a: 2020-13-45", "month"),
        ("a: !!float x", "float"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("a: [", "expected"),
        ("a: 0x" + "f" * 6_000, "thousands of digits"),
        ("{[a]: b}", "unhashable"),
        ("x" * (MAXIMUM_CHARACTERS + 1), "characters"),
    ],
)
def test_all_else_is_one_kind_of_error(text, message):
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)
