"""One run of question answering from data to results.json: what `train`, `compare` and the example call."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from accelerate import Accelerator

from vl_alignment.data.blocks.programs import program_hops
from vl_alignment.data.features import RegionStore
from vl_alignment.data.question_answering import QuestionData
from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.metrics.question_statistics import question_statistics
from vl_alignment.models.configuration_mac import MacConfig
from vl_alignment.models.modeling_mac import MacForQuestionAnswering
from vl_alignment.models.processing_mac import MacProcessor
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.picture_questions import check_question_splits, described_questions
from vl_alignment.training.question_inputs import answer_vocabulary
from vl_alignment.training.question_objective import QuestionObjective
from vl_alignment.training.single_run import backbone_fields, start_from_backbone, train_single_run

__all__ = ["train_question_run"]


def train_question_run(
    data: QuestionData,
    *,
    dataset_name: str,
    output: Any,
    settings: TrainingSettings,
    model_fields: Mapping[str, Any],
    region_store: RegionStore | None = None,
    image_processor: Callable[..., Any] | None = None,
    vision_model: Any = None,
    tokenizer: Any = None,
    minimum_count: int = 1,
    test_split: str = "test",
    blind: bool = False,
    accelerator: Accelerator | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Train MAC once, evaluate its best weights, and write the run directory.

    A finished run is not repeated, an interrupted one goes on from its newest checkpoint.

    Args:
        data: Splits "train", "validation" and the test split; see `QuestionObjective`.
        dataset_name: For the run's name and results.
        output: Folder of all runs.
        settings: With the seed.
        model_fields: Fields of `MacConfig`, `alignment_function` among them; vocabulary, answers, feature and grid size
            are taken from the data.
        region_store: Features of the pictures; None trains from pixels.
        image_processor: For pixels.
        vision_model: A trained backbone whose configuration and weights become part of the model.
        tokenizer: Made from the training questions where None.
        minimum_count: Words rarer than this in the training questions are unknown.
        test_split: "validation" where the answers of the test split are not public (CLEVR).
        blind: Show zeros in place of every picture.
        accelerator: Made from the settings if not given.
        command: For the results; what was typed, where None.

    Returns:
        The content of results.json, on every process.

    Raises:
        ConfigurationError: Settings do not fit one another, the data, or an earlier run in the same folder.
        DataError: The data cannot be used.
        TrainingInterrupted: After Ctrl-C or kill, when a checkpoint is written.
    """
    check_question_splits(data, dataset_name, test_split)
    train_questions = data.questions["train"]
    if tokenizer is None:
        tokenizer = build_word_tokenizer(train_questions["question"], minimum_count=minimum_count)
    id2label = answer_vocabulary(train_questions["answer"])
    config = _config(model_fields, tokenizer, id2label, region_store, vision_model)

    def build() -> tuple[MacForQuestionAnswering, QuestionObjective]:
        model = MacForQuestionAnswering(config)
        start_from_backbone(model, vision_model)
        objective = QuestionObjective(
            data,
            tokenizer,
            id2label,
            settings,
            region_store=region_store,
            image_processor=image_processor,
            processor=MacProcessor(image_processor, tokenizer),
            blind=blind,
        )
        return model, objective

    return train_single_run(
        build,
        task=QuestionObjective.task,
        config=config,
        dataset=_dataset(data, dataset_name, test_split, region_store, blind),
        output=output,
        settings=settings,
        test_split=test_split,
        accelerator=accelerator,
        command=command,
    )


def _dataset(data: QuestionData, name: str, test_split: str, store: RegionStore | None, blind: bool) -> dict[str, Any]:
    """Return what identifies the data in a result, the mix of its questions and how far answering blindly gets."""
    train, test = data.questions["train"], data.questions[test_split]
    statistics = question_statistics(
        test["question_type"],
        test["answer"],
        [program_hops(json.loads(program)) if program else 0 for program in test["program"]],
        train_types=train["question_type"],
        train_answers=train["answer"],
    )
    dataset = described_questions(data, name, test_split, store, blind)
    return {**dataset, "question_statistics": {key: round(value, 2) for key, value in statistics.items()}}


def _config(
    fields: Mapping[str, Any], tokenizer: Any, id2label: dict[int, str], store: RegionStore | None, vision_model: Any
) -> MacConfig:
    values = {**fields, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    values |= {"id2label": id2label, "label2id": {answer: number for number, answer in id2label.items()}}
    if store is not None:
        values["grid_size"] = round(store.regions**0.5)
    return MacConfig(**{**values, **backbone_fields(store, vision_model)})
