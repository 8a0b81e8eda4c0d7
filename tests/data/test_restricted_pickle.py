import argparse
import collections
import io
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from vl_alignment.data.restricted_pickle import load_restricted, load_tensors
from vl_alignment.models.errors import DataError

PLAIN = {
    "numbers": [1, -2.5, 3 + 4j, True, None, 10**40],
    "text": ("Zürich", b"\x00\xff"),
    "sets": [{1, 2}, frozenset("ab")],
    "ordered": collections.OrderedDict(b=1, a=2),
    "counted": collections.Counter("hello"),
    "options": argparse.Namespace(margin=0.2, names=["a"]),
}


class Attack:
    """Asks the reader to call something."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.fixture
def write(tmp_path):
    def write_bytes(content: bytes):
        path = tmp_path / "file.pickle"
        path.write_bytes(content)
        return path

    return write_bytes


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_comes_back(write, protocol):
    assert load_restricted(write(pickle.dumps(PLAIN, protocol))) == PLAIN


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_come_back(write, protocol):
    arrays = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array(["a", "bc"]),
        np.array([{"a": 1}, None], dtype=object),
        np.zeros((0, 3), dtype=">i2"),
        np.float64(2.5),
    ]
    for array in arrays:
        content = pickle.dumps(array, protocol)
        read = load_restricted(write(content))
        np.testing.assert_array_equal(read, array)
        assert (read.dtype, read.shape) == (pickle.loads(content).dtype, array.shape)


def test_old_numpy_names_and_python_2_strings(write):
    content = pickle.dumps(np.arange(3), 2).replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(load_restricted(write(content)), np.arange(3))
    # As Python 2 wrote a list of its byte strings (AttnGAN's filenames.pickle is one).
    assert load_restricted(write(b"(lp0\nS'002.Laysan_Albatross/0001'\np1\na.")) == ["002.Laysan_Albatross/0001"]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_file_is_refused_and_nothing_runs(write, tmp_path, protocol):
    target = tmp_path / "created"
    path = write(pickle.dumps({"harmless": 1, "attack": Attack(os.mkdir, str(target))}, protocol))
    with pytest.raises(DataError, match=r"file.pickle: the pickle asks for posix.mkdir, .* refused"):
        load_restricted(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())
    assert target.exists(), "the file is one that an ordinary load would run"


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (eval, ("1",), "eval"),
        (getattr, ("", "join"), "getattr"),
        (__import__, ("os",), "__import__"),
        (np.load, ("x",), "load"),
        (io.open, ("x",), "open"),
        (torch.load, ("x",), "torch"),
    ],
)
def test_only_the_list_is_allowed(write, function, arguments, name):
    with pytest.raises(DataError, match=f"asks for .*{name}"):
        load_restricted(write(pickle.dumps(Attack(function, *arguments))))


def test_dotted_names_lead_nowhere(write):
    content = b"\x80\x04\x8c\x08argparse\x8c\x12Namespace.__init__\x93."
    with pytest.raises(DataError, match="asks for argparse.Namespace.__init__"):
        load_restricted(write(content))


def test_a_file_cannot_change_our_classes(write):
    # BUILD with a slot state sets attributes on whatever it is given, here on the class itself.
    content = b"\x80\x02cargparse\nNamespace\nN}X\x05\x00\x00\x00spoilK\x01s\x86b."
    load_restricted(write(content))
    assert not hasattr(argparse.Namespace, "spoil")


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"no pickle at all", pickle.dumps([1, 2])[:-3], b"\x80\x04N0."])
def test_damaged_files(write, content):
    with pytest.raises(DataError, match="file.pickle: this pickle cannot be read"):
        load_restricted(write(content))


def test_missing_files(tmp_path):
    with pytest.raises(DataError, match="nowhere: there is no such pickle"):
        load_restricted(tmp_path / "nowhere")
    with pytest.raises(DataError, match="nowhere: there is no such torch file"):
        load_tensors(tmp_path / "nowhere")


def test_tensors(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.arange(3.0), "step": 7}, path)
    read = load_tensors(path)
    assert read["step"] == 7 and read["weight"].tolist() == [0, 1, 2]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="weights.pth: this torch file cannot be read"):
        load_tensors(path)


def test_hostile_torch_file(tmp_path):
    torch.save({"weight": torch.zeros(1), "attack": Attack(os.mkdir, str(tmp_path / "created"))}, tmp_path / "bad.pth")
    with pytest.raises(DataError, match="bad.pth: the torch file asks for posix.mkdir, .* refused, nothing ran"):
        load_tensors(tmp_path / "bad.pth")
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_options_beside_tensors(tmp_path, zipped):
    options = argparse.Namespace(margin=0.2, cross_attn="t2i")
    torch.save(
        {"opt": options, "model": [{"weight": torch.ones(2)}]},
        tmp_path / "a.tar",
        _use_new_zipfile_serialization=zipped,
    )
    read = load_tensors(tmp_path / "a.tar")
    assert read["opt"] == options and read["model"][0]["weight"].tolist() == [1, 1]
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\xff\xff\xff\x3f.",  # a memo of a thousand million entries
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",  # bytes, and a bytearray, of a tebibyte
        b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x.",
        b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",  # arrays that begin with a shape
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\x00\x00\x00\x7f\x85C\x01b\x87R.",
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x0a\x00\x00\x00V200000000\x85RC\x01a\x86R.",
    ],
)
def test_memory_is_not_set_aside_for_what_a_file_only_claims(write, content):
    tracemalloc.start()
    try:
        load_restricted(write(content))
    except DataError as error:
        assert "file.pickle" in str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2**24


def test_archives_of_torch_that_unpack_to_more_are_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(2**20))
    with pytest.raises(DataError, match="bomb.pth: this torch file cannot be read .*compressed"):
        load_tensors(path)


def test_an_old_torch_file_that_claims_a_long_text_asks_for_no_memory(tmp_path):
    path = tmp_path / "old.pth"
    path.write_bytes(b"\x80\x02X" + (2**32 - 1).to_bytes(4, "little") + b"x.")
    tracemalloc.start()
    with pytest.raises(DataError, match="old.pth"):
        load_tensors(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


def test_a_message_is_never_as_long_as_the_file(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"a": torch.zeros(2)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, b"x" * 10_000 if name.endswith("byteorder") else content)
    with pytest.raises(DataError, match="model.pth") as raised:
        load_tensors(path)
    assert len(str(raised.value)) < 1_000
