import json
import logging
import struct

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import BertConfig, BertModel, BertTokenizer

from vl_alignment.data import word_vectors
from vl_alignment.data.fasttext_binary import FastTextBinary, _hash
from vl_alignment.data.word_vectors import (
    FastTextVectors,
    TableVectors,
    TextEncoderVectors,
    build_word_vectors,
    register_word_vectors,
    word_vector_names,
)
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError

WORDS = ["</s>", "stop", "café", "7up"]
BUCKETS, SIZE = 50, 4


def binary_model(version=12, minimum=3, maximum=5, model=2, quantised=False, labels=()):
    """A FastText model as bytes, and its matrix: row r holds numbers that only row r has."""
    rows = len(WORDS) + BUCKETS
    matrix = np.random.default_rng(5).normal(size=(rows, SIZE)).astype("<f4")
    content = struct.pack("<ii", 793712314, version)
    content += struct.pack("<12id", SIZE, 5, 5, 1, 5, 1, 2, model, BUCKETS, minimum, maximum, 100, 1e-4)
    content += struct.pack("<iiiqq", len(WORDS) + len(labels), len(WORDS), len(labels), 100, -1)
    for word in WORDS:
        content += word.encode() + b"\0" + struct.pack("<qb", 10, 0)
    for label in labels:
        content += label.encode() + b"\0" + struct.pack("<qb", 10, 1)
    content += struct.pack("<?", quantised) + struct.pack("<qq", rows, SIZE) + matrix.tobytes()
    return content + b"\0" + struct.pack("<qq", 1, SIZE) + bytes(4 * SIZE), matrix


def fnv(text):
    """The hash in FastText's own terms: 32-bit numbers, bytes with a sign."""
    value = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for octet in np.frombuffer(text.encode(), dtype=np.int8):
            value = (value ^ octet.astype(np.int32).view(np.uint32)) * np.uint32(16777619)
    return int(value)


def expected_rows(word, minimum=3, maximum=5):
    rows = [WORDS.index(word)] if word in WORDS else []
    marked = f"<{word}>"
    parts = [marked[i:j] for i in range(len(marked)) for j in range(i + 1, len(marked) + 1)]
    parts = [part for part in parts if minimum <= len(part) <= maximum and part not in "<>"]
    return rows + [len(WORDS) + fnv(part) % BUCKETS for part in parts]


