"""Words as the published code splits them; NLTK's results are written down here."""

import pytest

from vl_alignment.hub.published_vocabulary import attngan_tokenizer, mac_vocabulary, scan_tokenizer
from vl_alignment.models.errors import DataError

from .published_files import captions_pickle, write_pickle, write_scan_vocabulary


def split(tokenizer, text):
    """The words that a tokenizer finds in a text, known or not."""
    backend = tokenizer.backend_tokenizer
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog runs .", "a dog runs ."),
        ("Two men's hats, and a boy.", "two men 's hats , and a boy ."),
        ("She doesn't; they can't.", "she does n't ; they ca n't ."),
        ("a black-and-white T-shirt (red)", "a black-and-white t-shirt ( red )"),
        ('a sign that says "no parking"', "a sign that says `` no parking ''"),
        ("1,000 people at 3:30", "1,000 people at 3:30"),
        ("the girls' team... they're gonna win!", "the girls ' team ... they 're gon na win !"),
        ("a U.S. flag", "a u.s. flag"),
        ("He cannot swim -- ever", "he can not swim -- ever"),
    ],
)
def test_captions_are_split_as_by_nltk(tmp_path, text, words):
    tokenizer = scan_tokenizer(write_scan_vocabulary(tmp_path / "vocab.json", ["a"]), 5)
    assert split(tokenizer, text) == words.split()


def test_scan_numbers_words_between_marks(tmp_path):
    tokenizer = scan_tokenizer(write_scan_vocabulary(tmp_path / "vocab.json", ["a", "dog", "n't"]), 7)
    encoded = tokenizer(["A dog doesn't", "a"], padding=True)
    assert encoded["input_ids"] == [[1, 4, 5, 3, 6, 2], [1, 4, 2, 0, 0, 0]]
    assert encoded["attention_mask"][1] == [1, 1, 1, 0, 0, 0]


def test_mac_keeps_capitals(tmp_path):
    content = {"word_dic": {"Is": 1, "is": 2, "?": 3}, "answer_dic": {"yes": 0, "no": 1}}
    tokenizer, answers = mac_vocabulary(write_pickle(tmp_path / "dic.pkl", content), 4, 2)
    assert tokenizer("Is is?")["input_ids"] == [1, 2, 3] and answers == ["yes", "no"]


def test_attngan_reads_letters_and_digits_alone(tmp_path):
    tokenizer = attngan_tokenizer(captions_pickle(tmp_path / "captions.pickle", ["a", "nave", "caf", "it", "s"]), 6)
    assert split(tokenizer, "A naïve café – it's (ça) 3-toed") == ["a", "nave", "caf", "it", "s", "a", "3", "toed"]
    assert tokenizer("a café")["input_ids"] == [1, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "is missing; it is no vocabulary of this model"),
        ([[], [], {}, {}], "is missing"),
        ([[], [], {}, {"<end>": 0, "a": 2}], "does not number words from 0 without gaps"),
        ([[], [], {}, {"<end>": 0, 5: 1}], "does not number words"),
        ([[], [], {}, {"<end>": 0}], "the vocabulary has 1 entries, the checkpoint's word embedding 6"),
    ],
)
def test_pickles_that_are_no_vocabulary(tmp_path, content, message):
    with pytest.raises(DataError, match=f"captions.pickle: .*{message}"):
        attngan_tokenizer(write_pickle(tmp_path / "captions.pickle", content), 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "word2idx is missing"),
        ('{"word2idx": {"a": 0}}', "lacks <pad>"),
        ('{"word2idx": {"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 4}}', "does not number words"),
    ],
)
def test_json_that_is_no_vocabulary(tmp_path, text, message):
    (tmp_path / "vocab.json").write_text(text)
    with pytest.raises(DataError, match=f"vocab.json: .*{message}"):
        scan_tokenizer(tmp_path / "vocab.json", 4)
