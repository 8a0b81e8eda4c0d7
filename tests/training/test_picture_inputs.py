import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.training.picture_inputs import CaptionedPictures

CAPTIONS = [["a red bird", "one bird that is red all over"], ["a blue fish", "fish", "a blue animal"]] * 4
TOKENIZER = build_word_tokenizer([text for texts in CAPTIONS for text in texts], minimum_count=1)


def pixels(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, so that a crop and a mirror can be told."""
    x = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    y = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 128)], axis=-1).round().astype(np.uint8))


def make_split(pictures, captions=None, **columns) -> datasets.Dataset:
    captions = CAPTIONS[: len(pictures)] if captions is None else captions
    ids = [f"picture-{number}" for number in range(len(pictures))]
    split = datasets.Dataset.from_dict({"image_id": ids, "image": pictures, "captions": captions, **columns})
    return split.cast_column("image", datasets.Image())


def make(split, **options) -> CaptionedPictures:
    return CaptionedPictures(split, TOKENIZER, **{"stage_sizes": (8, 16, 32), "seed": 0, "epoch": 0, **options})


@pytest.fixture(scope="module")
def split() -> datasets.Dataset:
    return make_split([pixels(60, 40)] * 8)


def test_a_batch_is_what_the_models_take(split):
    pictures = make(split)
    batch = pictures.collate([pictures[index] for index in (5, 0, 3)])
    assert batch["ids"] == ["picture-5", "picture-0", "picture-3"] and "class_ids" not in batch
    assert [images.shape for images in batch["stage_images"]] == [(3, 3, 8, 8), (3, 3, 16, 16), (3, 3, 32, 32)]
    assert all(images.dtype == torch.float32 for images in batch["stage_images"])
    assert all(-1 <= images.min() and images.max() <= 1 for images in batch["stage_images"])
    words = TOKENIZER(batch["captions"], padding=True, return_tensors="pt")
    torch.testing.assert_close(batch["input_ids"], words["input_ids"])
    torch.testing.assert_close(batch["attention_mask"], words["attention_mask"])
    assert batch["captions"][0] in CAPTIONS[5] and batch["captions"][1] in CAPTIONS[0]


def test_whole_square_pictures_keep_their_values():
    picture = pixels(32, 32)
    pictures = make(make_split([picture]))
    last = pictures[0]["stage_images"][-1]
    np.testing.assert_array_equal(((last + 1) * 127.5).round().permute(1, 2, 0), np.asarray(picture))
    small = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR))
    torch.testing.assert_close(pictures[0]["stage_images"][0], torch.tensor(small).permute(2, 0, 1) / 127.5 - 1)


def test_draws_depend_on_seed_epoch_and_index_alone(split):
    pictures = make(split, horizontal_flip=True)

    def drawn(of, index):
        item = of[index]
        return item["caption_row"], item["stage_images"][-1].sum().item()

    first = [drawn(pictures, index) for index in range(8)]
    assert first[::-1] == [drawn(make(split, horizontal_flip=True), index) for index in reversed(range(8))]
    assert len(set(first)) == 8
    later = [drawn(pictures.at_epoch(3), index) for index in range(8)]
    assert later == [drawn(make(split, horizontal_flip=True, epoch=3), index) for index in range(8)] != first
    assert [drawn(make(split, horizontal_flip=True, seed=1), index) for index in range(8)] != first


def test_every_caption_is_drawn(split):
    pictures = make(split)
    rows = {pictures.at_epoch(epoch)[1]["caption_row"] for epoch in range(30)}
    assert rows == {2, 3, 4}


def test_crops_and_mirrors(split):
    center = make(split, crop="center")[0]["stage_images"][-1]
    # 60 x 40 at 48 x 32: columns 8 to 40, all rows.
    assert center[0, 16, 0].item() == pytest.approx((8.5 / 48 - 0.5) * 2, abs=0.03)
    assert center[1, 0, 0].item() < -0.95 and center[1, -1, 0].item() > 0.95
    lefts, slopes = set(), set()
    for epoch in range(20):
        image = make(split, epoch=epoch, load_size=40, horizontal_flip=True)[0]["stage_images"][-1]
        slopes.add((image[0, 0, -1] > image[0, 0, 0]).item())
        lefts.add(round(image[0, 0].min().item(), 2))
    assert slopes == {True, False} and len(lefts) > 8


def test_boxes_are_cut_out_with_their_surroundings():
    # A box of 20 x 10 pixels around (50, 30): 15 pixels to each side.
    split = make_split([pixels(100, 60)], box=[[0.4, 25 / 60, 0.6, 35 / 60]])
    image = make(split, crop="center")[0]["stage_images"][-1]
    assert image[0, 0, 0].item() == pytest.approx((35 / 99 - 0.5) * 2, abs=0.02)
    assert image[0, 0, -1].item() == pytest.approx((64 / 99 - 0.5) * 2, abs=0.02)
    assert image[1, 0, 0].item() == pytest.approx((15 / 59 - 0.5) * 2, abs=0.02)
    # At the border the square ends where the picture ends.
    corner = make(make_split([pixels(100, 60)], box=[[0.9, 0.0, 1.0, 0.2]]), crop="center")[0]["stage_images"][-1]
    assert corner[0, 0, -1].item() > 0.95 and corner[1, 0, 0].item() < -0.95


def test_classes_come_along():
    pictures = make(make_split([pixels(32, 32)] * 2, class_id=[4, 7]))
    batch = pictures.collate([pictures[1], pictures[0]])
    assert batch["class_ids"].tolist() == [7, 4] and batch["class_ids"].dtype == torch.int64


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 128, (128, 128, 128)),
        ("I;16", 128 << 8, (128, 128, 128)),
        ("LA", (0, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("P", 0, (0, 0, 0)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_every_kind_of_picture_becomes_rgb(mode, color, expected, tmp_path):
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    Image.new(mode, (32, 32), color).save(path)
    image = make(make_split([str(path)]))[0]["stage_images"][-1]
    assert ((image[:, 5, 5] + 1) * 127.5).round().tolist() == list(expected)


def test_small_and_broken_pictures_are_named(tmp_path):
    small = make_split([pixels(32, 32), pixels(50, 31)])
    message = "record picture-1: The image has 50 x 31 pixels, its shorter side must have 32; .* minimum_size"
    with pytest.raises(DataError, match=message):
        make(small)[1]
    with pytest.raises(DataError, match=message):
        make(small).check()
    enlarged = make(small, minimum_size=16)
    enlarged.check()
    assert enlarged[1]["stage_images"][-1].shape == (3, 32, 32)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    pictures = make(make_split([str(broken)]))
    with pytest.raises(DataError, match="record picture-0: The image cannot be read"):
        pictures[0]
    with pytest.raises(DataError, match="record picture-0: The image cannot be read"):
        pictures.check()
    with pytest.raises(DataError, match="record picture-0: The image cannot be read"):
        make(make_split([str(tmp_path / "gone.png")])).check()


def test_boxes_enlarge_what_they_cut_out():
    pictures = make(make_split([pixels(20, 20)], box=[[0.5, 0.5, 0.51, 0.51]]))
    pictures.check()
    assert pictures[0]["stage_images"][-1].shape == (3, 32, 32)


def test_long_captions_are_cut_and_counted(split, caplog):
    pictures = make(split, max_words=5)
    # "one bird that is red all over" in four pictures; the mark of the end stays.
    assert pictures.cut_captions == 4 and "4 of 20 captions have more than 5 tokens" in caplog.text
    for epoch in range(10):
        of_epoch = pictures.at_epoch(epoch)
        batch = of_epoch.collate([of_epoch[0]])
        assert batch["input_ids"].shape[1] == 5 and batch["input_ids"][0, -1] == TOKENIZER.eos_token_id
    assert make(split).cut_captions == 0


def test_captions_of_unknown_words_are_not_used(caplog):
    pictures = make(make_split([pixels(32, 32)], [["xylophone", "a red bird", "zebra"]]))
    assert pictures.unknown_captions == 2 and "2 captions have no word of the vocabulary" in caplog.text
    assert {pictures.at_epoch(epoch)[0]["caption_row"] for epoch in range(10)} == {1}
    with pytest.raises(DataError, match=r"record picture-1: No caption of this image has a word of the vocabulary"):
        make(make_split([pixels(32, 32)] * 2, [["a bird"], ["zebra"]]))
    with pytest.raises(DataError, match="record picture-0: No caption of this image"):
        make(make_split([pixels(32, 32)] * 2, [[], ["a bird"]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage_sizes": (16, 8)}, "must rise"),
        ({"stage_sizes": ()}, "must rise"),
        ({"load_size": 31}, "load_size=31 is below the last stage's 32"),
        ({"crop": "left"}, "crop='left'"),
        ({"max_words": 2}, "max_words=2"),
    ],
)
def test_wrong_options(split, options, message):
    with pytest.raises(ConfigurationError, match=message):
        make(split, **options)
    with pytest.raises(ConfigurationError, match="no column 'captions'; it has image_id, image"):
        make(split.remove_columns("captions"))


def test_workers_make_the_same_batches(split):
    pictures = make(split, horizontal_flip=True)
    batches = [
        list(DataLoader(pictures, batch_size=3, collate_fn=pictures.collate, num_workers=workers)) for workers in (0, 2)
    ]
    for alone, worked in zip(*batches, strict=True):
        assert alone["captions"] == worked["captions"]
        for one, other in zip(alone["stage_images"], worked["stage_images"], strict=True):
            assert torch.equal(one, other)
