import json
from collections import Counter

import numpy as np
import pytest
import torch

from vl_alignment.data.answer_vocabulary import SPECIAL_WORDS
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.training.decoding_targets import MOST_SEQUENCES, AnswerTargets, answer_source, match_answer

VOCABULARY = [*SPECIAL_WORDS, "red", "cola", "'s"]
RED, COLA, POSSESSIVE = 4, 5, 6
TOKEN = len(VOCABULARY)  # the first OCR token


def drawn_batch(targets, rows, ocr_slots, random):
    return targets.batch(rows, ocr_slots, targets.draw(rows, random))


def draw(targets, row=0, ocr_slots=6, seed=0):
    batch = drawn_batch(targets, [row], ocr_slots, np.random.default_rng(seed))
    return {name: tensor[0] for name, tensor in batch.items()}


def nonzero(labels):
    return {(int(step), int(index)): float(labels[step, index]) for step, index in torch.nonzero(labels)}


def test_every_combination_spells_the_answer():
    word_ids = {"red": 4, "cola": 5}
    occurrences = {"cola": [7, 9], "zero": [8]}
    assert match_answer("red cola zero", word_ids, occurrences) == [(4, 5, 8), (4, 7, 8), (4, 9, 8)]
    assert match_answer("red bull", word_ids, occurrences) == match_answer("", word_ids, occurrences) == []
    assert len(match_answer("cola cola cola", word_ids, occurrences)) == MOST_SEQUENCES


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        ("red", "vocabulary"),
        ("Zero", "ocr"),
        ("cola", "either"),
        ("Red Cola", "vocabulary"),
        ("cola zero", "ocr"),
        ("red zero", "mixed"),
        ("red bull", "neither"),
        ("", "neither"),
    ],
)
def test_where_the_words_of_an_answer_can_be_taken_from(answer, source):
    assert answer_source(answer, {"red", "cola"}, ["COLA", "zero"]) == source


def test_a_word_in_vocabulary_and_picture():
    targets = AnswerTargets([["Red cola"] * 10], [["COLA", "x", "red", "cola"]], VOCABULARY, steps=4)
    assert targets.sequences(0)[:6] == (
        (RED, COLA),
        (RED, TOKEN),
        (RED, TOKEN + 3),
        (TOKEN + 2, COLA),
        (TOKEN + 2, TOKEN),
        (TOKEN + 2, TOKEN + 3),
    )
    seen = set()
    for seed in range(40):
        drawn = draw(targets, seed=seed)
        begin, first, second, after = drawn["previous_ids"].tolist()
        assert (begin, after) == (1, 0)
        assert drawn["label_mask"].tolist() == [1, 1, 1, 0]
        labels = nonzero(drawn["labels"])
        # A vocabulary word brings the tokens that read so; a token brings the vocabulary word, not the other token.
        later = {COLA: {COLA, TOKEN, TOKEN + 3}, TOKEN: {COLA, TOKEN}, TOKEN + 3: {COLA, TOKEN + 3}}[second]
        expected = {(0, RED), (0, TOKEN + 2), (2, 2)} | {(1, index) for index in later}
        assert labels == dict.fromkeys(expected, 1.0)
        seen.add((first, second))
    assert seen == set(targets.sequences(0))


def test_the_first_step_has_the_scores_of_the_answers():
    answers = ["red"] * 2 + ["red cola"] * 3 + ["x"] + ["nowhere"] * 4
    targets = AnswerTargets([answers], [["x"]], VOCABULARY)
    labels = draw(targets)["labels"]
    # "red" begins two answers: the better one, 0.9, counts.
    assert nonzero(labels[:1]) == {(0, RED): pytest.approx(0.9), (0, TOKEN): pytest.approx(0.3)}
    assert targets.best_accuracy == pytest.approx(90.0)


def test_frequent_answers_are_drawn_more_often():
    targets = AnswerTargets([["red"] * 8 + ["cola"] * 2], [[]], VOCABULARY)
    batch = drawn_batch(targets, [0] * 2000, 0, np.random.default_rng(5))
    counts = Counter(batch["previous_ids"][:, 1].tolist())
    assert counts[RED] / 2000 == pytest.approx(0.8, abs=0.03) and counts[RED] + counts[COLA] == 2000


def test_fewer_than_ten_answers_are_all_right():
    targets = AnswerTargets([["red", "cola"]], [[]], VOCABULARY)
    assert nonzero(draw(targets, ocr_slots=0)["labels"][:1]) == {(0, RED): 1.0, (0, COLA): 1.0}


def test_a_token_with_a_possessive_is_one_token_and_never_copied():
    # As released: the answer's words are "john" and "'s", and no token reads "john".
    targets = AnswerTargets([["John's"] * 10, ["john's"] * 10], [["John's"], ["john", "x"]], VOCABULARY)
    assert targets.sequences(0) == ()
    assert set(targets.sequences(1)) == {(TOKEN, POSSESSIVE)}
    assert targets.unspellable == 1


