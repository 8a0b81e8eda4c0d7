import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.search import scan_index, shortlist
from vl_alignment.search.pictures import PictureFiles
from vl_alignment.search.scan_index import ScanIndex

from .tiny import tiny_scan, write_pictures

pytest.importorskip("faiss", reason="needs faiss: pip install 'vl-alignment[index]'")
CAPTIONS = ["a dog runs", "two dogs", "a red car", "a car runs", "two red dogs"]


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(scan_index, "SHARD_ITEMS", 4)


@pytest.fixture
def photos(tmp_path):
    return write_pictures(tmp_path / "photos", 10)


@pytest.fixture
def index(tmp_path, photos, small_shards):
    index = ScanIndex.create(tmp_path / "index", *tiny_scan())
    assert index.add_pictures(PictureFiles(photos), batch_size=3, progress=False) == 10
    assert index.add_captions(CAPTIONS, CAPTIONS, progress=False) == 5
    return index


def same(found, expected):
    """Whether two searches found the same; sums in another order differ in the last digit."""
    scores = [match.score for match in expected]
    return [match.id for match in found] == [match.id for match in expected] and (
        [match.score for match in found] == pytest.approx(scores, abs=1e-6)
    )


def picture(photos, number):
    return Image.open(photos / f"{number:03d}.png").convert("RGB")


@torch.no_grad()
def scores_of_the_model(photos, texts):
    model, processor = tiny_scan()
    inputs = processor(text=texts, images=[picture(photos, number) for number in range(10)])
    return model.eval()(**inputs, return_loss=False).logits_per_image.numpy()


@pytest.mark.parametrize("function", ["dot", "general_key"])
def test_search_gives_the_scores_of_the_model(tmp_path, photos, function, small_shards):
    model, processor = tiny_scan(function)
    index = ScanIndex.create(tmp_path / "index", model, processor)
    index.add_pictures(PictureFiles(photos), progress=False)
    for text in CAPTIONS[:2]:
        inputs = processor(text=[text], images=[picture(photos, number) for number in range(10)])
        with torch.no_grad():
            expected = model(**inputs, return_loss=False).logits_per_image[:, 0].numpy()
        found = index.search(text, top=10)
        assert [match.id for match in found] == [f"photos/{row:03d}.png" for row in np.argsort(-expected)]
        assert [match.score for match in found] == pytest.approx(np.sort(expected)[::-1], abs=1e-6)
        assert found[0].record["source"] == str((photos / found[0].id.partition("/")[2]).resolve())


def test_captions_are_found_by_picture(index, photos):
    expected = scores_of_the_model(photos, CAPTIONS)[3]
    found = index.search(picture(photos, 3), among="captions", top=3)
    assert [match.record["text"] for match in found] == [CAPTIONS[row] for row in np.argsort(-expected)[:3]]
    assert [match.score for match in found] == pytest.approx(np.sort(expected)[::-1][:3], abs=1e-6)


def test_regions_of_a_picture_find_pictures_in_the_place_of_words(index, photos):
    with torch.no_grad():
        regions = index.encoder([picture(photos, number) for number in range(10)])
        expected = index.model.similarity(regions, regions[7:8])[:, 0].numpy()
    found = index.search(picture(photos, 7), top=3)
    assert [match.id for match in found] == [f"photos/{row:03d}.png" for row in np.argsort(-expected)[:3]]


def test_shortlist_bounds_what_is_scored(index):
    assert len(index.search("a dog runs", top=4, shortlist=2)) == 4
    everything = index.search("a dog runs", top=10)
    near = [match.id for match in index.search("a dog runs", top=2, shortlist=2)]
    assert [match.id for match in everything if match.id in near] == near


def test_opened_index_finds_the_same(index, photos):
    opened = ScanIndex.open(index.folder)
    assert len(opened) == 10 and opened.captions == 5
    for query, among in [("two dogs", "pictures"), (picture(photos, 1), "captions"), (picture(photos, 1), "pictures")]:
        assert same(opened.search(query, among=among), index.search(query, among=among))


def test_more_pictures_are_added_to_what_is_there(index, photos):
    write_pictures(photos, 12)
    again = ScanIndex.create(index.folder, *tiny_scan())
    assert again.add_pictures(PictureFiles(photos), progress=False) == 2
    assert len(ScanIndex.open(index.folder)) == 12
    with pytest.raises(DataError, match="another program"):  # which would have been overwritten
        index.add_captions(["a dog"], ["a dog"], progress=False)


