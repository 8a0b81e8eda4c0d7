"""Question answering at the command line: on blocks from scenes to pictures, and on a folder in CLEVR's layout."""

import json

import pytest
from PIL import Image
from tests.clevr_folder import IMAGE_SIZE, QUESTIONS, write_clevr, write_mac, write_resnet

from vl_alignment import cli
from vl_alignment.data.blocks import load_blocks
from vl_alignment.training.presets import get_preset

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is not all of CLEVR"),
    pytest.mark.usefixtures("no_bars_on_stderr"),
]

SIZES = {"train": 12, "validation": 6, "test": 6}
SMALL = ["--sizes", *(f"{split}={size}" for split, size in SIZES.items())]
TRAINING = ["--epochs", "1", "--batch-size", "4", "--questions-per-image", "10", "--decay-epochs", *SMALL]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    output = tmp_path_factory.mktemp("cli")
    command = ["compare", "--task", "vqa", "--output", str(output), "--functions", "general_query", "--seeds", "0"]
    assert cli.main([*command, "--no-controls", "--pictures", "1", *TRAINING]) == 0
    return output


@pytest.fixture(scope="module")
def trained(compared):
    return compared / "mac-blocks-general_query-seed0"


@pytest.fixture(scope="module")
def clevr(tmp_path_factory):
    """A folder with data, backbone and a model without one; the regions of the backbone on 2 x 2 and on 3 x 3 cells."""
    root = tmp_path_factory.mktemp("clevr")
    write_clevr(root / "data")
    write_resnet(root / "backbone")
    write_mac(root / "mac")
    for name, size in (("regions", IMAGE_SIZE), ("larger", 24)):
        command = ["extract-features", "--preset", "clevr", "--data-dir", str(root / "data"), "--stage", "stage2"]
        options = ["--backbone", str(root / "backbone"), "--image-size", str(size), "--output", str(root / name)]
        assert cli.main([*command, *options]) == 0
    cut = write_clevr(root / "cut") / "questions" / "CLEVR_train_questions.json"
    cut.write_bytes(cut.read_bytes()[:-30])
    Image.new("RGB", (12, 8), (40, 0, 99)).save(root / "picture.png")
    return root


def one_line(capsys):
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and error.startswith("vl-alignment: ")
    return error


def printed_metrics(capsys):
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("accuracy")}


def test_comparison_ends_with_its_report(compared, trained):
    result = json.loads((trained / "results.json").read_text())
    assert (result["task"], result["model"]) == ("question-answering", "mac")
    assert result["dataset"]["images"]["train"] == SIZES["train"]
    assert "data:image/webp" in (compared / "report.html").read_text()


def test_train_takes_the_finished_run_of_the_same_settings(compared, trained, capsys):
    function = ["--alignment-function", "general_query"]
    assert cli.main(["train", "--preset", "blocks-vqa", "--output", str(compared), *function, *TRAINING]) == 0
    metrics = json.loads((trained / "results.json").read_text())["metrics"]
    assert printed_metrics(capsys) == pytest.approx(metrics, abs=0.005)


def test_evaluate_gives_the_numbers_of_the_run(trained, capsys):
    assert cli.main(["evaluate", str(trained), *SMALL]) == 0
    metrics = json.loads((trained / "results.json").read_text())["metrics"]
    # From pixels, not from regions stored in half precision: a few of the nearly equal answers change.
    assert printed_metrics(capsys)["accuracy"] == pytest.approx(metrics["accuracy"], abs=3)


def test_predict_answers_and_draws_the_steps(trained, tmp_path, capsys):
    scenes = load_blocks(**SIZES)["test"]
    files = [str(tmp_path / f"{row}.png") for row in range(2)]
    for row, file in enumerate(files):
        scenes[row]["image"].save(file)
    questions = ["what is the colour of the zorblax?", "how many large metal balls are there?"]
    drawing = tmp_path / "steps.png"
    command = ["predict", str(trained), "--images", *files, "--question"]
    assert cli.main([*command, *questions, "--attention", str(drawing), "--json"]) == 0
    output = capsys.readouterr()
    rows = json.loads(output.out)
    assert [row["image"] for row in rows] == files
    for row in rows:
        assert [asked["question"] for asked in row["questions"]] == questions
        for asked in row["questions"]:
            probabilities = [best["probability"] for best in asked["answers"]]
            assert len(probabilities) == 3 and 1 >= probabilities[0] >= probabilities[1] >= probabilities[2] > 0
    assert rows[0]["questions"][0]["unknown_words"][-1] == "zorblax"
    assert "2 unknown words, read as <unk>: colour, zorblax" in output.err
    assert Image.open(drawing).height > 500  # a row a step
    # An answer depends neither on the other questions nor on the other pictures.
    assert cli.main([*command[:2], "--images", files[1], "--question", questions[0], "--json"]) == 0
    [alone] = json.loads(capsys.readouterr().out)
    for best, among_others in zip(alone["questions"][0]["answers"], rows[1]["questions"][0]["answers"], strict=True):
        assert best["answer"] == among_others["answer"]
        assert best["probability"] == pytest.approx(among_others["probability"], abs=1e-5)


