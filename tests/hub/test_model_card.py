import ast
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from tests.analysis.synthetic import make_answer_result, make_result
from tests.hub.run_folder import SETTINGS, write_run

from vl_alignment import cli, cli_parser
from vl_alignment.hub.card_metadata import check_card_metadata
from vl_alignment.hub.card_texts import DATA_FACTS, MODEL_FACTS
from vl_alignment.hub.card_values import RecordedCommand
from vl_alignment.hub.model_card import build_model_card, build_run_card, write_model_cards
from vl_alignment.hub.variants import BUILT_IN_VARIANTS, PUBLISHED_VARIANTS, TASK_OF_MODEL
from vl_alignment.models.errors import HubError, ResultsError
from vl_alignment.training.runs import load_results

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/results.jsonl"))
REPO = "someone/some-model"
CONTROLS = [{"name": "chance", "description": "random scores", "metrics": {"rsum": 15.9}}]


def metadata(card):
    return yaml.safe_load(card.split("---\n")[1])


def blocks_of(card, language):
    return re.findall(rf"```{language}\n(.*?)```", card, flags=re.S)


def commands_of(card):
    return [line for block in blocks_of(card, "bash") for line in block.splitlines()]


# What a card says


def test_metadata_holds_what_was_measured():
    result = make_result("general_key", 3)
    data = metadata(build_model_card(result, repo_id=REPO))
    assert (data["license"], data["library_name"]) == ("apache-2.0", "transformers")
    assert data["pipeline_tag"] == "zero-shot-image-classification" and data["metrics"] == ["recall"]
    assert data["tags"] == ["vl-alignment", "scan", "general_key"]
    assert "base_model" not in data and "widget" not in data
    [entry] = data["model-index"]
    [measured] = entry["results"]
    assert entry["name"] == "scan-blocks-general_key"
    assert measured["dataset"] == {
        **{"name": "blocks", "type": "vl-alignment-blocks", "split": "test"},
        "revision": result["dataset"]["content_hash"],
    }
    assert {row["type"]: row["value"] for row in measured["metrics"]} == pytest.approx(result["metrics"])


def test_a_field_without_a_value_is_left_out():
    card = build_model_card(make_result("dot", 0, commit=None), repo_id=REPO)
    assert "Commit" not in card and "Kept" not in card and "Regions" not in card and "Controls" not in card
    assert "None" not in card and "nan" not in card


def test_the_equation_and_the_side_that_is_transformed():
    for function, equation, side in (
        ("general_query", "(W Q) K", "The query Q is transformed, by a learned W."),
        ("biased_general_key", "Q (W K + b)", "The key K is transformed, by a learned W and b."),
        ("cosine", "Q K / (|Q| |K|)", "Neither side is transformed."),
        ("additive", "v tanh(W1 Q + W2 K)", "Both sides are transformed"),
        ("activated_general_key", "act(Q (W K + b))", "by a learned W and b. act is relu."),
    ):
        card = build_model_card(make_result(function, 0))
        assert f"f(Q, K) = {equation}\n" in card and side in card
    mirrored = {"model": {"direction": "i2t"}, "settings": {}}
    card = build_model_card(make_result("dot", 0), config=mirrored)
    assert "Q stands for the picture's regions, K for the caption's words" in card


def test_a_released_layout_is_no_equation():
    result = make_result("general_key", 0, released_layout=True)
    card = build_model_card(result, repo_id=REPO)
    assert "**Released layout:**" in card and metadata(card)["tags"][-1] == "released-layout"
    assert metadata(card)["model-index"][0]["name"] == "scan-blocks-general_key-released"
    assert "accelerate launch" not in card  # the scripts have no such option


def test_other_data_never_compares():
    card = build_model_card(make_result("general_key", 0))
    assert "| Rsum | 300.0 | 411.9 | 426.8 |" in card
    assert "**other data: they do not compare**" in card and r"Biased general\*" in card


