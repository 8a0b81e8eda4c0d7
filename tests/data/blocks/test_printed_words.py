import hashlib
from collections import Counter

import numpy as np

from vl_alignment.data.blocks.phrases import SYNONYMS
from vl_alignment.data.blocks.printed_words import SIGN_WORDS, draw_word, word_split
from vl_alignment.data.blocks.scene import COLORS, SHAPES, SPLITS

# Change TEXT_VERSION in text_builder.py whenever this has to change.
PINNED = "d0c648"


def drawn(split: str, count: int = 3000) -> list[str]:
    draw = np.random.Generator(np.random.PCG64(5)).random
    return [draw_word(split, draw) for _ in range(count)]


def test_no_word_is_in_two_splits() -> None:
    words = {split: drawn(split) for split in SPLITS}
    for split, found in words.items():
        assert {word_split(word) for word in found} == {word_split(word.upper()) for word in found} == {split}
        assert all(word.isascii() and word.isalpha() and word == word.lower() and 3 <= len(word) <= 9 for word in found)
        assert 0.35 < sum(word in SIGN_WORDS for word in found) / len(found) < 0.55
    assert not set(words["train"]) & (set(words["validation"]) | set(words["test"]))
    assert len(set(words["test"])) > 1000


def test_every_split_has_words_of_both_kinds() -> None:
    shares = Counter(map(word_split, SIGN_WORDS))
    assert len(SIGN_WORDS) == len(set(SIGN_WORDS)) > 200
    assert min(shares.values()) > 20 and shares["train"] > 0.6 * len(SIGN_WORDS)


def test_no_word_can_be_confused_with_an_answer_of_the_vocabulary() -> None:
    closed = {*COLORS, *SHAPES, "yes", "no", "sign", "thing", *(word for words in SYNONYMS.values() for word in words)}
    assert not closed & {*SIGN_WORDS, *drawn("train")}


def test_words_are_pinned() -> None:
    text = " ".join(word for split in SPLITS for word in drawn(split, 200))
    assert hashlib.sha256(text.encode()).hexdigest()[:6] == PINNED
