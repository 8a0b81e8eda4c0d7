import errno
import random

import pytest

from vl_alignment.data.answer_vocabulary import (
    SPECIAL_WORDS,
    build_answer_vocabulary,
    read_answer_vocabulary,
    word_tokenize,
    write_answer_vocabulary,
)
from vl_alignment.models.errors import ConfigurationError, DataError

ANSWERS = ["Red bull", "red", "John's", "blue, red?", "azure", "blue", "e-mail", "</s>"]


def test_words_are_those_of_m4c():
    assert word_tokenize("  John's, e-mail? ") == "john 's e-mail"


def test_most_frequent_first_then_alphabetical():
    vocabulary = build_answer_vocabulary(ANSWERS, 100)
    assert vocabulary == ["<pad>", "<s>", "</s>", "<unk>", "red", "blue", "'s", "azure", "bull", "e-mail", "john"]


def test_the_size_counts_the_special_words():
    assert build_answer_vocabulary(ANSWERS, 7) == [*SPECIAL_WORDS, "red", "blue", "'s"]


def test_the_order_of_the_answers_does_not_count():
    shuffled = ANSWERS * 3
    random.Random(1).shuffle(shuffled)
    assert build_answer_vocabulary(shuffled, 9) == build_answer_vocabulary(ANSWERS, 9)


def test_a_file_comes_back(tmp_path):
    words = [*SPECIAL_WORDS, "straße", "'s", "\u2028odd\u2028line", "two words"]
    path = tmp_path / "new" / "vocabulary.txt"
    write_answer_vocabulary([word.strip() for word in words], path)
    assert path.read_bytes().startswith(b"<pad>\n<s>\n</s>\n<unk>\n")
    assert read_answer_vocabulary(path) == [word.strip() for word in words]


def test_a_vocabulary_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = tmp_path / "vocabulary.txt"
    write_answer_vocabulary([*SPECIAL_WORDS, "red"], path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="vocabulary.txt: The disk is full; make room"):
        write_answer_vocabulary([*SPECIAL_WORDS, "blue"], path)
    with pytest.raises(DataError, match="out.txt: It cannot be written"):
        write_answer_vocabulary([*SPECIAL_WORDS, "blue"], path / "out.txt")
    assert read_answer_vocabulary(path)[-1] == "red" and len(list(tmp_path.iterdir())) == 1


def test_a_vocabulary_needs_words():
    with pytest.raises(ConfigurationError, match="size=4 leaves no room"):
        build_answer_vocabulary(ANSWERS, 4)
    with pytest.raises(DataError, match="the answers have no words"):
        build_answer_vocabulary(["", " ? "], 10)


SPECIAL_LINES = "".join(f"{word}\n" for word in SPECIAL_WORDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("red\nblue\n", "vocabulary.txt: an answer vocabulary begins with the lines <pad> <s> </s> <unk>"),
        (SPECIAL_LINES, "no words after the special ones"),
        (SPECIAL_LINES + "red\n\nblue\n", "record line 6: '' is no word"),
        (SPECIAL_LINES + "red\nblue\nred\n", "record line 7: 'red' is already on line 5"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    (tmp_path / "vocabulary.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_answer_vocabulary(tmp_path / "vocabulary.txt")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none.txt: .*cannot be read \(No such file.*build-vocabulary"):
        read_answer_vocabulary(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(SPECIAL_LINES.encode() + b"stra\xdfe\n")
    with pytest.raises(DataError, match="latin.txt: not UTF-8 text"):
        read_answer_vocabulary(tmp_path / "latin.txt")
    with pytest.raises(DataError, match="'a\\\\nb' is no word"):
        write_answer_vocabulary([*SPECIAL_WORDS, "a\nb"], tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()
