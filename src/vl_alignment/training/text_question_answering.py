"""One run of question answering by reading, from data to results.json."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from transformers import AutoTokenizer

from vl_alignment.data.answer_vocabulary import build_answer_vocabulary
from vl_alignment.data.features import RegionStore
from vl_alignment.data.question_records import QuestionData
from vl_alignment.data.vocabulary import build_spelling_tokenizer, build_word_tokenizer
from vl_alignment.models.configuration_m4c import M4CConfig
from vl_alignment.models.embedding_m4c import first_text_layers, load_text_encoder
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.models.hashed_word_vectors import HashedWordVectors
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering
from vl_alignment.models.processing_m4c import M4CProcessor
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.decoding_targets import AnswerTargets
from vl_alignment.training.picture_questions import check_question_splits, described_questions
from vl_alignment.training.single_run import backbone_fields, start_from_backbone, train_single_run
from vl_alignment.training.text_question_inputs import TextInputs
from vl_alignment.training.text_question_objective import TextQuestionObjective, answer_bounds

__all__ = ["train_text_question_run"]


def train_text_question_run(
    data: QuestionData,
    *,
    dataset_name: str,
    output: Any,
    settings: TrainingSettings,
    model_fields: Mapping[str, Any],
    region_store: RegionStore | None = None,
    image_processor: Callable[..., Any] | None = None,
    vision_model: Any = None,
    text_encoder: str | None = None,
    text_layers: int = 3,
    minimum_count: int = 100,
    answer_words: int = 5000,
    answer_vocabulary: Sequence[str] | None = None,
    word_vectors: Any = HashedWordVectors.kind,
    max_ocr_tokens: int = 50,
    max_question_tokens: int = 20,
    ocr: Mapping[str, Any] | None = None,
    test_split: str = "test",
    blind: bool = False,
    accelerator: Accelerator | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Train M4C once, evaluate its best weights, and write the run directory.

    A finished run is not repeated, an interrupted one goes on from its newest checkpoint.

    Args:
        data: Splits "train", "validation" and the test split; see `TextQuestionObjective`.
        dataset_name: For the run's name and results.
        output: Folder of all runs.
        settings: With the seed.
        model_fields: Fields of `M4CConfig`, `alignment_function` among them; the answer vocabulary and sizes of text,
            regions and word vectors are taken from the data.
        region_store: Features of the pictures' grids; None trains from pixels.
        image_processor: For pixels.
        vision_model: A trained backbone whose configuration and weights become part of the model.
        text_encoder: A BERT-like checkpoint, whose first layers and tokenizer read the questions; without one the
            encoder is `model_fields["text_config"]` with fresh weights, over a tokenizer of the training questions.
        text_layers: How many layers of that checkpoint.
        minimum_count: Without a checkpoint: words rarer than this in the training questions are spelled, in letters
            (see `build_spelling_tokenizer`) or beside the pieces (`question_spellings` in `model_fields`).
        answer_words: Size of the answer vocabulary at most, the special words included.
        answer_vocabulary: The answer vocabulary itself, as of `read_answer_vocabulary`; by default the most frequent
            words of the training answers.
        word_vectors: Of the OCR tokens; see `M4CProcessor`.
        max_ocr_tokens: See `M4CProcessor`.
        max_question_tokens: See `M4CProcessor`.
        ocr: What the results say about where the text comes from.
        test_split: "validation" where the answers of the test split are not public (TextVQA).
        blind: Show zeros in place of every picture, and none of its text.
        accelerator: Made from the settings if not given.
        command: For the results; what was typed, where None.

    Returns:
        The content of results.json, on every process.

    Raises:
        ConfigurationError: Settings do not fit one another, the data, or an earlier run in the same folder.
        DataError: The data cannot be used.
        CheckpointError: The text encoder cannot be loaded.
        TrainingInterrupted: After Ctrl-C or kill, when a checkpoint is written.
    """
    check_question_splits(data, dataset_name, test_split)
    train_questions = data.questions["train"]
    # Rare words are spelled: in letters among the pieces, or beside them where the model takes that.
    question_spellings = bool(model_fields.get("question_spellings"))
    if text_encoder is None:
        make = build_word_tokenizer if question_spellings else build_spelling_tokenizer
        tokenizer = make(train_questions["question"], minimum_count)
    else:
        tokenizer = _tokenizer_of(text_encoder)
    given = (answer for answers in train_questions["answers"] for answer in answers)
    vocabulary = list(answer_vocabulary or build_answer_vocabulary(given, answer_words))
    processor = M4CProcessor(
        image_processor,
        tokenizer,
        word_vectors,
        max_ocr_tokens=max_ocr_tokens,
        max_question_tokens=max_question_tokens,
        spellings=model_fields.get("phoc_size", M4CConfig().phoc_size) > 0,
        question_spellings=question_spellings,
    )
    text_config = None if text_encoder is None else first_text_layers(text_encoder, text_layers)
    config = _config(model_fields, processor, vocabulary, text_config, region_store, vision_model)

    def build() -> tuple[M4CForQuestionAnswering, TextQuestionObjective]:
        model = M4CForQuestionAnswering(config)
        start_from_backbone(model, vision_model)
        if text_encoder is not None:
            loaded = load_text_encoder(text_encoder, config.text_config)  # type: ignore[arg-type]
            model.model.question_encoder.text_model.load_state_dict(loaded.state_dict())
        objective = TextQuestionObjective(
            data,
            processor,
            vocabulary,
            settings,
            steps=config.num_decoding_steps,
            region_store=region_store,
            image_processor=image_processor,
            blind=blind,
            copy_words=config.copy_words,
        )
        return model, objective

    dataset = described_questions(data, dataset_name, test_split, region_store, blind)
    dataset |= _bounds(data, test_split, processor, config, blind)
    vectors = None if processor.word_vectors is None else processor.word_vectors.name
    dataset |= {"answer_words": len(vocabulary), "word_vectors": vectors, "ocr": dict(ocr or {})}
    return train_single_run(
        build,
        task=TextQuestionObjective.task,
        config=config,
        dataset=dataset,
        output=output,
        settings=settings,
        test_split=test_split,
        accelerator=accelerator,
        command=command,
    )


