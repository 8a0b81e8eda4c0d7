"""A Space on the Hub: the page, the names of its models, and examples from the built-in world."""

import json
import re
import shutil
from collections.abc import Collection, Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.blocks import (
    make_captions,
    make_descriptions,
    make_questions,
    make_scene,
    make_text_questions,
    make_text_scene,
    render_scene,
    render_text_scene,
)
from ..models.errors import HubError

__all__ = ["SDK_VERSION", "requirements_text", "write_examples", "write_space"]

SDK_VERSION = "6.31.0"
"""Of gradio, which the Hub installs by it."""
PAGE = "alignment_page"
PAGE_FILES = ("app.py", "findings.py", "limits.py", "markup.py", "app.css")
REQUIREMENTS = ("torch", "transformers", "numpy", "pillow")

SPACE_APP = '''"""The page of this Space, for the models of models.json."""

import json
from pathlib import Path

from alignment_page.app import build_app, serve

HERE = Path(__file__).resolve().parent

demo = build_app(json.loads((HERE / "models.json").read_text(encoding="utf-8")), examples=HERE / "examples")

if __name__ == "__main__":
    serve(demo)
'''
README = """---
title: {title}
emoji: 🔦
colorFrom: yellow
colorTo: gray
sdk: gradio
sdk_version: {sdk_version}
app_file: app.py
pinned: false
license: apache-2.0
short_description: Which words look at which regions of a picture
tags:
- alignment-functions
- vision-and-language
models:
{models}
---

# {heading}

Try models that differ in one line: the alignment function, which scores a word against a region of a picture. The page
shows what a model finds and where each word looks, for two functions side by side.

`models.json` lists the models, whose repositories bring the code that runs them; the page is in `{page}/`. The example
pictures are drawn by the built-in world of blocks of vl-alignment.
"""
SCENES, CAPTIONS = range(3), 3
SEED, SPLIT, PICTURE_SIZE = 7, "test", 224


def write_space(folder: Path | str, models: Sequence[str], *, title: str) -> None:
    """Write the repository of a Space.

    Args:
        folder: Where to; made, and what is there under the same names is replaced.
        models: Names of the repositories on the Hub; each task among them gets a tab.
        title: What the Hub calls it.

    Raises:
        HubError: There are no models, or the title is empty or more than a line.
    """
    folder = Path(folder)
    if not models:
        raise HubError("a Space needs a model to show; name one")
    if not title.strip() or "\n" in title:
        raise HubError(f"the title of a Space is a line of text, not {title!r}")
    page = folder / PAGE
    page.mkdir(parents=True, exist_ok=True)
    for name in PAGE_FILES:
        shutil.copyfile(Path(__file__).with_name(name), page / name)
    (page / "__init__.py").write_text('"""The page of this Space."""\n', encoding="utf-8")
    (folder / "app.py").write_text(SPACE_APP, encoding="utf-8")
    (folder / "models.json").write_text(json.dumps(list(models), indent=1) + "\n", encoding="utf-8")
    (folder / "requirements.txt").write_text(requirements_text(REQUIREMENTS), encoding="utf-8")
    write_examples(folder / "examples")
    readme = README.format(
        title=json.dumps(title.strip(), ensure_ascii=False),
        heading=title.strip(),
        sdk_version=SDK_VERSION,
        models="\n".join(f"- {model}" for model in models),
        page=PAGE,
    )
    (folder / "README.md").write_text(readme, encoding="utf-8")


def write_examples(folder: Path | str) -> None:
    """Write pictures of the built-in world and `examples.json`: for each type of model what to show it and to ask.

    Args:
        folder: Where to; made.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    examples: dict[str, list[dict[str, Any]]] = {"scan": [], "mac": [], "m4c": [], "attngan": []}
    for index in SCENES:
        scene = make_scene(SEED, SPLIT, index, maximum_objects=6)
        other = make_scene(SEED, SPLIT, index + 100, maximum_objects=6)
        image = f"blocks-{index + 1}.png"
        Image.fromarray(render_scene(scene, PICTURE_SIZE)[0]).save(folder / image, optimize=True)
        # Captions of this scene, then one of another: there is something to tell apart.
        captions = [caption.text for caption in (*make_captions(scene, CAPTIONS), *make_captions(other, 1))]
        examples["scan"].append({"image": image, "captions": "\n".join(captions)})
        question = make_questions(scene, 1)[0].question
        examples["mac"].append({"image": image, "question": question})

        text_scene = make_text_scene(scene)
        image = f"words-{index + 1}.png"
        Image.fromarray(render_text_scene(text_scene, 2 * PICTURE_SIZE)[0]).save(folder / image, optimize=True)
        words = [
            [word.text, *(round(edge, 4) for edge in word.box)] for label in text_scene.labels for word in label.words
        ]
        question = make_text_questions(text_scene, 1)[0].question
        examples["m4c"].append({"image": image, "question": question, "words": words})

        small = make_scene(SEED, SPLIT, index, maximum_objects=3)
        examples["attngan"].append({"caption": make_descriptions(small, 1)[0].text, "pictures": 4, "seed": index})
    text = json.dumps(examples, indent=1, ensure_ascii=False) + "\n"
    (folder / "examples.json").write_text(text, encoding="utf-8")


def requirements_text(packages: Collection[str]) -> str:
    """Return the requirements.txt of what travels: the bounds that this package itself sets for those it imports."""
    listed = [line for line in requires("vl-alignment") or () if "extra ==" not in line]
    named = {re.split(r"[<>=!~ ;\[]", line)[0].lower(): line for line in listed}
    return "".join(f"{named[package]}\n" for package in packages)
