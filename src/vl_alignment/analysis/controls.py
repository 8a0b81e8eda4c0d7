"""The controls of a comparison: what a model reaches that cannot know, and one that knows everything."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..data.blocks import Scene, caption_holds, execute_program, make_captions
from ..data.question_answering import QuestionData
from ..metrics.question_answering import majority_accuracy, question_answering_metrics
from ..metrics.retrieval import chance_metrics, retrieval_metrics
from ..metrics.text_question_answering import answer_words, best_answers, majority_answers, text_answer_metrics
from ..training.studies import QuestionStudy, RetrievalStudy, Study, TextQuestionStudy
from ..training.text_to_image_study import TextToImageStudy

__all__ = [
    "perfect_answers",
    "perfect_reader",
    "question_controls",
    "retrieval_controls",
    "shuffled_answers",
    "shuffled_captions",
    "text_question_controls",
    "text_to_image_controls",
]

# The shuffled run takes one epoch in so many of the others'; an epoch of questions shows each picture several times.
SHARE_OF_EPOCHS = {"retrieval": 3, "question-answering": 8, "text-question-answering": 5, "text-to-image": 6}


def retrieval_controls(study: RetrievalStudy, output: Path, first: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Chance, shuffled captions, a blind model and, where the scenes are known, a perfect reader.

    Args:
        study: What the runs share.
        output: Folder of the runs; the shuffled run goes into its sub-folder `controls`.
        first: Results of the run whose function and seed the shuffled run repeats.

    Returns:
        {"name", "description", "metrics"} each.
    """
    test = study.data["test"]
    folds = study.options["folds"]
    owner = caption_owners(test)
    epochs, shuffled = _shuffled_run(
        study, output, first, dataset_dict=shuffled_captions(study.data, first["seed"]), name="shuffled"
    )
    controls = [
        {
            "name": "chance",
            "description": "the expectation of random scores",
            "metrics": chance_metrics(owner, folds=folds),
        },
        {
            "name": "shuffled captions",
            "description": f"{first['alignment_function']}, {epochs}, trained and tested on captions of others",
            "metrics": shuffled,
        },
        {
            "name": "blind",
            "description": "every picture looks the same; ties count against the model",
            "metrics": retrieval_metrics(np.zeros((len(test), len(owner)), np.float32), owner, folds=folds),
        },
    ]
    if "scene" in test.column_names:
        controls.append(
            {
                "name": "ceiling",
                "description": "a perfect reader of the scenes, who breaks ties at random",
                "metrics": perfect_reader(test, folds=folds),
            }
        )
    return json.loads(json.dumps(controls))