def test_the_papers_cell_of_the_same_data_stands_alone_with_its_differences():
    dataset = {"name": "flickr30k", "content_hash": "0" * 16, "train": 29000, "validation": 1014, "test": 1000}
    result = make_result("general_key", 0, run_id="scan-flickr30k-general_key-seed0", dataset=dataset)
    card = build_model_card(result)
    assert "| Rsum | 300.0 | 411.9 |" in card and "COCO" not in card
    assert "of this cell, on Flickr30k; they differ in" in card and "epochs 4, 30 there" in card


def test_several_seeds_are_a_mean_with_its_interval_and_one_run_has_none():
    results = [make_result("dot", seed, rsum) for seed, rsum in ((0, 300.0), (1, 304.0))]
    card = build_model_card(results[0], seeds=results)
    assert "| Rsum | 300.0 | 302.0 ± 25.4 |" in card and "seed 0, the lowest, not the best" in card
    alone = build_model_card(results[1])
    assert "±" not in alone.split("## Results")[1] and "there is no interval" in alone


def test_controls_stand_beside_the_run_and_tell_what_was_not_learned():
    blind = {f"accuracy_{name}": 60.5 for name in ("count", "exist")}
    controls = [{"name": "image zeroed", "description": "on zeros", "metrics": {"accuracy": 45.0, **blind}}]
    card = build_model_card(make_answer_result("dot", 0), controls=controls)
    assert "| Accuracy | 70.0 | 45.0 |" in card and "- _image zeroed_: on zeros" in card
    [line] = [line for line in card.splitlines() if "**Not learned**" in line]
    assert "By question type: Count (60.0 %, without seeing 60.5 %)" in line and "Exist" not in line


def test_run_json_is_told_as_recorded():
    run = {
        "model": {
            "model_type": "scan",
            "hidden_size": 24,
            "id2label": {"0": "a"},
            "vision_config": {"model_type": "vit"},
        },
        "settings": {"epochs": 4, "learning_rate": 0.5, "plateau_factor": None},
        "machine": {"processor": "A CPU", "cores": 2, "threads": 1, "accelerators": ["A GPU"]},
    }
    card = build_model_card(make_result("dot", 0), config=run)
    [parameters] = blocks_of(card, "yaml")
    assert yaml.safe_load(parameters) == {
        "model": {"hidden_size": 24, "vision_config": "vit"},
        "training": {"epochs": 4, "learning_rate": 0.5},
    }
    assert "| Device | cpu, A GPU, A CPU, 2 cores, 1 threads |" in card


def test_without_run_json_the_preset_of_the_command_is_told_with_its_changes():
    changes = "--batch-size 16 --decay-epochs 1 2 --alignment-initialization identity"
    card = build_model_card(make_result("dot", 0, command=f"vl-alignment compare --preset blocks {changes}"))
    parameters = yaml.safe_load(blocks_of(card, "yaml")[0])
    assert {"batch_size": 16, "decay_epochs": [1, 2], "epochs": 4}.items() <= parameters["training"].items()
    assert parameters["model"]["alignment_initialization"] == "identity" and "feature_size" not in parameters["model"]


def test_a_function_and_data_of_the_users_own():
    dataset = {"name": "mine", "content_hash": None, "train": 5, "validation": 5, "test": 5}
    result = make_result("my_function", 0, dataset=dataset, run_id="scan-mine-my_function-seed0")
    card = build_model_card(result, repo_id=REPO)
    assert "a function of the user's own" in card and "whoever trained the model should say here" in card
    assert metadata(card)["datasets"] == ["mine"] and "accelerate launch" not in card


def test_the_text_encoder_is_the_base_model():
    made = "vl-alignment train --preset textvqa --text-encoder google-bert/bert-base-uncased"
    result = make_result("dot", 0, command=made)
    assert metadata(build_model_card(result))["base_model"] == "google-bert/bert-base-uncased"
    result["command"] = made.replace("google-bert/bert-base-uncased", "/home/me/bert")
    assert "base_model" not in metadata(build_model_card(result))


