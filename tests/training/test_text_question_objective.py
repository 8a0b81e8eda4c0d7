import numpy as np
import pytest
import torch
from accelerate import Accelerator

from vl_alignment.data.answer_vocabulary import SPECIAL_WORDS, build_answer_vocabulary
from vl_alignment.metrics.text_question_answering import answer_words
from vl_alignment.models.configuration_m4c import M4CConfig
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.text_question_objective import TextQuestionObjective

from .text_questions import SIDE, SIZE, STEPS, TEXT_CONFIG, TINY, text_processor, text_question_data, text_region_store

VOCABULARY = [*SPECIAL_WORDS, "stop", "halt"]
STOP, TOKEN = 4, len(VOCABULARY)


def objective_of(data=None, *, vocabulary=VOCABULARY, store=True, settings=None, **changes):
    data = data or text_question_data()
    return TextQuestionObjective(
        data,
        text_processor(data),
        vocabulary,
        TrainingSettings(**(settings or {})),
        **{"steps": STEPS, "region_store": text_region_store(data) if store else None, **changes},
    )


def model_of(objective, **fields):
    torch.manual_seed(0)
    text_config = {**TEXT_CONFIG, "vocab_size": len(objective.processor.tokenizer)}
    values = {**TINY, "text_config": text_config, "feature_size": SIZE, "word_vector_size": 8, "initializer_range": 0.5}
    values["id2label"] = dict(enumerate(objective.vocabulary))
    return M4CForQuestionAnswering(M4CConfig(**{**values, **fields})).eval()


def test_vocabulary_of_the_data_is_what_people_write_most():
    answers = text_question_data().questions["train"]["answers"]
    built = build_answer_vocabulary((answer for given in answers for answer in given), 6)
    assert built == [*SPECIAL_WORDS, "stop", "mill0"]


def test_only_questions_that_can_be_spelled_are_shown_and_a_group_is_about_one_picture():
    objective = objective_of()
    shown = sorted(int(row) for group in range(11) for row in objective.train_dataset(0)[group][1])
    # The picture without text: "mill5" is nowhere, but two people wrote "stop".
    assert len(objective.train_dataset(0)) == 12 and shown == sorted(set(shown))
    assert objective.targets("train").unspellable == 0
    without = objective_of(vocabulary=[*SPECIAL_WORDS, "halt"])
    groups = without.train_dataset(0)
    table = without.questions["train"]
    assert {table.question_ids[row] for _, rows, _ in map(groups.__getitem__, range(len(groups))) for row in rows} == (
        set(table.question_ids) - {"train-5#0"}
    )
    pairs = objective_of(settings={"questions_per_image": 2}).train_dataset(4)
    assert len(pairs) == 6 and all(len(pairs[group][1]) == 2 for group in range(6))
    with pytest.raises(DataError, match="No picture has 3 training questions in epoch 1"):
        objective_of(settings={"questions_per_image": 3}).train_dataset(0)


def test_first_epochs_ask_the_families_that_are_named():
    settings = {"short_questions_epochs": 2, "first_question_types": ["sign"]}
    objective = objective_of(settings=settings)
    for epoch, types in ((0, {"sign"}), (1, {"sign"}), (2, {"sign", "read"})):
        groups = objective.train_dataset(epoch)
        asked = {objective.questions["train"].types[row] for group in range(len(groups)) for row in groups[group][1]}
        assert asked == types
    # As many short ones as before, where no family is named.
    assert len(objective_of(settings={"short_questions_epochs": 2}).train_dataset(0)) == 12


def test_answers_are_drawn_anew_in_every_epoch_and_whatever_the_batches():
    objective, again = objective_of(), objective_of()
    batches = {}
    for epoch in range(6):
        groups = objective.train_dataset(epoch)
        examples = [groups[place] for place in range(len(groups))]
        together = objective.collate(examples)
        batches[epoch] = dict(zip(together["ids"], together["previous_ids"].tolist(), strict=True))
        other = again.train_dataset(epoch)
        for half in (range(6, 12), range(6)):  # as two processes would share them, or an epoch gone on with
            batch = again.collate([other[place] for place in half])
            for question, previous in zip(batch["ids"], batch["previous_ids"].tolist(), strict=True):
                assert previous == batches[epoch][question]
    drawn = {tuple(batch["train-0#1"]) for batch in batches.values()}
    assert len(drawn) > 1 and {row[0] for row in drawn} == {1}  # "stop": in the vocabulary and twice in the picture
    differently = objective_of(settings={"seed": 1}).train_dataset(0)
    assert not np.array_equal(differently.drawn, objective.train_dataset(0).drawn)


def test_batch_holds_pictures_text_and_targets():
    objective = objective_of(settings={"questions_per_image": 2})
    groups = objective.train_dataset(0)
    empty = next(place for place in range(len(groups)) if groups[place][0] == 5)
    full = next(place for place in range(len(groups)) if groups[place][0] == 2)
    batch = objective.collate([groups[empty], groups[full]])
    assert sorted(batch["ids"][:2]) == ["train-5#0", "train-5#1"] and batch["ids"][2].startswith("train-2")
    assert batch["region_features"].shape == (2, SIDE * SIDE, SIZE)
    assert batch["ocr_mask"].tolist() == [[False] * 3, [True] * 3]
    assert batch["labels"].shape == (4, STEPS, TOKEN + 3) and batch["label_mask"].shape == (4, STEPS)
    place = batch["ids"].index("train-2#0")
    best = batch["labels"][place, 0]
    assert best[TOKEN + 1] == 1 and best[STOP] == pytest.approx(0.6)  # eight of ten read the word, two wrote "stop"
    assert best[[TOKEN, TOKEN + 2]].tolist() == pytest.approx([0.6, 0.6])
    assert not batch["labels"][batch["ids"].index("train-5#0"), :, TOKEN:].any()
    model = model_of(objective)
    arguments = {name: value for name, value in batch.items() if name != "ids"}
    loss = objective.loss(model, arguments, 0)
    assert torch.equal(loss, model(**arguments).loss) and loss > 0


