import pytest
import torch

from vl_alignment.models.errors import ConfigurationError
from vl_alignment.models.hashed_word_vectors import HashedWordVectors


def test_every_word_has_a_unit_vector_of_its_own():
    vectors = HashedWordVectors(size=300).vectors(["stop", "stops", "hotel", "7", "東京", "\ud800"])
    assert vectors.shape == (6, 300) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(6))
    products = vectors @ vectors.T
    assert products[0, 1] > 0.4  # most n-grams in common
    assert (products - torch.eye(6)).abs()[2:].max() < 0.3  # none in common: zero up to the hash's noise


def test_vectors_are_the_same_everywhere_and_do_not_depend_on_the_words_beside():
    # Written down once: another machine, version or process must give these.
    expected = [-7, 7, 50, -7, -7, 50, -21, -7, -7, -50, -36, -21]
    assert (HashedWordVectors(size=12).vectors(["open"])[0] * 100).round().int().tolist() == expected
    vectors = HashedWordVectors(size=20)
    together = vectors.vectors(["open", "OPEN", "", "open", "road"])
    assert torch.equal(together[0], together[1]) and torch.equal(together[0], together[3])
    assert torch.equal(together[4], vectors.vectors(["road"])[0])
    assert not together[2].any()
    assert vectors.vectors([]).shape == (0, 20)


def test_its_settings_make_it_again():
    vectors = HashedWordVectors(size=9, minimum=1, maximum=3)
    again = HashedWordVectors.from_dict(vectors.to_dict())
    assert again.name == vectors.name == "hashed_ngrams_1_3"
    assert torch.equal(again.vectors(["stop"]), vectors.vectors(["stop"]))
    assert not torch.equal(HashedWordVectors(size=9).vectors(["stop"]), vectors.vectors(["stop"]))


@pytest.mark.parametrize("settings", [{"size": 0}, {"minimum": 0}, {"minimum": 5}])
def test_numbers_out_of_range_are_named(settings):
    with pytest.raises(ConfigurationError, match="hashed word vectors of size"):
        HashedWordVectors(**settings)
