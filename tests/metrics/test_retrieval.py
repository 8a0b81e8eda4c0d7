import json

import numpy as np
import pytest
import torch

from vl_alignment.metrics import chance_metrics, retrieval_metrics, retrieval_ranks
from vl_alignment.metrics import retrieval as retrieval_module
from vl_alignment.models.errors import ConfigurationError, DataError

# Three images with two, one and three captions.
OWNERS = np.array([0, 0, 1, 2, 2, 2])
SIMILARITY = np.array(
    [
        [0.2, 0.9, 0.3, 0.1, 0.0, 0.4],
        [0.8, 0.1, 0.5, 0.6, 0.7, 0.2],
        [0.3, 0.4, 0.9, 0.5, 0.1, 0.2],
    ]
)


def test_ranks_worked_out_by_hand():
    ranks = retrieval_ranks(SIMILARITY, OWNERS)
    # Image 0: its best caption 1 (0.9) leads. Image 1: 0.8, 0.6 and 0.7 stand before 0.5. Image 2: 0.9 before 0.5.
    assert ranks.sentence_retrieval.tolist() == [0, 3, 1]
    # Caption 0 (0.2): 0.8 and 0.3 before it. Caption 5 (0.2): 0.4 before it and 0.2 ties. Caption 4 (0.1): 0.7.
    assert ranks.image_retrieval.tolist() == [2, 0, 1, 1, 1, 2]
    assert ranks.sentence_retrieval_top1.tolist() == [1, 0, 2]
    assert ranks.image_retrieval_top1.tolist() == [1, 0, 2, 1, 1, 0]


def test_metrics_worked_out_by_hand():
    metrics = retrieval_metrics(SIMILARITY, OWNERS)
    assert metrics == pytest.approx(
        {
            "sentence_retrieval_r1": 100 / 3,
            "sentence_retrieval_r5": 100.0,
            "sentence_retrieval_r10": 100.0,
            "sentence_retrieval_rsum": 700 / 3,
            "sentence_retrieval_median_rank": 2.0,
            "sentence_retrieval_mean_rank": 7 / 3,
            "image_retrieval_r1": 100 / 6,
            "image_retrieval_r5": 100.0,
            "image_retrieval_r10": 100.0,
            "image_retrieval_rsum": 650 / 3,
            "image_retrieval_median_rank": 2.0,
            "image_retrieval_mean_rank": 13 / 6,
            "rsum": 450.0,
        }
    )


def test_median_rank_of_an_even_number_of_queries_is_floored():
    # Ranks 0, 1: the median 0.5 is floored to 0, which is rank 1.
    metrics = retrieval_metrics(np.array([[2.0, 1.0], [3.0, 1.5]]), np.array([0, 1]))
    assert metrics["sentence_retrieval_median_rank"] == 1.0


def test_equal_scores_rank_last():
    ranks = retrieval_ranks(np.zeros((4, 8)), np.repeat(np.arange(4), 2))
    assert ranks.sentence_retrieval.tolist() == [6] * 4
    assert ranks.image_retrieval.tolist() == [3] * 8


def test_masked_pairs_of_minus_infinity_rank_last():
    similarity = np.array([[-np.inf, 0.0], [1.0, -np.inf]])
    ranks = retrieval_ranks(similarity, np.array([0, 1]))
    assert ranks.sentence_retrieval.tolist() == [1, 1]
    assert ranks.image_retrieval.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_of_every_float_type(dtype):
    tensor = torch.tensor(SIMILARITY, dtype=dtype, requires_grad=True)
    assert retrieval_ranks(tensor, OWNERS).sentence_retrieval.tolist() == [0, 3, 1]


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    similarity = rng.integers(0, 5, size=(17, 51)).astype(np.float32)  # many ties
    owners = rng.permutation(np.repeat(np.arange(17), 3))
    whole = retrieval_ranks(similarity, owners)
    monkeypatch.setattr(retrieval_module, "BLOCK_BYTES", 51 * 4 * 2)
    blocks = retrieval_ranks(similarity, owners)
    for name in ("sentence_retrieval", "image_retrieval", "sentence_retrieval_top1", "image_retrieval_top1"):
        assert np.array_equal(getattr(whole, name), getattr(blocks, name)), name


def test_ranks_equal_a_plain_loop():
    rng = np.random.default_rng(1)
    similarity = rng.integers(0, 9, size=(12, 40)).astype(float)
    owners = np.concatenate([np.arange(12), rng.integers(0, 12, size=28)])
    ranks = retrieval_ranks(similarity, owners)
    for image in range(12):
        best = similarity[image, owners == image].max()
        assert ranks.sentence_retrieval[image] == (similarity[image, owners != image] >= best).sum()
    for caption, owner in enumerate(owners):
        wrong = np.delete(similarity[:, caption], owner)
        assert ranks.image_retrieval[caption] == (wrong >= similarity[owner, caption]).sum()