def test_what_cannot_be_learned_is_counted():
    answers = [["red"] * 10, ["nowhere"] * 10, [], ["red cola red"] * 10]
    targets = AnswerTargets(answers, [["?"], [], ["a"], []], VOCABULARY, steps=3)
    assert len(targets) == 4
    assert (targets.without_answers, targets.unspellable, targets.truncated) == (1, 1, 1)
    assert targets.best_accuracy == pytest.approx(200 / 3)
    for row in (1, 2):
        assert all(not tensor.any() for tensor in draw(targets, row).values())


def test_long_answers_are_cut_without_an_end():
    targets = AnswerTargets([["red cola red"] * 10], [[]], VOCABULARY, steps=3)
    drawn = draw(targets, ocr_slots=0)
    assert drawn["previous_ids"].tolist() == [1, RED, COLA]
    assert drawn["label_mask"].tolist() == [1, 1, 1]
    assert nonzero(drawn["labels"]) == {(0, RED): 1.0, (1, COLA): 1.0, (2, RED): 1.0}


def test_special_words_are_never_matched():
    targets = AnswerTargets([["<pad> </s>"] * 10], [["</s>", "<pad>"]], VOCABULARY)
    assert set(targets.sequences(0)) == {(TOKEN + 1, TOKEN)}


def test_a_batch_is_its_questions():
    targets = AnswerTargets([["red"] * 10, ["x cola"] * 10, []], [["red", "red"], ["x"], []], VOCABULARY, steps=5)
    batch = drawn_batch(targets, np.array([1, 2, 0, 1]), 4, np.random.default_rng(0))
    assert batch["labels"].shape == (4, 5, TOKEN + 4) and batch["labels"].dtype == torch.float32
    assert batch["previous_ids"].shape == batch["label_mask"].shape == (4, 5)
    assert batch["previous_ids"].dtype == torch.int64
    assert batch["previous_ids"][0].tolist() == batch["previous_ids"][3].tolist() == [1, TOKEN, COLA, 0, 0]
    assert not batch["label_mask"][1].any()
    # The same draws without the other questions, whatever the number of slots.
    alone = drawn_batch(targets, [1], 2, np.random.default_rng(3))["labels"][0]
    assert torch.equal(batch["labels"][0][:, : TOKEN + 2], alone)
    again = drawn_batch(targets, np.array([1, 2, 0, 1]), 4, np.random.default_rng(0))
    assert all(torch.equal(batch[name], again[name]) for name in batch)


def test_bad_input_is_named():
    with pytest.raises(ConfigurationError, match="steps=0"):
        AnswerTargets([["red"]], [[]], VOCABULARY, steps=0)
    with pytest.raises(ConfigurationError, match="must begin with <pad> <s> </s> <unk>"):
        AnswerTargets([["red"]], [[]], ["red"])
    with pytest.raises(DataError, match="answers to 1 questions and OCR tokens for 2"):
        AnswerTargets([["red"]], [[], []], VOCABULARY)
    with pytest.raises(DataError, match="no question has answers"):
        AnswerTargets([[]], [[]], VOCABULARY)
    targets = AnswerTargets([["red"]], [["a", "b", "c"]], VOCABULARY)
    with pytest.raises(ConfigurationError, match="question 0 has 3 OCR tokens for 2 slots"):
        drawn_batch(targets, [0], 2, np.random.default_rng(0))


@pytest.mark.golden
def test_golden(golden_root):
    golden = json.loads((golden_root / "m4c" / "text_cases.json").read_text())["decoding_targets"]
    slots, steps = golden["max_ocr_tokens"], golden["max_copy_steps"]
    samples = 0
    for case in golden["cases"]:
        tokens = case["ocr_tokens"][:slots]
        targets = AnswerTargets([case["answers"]], [tokens], golden["vocab"], steps)
        expected = [tuple(sequence) for answer in case["answers"] for sequence in case["sequences"][answer]]
        assert list(targets.sequences(0)) == expected
        for sample in case["samples"]:
            batch = drawn_batch(targets, [0], slots, np.random.RandomState(sample["numpy_seed"]))
            assert batch["previous_ids"][0].tolist() == sample["train_prev_inds"]
            assert batch["label_mask"][0].tolist() == sample["train_loss_mask"]
            assert nonzero(batch["labels"][0]) == {
                (step, index): score for step, index, score in sample["targets_nonzero"]
            }
            samples += 1
    assert samples >= 16


def test_a_legacy_batch_draws_what_m4c_draws_question_by_question():
    answers = [["red cola"] * 10, ["nowhere"] * 10, ["red"] * 6 + ["cola"] * 4] * 5
    targets = AnswerTargets(answers, [["red", "cola", "red"]] * 15, VOCABULARY)
    batch = drawn_batch(targets, range(15), 3, np.random.RandomState(7))
    published = np.random.RandomState(7)
    for row, previous_ids in enumerate(batch["previous_ids"].tolist()):
        if sequences := targets.sequences(row):
            sequence = sequences[published.choice(len(sequences))]
            assert previous_ids[: len(sequence) + 1] == [1, *sequence]
