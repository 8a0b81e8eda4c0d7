import numpy as np
import pytest
import torch
from transformers import pipeline

from .repositories import TEXTS, tiny_pipeline


def pixels(pictures):
    return np.stack([np.asarray(picture) for picture in pictures])


def test_pictures_are_those_that_the_model_draws():
    run = tiny_pipeline("attngan")
    inputs = run.processor(text=[TEXTS[0]])
    expected = pixels(run.model.generate(**inputs, num_images=2, seed=0, output_type="pil").images)
    found = run(TEXTS[0], num_images=2)
    assert np.array_equal(pixels(found), expected)
    assert found[0].size == (32, 32)
    assert np.array_equal(pixels(run(TEXTS[0])), expected[:1])
    assert not np.array_equal(pixels(run(TEXTS[0], seed=1)), expected[:1])
    assert not np.array_equal(pixels(run(TEXTS[0], seed=None)), pixels(run(TEXTS[0], seed=None)))


@pytest.mark.parametrize("released_layout", [False, True])
def test_pictures_do_not_depend_on_the_batch(released_layout):
    run = tiny_pipeline("attngan", released_layout=released_layout)
    single = [pixels(run(text, num_images=2)).astype(int) for text in TEXTS]
    for batch_size in (1, 2, 3):
        for own, found in zip(single, run(TEXTS, num_images=2, batch_size=batch_size), strict=True):
            assert np.abs(pixels(found).astype(int) - own).max() <= 1  # rounding of a last digit
    assert len(list(run(text for text in TEXTS))) == 3


def test_attention_is_that_of_the_model():
    run = tiny_pipeline("attngan")
    drawn = run.model.generate(**run.processor(text=[TEXTS[1]]), num_images=2, seed=0, output_attentions=True)
    found = run(TEXTS, num_images=2, output_attentions=True, batch_size=3)[1]
    for number, entry in enumerate(found):
        assert entry["words"] == ["<start>", "two", "dogs", "<end>"]
        assert [stage.shape for stage in entry["attention"]] == [(8, 8, 4), (16, 16, 4)]
        for stage, expected in zip(entry["attention"], drawn.attentions, strict=True):
            torch.testing.assert_close(torch.from_numpy(stage).flatten(0, 1), expected[number], rtol=1e-4, atol=1e-6)
    assert np.array_equal(pixels(entry["image"] for entry in found), pixels(run(TEXTS[1], num_images=2)))


def test_what_cannot_be_used_is_refused():
    run = tiny_pipeline("attngan")
    for prompts, keywords, message in [
        ("", {}, "there are no captions"),
        ([], {}, "there are no captions"),
        ([3], {}, "a caption must be a string, not 3"),
        ("zebra", {}, "no word of the vocabulary"),
        (TEXTS[0], {"num_images": 0}, "num_images is 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(prompts, **keywords)
    with pytest.raises(TypeError, match="unknown argument 'guidance_scale'"):
        run(TEXTS[0], guidance_scale=3)
    mac = tiny_pipeline("mac")
    with pytest.raises(ValueError, match="needs a model of type attngan; this one is of type 'mac'"):
        pipeline("text-to-image-attngan", model=mac.model, processor=mac.processor)


@pytest.mark.cuda
def test_the_device_is_honoured():
    run = tiny_pipeline("attngan", device="cuda")
    assert run.model.device.type == "cuda"
    difference = pixels(run(TEXTS[0])).astype(int) - pixels(tiny_pipeline("attngan")(TEXTS[0])).astype(int)
    assert np.abs(difference).max() <= 2
