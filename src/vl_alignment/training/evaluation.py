"""Load a trained model of any task, and evaluate it on a split of a data set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import datasets
import torch
from accelerate import Accelerator
from transformers import AutoConfig

from ..data.features import RegionStore, open_regions, without_failed_images
from ..data.named_data import select_split
from ..data.question_answering import QuestionData
from ..metrics.text_question_answering import answer_words
from ..models.configuration_base import VisionAlignmentConfig
from ..models.errors import CheckpointError, ConfigurationError, VlAlignmentError
from ..models.modeling_attngan import AttnGanForTextToImageGeneration
from ..models.modeling_damsm import DamsmModel
from ..models.modeling_m4c import M4CForQuestionAnswering
from ..models.modeling_mac import MacForQuestionAnswering
from ..models.modeling_scan import ScanForImageTextRetrieval
from ..models.processing_attngan import AttnGanProcessor
from ..models.processing_m4c import M4CProcessor
from ..models.processing_mac import MacProcessor
from ..models.processing_scan import ScanProcessor
from .adversarial_settings import AdversarialSettings
from .arguments import TrainingSettings
from .damsm_objective import DamsmObjective
from .data_options import changed_options
from .objectives import Evaluation, RetrievalObjective
from .preparation import cache_folder, load_data, load_study
from .presets import Preset, get_preset
from .question_objective import QuestionObjective
from .text_question_objective import TextQuestionObjective
from .text_to_image_study import TextToImageStudy

__all__ = [
    "LoadedSplit",
    "built_in_preset",
    "evaluate",
    "load_images",
    "load_model",
    "load_split",
    "model_task",
    "split_images",
]

Data: TypeAlias = datasets.DatasetDict | QuestionData
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class ModelKind:
    """What models of one type are for.

    Attributes:
        task: As in presets and results.
        preset: Whose data set they are evaluated on unless another is named.
        reads: What they read beside pictures, for messages.
        model_class: Loads them.
        processor_class: Loads their processor.
        objective: Makes what measures them; None where `measure` does all of it.
        measure: Measures a model that draws, or judges what is drawn, on a split of a study.
        word_vectors: Whether the processor may need word vectors that do not travel with it.
    """

    task: str
    preset: str
    reads: str
    model_class: Any
    processor_class: Any
    objective: Callable[["Measured"], Any] | None
    word_vectors: bool = False
    measure: Callable[[Any, Any, TextToImageStudy, str, Accelerator], Evaluation] | None = None


@dataclass(frozen=True)
class Measured:
    """What is measured: a model on one split of a data set.

    Attributes:
        data: All splits.
        part: The split alone, its pictures those that can be read.
        model, processor: See `load_model`.
        settings: How to evaluate.
        folds: Into how many folds the split is cut.
        images: The store of the pictures' regions, or what makes pixels of them.
        scores: Folder that keeps the scores of retrieval, if any.
    """

    data: Any
    part: Any
    model: Any
    processor: Any
    settings: TrainingSettings
    folds: int
    images: dict[str, Any]
    scores: str | Path | None


def _retrieval(what: Measured) -> RetrievalObjective:
    return RetrievalObjective(
        what.part, what.processor.tokenizer, what.settings, folds=what.folds, scores=what.scores, **what.images
    )


def _questions(what: Measured) -> QuestionObjective:
    return QuestionObjective(
        what.part, what.processor.tokenizer, what.model.config.id2label, what.settings, **what.images
    )


def _text_questions(what: Measured) -> TextQuestionObjective:
    config, train = what.model.config, what.data.questions.get("train")
    return TextQuestionObjective(
        what.part,
        what.processor,
        [*config.id2label.values()],
        what.settings,
        steps=config.num_decoding_steps,
        copy_words=config.copy_words,
        seen_words=None if train is None else answer_words(train["answers"]),
        **what.images,
    )


def _matching(model: Any, processor: Any, study: TextToImageStudy, split: str, accelerator: Accelerator) -> Evaluation:
    """Measure a DAMSM."""
    part = datasets.DatasetDict({split: select_split(study.data, split)})
    objective = DamsmObjective(
        part,
        processor.tokenizer,
        TrainingSettings(),
        image_size=processor.image_processor.size["height"],
        reading={**study.options.get("reading", {}), "max_words": processor.max_words},
    )
    return objective.evaluate(model, split, accelerator)


def _drawing(model: Any, _: Any, study: TextToImageStudy, split: str, accelerator: Accelerator) -> Evaluation:
    """Measure a generator with the judges of the study, which must be those of its training."""
    study.model_fields["image_size"] = model.config.image_size
    study.make_judges(cache_folder(), accelerator)
    assert study.judges is not None
    own, judging = (network.text_encoder.state_dict() for network in (model, study.judges.damsm))
    pairs = [(weights.cpu(), judging[name].cpu()) for name, weights in own.items()]
    if not all(one.shape == other.shape and torch.equal(one, other) for one, other in pairs):
        raise ConfigurationError(
            "the generator was trained with another DAMSM than these data and options give; give those of its training"
        )
    select_split(study.data, split)
    task = study.build_task(model.config.stage_sizes, AdversarialSettings())
    return task.evaluate(model, split, accelerator)


_KINDS = {
    "scan": ModelKind("retrieval", "blocks", "captions (--text)", ScanForImageTextRetrieval, ScanProcessor, _retrieval),
    "mac": ModelKind(
        "question-answering", "blocks-vqa", "questions (--question)", MacForQuestionAnswering, MacProcessor, _questions
    ),
    "m4c": ModelKind(
        "text-question-answering",
        "blocks-text",
        "questions (--question)",
        M4CForQuestionAnswering,
        M4CProcessor,
        _text_questions,
        word_vectors=True,
    ),
    "attngan": ModelKind(
        "text-to-image",
        "blocks-t2i",
        "captions to draw (--text)",
        AttnGanForTextToImageGeneration,
        AttnGanProcessor,
        None,
        measure=_drawing,
    ),
    "damsm": ModelKind(
        DamsmObjective.task,
        "blocks-t2i",
        "pictures and captions (vl-alignment evaluate)",
        DamsmModel,
        AttnGanProcessor,
        None,
        measure=_matching,
    ),
}


def model_task(folder: str | Path) -> str:
    """Return what the model in a folder is for, as in presets and results; arguments and errors as of `load_model`."""
    return _kind(folder).task


def built_in_preset(folder: str | Path) -> str:
    """Return the preset whose data the model in a folder is measured on unless another is named; see `model_task`."""
    return _kind(folder).preset


def load_model(folder: str | Path, task: str | None = None, *, word_vectors: Any = None) -> tuple[Any, Any]:
    """Load a model in evaluation mode, and its processor, by the type that its configuration names.

    Args:
        folder: Of `save_pretrained`, or a Hub repository id.
        task: What the model must be for, as in presets and results; None takes any.
        word_vectors: Those of the model's training, where they do not travel with it; see `M4CProcessor`.

    Raises:
        CheckpointError: If a part is missing or damaged, or the model is of another package.
        ConfigurationError: If the model is for another task, or word vectors are not those of its training.
    """
    kind = _kind(folder)
    if task not in (None, kind.task):
        raise ConfigurationError(f"{folder} holds a model for {kind.task}, not for {task}: give it {kind.reads}")
    if word_vectors is not None and not kind.word_vectors:
        raise ConfigurationError(f"{folder} holds a model for {kind.task}, which takes no word vectors")
    own = {} if word_vectors is None else {"word_vectors": word_vectors}
    model = kind.model_class.from_pretrained(folder).eval()
    return model, _loaded(lambda path: kind.processor_class.from_pretrained(path, **own), folder, "the processor")


def _kind(folder: str | Path) -> ModelKind:
    there = Path(folder).is_dir()
    what = "the configuration" if there else "there is no such folder, and a repository of this name"
    config = _loaded(AutoConfig.from_pretrained, folder, what)
    kind = _KINDS.get(config.model_type)
    if kind is None:
        raise CheckpointError(
            f"a model of type {config.model_type!r} cannot be used here; known are {', '.join(_KINDS)}", path=folder
        )
    return kind


def load_images(
    preset: str, data_dir: str | Path | None = None, *, sizes: Mapping[str, int] | None = None
) -> datasets.DatasetDict:
    """Load the pictures of a preset's data set; arguments and errors as of `evaluate`."""
    chosen = get_preset(preset)
    return split_images(load_data(chosen["task"], chosen["data"], data_dir, sizes))


