"""The folder of an evaluation's scores by itself; `test_all_pairs.py` evaluates with it."""

import io

import numpy as np
import pytest
from torch import distributed

from vl_alignment.models.errors import ResultsError
from vl_alignment.training.score_shards import ScoreShards

SCORES = np.arange(6, dtype=np.float32).reshape(2, 3)


def header(text):
    """The bytes of a .npy file with this header."""
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text.encode()


def zipped():
    content = io.BytesIO()
    np.savez(content, a=SCORES)
    return content.getvalue()


HOSTILE = {
    "unfinished": header("{'descr': '<f4', 'fortran_order': False, 'shape': (2,"),
    "huge": header("{'descr': '<f4', 'fortran_order': False, 'shape': (9" + "9" * 40 + ",)}"),
    "terabytes": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3)}"),
    "no shape": header("{'descr': '<f4', 'fortran_order': False, 'shape': None}"),
    "nested": header("(" * 9_000),
    "archive": zipped(),
    "empty": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_shard_is_computed_again(tmp_path, content):
    shards = ScoreShards(tmp_path, {})
    path = tmp_path / "scores-00000000-00000000.npy"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{path.name} is damaged"):
        assert (shards.get(0, 0, SCORES.shape, lambda: SCORES) == SCORES).all()
    assert (np.load(path) == SCORES).all()


def test_a_kept_shard_can_be_written_to(tmp_path):
    shards = ScoreShards(tmp_path, {})
    shards.get(0, 0, SCORES.shape, lambda: SCORES)
    kept = shards.get(0, 0, SCORES.shape, lambda: None)
    assert (kept == SCORES).all() and kept.flags.writeable  # torch warns of memory that it may not write to


@pytest.mark.parametrize("content", ["[" * 50_000 + "]" * 50_000, '{"model": "\\ud800"}'], ids=["nested", "half"])
def test_a_hostile_identity_is_one_error(tmp_path, content):
    (tmp_path / "shards.json").write_text(content)
    with pytest.raises(ResultsError, match=r"shards.json: not readable"):
        ScoreShards(tmp_path, {})


@pytest.mark.parametrize("rank", [0, 1])
def test_the_main_process_alone_removes_what_is_half_written(tmp_path, monkeypatch, rank):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: rank)
    leftover = tmp_path / ".scores-00000000-00000000.npy-abc.writing"
    leftover.write_bytes(b"half")
    ScoreShards(tmp_path, {})
    assert leftover.exists() == (rank > 0)
