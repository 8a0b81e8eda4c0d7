import json
import pickle
import shutil

import pytest
from PIL import Image

from vl_alignment.data.cub import load_cub
from vl_alignment.models.errors import ConfigurationError, DataError

NUMBERS = range(1, 9)
SPECIES = ("001.Auk", "002.Booby", "003.Crow", "004.Dove")


def write_lines(path, rows):
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    """Four species of two pictures, 40 x 20, in the published layout; Dove is the test split."""
    root = tmp_path / "CUB_200_2011"
    names = [f"{species}/{species[4:]}_{number}" for species in SPECIES for number in (1, 2)]
    for name in names:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(root / "images" / f"{name}.jpg")
        (tmp_path / "text" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "text" / f"{name}.txt").write_text("".join(f"bird {line}  of {name}\n" for line in range(10)))
    write_lines(root / "images.txt", [(number, f"{name}.jpg") for number, name in zip(NUMBERS, names, strict=True)])
    write_lines(root / "bounding_boxes.txt", [(number, 10.0, 5.0, 20.0, 5.0 + number) for number in NUMBERS])
    write_lines(root / "image_class_labels.txt", [(number, (number + 1) // 2) for number in NUMBERS])
    write_lines(root / "classes.txt", enumerate(SPECIES, start=1))
    for split, members in (("train", names[:6]), ("test", names[6:])):
        (tmp_path / split).mkdir()
        with open(tmp_path / split / "filenames.pickle", "wb") as file:
            pickle.dump(members, file, protocol=2)
    return tmp_path


def test_published_layout(folder):
    data = load_cub(folder)
    assert {name: len(split) for name, split in data.items()} == {"train": 6, "test": 2}
    assert data["train"].column_names == ["image_id", "image", "captions", "class_id", "box"]
    record = data["train"][2]
    assert record["image_id"] == "002.Booby/Booby_1" and record["class_id"] == 2 and record["image"].size == (40, 20)
    assert record["box"] == [0.25, 0.25, 0.75, 0.65]
    assert len(record["captions"]) == 10 and record["captions"][3] == "bird 3 of 002.Booby/Booby_1"
    # A box that reaches beyond its picture ends there: 5 + 13 pixels fit, 5 + 16 do not.
    write_lines(folder / "CUB_200_2011" / "bounding_boxes.txt", [(number, 30, 5, 16, 16) for number in NUMBERS])
    assert load_cub(folder)["test"][0]["box"] == [0.75, 0.25, 1.0, 1.0]


def test_lists_as_json_and_folders_elsewhere(folder):
    shutil.rmtree(folder / "test")
    lists = folder / "lists"
    lists.mkdir()
    (lists / "train_filenames.json").write_text(json.dumps(["001.Auk/Auk_2.jpg"]))
    (lists / "validation_filenames.json").write_text(json.dumps(["003.Crow/Crow_1"]))
    (folder / "text").rename(folder / "words")
    data = load_cub(folder / "CUB_200_2011", text_folder=folder / "words", split_folder=lists)
    assert {name: split["image_id"][:] for name, split in data.items()} == {
        "train": ["001.Auk/Auk_2"],
        "validation": ["003.Crow/Crow_1"],
    }
    with pytest.raises(DataError, match="no folder text or text_c10 .* text_folder"):
        load_cub(folder)
    with pytest.raises(ConfigurationError, match="validation_classes=1: .* a list of the validation split"):
        load_cub(folder, split_folder=lists, validation_classes=1)


def test_species_set_aside_for_validation(folder):
    data = load_cub(folder, validation_classes=1)
    assert list(data) == ["train", "validation", "test"]
    assert [sorted(set(split["class_id"])) for split in data.values()] == [[1, 2], [3], [4]]
    with pytest.raises(ConfigurationError, match="validation_classes=3: there are 3 training species; give fewer"):
        load_cub(folder, validation_classes=3)


def test_captions_of_any_bytes_and_number(folder, caplog):
    path = folder / "text" / "001.Auk" / "Auk_1.txt"
    path.write_bytes(b"a \xff\xfe black bird\n.\n\nlong wings\r\n")
    assert load_cub(folder)["train"][0]["captions"] == ["a black bird", "long wings"]
    assert "1 pictures have not 10 captions, the first is 001.Auk/Auk_1" in caplog.text
    path.write_text("\n")
    with pytest.raises(DataError, match="record 001.Auk/Auk_1: the image has no captions"):
        load_cub(folder)
    path.unlink()
    with pytest.raises(DataError, match="Auk_1.txt: cannot be read"):
        load_cub(folder)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        (
            "image_class_labels.txt",
            [(number, 1) for number in NUMBERS[:-1]],
            "record 8: does not match images.txt: 1 im",
        ),
        (
            "bounding_boxes.txt",
            [(number, 0, 0, 9, 9) for number in range(1, 10)],
            "record 9: does not match images.txt",
        ),
        (
            "image_class_labels.txt",
            [(number, number // 2) for number in NUMBERS],
            "record 1: says class 0, which is",
        ),
        ("classes.txt", enumerate(reversed(SPECIES), start=1), "says class 1, 004.Dove, of 001.Auk/Auk_1.jpg; take"),
        ("classes.txt", [(1,)], "classes.txt, record line 1: '1' has not a number and 1 columns after"),
        ("bounding_boxes.txt", [(number, "a", 0, 9, 9) for number in NUMBERS], "record 1: could not convert"),
        ("bounding_boxes.txt", [(number, 40, 0, 9, 9) for number in NUMBERS], r"Auk_1.jpg: the box \(40.0, 0.0, 9"),
    ],
)
def test_files_that_do_not_match(folder, name, rows, message):
    write_lines(folder / "CUB_200_2011" / name, rows)
    with pytest.raises(DataError, match=message):
        load_cub(folder)


def test_missing_and_broken_files(folder):
    image = folder / "CUB_200_2011" / "images" / "001.Auk" / "Auk_1.jpg"
    image.write_bytes(b"no picture")
    with pytest.raises(DataError, match="Auk_1.jpg: the image cannot be read"):
        load_cub(folder)
    image.unlink()
    assert len(load_cub(folder)["train"]) == 5
    with pytest.raises(DataError, match="1 of 8 image files are missing"):
        load_cub(folder, maximum_failures=0)
    with pytest.raises(DataError, match="images.txt: cannot be read .* CUB_200_2011 in it"):
        load_cub(folder / "text")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"a": 1}), "not a list of names"),
        (pickle.dumps(pytest.approx), "asks for .*, which is not plain data: refused"),
        (pickle.dumps(["001.Auk/Auk_9"]), "record 001.Auk/Auk_9: this image is not in images.txt"),
        (pickle.dumps(["001.Auk/Auk_1"]), "record 001.Auk/Auk_1: this image is in the train split as well"),
    ],
    ids=["no list", "no plain data", "unknown image", "image of two splits"],
)
def test_wrong_lists(folder, content, message):
    (folder / "test" / "filenames.pickle").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_cub(folder)


