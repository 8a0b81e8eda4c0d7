import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from vl_alignment import cli
from vl_alignment.data.blocks import load_blocks
from vl_alignment.models.configuration_mac import MacConfig

SIZES = {"train": 16, "validation": 12, "test": 12}
SMALL = ["--epochs", "1", "--batch-size", "8", "--all-negatives-epochs", "1", "--decay-epochs", "--sizes"]
SMALL += [f"{split}={size}" for split, size in SIZES.items()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    output = tmp_path_factory.mktemp("cli")
    assert cli.main(["train", "--output", str(output), "--alignment-function", "general_query", *SMALL]) == 0
    return output / "scan-blocks-general_query-seed0"


def one_line(capsys):
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and error.startswith("vl-alignment: ")
    return error


def test_train_leaves_a_finished_run(trained):
    assert json.loads((trained / "results.json").read_text())["alignment_function"] == "general_query"
    assert (trained / "predictions.parquet").exists()


def test_evaluate_gives_the_numbers_of_the_run(trained, capsys):
    command = ["evaluate", str(trained), "--sizes", *SMALL[-3:]]
    assert cli.main(command) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    metrics = json.loads((trained / "results.json").read_text())["metrics"]
    assert float(printed["rsum"]) == pytest.approx(metrics["rsum"], abs=0.5)  # from pixels, not from stored regions


def test_predict_ranks_captions_and_draws(trained, tmp_path, capsys):
    scene = load_blocks(**SIZES)["test"][0]
    scene["image"].save(tmp_path / "scene.png")
    command = ["predict", str(trained), "--images", str(tmp_path / "scene.png"), "--json"]
    drawing = tmp_path / "attention.png"
    assert cli.main([*command, "--text", *scene["captions"][:3], "--attention", str(drawing)]) == 0
    [row] = json.loads(capsys.readouterr().out)
    scores = [caption["score"] for caption in row["captions"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    assert Image.open(drawing).width > 100


def test_several_models_are_asked_the_same_and_drawn_one_above_the_other(trained, tmp_path, capsys):
    load_blocks(**SIZES)["test"][0]["image"].save(tmp_path / "scene.png")
    asked = ["--images", str(tmp_path / "scene.png"), "--text", "a red cube", "two balls"]
    files = [tmp_path / "one.png", tmp_path / "two.png"]
    assert cli.main(["predict", str(trained), *asked, "--attention", str(files[0]), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    models = [str(trained), str(trained / "model")]
    assert cli.main(["predict", *models, *asked, "--attention", str(files[1]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"model": model, "predictions": alone} for model in models]
    one, two = (Image.open(file).size for file in files)
    assert two[1] > 2 * one[1] and two[0] >= one[0]
    assert cli.main(["predict", *models, *asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(":")] == [f"{model}:" for model in models]


@pytest.mark.parametrize(("name", "message"), [("two.jpg", "must end in .png"), ("no/two.png", "there is no folder")])
def test_a_file_that_cannot_hold_the_drawings_is_refused_first(trained, tmp_path, capsys, name, message):
    asked = ["--images", "none.png", "--text", "a red cube", "--attention", str(tmp_path / name)]
    assert cli.main(["predict", str(trained), str(trained), *asked]) == 2
    assert message in capsys.readouterr().err


def test_models_of_several_tasks_are_not_asked_together(trained, tmp_path, capsys):
    MacConfig(vocab_size=5).save_pretrained(tmp_path / "mac")
    assert cli.main(["predict", str(trained), str(tmp_path / "mac"), "--images", "scene.png", "--text", "a cube"]) == 2
    error = capsys.readouterr().err
    assert "for several tasks" in error and "mac question-answering" in error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["compare", "--functions", "dott"], "dott"),
        (["train", "--alignment-function", "dott"], "dott"),
        (["compare", "--preset", "flickr8k", "--data-dir", "{tmp}/nothing"], "nothing"),
        (["train", "--epochs", "0"], "epochs"),
        (["evaluate", "{tmp}/nothing"], "nothing"),
        (["evaluate", "{trained}", "--split", "tset", "--sizes", *SMALL[-3:]], "tset"),
        (["evaluate", "{trained}", "--sizes", "tset=3"], "tset"),
        (["predict", "{trained}", "--images", "{tmp}/cut.png", "--text", "a cube"], "cut.png"),
        (["predict", "{trained}", "--images", "{tmp}/whole.png", "--text", "..."], "no words"),
        (["predict", "{trained}", "--images", "{tmp}/whole.png", "--question", "what?"], "give it captions (--text)"),
        (["extract-features", "--extractor", "resnet", "--output", "{tmp}/store", "--data-dir", "{tmp}"], "{tmp}"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(arguments, named, trained, tmp_path, capsys):
    Image.new("RGB", (96, 96)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    capsys.readouterr()
    filled = [argument.format(tmp=tmp_path, trained=trained) for argument in arguments]
    if filled[0] in ("compare", "train"):
        filled += ["--output", str(tmp_path / "out")]
    assert cli.main(filled) == 2
    assert named.format(tmp=tmp_path) in one_line(capsys)


def test_unwritable_output_is_refused_before_anything_else(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["train", "--output", str(tmp_path / "file" / "runs")]) == 2
    assert "file" in one_line(capsys)


def test_debug_shows_the_traceback(tmp_path, capsys):
    assert cli.main(["train", "--debug", "--alignment-function", "dott", "--output", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and "ConfigurationError" in shown and "dott" in shown.splitlines()[-1]


def test_fault_of_ours_is_exit_status_1(monkeypatch, capsys):
    def broken():
        raise RuntimeError("broken")

    monkeypatch.setattr("vl_alignment.training.preparation.cache_folder", broken)
    assert cli.main(["env"]) == 1
    assert "fault of ours" in one_line(capsys)


def test_dry_run_trains_nothing(tmp_path, capsys):
    assert cli.main(["compare", "--dry-run", "--output", str(tmp_path), "--seeds", "0", *SMALL[-4:]]) == 0
    assert capsys.readouterr().out.count("would train") == 8
    assert not list(tmp_path.iterdir())


def test_env_names_versions_and_devices(capsys):
    assert cli.main(["env"]) == 0
    printed = capsys.readouterr().out
    for name in ("torch", "transformers", "datasets", "processor", "cache"):
        assert f"{name}: " in printed


def test_interrupted_comparison_goes_on(tmp_path):
    command = [sys.executable, "-m", "vl_alignment.cli", "train", "--output", str(tmp_path), *SMALL, "--epochs", "200"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))
    history = tmp_path / "scan-blocks-general_key-seed0" / "history.jsonl"
    until = time.monotonic() + 120
    while not history.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error.decode()[-500:]
    assert list((tmp_path / "scan-blocks-general_key-seed0" / "checkpoints").glob("epoch-*"))
