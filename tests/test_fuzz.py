"""A few hundred damaged and hostile files of `make fuzz`, one small part for every reader."""

import os
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches folders and memory as Linux does")
pytest.importorskip("h5py")
pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def fuzz():
    with patch.dict(os.environ), patch.object(sys, "path", [str(FOLDER), *sys.path]):
        import fuzz

        return fuzz


def test_every_reader_ends_in_success_or_in_an_error_that_names_the_file(fuzz, tmp_path, no_bars_on_stderr):
    failed, files, refused = [], 0, 0
    for number, (name, reader) in enumerate(fuzz.READERS.items()):
        root = tmp_path / str(number)
        root.mkdir()
        worker = fuzz.Worker(name, 0, root)
        for case in map(worker.run, range(2 + int(6 * reader.share))):
            files += 1
            refused += case.outcome == "refused"
            if case.outcome == "failed":
                failed.append(f"{name}: {case}")
    assert not failed
    assert files > 300 and refused > files / 2


def test_one_reader_alone_is_given_all_files(fuzz, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--files", "3", "--reader", "CUB"])  # whose share is below one
    assert fuzz.main() == 0
    assert "of 3 files" in capsys.readouterr().out


@pytest.mark.slow
def test_a_worker_that_dies_or_runs_what_is_in_a_file_is_a_failure(fuzz, monkeypatch):
    """The program finds what it looks for: a reader that runs pickles, one that hangs, one that asks for memory."""
    import pickle

    def read(change):
        def reader(folder):
            return change((folder / "plain.pkl").read_bytes())

        return fuzz.Reader(fuzz.READERS["pickles"].make, reader)

    def hang(content):
        while b"caf" not in content:
            pass

    monkeypatch.setattr(fuzz, "CPU_SECONDS", 1)
    monkeypatch.setitem(fuzz.READERS, "runs", read(pickle.loads))
    monkeypatch.setitem(fuzz.READERS, "hangs", read(hang))
    monkeypatch.setitem(fuzz.READERS, "takes", read(lambda content: None if b"caf" in content else bytes(2**31)))
    problems = {name: {case.problem for case in fuzz.fuzz_reader(name, 0, 60).cases} for name in ("runs", "takes")}
    assert "code of the file ran" in problems["runs"]
    assert any("MemoryError" in problem for problem in problems["takes"])
    assert any("hung" in case.problem for case in fuzz.fuzz_reader("hangs", 0, 24).cases)