class StopsAt:
    """A source that is stopped while it embeds a picture."""

    def __init__(self, folder, row):
        self._files, self._row = PictureFiles(folder), row
        self.records = self._files.records

    def encode(self, encoder, rows):
        if self._row in rows:
            raise KeyboardInterrupt
        return self._files.encode(encoder, rows)


def test_interrupted_building_goes_on_to_the_same_files(tmp_path, photos, index):
    other = ScanIndex.create(tmp_path / "other", *tiny_scan())
    with pytest.raises(KeyboardInterrupt):
        other.add_pictures(StopsAt(photos, 6), batch_size=3, progress=False)
    other = ScanIndex.create(tmp_path / "other", *tiny_scan())
    assert len(other) == 4
    assert other.add_pictures(PictureFiles(photos), batch_size=3, progress=False) == 6
    other.add_captions(CAPTIONS, CAPTIONS, progress=False)
    names = sorted(path.name for path in index.folder.iterdir() if path.is_file() and path.suffix != ".lock")
    assert "pictures-00002-vectors.npy" in names
    for name in names:
        assert (tmp_path / "other" / name).read_bytes() == (index.folder / name).read_bytes()


def test_unreadable_pictures_are_left_out(tmp_path, photos, caplog):
    (photos / "005.png").write_bytes(b"no picture")
    index, files = ScanIndex.create(tmp_path / "index", *tiny_scan()), PictureFiles(photos)
    assert index.add_pictures(files, progress=False) == 9
    assert files.unreadable == ["photos/005.png"] and "005.png" in caplog.text


def test_half_precision_takes_half_the_space(tmp_path, index, photos):
    half = ScanIndex.create(tmp_path / "half", *tiny_scan(), dtype="float16")
    half.add_pictures(PictureFiles(photos), progress=False)
    for one, other in zip(half.search("two dogs"), index.search("two dogs"), strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-3)
    with pytest.raises(CheckpointError, match="another dtype"):
        ScanIndex.create(tmp_path / "half", *tiny_scan())


def test_lists_of_large_collections_find_the_nearest(tmp_path, photos, index, monkeypatch):
    monkeypatch.setattr(shortlist, "LISTS_FROM", 8)
    listed = ScanIndex.create(tmp_path / "listed", *tiny_scan())
    listed.add_pictures(PictureFiles(photos), progress=False)
    assert [path.name for path in listed.folder.glob("*.faiss")] == ["pictures-lists-000000010.faiss"]
    assert same(listed.search("two dogs", shortlist=5), index.search("two dogs", shortlist=5))
    write_pictures(photos, 11)  # one more is compared by itself; from a quarter on the lists are built anew
    assert listed.add_pictures(PictureFiles(photos), progress=False) == 1
    assert len(ScanIndex.open(listed.folder).search("two dogs", top=20)) == 11
    write_pictures(photos, 13)
    assert listed.add_pictures(PictureFiles(photos), progress=False) == 2
    assert [path.name for path in listed.folder.glob("*.faiss")] == ["pictures-lists-000000013.faiss"]
    assert len(ScanIndex.open(listed.folder).search("two dogs", top=20)) == 13
    content = next(listed.folder.glob("*.faiss"))
    content.write_bytes(content.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"faiss: .*damaged"):
        ScanIndex.open(listed.folder)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-7])


def nested(path):
    """Brackets that Python's parsers of JSON and of a .npy header cannot follow."""
    path.write_text("[" * 50_000 + "]" * 50_000)


def header(text):
    """Writes a .npy file with this header."""

    def change(path):
        path.write_bytes(b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text.encode())

    return change


def manifest(**changes):
    """Changes what index.json says of the pictures."""

    def change(path):
        found = json.loads(path.read_text())
        path.write_text(json.dumps({**found, "pictures": {**found["pictures"], **changes}}))

    return change


