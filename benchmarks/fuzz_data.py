"""Valid folders of data sets, features and vectors for `fuzz_readers.py`, and how each is read whole."""

import hashlib
import json
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import datasets
import h5py
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from vl_alignment.data.caption_folder import load_caption_folder
from vl_alignment.data.clevr import load_clevr
from vl_alignment.data.coco import load_coco_captions
from vl_alignment.data.coco_segments import CocoSegments
from vl_alignment.data.cub import load_cub
from vl_alignment.data.features import extract_regions, open_regions
from vl_alignment.data.karpathy import load_karpathy
from vl_alignment.data.region_store import RegionStore
from vl_alignment.data.scan_precomputed import load_scan_precomputed, open_scan_regions, read_scan_vocabulary
from vl_alignment.data.text_recognition import RecognizedText, TextStore, read_texts
from vl_alignment.data.word_vectors import FastTextVectors, TableVectors

CAPTIONS = ["A dog runs.", "The dog is brown."]
NAMES = ("a", "b", "c")


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_picture(path: Path, shade: int = 0, size: tuple[int, int] = (12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 90, 7)).save(path)


def write_pictures(folder: Path, suffix: str = ".png") -> list[str]:
    for number, name in enumerate(NAMES):
        write_picture(folder / f"{name}{suffix}", 60 * number)
    return [f"{name}{suffix}" for name in NAMES]


# Captions


def make_karpathy(folder: Path) -> dict[str, str]:
    splits = ("train", "val", "test")
    images = [
        {
            "filename": name,
            "split": split,
            "cocoid": 7 + n,
            "imgid": n,
            "sentences": [{"raw": text} for text in CAPTIONS],
        }
        for n, (name, split) in enumerate(zip(write_pictures(folder / "images"), splits, strict=True))
    ]
    images[0]["filepath"] = "."
    write_json(folder / "dataset_mine.json", {"dataset": "mine", "images": images})
    make_coco(folder)
    return {"dataset_mine.json": "json", "instances_val2017.json": "json"}


def read_karpathy(folder: Path) -> object:
    data = load_karpathy(folder / "dataset_mine.json", folder / "images", instances=[folder / "instances_val2017.json"])
    return {name: split.remove_columns("image")[:] for name, split in data.items()}