def evaluate(
    folder: str | Path,
    preset: str | None = None,
    *,
    data_dir: str | Path | None = None,
    regions: str | Path | None = None,
    split: str | None = None,
    sizes: Mapping[str, int] | None = None,
    folds: int = 1,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    scores: str | Path | None = None,
) -> dict[str, float]:
    """Measure a model in a folder on one split.

    Args:
        folder: Of `save_pretrained`.
        preset: Whose data set to take; by default the built-in one of the model's task.
        data_dir: Folder of the data set; blocks needs none.
        regions: Stored regions of the kind the model was trained on; without them the model sees pixels.
        split: Name of the split; by default the one that the preset's results are measured on.
        sizes: Images a split, for a smaller trial.
        folds: Into how many folds a retrieval split is cut.
        options: Changes of the preset's options of the data; see `changed_options`.
        device: "auto" or "cpu".
        scores: Folder in which an evaluation of retrieval keeps the scores that it has, so that it goes on when called
            again after it was killed.

    Returns:
        The metrics, in percent and ranks, and the bounds that the data set them where these are known. Answers that the
        model does not know count as wrong.

    Raises:
        CheckpointError: If the model cannot be loaded.
        ConfigurationError: If the preset is of another task, or the regions are not those of the model's training.
        DataError: If the split does not exist or the data cannot be used.
        ResultsError: If the folder holds the scores of another evaluation.
    """
    kind = _kind(folder)
    _check_preset(folder, kind, preset)
    if scores is not None and kind.task != RetrievalObjective.task:
        raise ConfigurationError(f"{folder} holds a model for {kind.task}: only retrieval scores all pairs")
    if folds > 1 and kind.task != RetrievalObjective.task:
        raise ConfigurationError(f"folds={folds}: only the splits of retrieval are cut into folds")
    if kind.measure is not None:
        if regions is not None:
            raise ConfigurationError(f"the model in {folder} takes no regions; leave them out")
        study = load_study(preset or kind.preset, data_dir=data_dir, sizes=sizes, options=options)
        assert isinstance(study, TextToImageStudy)
        accelerator = Accelerator(cpu=device == "cpu")
        model, processor = load_model(folder)
        measured = kind.measure(model.to(accelerator.device), processor, study, split or "test", accelerator)
        return {**measured.metrics, **measured.bounds}
    assert kind.objective is not None
    loaded = load_split(folder, preset, data_dir=data_dir, regions=regions, split=split, sizes=sizes, options=options)
    model, processor = loaded.model, loaded.processor
    images = {"region_store": loaded.store, "image_processor": processor.image_processor}
    settings = TrainingSettings(device=device)
    objective = kind.objective(Measured(loaded.data, loaded.part, model, processor, settings, folds, images, scores))
    objective.images.check(model)
    accelerator = Accelerator(cpu=device == "cpu")
    evaluation = objective.evaluate(model.to(accelerator.device), loaded.split, accelerator)
    return {**evaluation.metrics, **evaluation.bounds}


