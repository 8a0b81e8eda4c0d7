from pathlib import Path

import pytest
import yaml

import vl_alignment.analysis
from vl_alignment.analysis.study_plan import Cell, read_plan
from vl_alignment.models.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
EXAMPLE = Path(vl_alignment.analysis.__file__).parent / "study_example.yaml"


def plan_of(tmp_path, text):
    file = tmp_path / "trial.yaml"
    file.write_text(text)
    return read_plan(file)


def test_the_example_says_every_entry():
    plan = read_plan(EXAMPLE)
    content = yaml.safe_load(EXAMPLE.read_text())
    assert set(content) == set(plan.__dataclass_fields__)
    assert set(content["parts"][0]) == set(plan.parts[0].__dataclass_fields__)
    assert [part.name for part in plan.parts] == ["photographs", "blocks-vqa"]
    assert plan.output == Path("outputs/study") and plan.devices == (0, 1)


@pytest.mark.parametrize(
    ("file", "runs"), [("examples/small_study.yaml", 9), ("benchmarks/study.yaml", 36 + 40 + 21 + 21 + 6)]
)
def test_the_studies_that_ship_can_be_read(file, runs):
    assert len(read_plan(ROOT / file).cells) == runs


def test_cells_are_whole_seeds_with_the_released_layout_beside_the_right_one(tmp_path):
    text = "parts: [{preset: blocks, seeds: [3, 1], functions: [dot, general_key], released: [general_key]}]"
    plan = plan_of(tmp_path, text)
    assert plan.output == Path("outputs/trial")
    assert plan.cells == [
        cell
        for seed in (3, 1)
        for cell in (
            Cell("blocks", "dot", seed),
            Cell("blocks", "general_key", seed),
            Cell("blocks", "general_key", seed, released_layout=True),
        )
    ]
    assert plan.cells[2].title == "blocks: general_key (released), seed 3"


def test_functions_are_those_of_the_paper_s_table_by_default(tmp_path):
    plan = plan_of(tmp_path, "parts: [{preset: blocks, seeds: [0]}, {preset: blocks-vqa, seeds: [0]}]")
    assert [len(part.cells) for part in plan.parts] == [8, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts: [{preset: blocks, seeds: [0], functions: [dott]}]", "part 1 .blocks.*dott"),
        ("parts: [{preset: blocks, seeds: [0], released: [dott]}]", "dott"),
        ("parts: [{preset: blocks, seeds: [0], metric: rsun}]", "metric='rsun' is none of retrieval; known are.*rsum"),
        ("parts: [{preset: blocks, seeds: [0], metric: accuracy}]", "accuracy"),
        ("parts: [{preset: blocks, seeds: [0]}, {preset: blocks, seeds: [1]}]", "two parts are called 'blocks'"),
        ("parts: [{preset: blocks, functions: [dot]}]", "without seeds"),
        ("parts: [{preset: blocks, seeds: []}]", "without seeds"),
        ("parts: [{preset: blocks, seeds: [0, 0]}]", "every seed once"),
        ("parts: [{preset: blocks, seeds: [one]}]", "seeds=.*a list of numbers"),
        ("parts: [{seeds: [0]}]", "without preset"),
        ("parts: [{preset: block, seeds: [0]}]", "'block'"),
        ("parts: [{preset: blocks, seeds: [0], noun_tagger: german}]", "unknown noun tagger 'german'"),
        ("parts: [{preset: blocks, seeds: [0], settings: {epoch: 3}}]", "epoch"),
        ("parts: [{preset: blocks, seeds: [0], seed: 3}]", "unknown ..seed"),
        ("parts: [{preset: blocks, seeds: [0], options: {fold: 1}}]", "options: unknown ..fold.*known are.*'folds'"),
        ("parts: [{preset: blocks, seeds: [0], controls: 3}]", "controls=3 must be of type bool"),
        ("parts: [{preset: blocks, seeds: [0], name: ../up}]", "names a folder"),
        ("part: [{preset: blocks, seeds: [0]}]", "`parts`"),
        (
            "parts: [{preset: blocks, seeds: [0], model: {hiden_size: 3}}]",
            "unknown ..hiden_size.*known are.*hidden_size",
        ),
        ("parts: [{preset: blocks, seeds: [0], model: {hidden_size: 0}}]", "hidden_size"),
        ("parts: [{preset: blocks, seeds: [0], sizes: {tran: 3}}]", "'tran'; the data set has train, validation, test"),
        ("parts: [{preset: blocks, seeds: [0], sizes: {train: many}}]", "train='many'"),
        ("parts: [{preset: blocks, seeds: [0], released: [additive]}]", "released=..additive.*general_key"),
        ("parts: [{preset: blocks, seeds: [0], released: [dot, dot]}]", "names a function twice"),
        ("parts: [{preset: blocks, seeds: [true]}]", "seeds=.*a list of numbers"),
        ("parts: [{preset: blocks, seeds: [-1]}]", "seed=-1"),
        ("parts: [{preset: blocks, seeds: [0], pictures: true}]", "pictures=True"),
        ("parts: [{preset: blocks, seeds: [0], pictures: -1}]", "pictures=-1"),
        ("devices: [-1]\nparts: [{preset: blocks, seeds: [0]}]", "devices=.*-1"),
        ("parts: []", "at least one part"),
        ("processes: 0\nparts: [{preset: blocks, seeds: [0]}]", "processes=0"),
        ("parts: [dot]", "part 1: must be a mapping"),
        ("parts: [", "cannot be read as YAML"),
    ],
)
def test_what_cannot_be_is_said_with_its_place(tmp_path, text, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        plan_of(tmp_path, text)
    assert "trial.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nothing.yaml"):
        read_plan(tmp_path / "nothing.yaml")


def test_some_parts_of_a_plan():
    plan = read_plan(EXAMPLE)
    assert plan.only([plan.parts[1].name]).parts == plan.parts[1:2]
    with pytest.raises(ConfigurationError, match=r"no part \['nothing'\]; its parts are"):
        plan.only(["nothing"])


ALIASES = ", ".join(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"parts: [{{preset: blocks, seeds: [0], functions: [&a0 [dot, dot], {ALIASES}]}}]",
            "more than 100,000 values",
        ),
        ("parts: [{preset: blocks, seeds: [2020-13-45]}]", "month"),
        ("parts: [{preset: blocks, seeds: [!!float x]}]", "float"),
        ("parts: " + "[" * 20_000, "nested too deeply"),
        ("parts: [{preset: blocks, seeds: [0], settings: 0x" + "f" * 6_000 + "}]", "thousands of digits"),
    ],
)
def test_yaml_that_no_person_writes_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(ConfigurationError, match=f"trial.yaml: .*{message}") as raised:
        plan_of(tmp_path, text)
    assert len(str(raised.value)) < 2_000