def test_no_list(folder):
    shutil.rmtree(folder / "train")
    with pytest.raises(DataError, match="there is no train/filenames.pickle, .* split_folder"):
        load_cub(folder)


@pytest.mark.real_data
def test_published_lists_match_and_name_attngans_split(data_root, tmp_path):
    """CUB's own files and AttnGAN's lists; pictures and captions are stand-ins, for they may not be copied."""
    real = data_root / "cub"
    if not real.is_dir():
        pytest.skip(f"no folder {real}")
    root = tmp_path / "CUB_200_2011"
    root.mkdir()
    for name in ("images.txt", "bounding_boxes.txt", "image_class_labels.txt", "classes.txt"):
        (root / name).symlink_to(real / "CUB_200_2011" / name)
    picture = tmp_path / "picture.png"
    Image.new("1", (600, 600)).save(picture)
    caption = json.loads((real / "captions_text_c10_one_image.json").read_text())["captions"]
    text = tmp_path / "captions.txt"
    text.write_text("\n".join(caption))
    # Every tenth picture of the lists: there is a file to make for each.
    lists = {
        split: json.loads((real / "attngan" / f"{split}_filenames.json").read_text()) for split in ("train", "test")
    }
    for split, names in lists.items():
        (tmp_path / f"{split}_filenames.json").write_text(json.dumps(names[::10]))
        for name in names[::10]:
            for path, target in ((root / "images" / f"{name}.jpg", picture), (tmp_path / "text" / f"{name}.txt", text)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(target)
    data = load_cub(tmp_path, validation_classes=10)
    sizes = {name: len(split) for name, split in data.items()}
    assert sizes["train"] + sizes["validation"] == 886 and sizes["test"] == 294
    classes = [set(split["class_id"]) for split in data.values()]
    assert list(map(len, classes)) == [140, 10, 50] and len(set.union(*classes)) == 200
    assert data["test"][0]["captions"] == caption


@pytest.mark.parametrize("name", ["../../outside.jpg", "/outside.jpg", "001.Auk/../../../Auk_1.jpg"])
def test_names_of_pictures_stay_within_the_folder(folder, name):
    images = folder / "CUB_200_2011" / "images.txt"
    images.write_text(images.read_text().replace("001.Auk/Auk_1.jpg", name))
    with pytest.raises(DataError, match=r"(images|labels).txt"):
        load_cub(folder)


def test_a_class_that_is_no_number_is_named(folder):
    for name in ("classes.txt", "image_class_labels.txt"):
        path = folder / "CUB_200_2011" / name
        lines = [line.split() for line in path.read_text().splitlines()]
        column = 0 if name == "classes.txt" else 1
        for line in lines:
            line[column] = {"1": "one"}.get(line[column], line[column])
        write_lines(path, lines)
    with pytest.raises(DataError, match="record 1: .*'one'"):
        load_cub(folder)
