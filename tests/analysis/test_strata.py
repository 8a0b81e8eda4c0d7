import json
from xml.etree import ElementTree

import datasets
import numpy as np
import pytest

from vl_alignment.analysis.charts import standalone_svg
from vl_alignment.analysis.nouns import BlocksNouns, EnglishNouns
from vl_alignment.analysis.strata import noun_strata, picture_strata, strata_recalls
from vl_alignment.analysis.strata_charts import strata_charts
from vl_alignment.analysis.strata_report import write_strata
from vl_alignment.data.coco import load_coco_captions
from vl_alignment.models.errors import ResultsError
from vl_alignment.training.runs import RunDirectory

from .synthetic import make_result

IMAGES, SENTENCES = "image_retrieval", "sentence_retrieval"
SHAPES = [("cube", "red"), ("cube", "blue"), ("sphere", "red"), ("cube", "red")]
CAPTIONS = [
    ["A red cube.", "A box and a ball."],
    ["Two cubes.", "A blue box left of a cube."],
    ["A ball.", "A red sphere."],
    ["A cube, a block and a box.", "It is red."],
]


@pytest.fixture
def split():
    scenes = [json.dumps({"objects": [{"shape": shape, "color": color}]}) for shape, color in SHAPES]
    return datasets.Dataset.from_dict({"image_id": list("abcd"), "captions": CAPTIONS, "scene": scenes})


def write_run(output, function, seed, image_ranks, caption_ranks, **changes):
    """Write the predictions of a run: the rank of each picture's and each caption's query."""
    result = make_result(function, seed, **changes)
    run = RunDirectory(output / result["run_id"])
    run.check_writable()
    queries = [(image, SENTENCES, rank) for image, rank in image_ranks.items()]
    queries += [(caption, IMAGES, rank) for caption, rank in caption_ranks.items()]
    run.write_predictions([{"item_id": item, "direction": way, "rank": rank} for item, way, rank in queries])
    return result


def ranks_of(captions, right):
    return {f"{image}#{n}": int(f"{image}#{n}" not in right) for image in "abcd" for n in range(captions)}


@pytest.fixture
def runs(tmp_path):
    """Seed 0 finds the captions of pictures a and b and one of d, seed 1 also both of c; sentences: a alone."""
    image_ranks = {"a": 0, "b": 3, "c": 1, "d": 2}
    found = {"a#0", "a#1", "b#0", "b#1", "d#0"}
    return [
        write_run(tmp_path, "dot", 0, image_ranks, ranks_of(2, found)),
        write_run(tmp_path, "dot", 1, image_ranks, ranks_of(2, found | {"c#0", "c#1"})),
    ]


def means(measured, direction, row="dot"):
    return {
        group.name: cell.mean
        for group, cell in zip(measured.strata.groups[direction], measured.recalls[direction][row], strict=True)
    }


def test_recalls_by_shape_and_color_by_hand(tmp_path, split, runs):
    shape, color = strata_recalls(tmp_path, runs, picture_strata(split))
    assert means(shape, SENTENCES) == {"cube (75 %)": pytest.approx(100 / 3), "sphere (25 %)": 0.0}
    assert means(shape, IMAGES) == {"cube (75 %)": pytest.approx(500 / 6), "sphere (25 %)": 50.0}
    assert means(color, IMAGES) == {"red (75 %)": pytest.approx(400 / 6), "blue (25 %)": 100.0}
    table = shape.table()
    rows = {row.name: table.texts(row) for row in table.rows}
    assert rows["Queries"] == ["3", "1", "6", "2"]
    assert rows["Pictures"] == ["3", "1", "3", "1"]
    # Of the cubes' pictures 100, 100 and 50 % of captions: standard deviation 28.9, t(2) 4.30.
    assert rows["Dot product"][2] == "83.3 ± 71.7"
    assert rows["Dot product"][3] == "50.0 ± -"  # one picture
    assert "mean over 2 seeds ± half the 95% interval over test pictures" in table.caption
    assert shape.recalls[IMAGES]["dot"][0].count == 2


def test_recalls_by_nouns_by_hand(tmp_path, split, runs):
    captions, pictures = strata_recalls(tmp_path, runs, noun_strata(split, BlocksNouns()))
    sizes = {group.name: group.queries for group in captions.strata.groups[IMAGES]}
    assert sizes == {
        "0": ("d#1",),
        "1": ("a#0", "b#0", "c#0", "c#1"),
        "2": ("a#1", "b#1"),
        "3": ("d#0",),
    }
    assert means(captions, IMAGES) == {"0": 0.0, "1": 75.0, "2": 100.0, "3": 100.0}
    assert means(pictures, SENTENCES) == {"1": 0.0, "2": 50.0, "3": 0.0}
    assert "Nouns: the words of the caption grammar" in pictures.table().caption