def _tokenizer_of(text_encoder: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(text_encoder)
    except Exception as error:  # what tokenizers and the Hub client raise has no common base
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"the text encoder's tokenizer cannot be loaded: {reason}", path=text_encoder) from error


def _bounds(
    data: QuestionData, test_split: str, processor: M4CProcessor, config: M4CConfig, blind: bool
) -> dict[str, float]:
    """Return `answer_bounds` of the test split, before anything is trained."""
    test, images = data.questions[test_split], data.images[test_split]
    if not all(test["answers"]):
        raise DataError(f"The answers of {test_split!r} are not public; measure on the validation split.")
    texts = TextInputs(images, processor, test_split, hidden=blind or not config.copy_words)
    of_image = dict(zip(images["image_id"], texts.words, strict=True))
    tokens = [of_image[image_id] for image_id in test["image_id"]]
    vocabulary = [*(config.id2label or {}).values()]
    targets = AnswerTargets(test["answers"], tokens, vocabulary, config.num_decoding_steps)
    return {name: round(bound, 2) for name, bound in answer_bounds(test["answers"], targets).items()}


def _config(
    fields: Mapping[str, Any],
    processor: M4CProcessor,
    vocabulary: list[str],
    text_config: Any,
    store: RegionStore | None,
    vision_model: Any,
) -> M4CConfig:
    values = dict(fields)
    tokenizer = processor.tokenizer
    if text_config is not None:
        values["text_config"] = text_config.to_dict()
    elif values.get("text_config") is None:
        raise ConfigurationError("The question's encoder is missing: give text_config, or a text encoder.")
    else:
        own = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        values["text_config"] = {**values["text_config"], **own}
    values |= {"id2label": dict(enumerate(vocabulary)), "label2id": {word: row for row, word in enumerate(vocabulary)}}
    values["word_vector_size"] = 0 if processor.word_vectors is None else processor.word_vectors.size
    if store is not None:
        values["ocr_feature_size"] = store.feature_size
    return M4CConfig(**{**values, **backbone_fields(store, vision_model)})
