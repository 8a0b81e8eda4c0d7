import logging

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from vl_alignment.models.configuration_mac import MacConfig
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.modeling_mac import MacForQuestionAnswering
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.question_inputs import NO_ANSWER, QuestionTable, answer_vocabulary
from vl_alignment.training.question_objective import QuestionObjective

from .questions import SIDE, SIZE, TINY, question_data, region_store, tokenizer_of

ID2LABEL = {0: "blue", 1: "red", 2: "2"}


def objective_of(data=None, *, blind=False, id2label=None, **settings):
    data = data or question_data()
    return QuestionObjective(
        data,
        tokenizer_of(data),
        id2label or ID2LABEL,
        TrainingSettings(**settings),
        region_store=region_store(data),
        blind=blind,
    )


def model_of(objective, **fields):
    torch.manual_seed(0)
    values = {"vocab_size": objective.vocabulary_size, "feature_size": SIZE, "grid_size": SIDE, **TINY}
    values |= {"id2label": objective.id2label, **fields}
    return MacForQuestionAnswering(MacConfig(**values)).eval()


def test_answers_are_numbered_by_frequency_then_alphabet():
    assert answer_vocabulary(["red", "2", "blue", "2", ""]) == {0: "2", 1: "blue", 2: "red"}
    with pytest.raises(DataError, match="no answers"):
        answer_vocabulary([""])


def test_a_group_is_about_one_picture_and_every_epoch_groups_anew():
    objective = objective_of(question_data(images=5, questions=5), questions_per_image=2)
    table = objective.questions["train"]
    groups = objective.train_dataset(0)
    assert len(groups) == 5 * 2  # one of five questions is left over each time
    assert np.array_equal(table.image[groups.questions], np.repeat(groups.images[:, None], 2, axis=1))
    assert len(np.unique(groups.questions)) == 20
    again, next_epoch = objective.train_dataset(0), objective.train_dataset(1)
    assert np.array_equal(groups.questions, again.questions)
    assert not np.array_equal(groups.questions, next_epoch.questions)


def test_single_questions_are_all_shown():
    assert sorted(objective_of().train_dataset(3).questions.ravel()) == list(range(24))


def test_first_epochs_show_short_programs_only():
    objective = objective_of(short_questions_epochs=1, short_questions_share=0.5)
    depths = objective.questions["train"].depths
    assert set(depths[objective.train_dataset(0).questions.ravel()]) == {2, 3}
    assert set(depths[objective.train_dataset(1).questions.ravel()]) == {2, 3, 4, 5}
    with pytest.raises(DataError, match="short_questions_share"):
        objective_of(questions_per_image=3, short_questions_epochs=1, short_questions_share=0.5).train_dataset(0)


def test_batch_holds_the_questions_of_each_picture_together():
    objective = objective_of(questions_per_image=2)
    groups = objective.train_dataset(0)
    batch = objective.collate([groups[3], groups[0]])
    table = objective.questions["train"]
    rows = [*groups.questions[3], *groups.questions[0]]
    assert batch["ids"] == [table.question_ids[row] for row in rows]
    assert batch["labels"].tolist() == table.labels[rows].tolist()
    assert batch["input_ids"].shape[0] == 4 and batch["region_features"].shape == (2, SIDE * SIDE, SIZE)
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    assert lengths == table.tokens.lengths[rows].tolist()
    stored = region_store(question_data()).features([table.image_ids[groups.images[3]]])
    assert np.array_equal(batch["region_features"][0].numpy(), stored[0])


def test_answers_outside_the_vocabulary_are_skipped_in_training_and_wrong_in_evaluation(caplog):
    caplog.set_level(logging.WARNING)
    data = question_data(unknown_answer=True)
    objective = objective_of(data, id2label={0: "blue", 1: "2"})  # red is missing in training too
    table = objective.questions["train"]
    assert table.unknown_answers == 8 and (table.labels[np.array(table.answers) == "red"] == NO_ANSWER).all()
    assert "the answers of 8 questions are not in the vocabulary" in caplog.text
    shown = objective.train_dataset(0).questions.ravel()
    assert len(shown) == 16 and (table.labels[shown] >= 0).all()
    evaluation = objective.evaluate(model_of(objective), "test", Accelerator(cpu=True))
    wrong = [row for row in evaluation.predictions if row["reference"] in ("red", "octarine")]
    assert len(wrong) == 8 and all(row["prediction"] in ("blue", "2") for row in wrong)


def test_unknown_words_are_counted(caplog):
    data = question_data()
    tokenizer = tokenizer_of(data)
    asked = data.questions["test"].map(lambda row: {"question": row["question"].replace("number", "nmber")})
    caplog.set_level(logging.WARNING)
    table = QuestionTable(asked, data.images["test"], tokenizer, {}, "test")
    assert table.unknown_words == 24
    assert "test: 24 words" in caplog.text


def test_evaluation_answers_each_question_about_its_own_picture():
    objective = objective_of(evaluation_batch_size=8)
    model = model_of(objective)
    evaluation = objective.evaluate(model, "test", Accelerator(cpu=True))
    table, store = objective.questions["test"], region_store(question_data())
    for row, line in enumerate(evaluation.predictions):
        with torch.no_grad():
            features = torch.from_numpy(store.features([line["image_id"]]))
            logits = model(**table.tokens.batch([row]), region_features=features).logits
        assert line["item_id"] == table.question_ids[row]
        assert line["prediction"] == model.answer_words(logits)[0]
        assert line["score"] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-5)
    right = [line["prediction"] == line["reference"] for line in evaluation.predictions]
    assert evaluation.metrics["accuracy"] == pytest.approx(100 * np.mean(right))
    assert {"accuracy_count", "accuracy_query_attribute", "accuracy_depth_2"} <= set(evaluation.metrics)
    assert {line["question_type"] for line in evaluation.predictions} == {"count", "query_attribute"}
    assert not model.training


def test_blind_model_sees_zeros():
    objective = objective_of(blind=True)
    groups = objective.train_dataset(0)
    assert not objective.collate([groups[0]])["region_features"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 2}, "vocab_size=2 is smaller"),
        ({"id2label": {0: "blue", 1: "red"}}, "chooses from 2 answers"),
        ({"feature_size": 5}, "size 5"),
    ],
)
def test_model_that_does_not_fit_is_refused(change, message):
    objective = objective_of()
    with pytest.raises(ConfigurationError, match=message):
        objective.check_model(model_of(objective, **change))


def test_questions_without_words_pictures_or_order_are_refused():
    data = question_data()
    tokenizer, images = tokenizer_of(data), data.images["train"]
    questions = data.questions["train"]
    empty = questions.map(lambda row: {"question": "?"} if row["question_id"] == "train-1#2" else {})
    with pytest.raises(DataError, match=r"no words.*train-1#2|train-1#2.*no words"):
        QuestionTable(empty, images, tokenizer, {}, "train")
    with pytest.raises(DataError, match="train lacks|train split lacks"):
        QuestionTable(questions, images.select(range(3)), tokenizer, {}, "train")
    with pytest.raises(DataError, match="not sorted"):
        QuestionTable(questions.select([5, 0]), images, tokenizer, {}, "train")


def test_split_without_public_answers_is_refused():
    data = question_data()
    data.questions["test"] = data.questions["test"].map(lambda row: {"answer": ""})
    objective = objective_of(data)
    with pytest.raises(DataError, match="not public"):
        objective.evaluate(model_of(objective), "test", Accelerator(cpu=True))