def test_rare_counts_are_joined():
    texts = [["cube"] * 1] * 2 + [["cube cube"]] * 98 + [["cube cube cube"]] * 100 + [["cube " * 7]] * 1 + [["x"]] * 1
    test = datasets.Dataset.from_dict({"image_id": [str(n) for n in range(len(texts))], "captions": texts})
    groups = noun_strata(test, BlocksNouns())[0].groups[IMAGES]
    assert [(group.name, len(group.queries)) for group in groups] == [("≤ 2", 101), ("≥ 3", 101)]


def test_runs_without_usable_predictions_are_left_out(tmp_path, split, runs):
    strata = picture_strata(split)
    assert strata_recalls(tmp_path, [make_result("cosine", 0)], strata) == []
    other = write_run(tmp_path, "scaled_dot", 0, {"a": 0}, {})
    broken = make_result("additive", 0)
    RunDirectory(tmp_path / broken["run_id"]).check_writable()
    RunDirectory(tmp_path / broken["run_id"]).predictions.write_text("no parquet")
    with pytest.warns(UserWarning) as warned:
        measured = strata_recalls(tmp_path, [*runs, other, broken], strata)
    assert {"lack 11 queries", "cannot be read"} == {
        part for part in ("lack 11 queries", "cannot be read") if any(part in str(w.message) for w in warned)
    }
    assert measured[0].rows == ["dot"]


def test_records_without_objects_have_no_strata_by_content(split):
    plain = split.remove_columns("scene")
    assert picture_strata(plain) == []
    assert picture_strata(plain.add_column("categories", [[]] * len(plain))) == []


def test_charts_name_functions_and_groups(tmp_path, split, runs):
    released = write_run(
        *(tmp_path, "general_key", 0, dict.fromkeys("abcd", 0), ranks_of(2, ())),
        run_id="scan-blocks-general_key-released-seed0",
        released_layout=True,
    )
    strata = [*picture_strata(split), *noun_strata(split, EnglishNouns())]
    by_key = {found.strata.key: found for found in strata_recalls(tmp_path, [*runs, released], strata)}
    assert list(by_key) == ["shape", "color", "caption-nouns", "picture-nouns"]
    charts = {key: strata_charts(found) for key, found in by_key.items()}
    assert [list(chart) for chart in charts.values()] == [[SENTENCES, IMAGES]] * 2 + [[IMAGES], [SENTENCES]]
    for chart in (charts["shape"][SENTENCES], charts["caption-nouns"][IMAGES]):
        text = "".join(ElementTree.fromstring(chart).itertext())
        assert "Dot product" in text and "General† (released)" in text
        assert "var(--series-dot)" in chart and "var(" not in standalone_svg(chart)
        ElementTree.fromstring(standalone_svg(chart))
    assert "cube (75 %)" in "".join(ElementTree.fromstring(charts["shape"][IMAGES]).itertext())


def test_a_chart_that_cannot_be_written_is_named(tmp_path, split, runs):
    chart = "strata-shape-image_retrieval.svg"
    (tmp_path / "out" / chart / "in the way").mkdir(parents=True)
    with pytest.raises(ResultsError, match=f"{chart}.*cannot be written"):
        write_strata(tmp_path / "out", "Strata", strata_recalls(tmp_path, runs, picture_strata(split)))


@pytest.mark.real_data
def test_strata_of_coco_photographs(data_root, tmp_path):
    folder = data_root / "coco"
    if not folder.exists():
        pytest.skip(f"needs the photographs of COCO in {folder} ($VL_ALIGNMENT_DATA)")
    annotations = folder / "annotations"
    data = load_coco_captions(
        annotations / "captions_train2017.json",
        folder / "train2017",
        annotations / "instances_train2017.json",
        split="test",
    )["test"]
    (supercategories,) = picture_strata(data)
    groups = supercategories.groups[SENTENCES]
    sizes = [len(group.queries) for group in groups]
    assert len(groups) == 12 and sizes == sorted(sizes, reverse=True) and groups[0].name.startswith("person (")
    draw = np.random.default_rng(0)
    images = [str(image) for image in data["image_id"]]
    captions = {f"{image}#{n}": texts for image, texts in zip(images, data["captions"], strict=True) for n in range(5)}
    results = [
        write_run(
            *(tmp_path, function, 0),
            dict(zip(images, draw.integers(3, size=len(images)), strict=True)),
            dict(zip(captions, draw.integers(3, size=len(captions)), strict=True)),
        )
        for function in ("dot", "cosine")
    ]
    measured = strata_recalls(tmp_path, results, [supercategories, *noun_strata(data, EnglishNouns())])
    for found in measured:
        for chart in strata_charts(found).values():
            ElementTree.fromstring(chart)
    assert measured[0].table().texts(measured[0].table().rows[-1])[:12] == [str(size) for size in sizes]
    nouns = [group.name for group in measured[1].strata.groups[IMAGES]]
    assert "3" in nouns and "4" in nouns
