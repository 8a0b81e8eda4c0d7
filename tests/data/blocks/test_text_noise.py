from dataclasses import replace

import numpy as np
import pytest

from vl_alignment.data.blocks.scene import make_scene
from vl_alignment.data.blocks.text_noise import corrupted_tokens, true_tokens
from vl_alignment.data.blocks.text_scene import PrintedWord, make_text_scene
from vl_alignment.models.errors import ConfigurationError

SCENES = [make_text_scene(make_scene(4, "train", index, maximum_objects=6)) for index in range(200)]


def distance(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        previous, row[0] = row[0], i
        for j, second in enumerate(other, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (letter != second))
    return row[-1]


def test_true_tokens_are_the_printed_words() -> None:
    for scene in SCENES:
        words, boxes, confidences = true_tokens(scene)
        assert words == " ".join(label.text for label in scene.labels).split()
        assert boxes == [list(word.box) for label in scene.labels for word in label.words]
        assert confidences == [1.0] * len(words)


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_mistakes_come_at_the_stated_rate(rate: float) -> None:
    mistakes = letters = 0
    for scene in SCENES:
        true, read = true_tokens(scene), corrupted_tokens(scene, rate)
        mistakes += distance(" ".join(true.words), " ".join(read.words))
        letters += sum(map(len, true.words))
        assert corrupted_tokens(scene, rate) == read
    assert 0.8 * rate < mistakes / letters < 1.15 * rate


def test_substitutions_deletions_and_insertions_happen() -> None:
    kinds = {0: 0, -1: 0, 1: 0}
    for scene in SCENES:
        true, read = true_tokens(scene).words, corrupted_tokens(scene, 0.05).words
        if len(true) == len(read):
            for one, other in zip(true, read, strict=True):
                if distance(one, other) == 1:
                    kinds[len(other) - len(one)] += 1
                    assert one.isupper() == other.isupper() or not other.isalpha()
    assert kinds[0] > kinds[1] > 10 and kinds[-1] > 10


def test_no_mistakes_at_rate_zero_but_moved_boxes() -> None:
    for scene in SCENES[:50]:
        true, read = true_tokens(scene), corrupted_tokens(scene, 0.0)
        assert read.words == true.words and read.boxes != true.boxes
        np.testing.assert_allclose(read.boxes, true.boxes, atol=0.02)
        assert min(read.confidences) >= 0.9


def test_a_word_without_letters_is_no_token() -> None:
    lost = 0
    for scene in SCENES:
        # A word of one letter is left out as often as a letter is.
        labels = tuple(replace(label, words=(PrintedWord("A", label.words[0].box),)) for label in scene.labels)
        read = corrupted_tokens(replace(scene, labels=labels), 1.0)
        assert all(read.words) and len(read.words) == len(read.boxes) == len(read.confidences)
        assert all(0.7 < confidence <= 0.85 for confidence in read.confidences)
        assert all(0.0 <= box[0] < box[2] <= 1.0 and 0.0 <= box[1] < box[3] <= 1.0 for box in read.boxes)
        lost += len(labels) - len(read.words)
    assert 0.1 < lost / sum(len(scene.labels) for scene in SCENES) < 0.3


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_is_a_share(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="character_error_rate"):
        corrupted_tokens(SCENES[0], rate)