def test_every_variant_has_facts():
    for variant in (*PUBLISHED_VARIANTS, *BUILT_IN_VARIANTS):
        assert (variant.model, variant.dataset) in DATA_FACTS
    assert set(MODEL_FACTS) == set(TASK_OF_MODEL)


# Commands


def test_folders_outside_of_the_working_folder_are_places_of_the_readers_own():
    command = "vl-alignment compare --data-dir ../data/f8k --regions /big/store --functions dot cosine --seeds 0 1"
    recorded = RecordedCommand.of(make_result("dot", 1, command=command))
    assert str(recorded).startswith(
        "vl-alignment compare --data-dir $DATA_DIR --regions $REGIONS --functions dot cosine"
    )
    assert recorded.rebuild(make_result("dot", 1)) == (
        "vl-alignment compare --data-dir $DATA_DIR --regions $REGIONS --functions dot --seeds 1 --no-controls"
    )


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_commands_of_committed_results_are_understood(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    results = load_results(folder, strict=True)
    for result in (results[0], results[-1]):
        lines = commands_of(build_model_card(result))
        assert len(lines) == (3 if "extract-features" in lines[0] else 2)
        for line in lines:
            words = shlex.split(line)
            if words[0] == "vl-alignment":
                parsed = cli_parser.build_parser().parse_args(words[1:])
                if parsed.command == "compare":
                    assert (parsed.functions, parsed.seeds) == ([result["alignment_function"]], [result["seed"]])
            else:
                assert words[:2] == ["accelerate", "launch"]
                parsed = example(words[2]).build_parser().parse_args(words[3:])
                assert (parsed.alignment_function, parsed.seed) == (result["alignment_function"], result["seed"])


def example(name):
    sys.modules.pop("one_run", None)
    specification = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


# Snippets


@pytest.mark.parametrize("on_the_hub", [True, False], ids=["repository", "folder"])
@pytest.mark.parametrize("kind", TASK_OF_MODEL)
def test_the_snippets_run_on_a_saved_model(kind, on_the_hub, tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "runs", kind)
    card = build_run_card(run, repo_id=REPO if on_the_hub else None)
    sample = MODEL_FACTS[kind].samples[0]
    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "scene.png")
    monkeypatch.chdir(tmp_path)
    snippets = blocks_of(card, "python")
    assert len(snippets) == 2
    for snippet in snippets:
        place = re.search(r'(?:from_pretrained\(|model=)"([^"]+)"', snippet).group(1)
        assert place == REPO if on_the_hub else place.endswith(f"{run.name}/model")
        assert ("trust_remote_code=True" in snippet) == on_the_hub != ("import vl_alignment" in snippet)
        # The tiny vocabulary knows no word of the samples, of which a model that draws needs one.
        known = snippet.replace(sample, "two dogs") if kind == "attngan" else snippet
        exec(compile(known.replace(place, str(run / "model")), "snippet", "exec"), {})
    if kind == "attngan":
        assert Image.open("drawn.png").size == (32, 32)
    else:
        assert len(capsys.readouterr().out.splitlines()) >= 2


def test_a_model_of_given_regions_says_what_makes_them():
    dataset = {
        **{"name": "flickr8k", "content_hash": "0" * 16, "train": 6, "validation": 5, "test": 5},
        "regions": {"extractor": "efficientnet_lite0", "version": "1"},
    }
    card = build_model_card(make_result("dot", 0, dataset=dataset), repo_id=REPO)
    [snippet] = blocks_of(card, "python")
    assert 'build_extractor("efficientnet_lite0")' in snippet and "pipeline(" not in card
    ast.parse(snippet)
    dataset["regions"]["extractor"] = "mine"
    [snippet] = blocks_of(build_model_card(make_result("dot", 0, dataset=dataset), repo_id=REPO), "python")
    assert "region_extractor" in snippet and "Image" not in snippet


