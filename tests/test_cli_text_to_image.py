"""Pictures from words at the command line: trained on a few blocks scenes, drawn from one's own captions, measured."""

import json

import pytest
from PIL import Image
from tests.training.pictures import SIZES

from vl_alignment import cli

pytestmark = pytest.mark.usefixtures("no_bars_on_stderr")

SMALL = ["--sizes", *(f"{split}={size}" for split, size in SIZES.items()), "--damsm-epochs", "1"]
RUN = "attngan-blocks-general_key-seed0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the preset as it is but for the number of pictures and epochs."""
    output = tmp_path_factory.mktemp("cli")
    command = ["train", "--task", "text-to-image", "--output", str(output), "--epochs", "1", "--batch-size", "8"]
    assert cli.main([*command, *SMALL, "--device", "cpu"]) == 0
    return output / RUN


def test_train_prints_what_was_reached_and_what_it_is_held_against(trained, capsys):
    output = str(trained.parent)
    command = ["train", "--preset", "blocks-t2i", "--output", output, "--epochs", "1", "--batch-size", "8", *SMALL]
    assert cli.main([*command, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    for name in ("r_precision", "feature_distance", "untrained_feature_distance", "real_attribute_accuracy"):
        assert name in printed
    assert printed.splitlines()[-1] == f"model: {trained / 'model'}"


def test_dry_run_prints_the_plan(trained, tmp_path, capsys):
    command = ["compare", "--task", "text-to-image", "--output", str(tmp_path), "--functions", "dot", "--seeds", "0"]
    assert cli.main([*command, *SMALL, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "blocks, text-to-image\n" in printed and "train: 16 pictures" in printed
    assert f"would train dot, seed 0, below {tmp_path}" in printed and not list(tmp_path.iterdir())


def test_a_picture_of_one_s_own_caption_in_one_line(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["predict", str(trained), "--text", "a small red ball"]) == 0
    assert capsys.readouterr().out == "a small red ball: 4 pictures in row 1 of drawn.png\n"
    assert Image.open("drawn.png").size == (4 * 66 + 2, 66 + 2)


def test_drawings_of_several_models_stand_one_above_the_other(trained, tmp_path, capsys):
    files = {name: tmp_path / f"{name}.png" for name in ("output", "attention")}
    command = ["predict", str(trained), str(trained / "model"), "--text", "a red ball", "--num-images", "2"]
    assert cli.main([*command, *(word for name, file in files.items() for word in (f"--{name}", str(file)))]) == 0
    assert capsys.readouterr().out.count(f"2 pictures in row 1 of {files['output']}") == 2
    assert Image.open(files["output"]).height > 2 * 68 and Image.open(files["attention"]).height > 300


def test_pictures_follow_from_the_seed_alone(trained, tmp_path, capsys):
    files = [tmp_path / name for name in ("first.png", "again.png", "other.png")]
    for file, seed in zip(files, ("3", "3", "4"), strict=True):
        command = ["predict", str(trained), "--text", "a red ball", "two blue cubes", "--num-images", "2"]
        assert cli.main([*command, "--seed", seed, "--output", str(file)]) == 0
    first, again, other = (Image.open(file).tobytes() for file in files)
    assert first == again != other


def test_words_it_does_not_know_are_told_and_stages_drawn(trained, tmp_path, capsys):
    drawn = tmp_path / "stages.png"
    command = ["predict", str(trained), "--text", "a red zeppelin", "--output", str(tmp_path / "drawn.png"), "--json"]
    assert cli.main([*command, "--attention", str(drawn)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)[0]["unknown_words"] == ["zeppelin"] and "zeppelin" in printed.err
    assert Image.open(drawn).width > 300


def test_evaluate_repeats_the_results(trained, capsys):
    result = json.loads((trained / "results.json").read_text())
    assert cli.main(["evaluate", str(trained), *SMALL, "--device", "cpu"]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(printed["r_precision"]) == pytest.approx(result["metrics"]["r_precision"], abs=0.01)
    assert float(printed["real_attribute_accuracy"]) == pytest.approx(
        result["bounds"]["real_attribute_accuracy"], abs=0.01
    )


def test_another_damsm_than_that_of_training_is_refused(trained, capsys):
    assert cli.main(["evaluate", str(trained), *SMALL[:-1], "2", "--device", "cpu"]) == 2
    assert "another DAMSM" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "zeppelin nine"], "no word of the vocabulary"),
        (["--text", "a red ball", "--images", "scene.png"], "--images: the model draws"),
        (["--question", "what is red?"], "--question: the model draws"),
        (["--text", "a red ball", "--output", "drawn.jpg"], "must end in .png"),
        (["--text", "a red ball", "--num-images", "0"], "num_images is 0"),
    ],
)
def test_wrong_input_is_one_line(trained, tmp_path, monkeypatch, arguments, message, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["predict", str(trained), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "blocks", "--matching-weight", "2"], "--matching-weight is a setting of text-to-image"),
        (["--preset", "blocks-t2i", "--regions", "store"], "leave regions and extractor out"),
        (["--preset", "blocks-t2i", "--dataset", "birds"], "unknown data set 'birds'"),
        (["--preset", "cub", "--task", "retrieval"], "is for text-to-image"),
    ],
)
def test_options_that_do_not_fit(tmp_path, arguments, message, capsys):
    assert cli.main(["train", "--output", str(tmp_path / "out"), *arguments, *SMALL[:4]]) == 2
    assert message in capsys.readouterr().err
