"""The chain of comparisons on simulated studies: what is not there is rarely found, what is there as often as said.

Each simulated study goes through what the report goes through: `paired_comparisons`, then `findings`.
"""

import numpy as np
from scipy.stats import binom, norm

from vl_alignment.analysis.differences import paired_comparisons, smallest_detectable_difference
from vl_alignment.analysis.findings import findings
from vl_alignment.analysis.outcomes import ItemOutcomes

from .synthetic import make_answer_result, make_result

STUDIES = 200
FEW = 10  # resamples, where the bootstrap alone decides nothing
NAMES = ("dot", "mine")


def acceptable(rate, studies=STUDIES):
    """The numbers of studies that chance explains, all but one time in a thousand."""
    return range(int(binom.ppf(0.0005, studies, rate)), int(binom.ppf(0.9995, studies, rate)) + 1)


def kinds(results, comparisons):
    return [finding.kind for finding in findings(results, comparisons=comparisons)]


def rsum_study(draw, names, seeds, shift=0.0, spread=3.0):
    """Rsum of every function and seed: what a seed shares, and each run's own noise; the last is better by `shift`."""
    results = []
    for seed in range(seeds):
        shared = 400 + 5 * draw.normal()
        for name in names:
            rsum = shared + spread * draw.normal() + shift * (name == names[-1])
            results.append(make_result(name, seed, rsum))
    return results


def answer_study(draw, seeds, pictures=60, of_seeds=0.3, of_pictures=0.0):
    """Right and wrong answers of two functions to two questions a picture, and the runs' accuracies.

    Questions are more or less hard, runs more or less able (`of_seeds`), and functions each have pictures that they are
    good at (`of_pictures`), so that another test set would favour the one or the other.
    """
    hard = draw.normal(size=(pictures, 2))
    talent = {name: of_pictures * draw.normal(size=(pictures, 1)) for name in NAMES}
    results, outcomes = [], {}
    for seed in range(seeds):
        for name in NAMES:
            odds = hard + talent[name] + of_seeds * draw.normal()
            right = 100.0 * (draw.random(hard.shape) < 1 / (1 + np.exp(-odds)))
            units = np.repeat([f"picture {number:03}" for number in range(pictures)], 2)
            run = make_answer_result(name, seed, accuracy=float(right.mean()))
            results.append(run)
            outcomes[run["run_id"]] = ItemOutcomes.of_parts([(units, right.ravel())])
    return results, outcomes


def test_two_names_of_one_function_rarely_differ_over_seeds():
    draw = np.random.default_rng(1)
    alarms = 0
    for _ in range(STUDIES):
        results = rsum_study(draw, NAMES, seeds=3)
        alarms += "supported" in kinds(results, paired_comparisons(results))
    assert alarms in acceptable(0.05)


def test_eight_names_of_one_function_rarely_differ_anywhere():
    names = ("dot", *(f"mine_{number}" for number in range(7)))
    draw = np.random.default_rng(2)
    alarms = 0
    for _ in range(STUDIES):
        results = rsum_study(draw, names, seeds=4)
        alarms += "supported" in kinds(results, paired_comparisons(results))
    # All seven comparisons hold together; they share the reference, so that fewer than 5 % can be wrong.
    assert alarms <= acceptable(0.05)[-1]


def test_two_names_of_one_function_rarely_differ_over_seeds_and_pictures():
    draw = np.random.default_rng(3)
    alarms = {"alike": 0, "talents": 0}
    for _ in range(STUDIES):
        for name, of_pictures in (("alike", 0.0), ("talents", 1.0)):
            results, outcomes = answer_study(draw, seeds=4, of_pictures=of_pictures)
            alarms[name] += "supported" in kinds(results, paired_comparisons(results, outcomes=outcomes, resamples=FEW))
    assert alarms["alike"] in acceptable(0.05)
    assert alarms["talents"] in acceptable(0.05)


def test_seeds_alone_would_call_a_test_set_s_favourite_the_better_function():
    """Why pictures are a source of chance of their own: more seeds do not help against them."""
    draw = np.random.default_rng(4)
    alarms = {"seeds": 0, "both": 0}
    for _ in range(STUDIES):
        results, outcomes = answer_study(draw, seeds=5, of_seeds=0.0, of_pictures=1.5)
        alarms["seeds"] += "supported" in kinds(results, paired_comparisons(results))
        alarms["both"] += "supported" in kinds(results, paired_comparisons(results, outcomes=outcomes, resamples=FEW))
    assert alarms["seeds"] > 2 * acceptable(0.05)[-1]
    assert alarms["both"] in acceptable(0.05)


def test_models_of_one_seed_rarely_differ_over_pictures():
    draw = np.random.default_rng(5)
    alarms = 0
    for _ in range(STUDIES):
        results, outcomes = answer_study(draw, seeds=1, of_seeds=0.0)
        found = findings(results, comparisons=paired_comparisons(results, outcomes=outcomes, resamples=4000))
        assert all(finding.kind != "supported" for finding in found)  # one seed says nothing of functions
        alarms += any(finding.text.startswith("Of the models at hand") for finding in found)
    assert alarms in acceptable(0.05)


def test_a_difference_of_the_smallest_detectable_size_is_found_four_times_in_five():
    spread, seeds = 3.0, 4
    shift = smallest_detectable_difference(spread * 2**0.5, seeds)
    draw = np.random.default_rng(6)
    found = 0
    for _ in range(STUDIES):
        results = rsum_study(draw, NAMES, seeds, shift, spread)
        found += "supported" in kinds(results, paired_comparisons(results))
    assert found in acceptable(0.8)


def test_a_known_difference_between_two_models_is_found_at_the_expected_rate():
    pictures, spread = 100, 30.0
    # The normal test's power is 80 % where the difference is 1.96 + 0.84 standard errors.
    shift = (norm.isf(0.025) + norm.isf(0.2)) * spread / pictures**0.5
    draw = np.random.default_rng(7)
    found = 0
    for _ in range(STUDIES):
        scores = {"dot": 50 + 20 * draw.normal(size=pictures)}
        scores["mine"] = scores["dot"] + shift + spread * draw.normal(size=pictures)
        results = [make_answer_result(name, 0, float(values.mean())) for name, values in scores.items()]
        units = [f"{number:03}" for number in range(pictures)]
        outcomes = {
            run["run_id"]: ItemOutcomes.of_parts([(units, scores[run["alignment_function"]])]) for run in results
        }
        stated = findings(results, comparisons=paired_comparisons(results, outcomes=outcomes, resamples=4000))
        found += any(finding.text.startswith("Of the models at hand") for finding in stated)
    assert found in acceptable(0.8)