# Examples


def test_examples_and_attention_stand_in_the_card_where_they_exist(tmp_path):
    run = write_run(tmp_path, "scan")
    for name in ("scene.png", "attention.png"):
        Image.new("RGB", (8, 8)).save(run / name)
    output = [{"label": "a dog", "score": 0.75}, {"label": "two, dogs", "score": 0.25}]
    entry = {"title": "Dogs", "image": "scene.png", "texts": ["a dog", "two, dogs"], "output": output}
    (run / "examples.json").write_text(json.dumps([entry]))
    card = build_run_card(run, repo_id=REPO)
    assert metadata(card)["widget"] == [
        {"example_title": "Dogs", "src": "scene.png", "candidate_labels": "a dog, two dogs", "output": output}
    ]
    assert "![Dogs](scene.png) gave a dog (0.75), two, dogs (0.25)" in card and "](attention.png)" in card


@pytest.mark.parametrize("image", ["missing.png", "../runs/scene.png", None])
def test_examples_that_cannot_be_used_are_refused(image, tmp_path):
    run = write_run(tmp_path, "scan")
    Image.new("RGB", (8, 8)).save(run.parent / "scene.png")
    entry = {"title": "Dogs", "image": image, "text": "a dog", "output": [{"label": "a dog", "score": 1}]}
    (run / "examples.json").write_text(json.dumps([entry] if image else [{"title": "Dogs"}]))
    with pytest.raises(ResultsError, match="examples.json"):
        build_run_card(run)


# What the Hub refuses


def card_with(**changes):
    card = build_model_card(make_result("dot", 0), repo_id=REPO)
    data = {**metadata(card), **changes}
    return f"---\n{yaml.safe_dump(data)}---\n\ntext\n"


def index_with(**changes):
    result = {
        **{"task": {"type": "text-to-image"}, "dataset": {"type": "cub", "name": "CUB"}},
        **{"metrics": [{"type": "fid", "value": 25.7}], **changes},
    }
    return [{"name": "a model", "results": [result]}]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"license": "apache2"}, "license 'apache2'"),
        ({"license": None}, "license None"),
        ({"license": "other"}, "license_name"),
        ({"pipeline_tag": "image-text-matching"}, "pipeline_tag 'image-text-matching'"),
        ({"tags": ["scan", 8]}, "tags holds 8"),
        ({"tags": "scan"}, "tags is no list"),
        ({"datasets": ["a b"]}, "datasets 'a b'"),
        ({"base_model": "a/b/c"}, "base_model 'a/b/c'"),
        ({"language": "english"}, "language 'english'"),
        ({"library_name": 5}, "library_name 5"),
        ({"widget": [{"example_title": "nothing"}]}, r"widget\[0\]"),
        ({"model-index": {"name": "x"}}, "model-index is no list"),
        ({"model-index": [{"results": []}]}, r"model-index\[0\] has no name"),
        ({"model-index": [{"name": "x"}]}, "no list of results"),
        ({"model-index": index_with(task={})}, r"results\[0\] has no task.type"),
        ({"model-index": index_with(dataset={"type": "cub"})}, "no dataset.name"),
        ({"model-index": index_with(dataset={"type": "cub", "name": "CUB", "revision": 12})}, "revision 12"),
        ({"model-index": index_with(metrics=[])}, "no metrics"),
        ({"model-index": index_with(metrics=[{"value": 1.0}])}, r"metrics\[0\] has no type"),
        ({"model-index": index_with(metrics=[{"type": "fid", "value": float("nan")}])}, "value nan"),
    ],
)
def test_what_the_hub_would_refuse_is_refused_here(changes, named):
    with pytest.raises(HubError, match=named):
        check_card_metadata(card_with(**changes))