def test_another_model_is_refused(index):
    with pytest.raises(CheckpointError, match="another model"):
        ScanIndex.create(index.folder, *tiny_scan("general_key"))
    model, processor = tiny_scan("general_key")
    model.save_pretrained(index.folder / "model")
    with pytest.raises(CheckpointError, match="not the model that the index was made with"):
        ScanIndex.open(index.folder)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pictures-00001-vectors.npy", truncated),
        ("pictures-00001-vectors.npy", lambda path: path.unlink()),
        ("captions-00000-counts.npy", lambda path: np.save(path, np.ones(5, dtype=np.int32))),
        ("pictures-00000-pooled.npy", lambda path: np.save(path, np.ones((4, 3), dtype=np.float32))),
        ("pictures-00002.json", lambda path: path.unlink()),
        ("index.json", truncated),
        ("index.json", lambda path: path.write_text("{}")),
        ("index.json", lambda path: path.write_text(path.read_text().replace('"width": 8', '"width": "8"'))),
        ("index.json", lambda path: path.write_text(path.read_text().replace("[[4, ", '[["4", '))),
        ("index.json", nested),
        ("index.json", manifest(lists=5)),
        ("index.json", manifest(lists={"items": 10, "file": 3, "check": []})),
        ("index.json", manifest(lists={"items": 10, "file": "../secret", "check": []})),
        ("index.json", lambda path: path.write_text(path.read_text().replace('"extractor": null', '"extractor": []'))),
        ("pictures-00000-vectors.npy", header("{'descr': '<f4', 'fortran_order': False, 'shape': (4,")),
        (
            "pictures-00000-vectors.npy",
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (9" + "9" * 40 + ",)}"),
        ),
        ("pictures-00000-pooled.npy", header("{'descr': '<f4', 'fortran_order': False, 'shape': None}")),
        ("pictures-00000-counts.npy", header("(" * 9_000)),
        ("pictures-00000-counts.npy", lambda path: np.savez(path.open("wb"), a=np.ones(4, dtype=np.int32))),
    ],
)
def test_damage_is_one_clear_error(index, name, change):
    change(index.folder / name)
    with pytest.raises(DataError, match=name):
        ScanIndex.open(index.folder)


def test_damaged_records_are_named_when_they_are_needed(index):
    path = index.folder / "pictures-00000.json"
    for change in (lambda path: path.write_text('{"records": [{}]}'), nested):
        change(path)
        with pytest.raises(DataError, match=r"pictures-00000.json: .*damaged"):
            ScanIndex.open(index.folder).search("two dogs")


def test_lists_that_cannot_be_read_are_named(index):
    name = "pictures-lists-000000010.faiss"
    (index.folder / name).mkdir()
    manifest(lists={"items": 10, "file": name, "check": []})(index.folder / "index.json")
    with pytest.raises(DataError, match=rf"{name}: .*not readable"):
        ScanIndex.open(index.folder)


def test_newer_index_is_refused(index):
    manifest = json.loads((index.folder / "index.json").read_text())
    (index.folder / "index.json").write_text(json.dumps({**manifest, "schema_version": 2}))
    with pytest.raises(DataError, match="upgrade vl-alignment"):
        ScanIndex.open(index.folder)


def test_wrong_use_is_refused(index, tmp_path):
    with pytest.raises(ConfigurationError, match="a text finds pictures"):
        index.search("two dogs", among="captions")
    with pytest.raises(ConfigurationError, match="top=0"):
        index.search("two dogs", top=0)
    with pytest.raises(DataError, match="no words"):
        index.search("...")
    with pytest.raises(DataError, match="record a: this id occurs twice"):
        index.add_captions(["a", "a"], CAPTIONS[:2], progress=False)
    with pytest.raises(ConfigurationError, match="float64"):
        ScanIndex.create(tmp_path / "other", *tiny_scan(), dtype="float64")
    with pytest.raises(DataError, match="no index here"):
        ScanIndex.open(tmp_path)
    with pytest.raises(DataError, match="holds no pictures"):
        ScanIndex.create(tmp_path / "other", *tiny_scan()).search("two dogs")


def test_without_faiss_the_extra_is_named(index, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'vl-alignment\[index\]'"):
        ScanIndex.open(index.folder)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from pathlib import Path
from tests.search import test_scan_index as tests
tests.scan_index.SHARD_ITEMS = 2
class Slow(tests.StopsAt):
    def encode(self, encoder, rows):
        time.sleep(0.3)
        return super().encode(encoder, rows)
index = tests.ScanIndex.create(sys.argv[3], *tests.tiny_scan())
index.add_pictures(Slow(Path(sys.argv[2]), -1), progress=False)
"""


@pytest.mark.slow
def test_killed_building_goes_on(tmp_path, photos):
    repository = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", KILLED, repository, str(photos), str(tmp_path / "killed")]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 300
    while not (tmp_path / "killed" / "pictures-00001.json").exists() and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    index = ScanIndex.create(tmp_path / "killed", *tiny_scan())
    there = len(index)
    assert 2 <= there < 10
    leftover = index.folder / ".pictures-00004-vectors.npy-abc.writing"  # where the signal seldom hits
    leftover.write_bytes(b"half")
    assert index.add_pictures(PictureFiles(photos), progress=False) == 10 - there
    whole = ScanIndex.create(tmp_path / "whole", *tiny_scan())
    whole.add_pictures(PictureFiles(photos), progress=False)
    assert same(ScanIndex.open(index.folder).search("two dogs"), whole.search("two dogs"))
    assert not list(index.folder.glob(".*.writing"))
