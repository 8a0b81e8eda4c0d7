import io
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from .repositories import TEXTS, tiny_pipeline


def rounded(found):
    return [(entry.get("image"), entry["text"], round(entry["score"], 5), entry["rank"]) for entry in found]


def scores_of(run, pictures, texts):
    inputs = run.processor(text=texts, images=pictures)
    with torch.no_grad():
        return run.model(**inputs).logits_per_image


def test_texts_are_ranked_for_a_picture(pictures):
    run = tiny_pipeline("scan")
    scores = scores_of(run, pictures[:1], TEXTS)[0]
    found = run(pictures[0], TEXTS)
    assert [entry["text"] for entry in found] == [TEXTS[index] for index in scores.argsort(descending=True)]
    assert [entry["score"] for entry in found] == pytest.approx(scores.sort(descending=True).values.tolist())
    assert [entry["rank"] for entry in found] == [1, 2, 3]
    assert set(found[0]) == {"text", "score", "rank"}


def test_pictures_are_ranked_for_each_text(pictures):
    run = tiny_pipeline("scan")
    scores = scores_of(run, pictures, TEXTS[:2]).T
    found = run(pictures, TEXTS[:2])
    for text, own, ranked in zip(TEXTS, scores, found, strict=False):
        assert [entry["image"] for entry in ranked] == own.argsort(descending=True).tolist()
        assert [entry["score"] for entry in ranked] == pytest.approx(own.sort(descending=True).values.tolist())
        assert {entry["text"] for entry in ranked} == {text}
    assert rounded(run(pictures, TEXTS[0])) == rounded(found[0])


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
def test_attention_is_that_of_the_model(direction, pictures):
    run = tiny_pipeline("scan", direction=direction)
    for entry in run(pictures[0], TEXTS, output_attentions=True):
        inputs = run.processor(text=entry["text"], images=pictures[0])
        with torch.no_grad():
            attention = run.model(**inputs, output_attentions=True).attentions[0]
        attention = attention if direction == "t2i" else attention.T
        assert entry["words"] == ["<start>", *entry["text"].split(), "<end>"]
        assert entry["grid"] == [4, 4]
        torch.testing.assert_close(torch.tensor(entry["attention"]), attention)


def test_batches_and_generators_answer_as_single_calls_do(pictures):
    run = tiny_pipeline("scan")
    items = [{"images": picture, "texts": TEXTS[: index + 1]} for index, picture in enumerate(pictures)]
    single = [rounded(run(**item)) for item in items]
    assert [rounded(found) for found in run(items)] == single
    assert [rounded(found) for found in run(items, batch_size=2)] == single
    assert [rounded(found) for found in run(item for item in items)] == single


def test_a_picture_comes_in_many_forms(pictures, tmp_path):
    run = tiny_pipeline("scan")
    path = tmp_path / "picture.png"
    pictures[0].save(path)
    expected = rounded(run(pictures[0], TEXTS))
    for given in (path, str(path), path.read_bytes(), pictures[0].convert("RGBA")):
        assert rounded(run(given, TEXTS)) == expected


def test_what_cannot_be_used_is_refused(pictures, tmp_path):
    run = tiny_pipeline("scan")
    content = io.BytesIO()
    pictures[0].save(content, format="png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(content.getvalue()[:200])
    for images, texts, message in [
        (pictures[0], [], "texts must be strings"),
        (pictures[0], ["a dog", 3], "not 3"),
        (pictures[0], "", "has no words"),
        (pictures[0], None, "give images and texts"),
        ([], TEXTS, "there are no images"),
        (None, None, "give images and texts"),
        ([], None, "give images and texts"),
        ([{"images": pictures[0]}], None, "give images and texts"),
        (broken, TEXTS, "the picture cannot be read"),
        (b"no picture", TEXTS, "the picture cannot be read"),
        ("A" * 100_000, TEXTS, "the picture cannot be read"),
        (np.zeros((2, 2)), TEXTS, "the picture cannot be read"),
    ]:
        with pytest.raises(ValueError, match=message) as raised:
            run(images, texts)
        assert len(str(raised.value)) < 500
    with pytest.raises(TypeError, match="attention"):
        run(pictures[0], TEXTS, attention=True)


def test_other_models_are_refused():
    with pytest.raises(ValueError, match=r"no vision backbone.*made by grid-8. Give it those: processor\(text=texts"):
        tiny_pipeline("scan", vision_config=None, region_extractor="grid-8")
    mac = tiny_pipeline("mac")
    with pytest.raises(ValueError, match="needs a model of type scan; this one is of type 'mac'"):
        pipeline("image-text-matching", model=mac.model, processor=mac.processor)


@pytest.mark.parametrize("saved_by", ["pipeline", "training"])
def test_transformers_own_pipeline_takes_the_model(saved_by, pictures, tmp_path, caplog):
    own = tiny_pipeline("scan")
    if saved_by == "pipeline":
        own.save_pretrained(tmp_path)
    else:
        own.model.save_pretrained(tmp_path)
        own.processor.save_pretrained(tmp_path)
    expected = scores_of(own, pictures[:1], TEXTS)[0].softmax(dim=-1).sort(descending=True)
    with caplog.at_level(logging.ERROR, logger="transformers"):
        run = pipeline("zero-shot-image-classification", model=str(tmp_path), device="cpu")
        found = run(pictures[0], candidate_labels=TEXTS, hypothesis_template="{}")
    assert [entry["label"] for entry in found] == [TEXTS[index] for index in expected.indices]
    assert [entry["score"] for entry in found] == pytest.approx(expected.values.tolist())
    assert len(run(pictures, candidate_labels=TEXTS, hypothesis_template="{}", batch_size=2)) == 3


@pytest.mark.cuda
def test_the_device_is_honoured(pictures):
    expected = tiny_pipeline("scan")(pictures[0], TEXTS)
    run = tiny_pipeline("scan", device="cuda")
    assert run.model.device.type == "cuda"
    found = run(pictures[0], TEXTS)
    assert [entry["score"] for entry in found] == pytest.approx([entry["score"] for entry in expected], abs=1e-4)


def test_a_picture_of_one_pixel_is_a_picture(pictures):
    assert len(tiny_pipeline("scan")(Image.new("L", (1, 1)), TEXTS)) == 3
