"""Evaluate a trained retrieval model on a split of a data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..data.features import RegionStore, without_failed_images
from ..data.retrieval import load_retrieval_dataset, select_split
from ..models.errors import CheckpointError, ConfigurationError
from ..models.modeling_scan import ScanForImageTextRetrieval
from ..models.processing_scan import ScanProcessor
from .arguments import TrainingSettings
from .objectives import RetrievalObjective
from .preparation import cache_folder
from .presets import get_preset

__all__ = ["evaluate_retrieval", "load_retrieval_model"]


def load_retrieval_model(folder: str | Path) -> tuple[ScanForImageTextRetrieval, Any]:
    """Load a model in evaluation mode, and its processor.

    Raises:
        CheckpointError: If either is missing or damaged.
    """
    model = ScanForImageTextRetrieval.from_pretrained(folder).eval()
    try:
        processor = ScanProcessor.from_pretrained(folder)
    except Exception as error:  # tokenizers, transformers and the Hub client each raise errors of their own
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"the processor cannot be loaded: {reason}", path=folder) from error
    return model, processor


def evaluate_retrieval(
    folder: str | Path,
    preset: str = "blocks",
    *,
    data_dir: str | Path | None = None,
    regions: str | Path | None = None,
    split: str = "test",
    sizes: Mapping[str, int] | None = None,
    folds: int = 1,
    device: str = "auto",
) -> dict[str, float]:
    """Measure a model in a folder on one split.

    Args:
        folder: Of `save_pretrained`.
        preset: Whose data set to take.
        data_dir: Folder of the data set; blocks needs none.
        regions: A region store of the kind the model was trained on; without one the model sees pixels.
        split: Name of the split.
        sizes: Images a split, for a smaller trial.
        folds: Into how many folds the split is cut.
        device: "auto" or "cpu".

    Returns:
        The metrics, in percent and ranks.

    Raises:
        CheckpointError: If the model cannot be loaded.
        ConfigurationError: If the regions are not those of the model's training.
        DataError: If the split does not exist or the data cannot be used.
    """
    model, processor = load_retrieval_model(folder)
    data = load_retrieval_dataset(
        get_preset(preset)["data"]["name"], data_dir, cache_dir=cache_folder() / "datasets", sizes=sizes
    )
    store = None
    if regions is not None:
        store = RegionStore.open(regions)
        made_with = model.config.region_extractor
        if made_with not in (None, store.extractor):
            raise ConfigurationError(
                f"the model was trained on regions of {made_with!r}, {regions} holds regions of {store.extractor!r}"
            )
        data = without_failed_images(data, store)
    elif model.config.vision_config is None:
        raise ConfigurationError(
            f"the model has no backbone for pixels; give --regions made with {model.config.region_extractor!r}"
        )
    data = type(data)({split: select_split(data, split)})
    objective = RetrievalObjective(
        data,
        processor.tokenizer,
        TrainingSettings(device=device),
        region_store=store,
        image_processor=processor.image_processor,
        folds=folds,
    )
    objective.images.check(model)
    accelerator = Accelerator(cpu=device == "cpu")
    return objective.evaluate(model.to(accelerator.device), split, accelerator).metrics