@pytest.fixture
def written(tmp_path):
    def write(content, name="tiny.bin"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


# FastText's binary models


@pytest.mark.parametrize("word", ["stop", "café", "7up", "unseen", "東京タワー", "a"])
@pytest.mark.parametrize(("minimum", "maximum"), [(3, 5), (1, 2)])
def test_binary_vector_is_the_mean_of_the_word_and_its_ngrams(word, minimum, maximum, written):
    content, matrix = binary_model(minimum=minimum, maximum=maximum)
    rows = expected_rows(word, minimum, maximum)
    vectors = FastTextVectors(written(content))
    np.testing.assert_allclose(vectors.vectors([word])[0], matrix[rows].mean(axis=0), rtol=1e-6, atol=1e-7)
    assert (vectors.name, vectors.size, vectors.unknown_words) == ("fasttext:tiny", SIZE, 0)


def test_hash_is_fnv_1a_with_signed_bytes():
    # The published test values of FNV-1a; beyond ASCII FastText's own, which differ.
    assert _hash(b"a") == 0xE40C292C and _hash(b"foobar") == 0xBF9CF968
    assert all(_hash(word.encode()) == fnv(word) for word in ["é", "straße", "東京"])


def test_ngrams_of_fasttext_itself(written):
    """What `get_subwords` of fasttext 0.9.2 gave for a model of 12 words with 3 to 6 characters in 500 buckets."""
    model = FastTextBinary(written(binary_model()[0]))
    model.minimum, model.maximum, model.bucket = 3, 6, 500
    assert [row - len(WORDS) for row in model._ngram_rows("<東é1>".encode())] == [201, 480, 462, 218, 408, 386]


def test_words_are_looked_up_in_lower_case(written):
    vectors = FastTextVectors(written(binary_model()[0]))
    assert torch.equal(*vectors.vectors(["STOP", "stop"]))


def test_end_of_sentence_has_no_ngrams(written):
    content, matrix = binary_model()
    assert np.array_equal(FastTextVectors(written(content)).vectors(["</s>"])[0], matrix[0])


@pytest.mark.parametrize(("version", "model", "rows"), [(11, 3, [1]), (11, 2, None), (12, 3, None)])
def test_old_supervised_models_have_no_subwords(version, model, rows, written):
    content, matrix = binary_model(version=version, model=model, labels=["__label__x"])
    expected = matrix[rows or expected_rows("stop")].mean(axis=0)
    np.testing.assert_allclose(FastTextVectors(written(content)).vectors(["stop"])[0], expected, rtol=1e-6)


def test_unknown_words_without_subwords_are_zeros_and_counted(written, caplog):
    vectors = FastTextVectors(written(binary_model(minimum=0, maximum=0)[0]))
    with caplog.at_level(logging.WARNING):
        result = vectors.vectors(["stop", "zebra", "yak"])
        vectors.vectors(["yak"])
    assert result.any(dim=1).tolist() == [True, False, False]
    assert vectors.unknown_words == 3
    assert [record.getMessage() for record in caplog.records] == [
        "fasttext:tiny has no vector for 'zebra': such words get zeros, and are counted in unknown_words"
    ]


CONTENT = binary_model()[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"word 1 2 3 4 5 6", "no FastText model"),
        (CONTENT[:40], "truncated or no FastText model"),
        (CONTENT[:102], "a word does not end"),
        (CONTENT[: CONTENT.index(b"7up")], "a word does not end"),
        (CONTENT[: CONTENT.index(b"7up") + 13], "it ends before the vectors"),
        (CONTENT[: CONTENT.index(b"7up") + 16], "truncated or no FastText model"),
        (CONTENT[:-60], "its matrix is not whole"),
        (CONTENT.replace(b"7up", b"stop"), "a word occurs twice"),
        (CONTENT.replace(struct.pack("<i", BUCKETS), bytes(4), 1), "but no rows for them"),
        (binary_model(version=13)[0], "format version 13; versions 11 and 12"),
        (binary_model(quantised=True)[0], "a quantised model"),
    ],
)
def test_binary_files_that_are_none_are_named(content, message, written):
    path = written(content)
    with pytest.raises(DataError, match=f"tiny.bin: .*({message})"):
        FastTextVectors(path)


def test_missing_files_are_named(tmp_path):
    for name in ("none.bin", "none.vec"):
        with pytest.raises(DataError, match=f"{name}: cannot be read"):
            FastTextVectors(tmp_path / name)


# Text files


@pytest.mark.parametrize("head", ["3 2\n", ""])
def test_text_vectors_with_and_without_their_counts(head, written):
    vectors = FastTextVectors(written(f"{head}stop 1 2.5\ncafé -1 0\nstop 9 9 \n".encode(), "wiki.en.vec"))
    assert vectors.vectors(["café", "STOP", "none"]).tolist() == [[-1, 0], [1, 2.5], [0, 0]]
    assert (vectors.name, vectors.size, vectors.unknown_words) == ("fasttext:wiki.en", 2, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("2 2\nstop 1 2\n", "1 words, not the 2 expected"),
        ("stop 1 2\ncafé 1\n", "record 2: 1 numbers, not 2"),
        ("stop 1 2\ncafé 1 x\n", "record 2: no number"),
        ("stop 1 nan\n", "record stop: the vector is not finite"),
        ("", "0 words"),
        ("a b\n", "record 1: no number"),
    ],
)
def test_text_files_that_are_none_are_named(content, message, written):
    path = written(content.encode(), "bad.vec")
    with pytest.raises(DataError, match=f"bad.vec.*{message}"):
        FastTextVectors(path)


# Tables