@dataclass(frozen=True)
class LoadedSplit:
    """A model and one split of a data set that fits it.

    Attributes:
        task: As in presets and results.
        name: Of the data set.
        model, processor: See `load_model`.
        data: All splits.
        part: The split alone, its pictures those that can be read.
        split: Its name.
        store: The pictures' regions; None where the model sees pixels, or draws.
    """

    task: str
    name: str
    model: Any
    processor: Any
    data: Any
    part: Any
    split: str
    store: RegionStore | None


def load_split(
    folder: str | Path,
    preset: str | None = None,
    *,
    data_dir: str | Path | None = None,
    regions: str | Path | None = None,
    split: str | None = None,
    sizes: Mapping[str, int] | None = None,
    options: Mapping[str, Any] | None = None,
    data: Data | None = None,
) -> LoadedSplit:
    """Load a model and the split that it is to be measured on.

    Arguments and errors are those of `evaluate`; `data` are all splits, where they are loaded already.
    """
    kind = _kind(folder)
    chosen = _check_preset(folder, kind, preset)
    own = changed_options(chosen["data"], options or {})
    model, processor = load_model(folder, word_vectors=own.get("word_vectors"))
    split = split or own.get("test_split", "test")
    if "reader" in own:
        own["read_splits"] = [split]  # reading takes seconds a picture: no more of them than are measured
    if data is None:
        data = load_data(chosen["task"], own, data_dir, sizes)
    if kind.objective is None:
        part, store = datasets.DatasetDict({split: select_split(split_images(data), split)}), None
    else:
        part, store = _one_split(data, split, model.config, regions)
    return LoadedSplit(kind.task, own["name"], model, processor, data, part, split, store)