def make_coco(folder: Path) -> dict[str, str]:
    images = [
        {"id": 7 + n, "file_name": name, "height": 8, "width": 12}
        for n, name in enumerate(write_pictures(folder / "images"))
    ]
    captions = [{"id": n, "image_id": 7 + n // 2, "caption": text} for n, text in enumerate(CAPTIONS * 3)]
    write_json(folder / "captions_val2017.json", {"images": images, "annotations": captions})
    categories = [
        {"id": 1, "name": "dog", "supercategory": "animal"},
        {"id": 2, "name": "person", "supercategory": "p"},
    ]
    outlines = [
        {"image_id": 7, "category_id": 1, "segmentation": [[0, 0, 6, 0, 6, 8, 0, 8]]},
        {"image_id": 8, "category_id": 2, "segmentation": {"counts": [80, 16], "size": [8, 12]}},
    ]
    write_json(folder / "instances_val2017.json", {"images": images, "annotations": outlines, "categories": categories})
    return {"captions_val2017.json": "json", "instances_val2017.json": "json"}


def read_coco(folder: Path) -> object:
    data = load_coco_captions(folder / "captions_val2017.json", folder / "images", folder / "instances_val2017.json")
    return data["validation"].remove_columns("image")[:]


def read_segments(folder: Path) -> object:
    segments = CocoSegments(folder / "instances_val2017.json")
    return [segments.mask(image, name, 16) for image in segments.sizes for name in segments.categories(image)]


def make_caption_folder(folder: Path) -> dict[str, str]:
    rows = [{"file_name": f"images/{name}", "captions": CAPTIONS} for name in write_pictures(folder / "images")]
    rows[1] |= {"split": "test", "image_id": "other"}
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_pictures(folder / "val")
    lines = [f"{name}.png,{text}" for name in NAMES for text in CAPTIONS]
    (folder / "val" / "metadata.csv").write_text("\n".join(["file_name,caption", *lines]) + "\n")
    return {"captions.jsonl": "jsonl", "val/metadata.csv": "lines"}


def read_caption_folder(folder: Path) -> object:
    return {name: split.remove_columns("image")[:] for name, split in load_caption_folder(folder).items()}


def make_cub(folder: Path) -> dict[str, str]:
    root, species = folder / "CUB_200_2011", ("001.Auk", "002.Crow")
    names = [f"{kind}/{kind[4:]}_{number}" for kind in species for number in (1, 2)]
    for name in names:
        write_picture(root / "images" / f"{name}.jpg", size=(40, 20))
        (folder / "text" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "text" / f"{name}.txt").write_text("".join(f"a bird {n} of it\n" for n in range(10)))
    lines = {
        "images.txt": [f"{n} {name}.jpg" for n, name in enumerate(names, start=1)],
        "bounding_boxes.txt": [f"{n} 10.0 5.0 20.0 9.5" for n in range(1, 5)],
        "image_class_labels.txt": [f"{n} {(n + 1) // 2}" for n in range(1, 5)],
        "classes.txt": [f"{n} {kind}" for n, kind in enumerate(species, start=1)],
    }
    for name, rows in lines.items():
        (root / name).write_text("\n".join(rows) + "\n")
    write_json(folder / "test_filenames.json", names[2:])
    (folder / "train").mkdir()
    (folder / "train" / "filenames.pickle").write_bytes(pickle.dumps(names[:2], protocol=2))
    listed = {f"CUB_200_2011/{name}": "lines" for name in lines}
    words = {f"text/{names[0]}.txt": "lines", f"CUB_200_2011/images/{names[3]}.jpg": "image"}
    return {**listed, **words, "test_filenames.json": "json", "train/filenames.pickle": "pickle"}


def read_cub(folder: Path) -> object:
    return {name: split.remove_columns("image")[:] for name, split in load_cub(folder).items()}


# Questions


def make_clevr(folder: Path) -> dict[str, str]:
    names = [f"CLEVR_train_{number:06d}.png" for number in range(2)]
    for name in names:
        write_picture(folder / "images" / "train" / name)
    program = [
        {"function": "scene", "inputs": [], "value_inputs": []},
        {"function": "filter_color", "inputs": [0], "value_inputs": ["red"]},
        {"function": "exist", "inputs": [1], "value_inputs": []},
    ]
    questions = [
        {
            **{"question_index": n, "image_filename": name, "question": "Is there a red thing?", "answer": "yes"},
            **{"program": program, "question_family_index": 0},
        }
        for n, name in enumerate(names * 2)
    ]
    write_json(folder / "questions" / "CLEVR_train_questions.json", {"info": {}, "questions": questions})
    scenes = [{"image_filename": name, "objects": [{"color": "red"}]} for name in names]
    write_json(folder / "scenes" / "CLEVR_train_scenes.json", {"info": {}, "scenes": scenes})
    return {"questions/CLEVR_train_questions.json": "json", "scenes/CLEVR_train_scenes.json": "json"}


def read_clevr(folder: Path) -> object:
    cache = folder / ".cache"
    try:
        data = load_clevr(folder, scenes=True, cache_dir=cache)
        return data.questions["train"][:], data.images["train"].remove_columns("image")[:]
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def make_textvqa(folder: Path) -> dict[str, str]:
    box = {"top_left_x": 0.2, "top_left_y": 0.3, "width": 0.3, "height": 0.1, "rotation": 0}
    for name in write_pictures(folder / "train_images", ".jpg"):
        write_picture(folder / "images" / name)
    questions = [
        {"question_id": n, "image_id": name, "question": "What does it say?", "answers": ["stop"] * 10}
        for n, name in enumerate(NAMES)
    ]
    text = [
        {"image_id": name, "ocr_tokens": ["Stop"], "ocr_info": [{"word": "Stop", "bounding_box": box}]}
        for name in NAMES
    ]
    write_json(folder / "TextVQA_0.5.1_train.json", {"data": questions})
    write_json(folder / "TextVQA_Rosetta_OCR_v0.2_train.json", {"data": text})
    own = [{**question, "ocr_tokens": ["Stop"]} for question in questions]
    write_json(folder / "textvqa_val_questions_ocr.json", {"data": own})
    files = ("TextVQA_0.5.1_train.json", "TextVQA_Rosetta_OCR_v0.2_train.json", "textvqa_val_questions_ocr.json")
    return dict.fromkeys(files, "json")


def questions(data: Any) -> object:
    images = {
        name: split.select_columns([c for c in split.column_names if c != "image"])[:]
        for name, split in data.images.items()
    }
    return images, {name: split[:] for name, split in data.questions.items()}


def make_stvqa(folder: Path) -> dict[str, str]:
    write_pictures(folder / "images" / "coco-text")
    questions = [
        {"question_id": n, "file_path": f"coco-text/{name}.png", "question": "What is it?", "answers": ["stop"]}
        for n, name in enumerate(NAMES)
    ]
    write_json(folder / "train_task_3.json", {"data": questions})
    write_json(folder / "questions.json", {"questions": questions})
    return {"train_task_3.json": "json", "questions.json": "json"}


def make_given_text(folder: Path) -> dict[str, str]:
    write_json(
        folder / "text.json",
        [{"tokens": ["Stop", "go"], "boxes": [[0, 0, 0.5, 0.5], [0.1, 0.1, 0.2, 0.3]], "confidences": [1, 0.5]}],
    )
    return {"text.json": "json"}


def make_text_store(folder: Path) -> dict[str, str]:
    text = {"tokens": ["Stop"], "boxes": [[0.1, 0.1, 0.5, 0.5]], "confidences": [0.9]}
    lines = [{"schema_version": 1, "reader": "rapid", "reader_version": "1"}, {"image_id": "a", **text}]
    lines.append({"image_id": "b", "failure": "cannot be read"})
    (folder / "text.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"text.jsonl": "jsonl"}


def read_text_store(folder: Path) -> object:
    store = TextStore.open(folder / "text.jsonl")
    return store.add_to(datasets.Dataset.from_dict({"image_id": ["a"]}))[:]


class _OneWordReader:
    """Reads the same word in every picture."""

    name, version = "one word", "1"

    def read(self, image: Image.Image) -> RecognizedText:
        return RecognizedText(["go"], np.float32([[0, 0, 1, 1]]), np.ones(1, np.float32))


def make_text_part(folder: Path) -> dict[str, str]:
    write_pictures(folder)
    text = {"tokens": ["Stop"], "boxes": [[0.1, 0.1, 0.5, 0.5]], "confidences": [0.9]}
    lines = [{"schema_version": 1, "reader": "one word", "reader_version": "1"}, {"image_id": "a", **text}]
    lines.append({"image_id": "b", "failure": "cannot be read"})
    (folder / "text.jsonl.part").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"text.jsonl.part": "jsonl", "c.png": "image"}


def read_text_part(folder: Path) -> object:
    columns = {"image_id": list(NAMES), "image": [str(folder / f"{name}.png") for name in NAMES]}
    features = datasets.Features({"image_id": datasets.Value("string"), "image": datasets.Image()})
    data = datasets.DatasetDict(train=datasets.Dataset.from_dict(columns, features=features))
    part = folder / "text.jsonl.part"
    there = part.is_file() and part.read_bytes()
    try:
        store = read_texts(data, _OneWordReader(), folder / "text.jsonl", progress=False)
        return store.add_to(data["train"].select([0]))["ocr_tokens"][:]
    finally:
        for path in folder.glob("text.jsonl*"):  # the next case begins with its own part
            if not path.is_dir() or path.is_symlink():
                path.unlink()
        if there:
            part.write_bytes(there)


def make_answers(folder: Path) -> dict[str, str]:
    (folder / "answers.txt").write_text("<pad>\n<s>\n</s>\n<unk>\nyes\nno\nstop\n")
    return {"answers.txt": "lines"}


# Features and vectors


def make_regions(folder: Path) -> dict[str, str]:
    generator = np.random.default_rng(0)
    shards = []
    for number in range(2):
        names = {"features": f"features-{number:05d}.npy", "boxes": f"boxes-{number:05d}.npy"}
        np.save(folder / names["features"], generator.normal(size=(2, 3, 4)).astype("float16"))
        np.save(folder / names["boxes"], generator.random((2, 3, 4)).astype("float32"))
        shards.append({**names, "images": 2})
    index = {
        **{"schema_version": 1, "extractor": "mine", "extractor_version": "1", "feature_size": 4, "regions": 3},
        **{"dtype": "float16", "shards": shards, "failures": [], "image_ids": ["a", "b", "c", "d"]},
        **{"image_sizes": [[8, 12]] * 4, "complete": True},
    }
    write_json(folder / "index.json", index)
    return {"index.json": "json", "features-00001.npy": "npy", "boxes-00000.npy": "npy"}


def read_regions(folder: Path) -> object:
    store = RegionStore.open(folder)
    return (
        store.features(store.image_ids),
        store.boxes(store.image_ids),
        store.image_sizes(store.image_ids),
        repr(store),
    )


class _Means:
    """An extractor that gives a picture's mean colour."""

    name, version, feature_size, regions = "means", "1", 3, 1

    def __call__(self, images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        colours = [np.asarray(image, dtype=np.float32).mean(axis=(0, 1)) for image in images]
        return np.stack(colours)[:, None], np.tile(np.float32([0, 0, 1, 1]), (len(images), 1, 1))


def _extract(folder: Path) -> RegionStore:
    names = [f"{name}.png" for name in NAMES]
    columns = {"image_id": list(NAMES), "image": [str(folder / name) for name in names]}
    features = datasets.Features({"image_id": datasets.Value("string"), "image": datasets.Image()})
    data = datasets.DatasetDict(train=datasets.Dataset.from_dict(columns, features=features))
    return extract_regions(data, _Means(), folder / "store", images_per_shard=2, maximum_failures=1, progress=False)


def make_extraction(folder: Path) -> dict[str, str]:
    write_pictures(folder)
    _extract(folder)
    index = json.loads((folder / "store" / "index.json").read_text())
    (folder / "store" / "index.json").unlink()
    settings = {name: index[name] for name in ("extractor", "extractor_version", "feature_size", "regions", "dtype")}
    fingerprint = hashlib.sha256(
        json.dumps({**settings, "batch_size": 32, "image_ids": ["a", "b"]}).encode()
    ).hexdigest()
    part = {**index["shards"][0], "image_ids": ["a", "b"], "image_sizes": index["image_sizes"][:2], "failures": []}
    write_json(folder / "store" / "part-00000.json", {"fingerprint": fingerprint[:16], **part})
    (folder / "store" / "features-00001.npy").unlink()
    (folder / "store" / "boxes-00001.npy").unlink()
    return {"store/part-00000.json": "json", "c.png": "image", "a.png": "image"}


def read_extraction(folder: Path) -> object:
    try:
        store = _extract(folder)
        return store.features(store.image_ids)
    finally:
        shutil.rmtree(folder / "store", ignore_errors=True)


def make_hdf5(folder: Path) -> dict[str, str]:
    with h5py.File(folder / "train_features.h5", "w") as file:
        file.create_dataset("features", data=np.random.default_rng(0).normal(size=(4, 5, 3, 2)).astype("float32"))
    return {"train_features.h5": "hdf5"}


def read_hdf5(folder: Path) -> object:
    images = datasets.DatasetDict(train=datasets.Dataset.from_dict({"image_id": list("abcd")}))
    store = open_regions(folder, images)
    return store.features(["a", "d"]), store.boxes(["a"])


def make_precomputed(folder: Path) -> dict[str, str]:
    for name in ("train", "dev", "test"):
        (folder / f"{name}_caps.txt").write_text("".join(f"A dog number {number} .\n" for number in range(10)))
        np.save(folder / f"{name}_ims.npy", np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32"))
    words = {word: number for number, word in enumerate(["<pad>", "<start>", "<end>", "<unk>", "dog"])}
    write_json(folder / "vocab.json", {"word2idx": words, "idx2word": {n: word for word, n in words.items()}, "idx": 5})
    return {"train_caps.txt": "lines", "dev_ims.npy": "npy", "test_ims.npy": "npy", "vocab.json": "json"}


def read_precomputed(folder: Path) -> object:
    data, store = load_scan_precomputed(folder), open_scan_regions(folder)
    vectors = [store.features(split["image_id"][:]) for split in data.values()]
    return vectors, read_scan_vocabulary(folder / "vocab.json"), {name: split[:] for name, split in data.items()}


def make_vectors(folder: Path) -> dict[str, str]:
    words, matrix = ["stop", "go", "now"], np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    lines = [" ".join([word, *map(str, row)]) for word, row in zip(words, matrix, strict=True)]
    (folder / "tiny.vec").write_text("\n".join(["3 4", *lines]) + "\n")
    np.save(folder / "table.npy", matrix)
    save_file({"vectors": matrix}, folder / "table.safetensors")
    write_json(folder / "words.json", words)
    (folder / "words.txt").write_text("\n".join(words) + "\n")
    kinds = {"tiny.vec": "lines", "table.npy": "npy", "table.safetensors": "safetensors", "words.json": "json"}
    return {**kinds, "words.txt": "lines"}


def read_vectors(folder: Path) -> object:
    read = [
        FastTextVectors(folder / "tiny.vec"),
        TableVectors.from_files(folder / "table.npy", folder / "words.json"),
        TableVectors.from_files(folder / "table.safetensors", folder / "words.txt"),
    ]
    return [vectors.vectors(["stop", "unseen"]) for vectors in read]


def make_fasttext(folder: Path) -> dict[str, str]:
    words, buckets, size = ["</s>", "stop", "go"], 20, 4
    content = struct.pack("<2i", 793712314, 12)
    content += struct.pack("<12id", size, 5, 5, 1, 5, 1, 2, 2, buckets, 3, 5, 100, 1e-4)
    content += struct.pack("<3i2q", len(words), len(words), 0, 100, -1)
    for word in words:
        content += word.encode() + b"\0" + struct.pack("<qb", 10, 0)
    matrix = np.random.default_rng(0).normal(size=(len(words) + buckets, size)).astype("<f4")
    content += b"\0" + struct.pack("<2q", *matrix.shape) + matrix.tobytes()
    (folder / "tiny.bin").write_bytes(content)
    return {"tiny.bin": "bytes"}


def make_picture(folder: Path) -> dict[str, str]:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / "b.jpg")
    return {"a.png": "image", "b.jpg": "image"}
