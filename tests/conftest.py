"""What every test stands on: one thread, no network, caches of its own, fixed seeds, the roots of the test data."""

import os
import shutil
import tempfile
from pathlib import Path

# These are read when torch, the Hub client, datasets and matplotlib are imported: set before any of them is.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["MPLBACKEND"] = "Agg"
# All caches (data sets, metrics, code of remote models, the package's own) live in one temporary folder.
# Workers of pytest-xdist inherit the folder of the process that started them, which removes it at the end.
OWNS_CACHE = "PYTEST_XDIST_WORKER" not in os.environ
if OWNS_CACHE:
    CACHE = Path(tempfile.mkdtemp(prefix="vl-alignment-tests-"))
    for variable in ("HF_DATASETS_CACHE", "HF_EVALUATE_CACHE", "HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_XET_CACHE"):
        os.environ.pop(variable, None)
    os.environ["HF_HOME"] = str(CACHE / "huggingface")
    os.environ["VL_ALIGNMENT_CACHE"] = str(CACHE / "vl_alignment")

import random  # noqa: E402

import datasets  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_unconfigure() -> None:
    if OWNS_CACHE:
        shutil.rmtree(CACHE, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Every test starts from the same random numbers, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def no_bars_on_stderr():
    """Bars of `datasets` do not stand among the lines that a command prints."""
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def root_or_skip(variable: str, default: str) -> Path:
    root = Path(os.environ.get(variable) or REPOSITORY / default).resolve()
    if not root.is_dir():
        pytest.skip(f"no folder {root}: set ${variable} to where the data are")
    return root


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Outputs of the published implementations, one folder a model."""
    return root_or_skip("VL_ALIGNMENT_GOLDEN", "../shared/golden")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Real photographs and captions, one folder a data set; never part of the repository."""
    return root_or_skip("VL_ALIGNMENT_DATA", "../shared/data")


CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--headless", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install 'vl-alignment[browser]'"
    )
    if not CHROMIUM.exists():
        pytest.skip(f"needs a browser at {CHROMIUM}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()