def test_evaluation_answers_each_question_about_its_own_picture():
    data = text_question_data()
    objective = objective_of(data, settings={"evaluation_batch_size": 6})
    model = model_of(objective, alignment_function="general_key").train()
    evaluation = objective.evaluate(model, "test", Accelerator(cpu=True))
    assert model.training
    model.eval()
    store, records = text_region_store(data), data.records("test")
    assert len(evaluation.predictions) == len(records) == 12
    for record, line in zip(records, evaluation.predictions, strict=True):
        given = {name: [record[name]] for name in ("ocr_tokens", "ocr_boxes", "ocr_confidences")}
        features = [store.features([record["image_id"]])[0]]
        inputs = objective.processor(text=record["question"], region_features=features, **given)
        [answer] = model.generate(**inputs, ocr_tokens=inputs.ocr_tokens).answers
        assert (line["item_id"], line["prediction"]) == (record["question_id"], answer.text)
        assert line["source"] == " ".join(word.source for word in answer.words)
        assert (line["question_type"], line["hops"]) == (record["question_type"], record["hops"])
    scores = [line["score"] for line in evaluation.predictions]
    assert evaluation.metrics["accuracy"] == pytest.approx(100 * np.mean(scores))
    for source in {line["answer_source"] for line in evaluation.predictions}:
        own = [line["score"] for line in evaluation.predictions if line["answer_source"] == source]
        assert evaluation.metrics[f"accuracy_source_{source}"] == pytest.approx(100 * np.mean(own))
    assert evaluation.metrics["accuracy_read"] == pytest.approx(100 * np.mean(scores[::2]))
    assert {"anls", "accuracy_sign", "accuracy_hops_1", "accuracy_up_to_one_hop", "accuracy_unseen", "copied_words"} < (
        set(evaluation.metrics)
    )
    assert objective.evaluate(model, "test", Accelerator(cpu=True), final=False).predictions == []


def test_unseen_words_are_those_of_no_training_answer():
    data = text_question_data()
    objective = objective_of(data)
    assert objective.seen_words == answer_words(data.questions["train"]["answers"])
    assert objective_of(data, seen_words=["stop", "tide0"]).seen_words == ["stop", "tide0"]


def test_bounds_are_of_people_and_of_what_can_be_spelled():
    objective = objective_of()
    # Nine of ten and eight of ten score fully; "tide5" stands in no picture, and two of ten wrote "stop".
    bounds = objective.evaluate(model_of(objective), "test", Accelerator(cpu=True)).bounds
    assert bounds == {"answer_ceiling": 100.0, "best_accuracy": pytest.approx(100 * 11.6 / 12)}
    ablated = objective_of(copy_words=False)
    assert ablated.targets("test").best_accuracy == pytest.approx(100 * (6 + 6 * 0.6) / 12)
    assert ablated.targets("train").sequences(0) == ((STOP,),) * 2


def test_blind_model_sees_zeros_and_no_text():
    objective = objective_of(blind=True)
    batch = objective.collate([objective.train_dataset(0)[0]])
    assert not batch["region_features"].any() and not batch["ocr_mask"].any()
    assert objective.targets("test").best_accuracy == pytest.approx(100 * (6 + 6 * 0.6) / 12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_config": {**TEXT_CONFIG, "vocab_size": 9}}, "knows 9 pieces"),
        ({"id2label": dict(enumerate([*SPECIAL_WORDS, "halt", "stop"]))}, "answer vocabulary of 6 words is not"),
        ({"num_decoding_steps": 4}, "num_decoding_steps=4, the objective 3"),
        ({"copy_words": False}, "copy_words=False, the objective True"),
        ({"feature_size": 5}, "size 5"),
    ],
)
def test_model_that_does_not_fit_is_refused(change, message):
    objective = objective_of()
    objective.check_model(model_of(objective))
    with pytest.raises(ConfigurationError, match=message):
        objective.check_model(model_of(objective, **change))


def test_data_that_cannot_be_used_is_refused():
    data = text_question_data(answers=False)
    objective = objective_of(data)
    with pytest.raises(DataError, match="'test' are not public"):
        objective.evaluate(model_of(objective), "test", Accelerator(cpu=True))
    with pytest.raises(DataError, match="no split 'tset'"):
        objective.evaluate(model_of(objective), "tset", Accelerator(cpu=True))
    nothing = objective_of(vocabulary=[*SPECIAL_WORDS, "go"], copy_words=False)
    with pytest.raises(DataError, match="can spell"):
        nothing.check_model(model_of(nothing, copy_words=False))
    with pytest.raises(ConfigurationError, match="region store, or an image processor"):
        objective_of(store=False)
    data.images["train"] = data.images["train"].remove_columns("ocr_tokens")
    with pytest.raises(DataError, match="text in the train pictures has not been read"):
        objective_of(data)


def test_a_record_joins_the_question_with_its_pictures_text():
    records = text_question_data().records("validation")
    assert len(records) == 12
    assert records[3]["question_id"] == "validation-1#1" and records[3]["ocr_tokens"] == ["stop", "vine1", "stop"]
    assert records[10]["ocr_tokens"] == records[10]["ocr_boxes"] == []
    assert np.allclose(records[0]["ocr_boxes"][1], [0.1, 0.2, 0.4, 0.4])