def question_controls(study: QuestionStudy, output: Path, first: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The majority by type, a model that sees zeros, shuffled answers and, where scenes are known, a perfect reader.

    Arguments and result as of `retrieval_controls`. The model that sees zeros is trained exactly as `first` was.
    """
    train, test = (study.data.questions[split] for split in ("train", study.test_split))
    blind = _control_run(study, output, first, blind=True, name="image-zeroed")
    epochs, shuffled = _shuffled_run(
        study, output, first, data=shuffled_answers(study.data, first["seed"]), name="shuffled"
    )
    controls = [
        {
            "name": "majority by type",
            "description": "the most frequent training answer of each question type",
            "metrics": majority_accuracy(
                train["answer"], train["question_type"], test["answer"], test["question_type"], test["program_depth"]
            ),
        },
        {
            "name": "image zeroed",
            "description": f"{first['alignment_function']}, trained alike, on zeros in place of every picture",
            "metrics": blind,
        },
        {
            "name": "shuffled answers",
            "description": f"{first['alignment_function']}, {epochs}, trained and tested on answers to other "
            "questions of the same type",
            "metrics": shuffled,
        },
    ]
    if "scene" in study.data.images[study.test_split].column_names:
        controls.append(
            {
                "name": "perfect reader",
                "description": "runs each question's program on the true scene",
                "metrics": perfect_answers(study.data, study.test_split),
            }
        )
    return json.loads(json.dumps(controls))


def text_question_controls(study: TextQuestionStudy, output: Path, first: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The majority by family, a blind model, one that cannot copy, shuffled answers, and what can be reached at all.

    Arguments and result as of `retrieval_controls`. The model that sees nothing and the one without a pointer network
    are trained exactly as `first` was.
    """
    train, test = (study.data.questions[split] for split in ("train", study.test_split))
    answers, seen = list(test["answers"]), answer_words(train["answers"])

    def measure(predictions: list[str]) -> dict[str, float]:
        return text_answer_metrics(predictions, answers, list(test["question_type"]), list(test["hops"]), seen)

    name = first["alignment_function"]
    blind = _control_run(study, output, first, blind=True, name="blind")
    ablated = _control_run(study, output, first, fields={"copy_words": False}, name="without-copying")
    epochs, shuffled = _shuffled_run(
        study, output, first, data=shuffled_answers(study.data, first["seed"], "answers"), name="shuffled"
    )
    majority = majority_answers(list(train["answers"]), list(train["question_type"]), list(test["question_type"]))
    controls = [
        {
            "name": "majority by family",
            "description": "the most frequent training answer of each question family",
            "metrics": measure(majority),
        },
        {
            "name": "blind",
            "description": f"{name}, trained alike, on zeros in place of every picture and none of its text",
            "metrics": blind,
        },
        {
            "name": "without copying",
            "description": f"{name}, trained alike, without the pointer network: it has only the words of its "
            "vocabulary",
            "metrics": ablated,
        },
        {
            "name": "shuffled answers",
            "description": f"{name}, {epochs}, trained and tested on answers to other questions of the same family",
            "metrics": shuffled,
        },
        {
            "name": "best spelling",
            "description": "the best answer that the vocabulary and the text in the picture can spell",
            "metrics": {"accuracy": first["dataset"]["best_accuracy"]},
        },
        {
            "name": "ceiling",
            "description": "a perfect reader, who gives the best of the answers that people gave: they do not agree",
            "metrics": measure(best_answers(answers)),
        },
    ]
    return json.loads(json.dumps(controls))


def text_to_image_controls(study: TextToImageStudy, output: Path, first: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Chance, shuffled captions, an untrained generator, the mean picture, and real pictures, which are the ceiling.

    Arguments and result as of `retrieval_controls`. All but the shuffled run were measured with the first run, by the
    same judges. The shuffled one is trained without DAMSM's losses, since DAMSM knows what captions mean.
    """
    bounds = first["bounds"]

    def measured(prefix: str) -> dict[str, float]:
        return {name.removeprefix(prefix): value for name, value in bounds.items() if name.startswith(prefix)}

    shuffled_train = shuffled_captions(datasets.DatasetDict({"train": study.data["train"]}), first["seed"])
    epochs, shuffled = _shuffled_run(
        study,
        output,
        first,
        dataset_dict=datasets.DatasetDict({**study.data, **shuffled_train}),
        settings={"matching_weight": 0.0},
        name="shuffled",
    )
    controls = [
        {
            "name": "chance",
            "description": "pictures that have nothing to do with their captions",
            "metrics": measured("chance_"),
        },
        {
            "name": "shuffled captions",
            "description": f"{first['alignment_function']}, {epochs}, trained on captions of others and without "
            "DAMSM's losses",
            "metrics": shuffled,
        },
        {
            "name": "untrained generator",
            "description": "the same generator before training",
            "metrics": measured("untrained_"),
        },
        {
            "name": "mean picture",
            "description": "the mean of the training pictures for every caption",
            "metrics": measured("mean_picture_"),
        },
        {
            "name": "real pictures",
            "description": "the test pictures themselves; their distance is that to as many training pictures",
            "metrics": measured("real_"),
        },
    ]
    return json.loads(json.dumps(controls))


def _shuffled_run(
    study: Study, output: Path, first: Mapping[str, Any], **arguments: Any
) -> tuple[str, dict[str, float]]:
    """Train a control for a share of the epochs: what leaks would show early. Return it in words, and the metrics."""
    epochs = max(1, study.settings["epochs"] // SHARE_OF_EPOCHS[study.task])
    said = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    return said, _control_run(study, output, first, epochs=epochs, **arguments)


def _control_run(
    study: Study,
    output: Path,
    first: Mapping[str, Any],
    *,
    name: str,
    epochs: int | None = None,
    fields: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> dict[str, float]:
    """Train the function and seed of `first` on other data or with other fields or settings; return its metrics."""
    result = study.train(
        dataset_name=f"{study.name}-{name}",
        output=output / "controls",
        settings=study.settings_class.from_dict(
            {
                **study.settings,
                **(settings or {}),
                "seed": first["seed"],
                "epochs": epochs or study.settings["epochs"],
            }
        ),
        model_fields={**study.model_fields, "alignment_function": first["alignment_function"], **(fields or {})},
        command=first["command"],
        **arguments,
    )
    return result["metrics"]


def caption_owners(split: datasets.Dataset) -> np.ndarray:
    """The picture of each caption: int [captions]."""
    return np.repeat(np.arange(len(split)), [len(captions) for captions in split["captions"]])


def shuffled_captions(data: datasets.DatasetDict, seed: int) -> datasets.DatasetDict:
    """Give every picture the captions of another one of its split."""
    mixed = datasets.DatasetDict()
    for number, (name, split) in enumerate(data.items()):
        order = np.random.default_rng([seed, number]).permutation(len(split))
        following = np.empty(len(split), dtype=int)
        following[order] = np.roll(order, 1)  # one cycle through all pictures: none keeps its own
        captions = split["captions"]
        others = [captions[int(row)] for row in following]
        mixed[name] = split.remove_columns("captions").add_column("captions", others)
    return mixed


def perfect_reader(split: datasets.Dataset, folds: int = 1, seed: int = 0) -> dict[str, float]:
    """What is reached by knowing of every caption in which scenes of blocks it is true, and nothing else.

    Args:
        split: With a column "scene"; its captions are those that the scenes themselves give.
        folds: As of `retrieval_metrics`.
        seed: Of the random order among what is equally true.
    """
    scenes = [Scene.from_json(text) for text in split["scene"]]
    rows, owners = [], []
    for number, scene in enumerate(scenes):
        for caption in make_captions(scene):
            rows.append([caption_holds(caption, other) for other in scenes])
            owners.append(number)
    truth = np.asarray(rows, dtype=np.float64).T  # [scenes, captions]
    noise = np.random.default_rng(seed).random(truth.shape)
    return retrieval_metrics(truth + 0.5 * noise, np.asarray(owners), folds=folds)


def shuffled_answers(data: QuestionData, seed: int, column: str = "answer") -> QuestionData:
    """Give every question the answer to another one of its type and split, what stands in `column`."""
    mixed = datasets.DatasetDict()
    for number, (name, split) in enumerate(data.questions.items()):
        draw = np.random.default_rng([seed, number])
        types = np.array(split["question_type"], dtype=object)
        following = np.arange(len(split))
        for question_type in sorted(set(types)):
            rows = draw.permutation(np.flatnonzero(types == question_type))
            following[rows] = np.roll(rows, 1)
        answers, feature = list(split[column]), split.features[column]
        others = [answers[row] for row in following]
        mixed[name] = split.remove_columns(column).add_column(column, others, feature=feature)
    return QuestionData(data.images, mixed)


def perfect_answers(data: QuestionData, split: str) -> dict[str, float]:
    """Accuracy of running every question's program on its scene."""
    questions = data.questions[split]
    scenes = dict(zip(data.images[split]["image_id"], data.images[split]["scene"], strict=True))
    predictions, graphs = [], {}
    for image_id, program in zip(questions["image_id"], questions["program"], strict=True):
        if image_id not in graphs:
            graphs[image_id] = Scene.from_json(scenes[image_id])
        predictions.append(execute_program(json.loads(program), graphs[image_id]))
    return question_answering_metrics(
        predictions, questions["answer"], questions["question_type"], questions["program_depth"]
    )
