import numpy as np
import pytest
import torch

from vl_alignment.metrics import AttributeAccuracy
from vl_alignment.models.errors import DataError
from vl_alignment.training.attribute_phrases import PHRASES, AttributeClassifier

CAPTIONS = ["a red cube", "a blue ball", "a green cone", "a gray cylinder"]


class Reader:
    """Sees in a picture the colour that its red channel numbers, and its shape only where it is asked for."""

    name = "reader of the test"

    def phrase_fits(self, images):
        return images[:, 0, 0, 0].round()[:, None]

    def fit(self, phrase_fits, caption):
        return float(caption.split()[1] == ["red", "blue", "green", "gray"][int(phrase_fits[0])])


def pictures(*numbers):
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)


@pytest.fixture
def metric(tmp_path):
    return AttributeAccuracy(Reader(), cache_dir=str(tmp_path))


def test_pictures_that_show_their_captions_are_right_and_ties_are_wrong(metric):
    right = metric.compute(predictions=pictures(0, 1, 2, 3), references=CAPTIONS)
    assert right == {"attribute_accuracy": 100.0, "classifier": "reader of the test", "images": 4, "seed": 0}
    metric.add_batch(predictions=pictures(0, 1), references=CAPTIONS[:2])
    metric.add(prediction=pictures(2)[0], reference=CAPTIONS[2])
    metric.add(prediction=pictures(2)[0], reference=CAPTIONS[3])  # of another caption: or of neither, a tie
    assert metric.compute(seed=4)["attribute_accuracy"] == 75.0


def test_the_classifier_is_such_a_reader(tmp_path):
    torch.manual_seed(0)
    classifier = AttributeClassifier((4, 4, 4), image_size=16)
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    result = AttributeAccuracy(classifier, cache_dir=str(tmp_path)).compute(predictions=images, references=CAPTIONS)
    assert result["classifier"].startswith("attribute classifier of blocks ")
    assert 0 <= result["attribute_accuracy"] <= 100
    assert np.asarray(classifier.phrase_fits(images)).shape == (4, len(PHRASES))


def test_bad_input_is_named(metric):
    with pytest.raises(DataError, match="no pictures to measure"):
        metric.compute(predictions=[], references=[])
    with pytest.raises(DataError, match="3 captions for 2 pictures"):
        metric.add_batch(predictions=pictures(0, 1), references=CAPTIONS[:3])
    with pytest.raises(DataError, match="record 1: caption 'a bird' names no attributes"):
        metric.compute(predictions=pictures(0, 1), references=["a red cube", "a bird"])