def test_tables_from_dictionaries_and_files(tmp_path):
    table = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
    words = ["stop", "Stop", "go"]
    np.save(tmp_path / "t.npy", table.astype(np.float16))
    save_file({"vectors": table}, tmp_path / "t.safetensors")
    (tmp_path / "words.txt").write_text("\n".join(words))
    (tmp_path / "words.json").write_text(json.dumps(words))
    plugins = [
        TableVectors.from_dict({word: row.tolist() for word, row in zip(words, table, strict=True)}, "mine"),
        TableVectors.from_files(tmp_path / "t.npy", tmp_path / "words.txt"),
        build_word_vectors("table", path=tmp_path / "t.safetensors", words=tmp_path / "words.json", name="other"),
    ]
    for vectors in plugins:
        result = vectors.vectors(["Stop", "STOP", "GO", "none"])
        assert result.tolist() == [[3, 4], [1, 2], [5, 6], [0, 0]] and result.dtype == torch.float32
    assert [vectors.name for vectors in plugins] == ["mine", "table:t", "other"]
    assert plugins[0].vectors([]).shape == (0, 2)


def test_tables_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(DataError, match="2 words and vectors of shape"):
        TableVectors(["a", "b"], np.ones((3, 2)), "t")
    with pytest.raises(DataError, match="vectors of several shapes"):
        TableVectors.from_dict({"a": [1.0], "b": [1.0, 2.0]}, "t")
    with pytest.raises(DataError, match="vectors of type"):
        TableVectors(["a"], np.array([["x"]]), "t")
    words, vectors = tmp_path / "words.json", tmp_path / "t.npy"
    words.write_text('{"a": 1}')
    with pytest.raises(DataError, match="words.json: no list of words"):
        TableVectors.from_files(vectors, words)
    words.write_text('["a"]')
    vectors.write_bytes(b"no array")
    with pytest.raises(DataError, match="t.npy: no vectors can be read"):
        TableVectors.from_files(vectors, words)
    save_file({"a": np.ones((1, 2)), "b": np.ones((1, 2))}, tmp_path / "t.safetensors")
    with pytest.raises(DataError, match="holds 2 arrays"):
        TableVectors.from_files(tmp_path / "t.safetensors", words)


# A text encoder's own


def test_text_encoder_gives_the_mean_of_the_pieces(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "stop", "##s", "##ped"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=4
    )
    model = BertModel(config)
    model.save_pretrained(tmp_path)
    vectors = TextEncoderVectors.from_pretrained(str(tmp_path), name="tiny")
    rows = model.get_input_embeddings().weight.detach()
    result = vectors.vectors(["stops", "stop", "東"])
    torch.testing.assert_close(result, torch.stack([rows[[5, 6]].mean(dim=0), rows[5], torch.zeros(4)]))
    assert (vectors.name, vectors.size, vectors.unknown_words) == ("tiny", 4, 1)
    with pytest.raises(CheckpointError, match="nothing: no text encoder can be read there"):
        build_word_vectors("text_encoder", path=tmp_path / "nothing")


# By name


def test_names_and_options_that_do_not_exist_are_named(monkeypatch):
    assert word_vector_names() == ["fasttext", "hashed_ngrams", "table", "text_encoder"]
    assert build_word_vectors("hashed_ngrams", size=5).vectors(["x"]).shape == (1, 5)
    with pytest.raises(ConfigurationError, match="unknown word vectors 'glove'; the known ones are fasttext"):
        build_word_vectors("glove")
    with pytest.raises(ConfigurationError, match="word vectors 'fasttext': .*path"):
        build_word_vectors("fasttext")
    with pytest.raises(ConfigurationError, match="'hashed_ngrams': .*unexpected keyword argument 'sise'"):
        build_word_vectors("hashed_ngrams", sise=5)
    monkeypatch.setattr(word_vectors, "_FACTORIES", dict(word_vectors._FACTORIES))
    register_word_vectors("mine", lambda: TableVectors(["a"], [[1.0]], "mine"))
    assert build_word_vectors("mine").size == 1
    with pytest.raises(ConfigurationError, match="already registered"):
        register_word_vectors("mine", lambda: None)


@pytest.mark.parametrize("shape", [(2**60, 2**60), (-1, 4), (0, 0), (len(WORDS) + BUCKETS, 2**62)])
def test_a_matrix_of_another_shape_than_the_file_holds_is_refused(written, shape):
    content, _ = binary_model()
    right = struct.pack("<qq", len(WORDS) + BUCKETS, SIZE)
    with pytest.raises(DataError, match="tiny.bin"):
        FastTextBinary(written(content.replace(right, struct.pack("<qq", *shape), 1)))