def test_predict_prints_answers_below_their_question(trained, tmp_path, capsys):
    Image.new("RGB", (96, 96)).save(tmp_path / "scene.png")
    command = ["predict", str(trained), "--images", str(tmp_path / "scene.png"), "--question", "is there a ball?"]
    assert cli.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [str(tmp_path / "scene.png"), "  is there a ball?"] and len(lines) == 5
    assert all("%" in line for line in lines[2:])


def test_model_without_backbone_reads_stored_regions_and_pictures(clevr, capsys):
    data = ["--preset", "clevr", "--data-dir", str(clevr / "data"), "--regions", str(clevr / "regions")]
    assert cli.main(["evaluate", str(clevr / "mac"), *data]) == 0
    assert printed_metrics(capsys)["accuracy_query_attribute"] == 0
    command = ["predict", str(clevr / "mac"), "--images", str(clevr / "picture.png"), "--question", QUESTIONS[0][0]]
    backbone = ["--backbone", str(clevr / "backbone"), "--stage", "stage2", "--image-size", str(IMAGE_SIZE)]
    assert cli.main([*command, *backbone, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert {best["answer"] for best in row["questions"][0]["answers"]} == {"2", "yes"}
    assert row["questions"][0]["unknown_words"] == []


def test_dry_run_prints_the_plan(tmp_path, capsys):
    command = ["compare", "--task", "vqa", "--dry-run", "--output", str(tmp_path), "--seeds", "0", *SMALL]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert printed.count("would train") == 7 and "would train scaled_dot" in printed
    assert f"train: 12 pictures, {12 * get_preset('blocks-vqa')['data']['questions_per_image']} questions" in printed
    assert not list(tmp_path.iterdir())


VQA = ["--task", "vqa"]
CLEVR = ["--preset", "clevr", "--data-dir", "{clevr}/data"]
LARGER = ["--backbone", "{clevr}/backbone", "--stage", "stage2", "--image-size", "24"]
ASK = ["--images", "{clevr}/picture.png", "--question"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["compare", *VQA, "--preset", "flickr8k"], "'flickr8k' is for retrieval, not for --task vqa"),
        (["train", "--task", "retrieval", "--preset", "clevr"], "'clevr' is for question-answering"),
        (["train", *VQA, "--all-negatives-epochs", "2"], "--all-negatives-epochs is a setting of retrieval"),
        (["train", "--questions-per-image", "2"], "--questions-per-image is a setting of question-answering"),
        (["train", *VQA, "--questions-per-image", "0"], "questions_per_image"),
        (["compare", *VQA, "--functions", "dott"], "dott"),
        (["compare", "--preset", "clevr", "--data-dir", "{tmp}/nothing"], "{tmp}/nothing"),
        (["train", "--preset", "clevr", "--data-dir", "{clevr}/cut"], "CLEVR_train_questions.json"),
        (["train", *CLEVR, "--regions", "{tmp}"], "no region store here"),
        (["train", *CLEVR, "--extractor", "transformers"], "extractor 'transformers'"),
        (["extract-features", *CLEVR, *LARGER[:3], "stage9", "--output", "{tmp}/out"], "no stage 'stage9'"),
        (["extract-features", *CLEVR, "--extractor", "transformers", "--output", "{tmp}/out"], "'model'"),
        (["evaluate", "{clevr}/mac", *CLEVR, "--regions", "{clevr}/larger"], "9 cells a picture"),
        (["evaluate", "{clevr}/mac", *CLEVR], "give --regions made with 'transformers'"),
        (["evaluate", "{clevr}/mac", "--preset", "blocks"], "'blocks' is for retrieval"),
        (["evaluate", "{clevr}/mac", "--folds", "5"], "folds=5"),
        (["predict", "{clevr}/mac", *ASK, "what?", *LARGER], "9 cells a picture"),
        (["predict", "{clevr}/mac", *ASK, "what?"], "'model'"),
        (["predict", "{trained}", *ASK, "?"], "question '?' has no words"),
        (["predict", "{trained}", *ASK, "what?", *LARGER[:2]], "leave the extractor out"),
        (["predict", "{trained}", *ASK[:2], "--text", "a cube"], "give it questions (--question)"),
        (["predict", "{tmp}/nothing", *ASK, "what?"], "{tmp}/nothing"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(arguments, named, clevr, trained, tmp_path, capsys):
    capsys.readouterr()
    filled = [argument.format(tmp=tmp_path, clevr=clevr, trained=trained) for argument in arguments]
    if filled[0] in ("compare", "train"):
        filled += ["--output", str(tmp_path / "out")]
    assert cli.main(filled) == 2
    assert named.format(tmp=tmp_path) in one_line(capsys)