def test_what_the_hub_takes_is_taken():
    check_card_metadata(card_with())
    check_card_metadata(card_with(license="other", license_name="mine", widget=[{"text": "a bird"}], language=["en"]))
    check_card_metadata(card_with(**{"model-index": index_with(), "base_model": ["bert-base", "a/b"]}))


@pytest.mark.parametrize("text", ["# no metadata\n", "---\n- a list\n---\n", "---\na: [\n---\n"])
def test_text_without_metadata_is_refused(text):
    with pytest.raises(HubError, match="metadata"):
        check_card_metadata(text)


@pytest.mark.parametrize("repo_id", ["no-namespace", "a/b/c", "some one/x", "a/-x", "a/" + "x" * 100])
def test_what_is_no_repository_is_refused(repo_id):
    with pytest.raises(HubError):
        build_model_card(make_result("dot", 0), repo_id=repo_id)


def test_a_diverged_run_has_no_card():
    with pytest.raises(ResultsError, match="finite"):
        build_model_card(make_result("dot", 0, float("nan")))


# The cards of the repository


STUDY = [f"{part.parent.relative_to(ROOT)}/" for part in sorted(ROOT.glob("benchmarks/results/study/*/results.jsonl"))]


@pytest.mark.parametrize(("results", "folder"), [([], "model_cards"), (STUDY, "model_cards/study")])
def test_the_committed_cards_are_those_of_the_committed_results(results, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert cli.main(["cards", *results, "--output", str(tmp_path)]) == 0
    command = " ".join(["vl-alignment cards", "benchmarks/results/study/*/" * bool(results), "--output", folder])
    assert contents(tmp_path) == contents(ROOT / folder), f"run `{command}` and commit it"
    made = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.glob("*.md")}
    assert capsys.readouterr().out.startswith(f"{len(made) - 1} cards: ")
    for name, text in made.items():
        if name != "README.md":
            check_card_metadata(text)
            assert ModelCard(text).data.eval_results  # as the Hub's own client reads it
            assert f"]({name})" in made["README.md"]
            for picture in re.findall(r"\]\(([^)]*\.png)\)", text):
                assert (tmp_path / picture).is_file(), picture


def contents(folder):
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in files.items() if not name.startswith("study/")}


def test_folders_that_give_no_cards_are_refused(tmp_path):
    with pytest.raises(ResultsError, match="no finished runs"):
        write_model_cards([tmp_path], tmp_path / "cards")
    with pytest.raises(ResultsError, match="no folders"):
        write_model_cards([], tmp_path / "cards")
    for folder in ("one", "two"):
        write_run(tmp_path / folder)
    with pytest.raises(ResultsError, match="another of these folders"):
        write_model_cards([tmp_path / "one", tmp_path / "two"], tmp_path / "cards")
    assert not (tmp_path / "cards").exists()


def test_cards_of_runs_tell_their_settings(tmp_path):
    for seed in (1, 0):
        write_run(tmp_path / "runs", "mac", seed=seed)
    (tmp_path / "runs" / "controls.json").write_text(json.dumps([{"name": "chance", "metrics": {"accuracy": 30.0}}]))
    card, index = write_model_cards([tmp_path / "runs"], tmp_path / "cards")
    text = card.read_text(encoding="utf-8")
    assert yaml.safe_load(blocks_of(text, "yaml")[0])["training"] == SETTINGS
    assert "| Accuracy | 70.0 | 30.0 |" in text and "_chance_: not described" in text
    assert "70.0 ± 0.0 | 2 |" in index.read_text(encoding="utf-8")


@pytest.mark.parametrize("entry", ["license: [a]", "license: mit\npipeline_tag: {a: 1}", "license: mit\nlanguage: 7"])
def test_metadata_of_other_types_are_named(entry):
    with pytest.raises(HubError, match="would refuse"):
        check_card_metadata(f"---\n{entry}\n---\ntext\n")