def _check_preset(folder: str | Path, kind: ModelKind, preset: str | None) -> Preset:
    """Return the preset, by default that of the model's task, if it is for that task."""
    chosen = get_preset(preset or kind.preset)
    if chosen["task"] != get_preset(kind.preset)["task"]:
        raise ConfigurationError(
            f"the preset {preset!r} is for {chosen['task']}, the model in {folder} is for {kind.task}"
        )
    return chosen


def _loaded(load: Callable[[Any], Loaded], folder: str | Path, what: str) -> Loaded:
    """Return `load(folder)`; what transformers, tokenizers and the Hub client raise becomes a CheckpointError."""
    try:
        return load(folder)
    except VlAlignmentError as error:
        if str(folder) in str(error):
            raise
        raise type(error)(f"{folder}: {error}") from error
    except Exception as error:  # each of them raises errors of its own
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{what} cannot be loaded: {reason}", path=folder) from error


def split_images(data: Data) -> datasets.DatasetDict:
    """The pictures of a data set, by split, whether or not questions stand apart from them."""
    return data.images if isinstance(data, QuestionData) else data


def _one_split(
    data: Data, split: str, config: VisionAlignmentConfig, regions: str | Path | None
) -> tuple[Data, RegionStore | None]:
    """Return the data of one split without pictures that have no regions, and the regions where they are stored."""
    images = datasets.DatasetDict({split: select_split(split_images(data), split)})
    store = _open_regions(regions, images, config)
    readable = images if store is None else without_failed_images(images, store)
    if isinstance(data, QuestionData):
        questions = datasets.DatasetDict({split: data.questions[split]})
        return QuestionData(images, questions).with_images(readable), store
    return readable, store


def _open_regions(
    regions: str | Path | None, images: datasets.DatasetDict, config: VisionAlignmentConfig
) -> RegionStore | None:
    """Open the regions if they are those of the model's training; None where the model sees pixels."""
    made_with = config.region_extractor
    if regions is None:
        if config.vision_config is None:
            raise ConfigurationError(f"the model has no backbone for pixels; give --regions made with {made_with!r}")
        return None
    store = open_regions(regions, images)
    if made_with not in (None, store.extractor):
        raise ConfigurationError(
            f"the model was trained on regions of {made_with!r}, {regions} holds regions of {store.extractor!r}"
        )
    return store