def test_folds_average_blocks_of_images_with_their_captions():
    owners = np.array([0, 1, 2, 3, 1, 3])  # not in order: each fold picks its own columns
    similarity = np.zeros((4, 6))
    similarity[owners, np.arange(6)] = 1.0
    similarity[2, 3] = 2.0  # in the second fold image 2 takes a caption of image 3, and captions 3 goes to image 2
    similarity[0, 5] = 9.0  # between the folds: must not count
    metrics = retrieval_metrics(similarity, owners, folds=2)
    assert metrics["sentence_retrieval_r1"] == 75.0  # (100 + 50) / 2
    assert metrics["image_retrieval_r1"] == pytest.approx((100 + 200 / 3) / 2)
    assert retrieval_metrics(similarity, owners)["image_retrieval_r1"] == pytest.approx(400 / 6)


def test_folds_must_divide_the_images():
    with pytest.raises(ConfigurationError, match="3 images cannot be cut into 2 folds"):
        retrieval_metrics(SIMILARITY, OWNERS, folds=2)


@pytest.mark.parametrize(
    ("similarity", "owners", "message"),
    [
        (np.where(SIMILARITY == 0.7, np.nan, SIMILARITY), OWNERS, "image 1 and caption 4 is NaN"),
        (SIMILARITY, OWNERS[:5], "for each of the 6 captions"),
        (SIMILARITY, OWNERS.astype(float), "whole number"),
        (SIMILARITY, OWNERS + 1, r"0\.\.2, got 1\.\.3"),
        (SIMILARITY, np.array([0, 0, 0, 2, 2, 2]), "record 1: the image has no caption"),
        (np.zeros((0, 0)), np.zeros(0, int), r"shape \(0, 0\)"),
    ],
)
def test_bad_input_is_named(similarity, owners, message):
    with pytest.raises(DataError, match=message):
        retrieval_metrics(similarity, owners)


def test_chance_worked_out_by_hand():
    chance = chance_metrics(np.repeat(np.arange(4), 2))  # 4 images, 8 captions
    assert chance["sentence_retrieval_r1"] == pytest.approx(25.0)
    # None of five drawn captions is right: 6/8 * 5/7 * 4/6 * 3/5 * 2/4 = 3/28.
    assert chance["sentence_retrieval_r5"] == pytest.approx(100 * 25 / 28)
    assert chance["sentence_retrieval_r10"] == 100.0
    assert chance["sentence_retrieval_mean_rank"] == pytest.approx(3.0)
    assert chance["image_retrieval_r1"] == 25.0
    assert chance["image_retrieval_r5"] == 100.0
    assert chance["image_retrieval_mean_rank"] == 2.5


def test_chance_is_what_random_scores_give():
    owners = np.concatenate([np.arange(30), np.arange(30), np.arange(15)])
    rng = np.random.default_rng(0)
    measured = [retrieval_metrics(rng.random((30, 75)), owners) for _ in range(300)]
    for name, value in chance_metrics(owners).items():
        assert np.mean([metrics[name] for metrics in measured]) == pytest.approx(value, rel=0.06), name


@pytest.mark.golden
@pytest.mark.parametrize("name", ["20x100", "50x250"])
def test_ranks_and_metrics_equal_the_published_evaluation(golden_root, name):
    from safetensors.numpy import load_file

    golden = load_file(golden_root / "scan" / f"evaluation_{name}.safetensors")
    expected = json.loads((golden_root / "scan" / "meta.json").read_text())["evaluation"][name]
    owners = np.repeat(np.arange(len(golden["sims"])), 5)
    ranks = retrieval_ranks(golden["sims"], owners)
    assert np.array_equal(ranks.sentence_retrieval, golden["i2t_ranks"])
    assert np.array_equal(ranks.sentence_retrieval_top1, golden["i2t_top1"])
    assert np.array_equal(ranks.image_retrieval, golden["t2i_ranks"])
    assert np.array_equal(ranks.image_retrieval_top1, golden["t2i_top1"])
    metrics = retrieval_metrics(golden["sims"], owners)
    ours = {"r1": "r1", "r5": "r5", "r10": "r10", "medr": "median_rank", "meanr": "mean_rank"}
    for theirs, direction in (("i2t", "sentence_retrieval"), ("t2i", "image_retrieval")):
        for their_name, our_name in ours.items():
            assert metrics[f"{direction}_{our_name}"] == pytest.approx(expected[theirs][their_name], abs=1e-9)
    assert metrics["rsum"] == pytest.approx(expected["rsum"], abs=1e-9)
    assert metrics["sentence_retrieval_rsum"] == pytest.approx(3 * expected["ar"], abs=1e-9)
    assert metrics["image_retrieval_rsum"] == pytest.approx(3 * expected["ari"], abs=1e-9)
