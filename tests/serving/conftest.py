"""The page with a tiny model of each task, two of SCAN, and a reader of printed words."""

from pathlib import Path

import numpy as np
import pytest
from tests.pipelines.repositories import tiny_pipeline

from vl_alignment.data.text_recognition import RecognizedText

FUNCTIONS = {"scan": ("dot", "general_key"), "mac": ("general_key",), "m4c": ("additive",), "attngan": ("cosine",)}


class OneWordReader:
    """Reads the same word in every picture."""

    def read(self, image):
        return RecognizedText(["exit"], np.array([[0.5, 0.5, 0.9, 0.7]], dtype=np.float32), np.ones(1, np.float32))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """Folders of models, by type and alignment function."""
    folder = tmp_path_factory.mktemp("models")
    models = {}
    for name, functions in FUNCTIONS.items():
        for function in functions:
            models[name, function] = str(folder / f"{name}-blocks-{function}")
            tiny_pipeline(name, alignment_function=function).save_pretrained(models[name, function])
    return models


@pytest.fixture(scope="session")
def served_app(tiny_models, tmp_path_factory):
    """The page, while it is served."""
    pytest.importorskip("gradio", reason="needs gradio: pip install 'vl-alignment[demo]'")
    from vl_alignment.serving.app import build_app, serve
    from vl_alignment.serving.space import write_examples

    examples = Path(tmp_path_factory.mktemp("examples"))
    write_examples(examples)
    app = build_app([*tiny_models.values()], examples=examples, reader=OneWordReader().read)
    serve(app, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield app
    app.close()


@pytest.fixture(scope="session")
def page(served_app):
    """The address at which the page is served."""
    return served_app.local_url.rstrip("/")
