import pytest

from vl_alignment.data.vocabulary import WORD_END, build_spelling_tokenizer
from vl_alignment.models import DataError


def pieces(tokenizer, text):
    return [piece.replace(WORD_END, "$") for piece in tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])][
        1:-1
    ]


def test_rare_words_and_words_that_begin_like_known_ones_are_spelled():
    tokenizer = build_spelling_tokenizer(["the box says box", "the thing"], minimum_count=2)
    assert pieces(tokenizer, "The BOX?") == ["the$", "box$"]
    assert pieces(tokenizer, "thelan") == ["t", "##h", "##e", "##l", "##a", "##n", "##$"]
    with pytest.raises(DataError, match="no words"):
        build_spelling_tokenizer(["?"])
