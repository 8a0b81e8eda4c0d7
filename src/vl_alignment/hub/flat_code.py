"""The code that travels with weights: flat files by which they load where this package is not installed."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files

from ..models.processing_base import SquareImageProcessorPil
from ..serving.space import requirements_text
from .registered_function import add_registered_function
from .variants import task_of_model

__all__ = ["save_with_code", "without_local_paths"]

# What the flat files import; requirements.txt carries this package's own bounds of them.
REQUIRED = ("huggingface-hub", "numpy", "pillow", "safetensors", "tokenizers", "torch", "transformers")


def save_with_code(model: Any, processor: Any, folder: Path) -> None:
    """Save weights, configuration and processor with all code that loads and serves them.

    Args:
        model: A model of this package.
        processor: Its processor.
        folder: Made; receives `model.safetensors`, `config.json`, the processor's files, the models' files, the
            pipeline's file, `handler.py` and `requirements.txt`.

    Raises:
        HubError: The model's alignment function is the user's own and cannot travel.
        ConfigurationError: There is no task for this type of model.
    """
    task = task_of_model(model.config.model_type)
    with _registered({type(model.config): "AutoConfig", type(model): "AutoModel", type(processor): "AutoProcessor"}):
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    add_registered_function(model.config.alignment_function, folder)

    from ..pipelines import PIPELINES

    pipeline_class, pipeline_file = PIPELINES[task.pipeline]
    _copy_with_siblings(Path(pipeline_file), folder)
    _copy_with_siblings(Path(__file__).parents[1] / "serving" / "handler.py", folder)
    (folder / "requirements.txt").write_text(requirements_text(REQUIRED), encoding="utf-8")

    configuration = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    reference = configuration["auto_map"]["AutoModel"]
    configuration["auto_map"].update(dict.fromkeys(task.auto_classes, reference))
    implementation = f"{Path(pipeline_file).stem}.{pipeline_class.__name__}"
    configuration["custom_pipelines"] = {task.pipeline: {"impl": implementation, "pt": ["AutoModel"]}}
    text = json.dumps(without_local_paths(configuration), indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def without_local_paths(value: Any) -> Any:
    """Return JSON data without the folders that nested configurations were once loaded from; ids of the Hub stay."""
    if isinstance(value, dict):
        return {
            key: without_local_paths(item)
            for key, item in value.items()
            if not (key in ("_name_or_path", "name_or_path") and isinstance(item, str) and Path(item).is_absolute())
        }
    return [without_local_paths(item) for item in value] if isinstance(value, list) else value


@contextlib.contextmanager
def _registered(classes: dict[type, str]) -> Iterator[None]:
    """Let `save_pretrained` copy the code of these classes; afterwards they save without it, as before."""
    touched: tuple[Any, ...] = (*classes, SquareImageProcessorPil)  # a processor registers its image processor as well
    before = [one.__dict__.get("_auto_class") for one in touched]
    try:
        for one, auto_class in classes.items():
            one.register_for_auto_class(auto_class)  # type: ignore[attr-defined]
        yield
    finally:
        for one, auto_class in zip(touched, before, strict=True):
            one._auto_class = auto_class


def _copy_with_siblings(file: Path, folder: Path) -> None:
    for path in (file, *map(Path, get_relative_import_files(str(file)))):
        shutil.copyfile(path, folder / path.name)
