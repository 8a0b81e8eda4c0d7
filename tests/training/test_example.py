import importlib.util
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_scan.py"


@pytest.fixture
def example():
    specification = importlib.util.spec_from_file_location("train_scan", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_missing_data_ends_with_one_line_and_exit_status_2(example, tmp_path, monkeypatch, capsys):
    given = ["--preset", "flickr8k", "--data-dir", str(tmp_path / "nothing"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["train_scan.py", *given])
    assert example.main() == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "flickr8k" in error
    assert not list((tmp_path / "out").glob("*"))


def test_interruption_ends_with_exit_status_130(example, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise example.TrainingInterrupted("Stopped after step 3.")

    monkeypatch.setattr(example, "prepare_retrieval", interrupted)
    monkeypatch.setattr(sys, "argv", ["train_scan.py", "--output", str(tmp_path)])
    assert example.main() == 130
    assert capsys.readouterr().err == "Stopped after step 3.\n"
