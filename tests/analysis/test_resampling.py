import numpy as np
import pytest

from vl_alignment.analysis import resampling
from vl_alignment.analysis.outcomes import (
    ItemOutcomes,
    answer_outcomes,
    drawing_outcomes,
    retrieval_outcomes,
    soft_answer_outcomes,
)
from vl_alignment.analysis.resampling import item_difference, load_outcomes, picture_error, resampled_metrics
from vl_alignment.metrics.retrieval import retrieval_metrics
from vl_alignment.models.errors import ResultsError
from vl_alignment.training.objectives import retrieval_predictions
from vl_alignment.training.retrieval_inputs import CaptionTable
from vl_alignment.training.runs import RunDirectory

from .synthetic import make_answer_result, make_drawing_result, make_result


def outcomes(*scores, units=None):
    """One item a picture, right or wrong in percent."""
    scores = np.asarray(scores, dtype=float)
    return ItemOutcomes.of_parts([(units or [f"{number:04}" for number in range(len(scores))], scores)])


def write_run(folder, result, rows):
    run = RunDirectory(folder / result["run_id"])
    run.path.mkdir(parents=True)
    run.write_predictions(rows)


def columns_of(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


class Captions:
    """What predictions ask of a table of captions: three pictures with one, two and three captions."""

    image_ids = ("b", "a", "c")
    owner = np.array([0, 1, 1, 2, 2, 2])
    first = np.array([0, 1, 3, 6])
    words = np.full(6, 4)
    number = np.array([0, 0, 1, 0, 1, 2])
    caption_id = CaptionTable.caption_id


def test_rsum_is_that_of_the_metrics_and_captions_stay_with_their_picture():
    similarity = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    found = retrieval_outcomes(columns_of(retrieval_predictions(similarity, Captions())))
    assert found.value == pytest.approx(retrieval_metrics(similarity, Captions.owner)["rsum"], abs=1e-9)
    assert found.units == ("a", "b", "c")
    assert found.counts.tolist() == [[1, 1, 1], [2, 1, 3]]
    assert found.contributions().mean() == pytest.approx(found.value)


def test_answers_to_questions_about_one_picture_are_one_unit():
    columns = {"image_id": ["x", "y", "x"], "prediction": ["1", "2", "3"], "reference": ["1", "3", "3"]}
    found = answer_outcomes(columns)
    assert (found.units, found.sums.tolist(), found.counts.tolist()) == (("x", "y"), [[200, 0]], [[2, 1]])
    assert found.value == pytest.approx(200 / 3)
    soft = soft_answer_outcomes({"image_id": ["x", "y"], "score": [0.6, 1.0]})
    assert soft.value == pytest.approx(80)
    drawn = drawing_outcomes({"item_id": ["p#1#0", "p#1#1", "q#0"], "found": [True, False, True]})
    assert (drawn.units, drawn.sums.tolist()) == (("p#1", "q"), [[100, 100]])


def test_contributions_have_the_spread_of_the_metric_over_pictures():
    draw = np.random.default_rng(3)
    units = np.repeat([f"{number:04}" for number in range(300)], draw.integers(1, 6, size=300))
    run = ItemOutcomes.of_parts([(units, 100.0 * (draw.random(len(units)) < 0.7))])
    error = run.contributions().std(ddof=1) / np.sqrt(300)
    assert resampled_metrics([run])[:, 0].std() == pytest.approx(error, rel=0.03)


def test_resamples_are_those_of_a_loop(monkeypatch):
    draw = np.random.default_rng(1)
    owners = np.array(list("aabbbcdd"))
    runs = [ItemOutcomes.of_parts([(list("abcd"), draw.random(4)), (owners, draw.random(8))]) for _ in range(3)]
    monkeypatch.setattr(resampling, "BLOCK_BYTES", 8 * 4 * 7)  # seven rows at a time
    found = resampled_metrics(runs, resamples=20, seed=5)
    again = np.random.default_rng(5)
    rows = np.concatenate([again.integers(4, size=(size, 4)) for size in (7, 7, 6)])
    for pictures, metrics in zip(rows, found, strict=True):
        for run, metric in zip(runs, metrics, strict=True):
            sums, counts = run.sums[:, pictures].sum(axis=1), run.counts[:, pictures].sum(axis=1)
            assert metric == pytest.approx((sums / counts).sum())


def test_resamples_spread_as_the_theory_says_and_pairs_share_theirs():
    draw = np.random.default_rng(2)
    right = 100.0 * (draw.random(400) < 0.5)
    better = np.where(draw.random(400) < 0.05, 100.0, right)
    found = resampled_metrics([outcomes(*right), outcomes(*better)])
    assert found.shape == (10_000, 2)
    assert found[:, 0].std() == pytest.approx(right.std() / 20, rel=0.03)
    gap = item_difference((found[:, 1:], found[:, :1]), (better.mean(), right.mean()), 400)
    assert gap.mean == pytest.approx((better - right).mean())
    # Paired: far narrower than two models apart would be.
    assert gap.high - gap.low == pytest.approx(2 * 1.96 * (better - right).std() / 20, rel=0.1)
    assert gap.high - gap.low < found[:, 0].std() * 1.5 and gap.low > 0 and gap.p_value < 0.01


def test_models_that_agree_everywhere_do_not_differ():
    found = resampled_metrics([outcomes(100, 0, 100), outcomes(100, 0, 100)], resamples=50)
    gap = item_difference((found[:, :1], found[:, 1:]), (1.0, 1.0), 3)
    assert (gap.low, gap.high, gap.p_value) == (0, 0, 1)


def test_runs_of_different_items_are_refused():
    with pytest.raises(ResultsError, match="different items"):
        resampled_metrics([outcomes(100, 0), outcomes(100, 0, units=["x", "y"])])


def test_picture_error_is_what_pictures_add():
    draw = np.random.default_rng(4)
    errors = []
    for _ in range(60):
        liked, seeds = 10 * draw.normal(size=400), draw.normal(size=5)
        runs = [(outcomes(*(liked + seed + 20 * draw.normal(size=400))), outcomes(*np.zeros(400))) for seed in seeds]
        errors.append(picture_error(runs) ** 2)
    assert np.mean(errors) == pytest.approx(100 / 400, rel=0.1)
    same = [(outcomes(1, 2, 3), outcomes(0, 1, 2))] * 2
    assert picture_error(same) == 0


def test_outcomes_of_a_folder(tmp_path):
    rows = [
        {"image_id": "x", "prediction": "red", "reference": "red"},
        {"image_id": "y", "prediction": "red", "reference": "2"},
    ]
    results = [make_answer_result(name, 0, 50.0) for name in ("dot", "cosine", "general_key", "general_query")]
    write_run(tmp_path, results[0], rows)
    write_run(tmp_path, results[1], rows * 2)
    results[2]["metrics"]["accuracy"] = 60.0
    write_run(tmp_path, results[2], rows)
    with pytest.warns(UserWarning, match="give accuracy 50.0, the results 60.0. The run is left out"):
        found = load_outcomes(tmp_path, results)
    assert set(found) == {results[0]["run_id"], results[1]["run_id"]}
    assert found[results[0]["run_id"]].value == 50


def test_predictions_that_cannot_be_used_are_left_out(tmp_path):
    damaged, old = make_result("dot", 0), make_drawing_result("dot", 1)
    write_run(tmp_path, damaged, [{"item_id": "x"}])
    RunDirectory(tmp_path / damaged["run_id"]).predictions.write_bytes(b"PAR1 cut in ha")
    with pytest.warns(UserWarning, match=r"cannot be read .* left out"):
        assert load_outcomes(tmp_path, [damaged]) == {}
    write_run(tmp_path, old, [{"item_id": "x#0", "score": 0.5}])
    with pytest.warns(UserWarning, match="do not say 'found'; another version wrote them"):
        assert load_outcomes(tmp_path, [old]) == {}
