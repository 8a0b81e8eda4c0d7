"""A Space's repository: what the Hub reads of it, what lies in it, and that it needs nothing of the package."""

import ast
import json
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from PIL import Image

from vl_alignment.models.errors import HubError
from vl_alignment.serving.space import PAGE, SDK_VERSION, write_space

MODELS = ["someone/scan-blocks-dot", "someone/scan-blocks-general_key"]
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
REPOSITORY = Path(__file__).parents[2]
# What gradio brings along may be imported as well.
ALLOWED = {"gradio", "starlette", "transformers", "torch", "numpy", "PIL"} | set(sys.stdlib_module_names)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    folder = tmp_path_factory.mktemp("space")
    write_space(folder, MODELS, title='Words: "regions" & 言葉')
    return folder


def test_the_metadata_is_what_the_hub_accepts(space):
    _, metadata, text = (space / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    metadata = yaml.safe_load(metadata)
    assert metadata["title"] == 'Words: "regions" & 言葉'
    assert (metadata["sdk"], metadata["sdk_version"], metadata["app_file"]) == ("gradio", SDK_VERSION, "app.py")
    assert metadata["models"] == MODELS
    assert {metadata["colorFrom"], metadata["colorTo"]} <= COLORS
    assert len(metadata["short_description"]) <= 60
    assert metadata["license"] == "apache-2.0"
    assert text.startswith('\n# Words: "regions" & 言葉\n')


def test_the_version_of_gradio_is_the_tested_one():
    assert f"gradio=={SDK_VERSION}" in (REPOSITORY / "constraints.txt").read_text().split()


def test_the_requirements_are_the_packages_own_bounds(space):
    lines = (space / "requirements.txt").read_text().splitlines()
    assert [line.partition("<")[0] for line in lines] == ["torch", "transformers", "numpy", "pillow"]
    assert set(lines) <= set(requires("vl-alignment"))


def test_the_page_imports_only_what_a_space_installs(space):
    assert json.loads((space / "models.json").read_text()) == MODELS
    files = sorted(space.rglob("*.py"))
    assert [str(file.relative_to(space)) for file in files] == [
        *(f"{PAGE}/{name}.py" for name in ("__init__", "app", "findings", "limits", "markup")),
        "app.py",
    ]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= ALLOWED, ast.unparse(node)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module.partition(".")[0] in ALLOWED | {PAGE}, ast.unparse(node)
            elif isinstance(node, ast.ImportFrom):
                assert (file.parent / f"{node.module}.py").exists(), ast.unparse(node)


def test_the_examples_are_whole(space):
    examples = json.loads((space / "examples" / "examples.json").read_text(encoding="utf-8"))
    assert set(examples) == {"scan", "mac", "m4c", "attngan"}
    pictures = {row["image"] for rows in examples.values() for row in rows if "image" in row}
    assert pictures == {path.name for path in (space / "examples").glob("*.png")}
    for name in pictures:
        with Image.open(space / "examples" / name) as picture:
            assert picture.mode == "RGB" and picture.width == picture.height
    for row in examples["m4c"]:
        assert all(len(word) == 5 and all(0 <= edge <= 1 for edge in word[1:]) for word in row["words"])
    assert sum(path.stat().st_size for path in space.rglob("*") if path.is_file()) < 500_000


def test_equal_spaces_have_equal_files(space, tmp_path):
    write_space(tmp_path, MODELS, title='Words: "regions" & 言葉')
    files = [path.relative_to(space) for path in space.rglob("*") if path.is_file()]
    assert len(files) == len([path for path in tmp_path.rglob("*") if path.is_file()])
    assert all((space / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


@pytest.mark.parametrize(("models", "title"), [([], "Title"), (MODELS, " "), (MODELS, "two\nlines")])
def test_what_makes_no_space_is_refused_before_anything_is_written(tmp_path, models, title):
    with pytest.raises(HubError):
        write_space(tmp_path / "space", models, title=title)
    assert not (tmp_path / "space").exists()
