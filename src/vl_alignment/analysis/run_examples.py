"""Examples of a run, for its card: test items with what its model gave for them, from pixels, and where it looked.

`examples.json` beside a run is a list; pictures lie in the same folder, and are named by their files there:

    {"title": "Two cubes", "image": "scene.png", "texts": ["a red cube", ...],               (SCAN)
     "output": [{"label": "a red cube", "score": 0.61}, ...]}
    {"title": "Counting", "image": "scene.png", "text": "How many cubes are there?",         (MAC, M4C)
     "output": [{"label": "2", "score": 0.93}, ...]}
    {"title": "A ball", "text": "a large red ball", "output": "ball.png"}                      (AttnGAN)
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..pipelines import PIPELINES
from ..training.runs import RunDirectory, write_file, write_json
from ..training.studies import QuestionStudy, RetrievalStudy, Study, TextQuestionStudy
from ..training.text_to_image_study import TextToImageStudy
from .attention_pictures import TEST_ITEMS

__all__ = ["ATTENTION_FILE", "EXAMPLES_FILE", "write_run_examples"]

EXAMPLES_FILE = "examples.json"
ATTENTION_FILE = "attention.png"
COUNT = 2
WRONG_CAPTIONS = 3


def write_run_examples(study: Study, output: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Write `examples.json`, its pictures and `attention.png` beside each run that has a model and none yet.

    Only of the built-in world: photographs of a data set are not ours to hand on with a model.

    Args:
        study: What the runs share.
        output: Folder of the runs.
        results: Of the runs.

    Raises:
        ResultsError: A file cannot be written.
    """
    test = next(iter(study.images.values()))
    runs = [RunDirectory(output / result["run_id"]) for result in results]
    runs = [run for run in runs if run.model.exists() and not (run.path / EXAMPLES_FILE).exists()]
    if not runs or "scene" not in test.column_names or (study.store is None and not study.draws):
        return
    items = TEST_ITEMS[study.task](study, COUNT + WRONG_CAPTIONS)
    name, example = _EXAMPLES[study.task]
    for run in runs:
        pipe = PIPELINES[name][0](
            model=items.model_class.from_pretrained(run.model).eval(),
            processor=items.pipeline_processor.from_pretrained(run.model),
        )
        reader = items.processor_class.from_pretrained(run.model)
        write_file(run.path / ATTENTION_FILE, items.draw(pipe.model, reader, 0))
        examples = [example(pipe, items, number, run.path) for number in range(min(COUNT, len(items.texts)))]
        write_json(run.path / EXAMPLES_FILE, examples)


def _matching(pipe: Any, items: Any, number: int, folder: Path) -> dict[str, Any]:
    """The caption of a picture among those of others."""
    picture, file = _picture(items, number, folder)
    texts = list(dict.fromkeys([items.texts[number], *items.texts]))[: 1 + WRONG_CAPTIONS]
    output = [{"label": row["text"], "score": row["score"]} for row in pipe(picture, texts)]
    return {"title": f"Captions of scene {number + 1}", "image": file, "texts": texts, "output": output}


def _answering(pipe: Any, items: Any, number: int, folder: Path) -> dict[str, Any]:
    """A question about a picture, and the answers."""
    picture, file = _picture(items, number, folder)
    return _answered(pipe(picture, items.texts[number]), items, number, file)


def _reading(pipe: Any, items: Any, number: int, folder: Path) -> dict[str, Any]:
    """A question about the words of a picture, which are given as the study gives them."""
    picture, file = _picture(items, number, folder)
    words = {name: items.records[number][name] for name in ("ocr_tokens", "ocr_boxes")}
    return _answered(pipe(picture, items.texts[number], **words), items, number, file)


def _answered(answers: Sequence[Mapping[str, Any]], items: Any, number: int, file: str) -> dict[str, Any]:
    output = [{"label": row["answer"], "score": row["score"]} for row in answers]
    return {"title": f"Scene {number + 1}", "image": file, "text": items.texts[number], "output": output}


def _drawing(pipe: Any, items: Any, number: int, folder: Path) -> dict[str, Any]:
    """A caption, and the picture that was drawn of it."""
    file = f"drawn-{number + 1}.png"
    (drawn,) = pipe(items.texts[number])
    _save(drawn, folder / file)
    return {"title": f"Caption {number + 1}", "text": items.texts[number], "output": file}


_EXAMPLES: dict[str, tuple[str, Callable[[Any, Any, int, Path], dict[str, Any]]]] = {
    RetrievalStudy.task: ("image-text-matching", _matching),
    QuestionStudy.task: ("clevr-question-answering", _answering),
    TextQuestionStudy.task: ("text-visual-question-answering", _reading),
    TextToImageStudy.task: ("text-to-image-attngan", _drawing),
}


def _picture(items: Any, number: int, folder: Path) -> tuple[Any, str]:
    """An item's picture, and the file beside the run that it is written to."""
    file = f"scene-{number + 1}.png"
    picture = items.records[number]["image"].convert("RGB")
    _save(picture, folder / file)
    return picture, file


def _save(picture: Any, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    content = io.BytesIO()
    picture.save(content, format="PNG")
    write_file(path, content.getvalue())
