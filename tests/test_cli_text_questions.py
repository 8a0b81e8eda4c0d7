"""Answering by reading at the command line: on blocks with words, from scenes to pictures, and on published data."""

import json
import re

import pytest
import torch
from PIL import Image
from tests.textvqa_folder import write_text_encoder, write_textvqa

from vl_alignment import cli
from vl_alignment.data.answer_vocabulary import SPECIAL_WORDS, read_answer_vocabulary, write_answer_vocabulary
from vl_alignment.data.blocks import load_blocks_text
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering
from vl_alignment.models.processing_m4c import M4CProcessor
from vl_alignment.training.preparation import cache_folder

pytestmark = pytest.mark.usefixtures("no_bars_on_stderr")

SIZES = {"train": 16, "validation": 4, "test": 4}
SMALL = ["--sizes", *(f"{split}={size}" for split, size in SIZES.items())]
TRAINING = ["--epochs", "1", "--batch-size", "8", "--questions-per-image", "1", "--decay-epochs", *SMALL]
RUN = "m4c-blocks_text-general_query-seed0"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    output = tmp_path_factory.mktemp("cli")
    command = ["compare", "--task", "textvqa", "--output", str(output), "--functions", "general_query", "--seeds", "0"]
    assert cli.main([*command, "--no-controls", "--pictures", "1", *TRAINING]) == 0
    return output


@pytest.fixture(scope="module")
def trained(compared):
    return compared / RUN


@pytest.fixture(scope="module")
def pictures(compared, tmp_path_factory):
    """Two test pictures as files, and the words that are printed in them."""
    folder = tmp_path_factory.mktemp("pictures")
    scenes = load_blocks_text(**SIZES, cache_dir=cache_folder() / "datasets").images["test"]
    for row in range(2):
        scenes[row]["image"].save(folder / f"{row}.png")
    given = [{"tokens": scenes[row]["ocr_tokens"], "boxes": scenes[row]["ocr_boxes"]} for row in range(2)]
    (folder / "words.json").write_text(json.dumps(given))
    return folder, given


@pytest.fixture(scope="module")
def copying(trained, tmp_path_factory):
    """The trained model, which says nothing yet, made to copy words from the picture."""
    folder = tmp_path_factory.mktemp("copying")
    model = M4CForQuestionAnswering.from_pretrained(trained / "model")
    with torch.no_grad():
        model.classifier.bias.fill_(-1000.0)
    model.save_pretrained(folder)
    M4CProcessor.from_pretrained(trained / "model").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def textvqa(tmp_path_factory):
    root = tmp_path_factory.mktemp("textvqa")
    write_textvqa(root / "data")
    write_text_encoder(root / "bert")
    return root


def one_line(capsys):
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and error.startswith("vl-alignment: ")
    return error


def printed_metrics(capsys):
    names = ("accuracy", "anls", "answer_ceiling", "best_accuracy", "copied_words")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {words[0]: float(words[1]) for words in lines if words[0].startswith(names)}


def test_comparison_ends_with_its_report(compared, trained):
    result = json.loads((trained / "results.json").read_text())
    assert (result["task"], result["model"]) == ("text-question-answering", "m4c")
    assert result["dataset"]["images"]["train"] == SIZES["train"] and result["dataset"]["ocr"] == {"source": "true"}
    assert "data:image/webp" in (compared / "report.html").read_text()


def test_train_takes_the_finished_run_and_prints_the_bounds_beside(compared, trained, capsys):
    function = ["--alignment-function", "general_query"]
    assert cli.main(["train", "--preset", "blocks-text", "--output", str(compared), *function, *TRAINING]) == 0
    result = json.loads((trained / "results.json").read_text())
    bounds = {name: result["dataset"][name] for name in ("answer_ceiling", "best_accuracy")}
    assert printed_metrics(capsys) == pytest.approx({**result["metrics"], **bounds}, abs=0.005)
    assert bounds["answer_ceiling"] >= 95 and bounds["best_accuracy"] <= bounds["answer_ceiling"]


def test_evaluate_gives_the_numbers_of_the_run(trained, capsys):
    assert cli.main(["evaluate", str(trained), *SMALL]) == 0
    result = json.loads((trained / "results.json").read_text())
    printed = printed_metrics(capsys)
    assert set(printed) == {*result["metrics"], "answer_ceiling", "best_accuracy"}
    # From pixels, not from regions stored in half precision: a few of the nearly equal answers change.
    assert printed["accuracy"] == pytest.approx(result["metrics"]["accuracy"], abs=5)
    assert printed["answer_ceiling"] == result["dataset"]["answer_ceiling"]


def test_evaluate_with_mistaken_and_with_read_words(copying, capsys):
    pytest.importorskip("rapidocr_onnxruntime")
    best = {}
    for source in (["true"], ["corrupted", "--character-error-rate", "0.4"], ["read"]):
        assert cli.main(["evaluate", str(copying), *SMALL, "--ocr", *source]) == 0
        printed = printed_metrics(capsys)
        assert printed["copied_words"] == 100 and printed["answer_ceiling"] >= 95
        best[source[0]] = printed["best_accuracy"]
    # What can be copied bounds what can be answered.
    assert best["true"] >= best["read"] > best["corrupted"]


def test_predict_names_the_source_of_every_word(copying, pictures, tmp_path, capsys):
    folder, given = pictures
    files = [str(folder / f"{row}.png") for row in range(2)]
    questions = ["what is written on the red cube?", "is it ∎?"]
    command = ["predict", str(copying), "--images", *files, "--question", *questions]
    drawing = tmp_path / "words.png"
    options = ["--ocr-tokens", str(folder / "words.json"), "--attention", str(drawing), "--json"]
    assert cli.main([*command, *options]) == 0
    output = capsys.readouterr()
    rows = json.loads(output.out)
    assert [row["image"] for row in rows] == files and Image.open(drawing).height > 200
    assert "1 unknown word, read as <unk>: ∎" in output.err
    for row, words in zip(rows, given, strict=True):
        assert [token["word"] for token in row["tokens"]] == words["tokens"]
        for token, box in zip(row["tokens"], words["boxes"], strict=True):
            assert token["box"] == pytest.approx(box, abs=1e-4)
        assert [asked["question"] for asked in row["questions"]] == questions
        for asked in row["questions"]:
            assert asked["answer"] == " ".join(word["word"] for word in asked["words"]) and len(asked["words"]) == 4
            for word in asked["words"]:
                token = row["tokens"][word["token"]]
                assert word == {"source": "ocr", **token}
    # An answer depends neither on the other questions nor on the other pictures.
    alone = ["--images", files[1], "--question", questions[0], "--ocr-tokens", str(tmp_path / "one.json"), "--json"]
    (tmp_path / "one.json").write_text(json.dumps(given[1]))
    assert cli.main([*command[:2], *alone]) == 0
    assert json.loads(capsys.readouterr().out)[0]["questions"] == rows[1]["questions"][:1]


def test_predict_reads_the_picture_and_prints_words_below_their_question(copying, trained, pictures, tmp_path, capsys):
    pytest.importorskip("rapidocr_onnxruntime")
    folder, given = pictures
    command = ["--images", str(folder / "0.png"), "--question", "what is written?"]
    assert cli.main(["predict", str(copying), *command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(folder / "0.png") and lines[2] == "  what is written?" and len(lines) == 8
    found = dict(token.split(" ") for token in lines[1].removeprefix("  words in the picture: ").split(", "))
    assert {word.lower() for word in found.values()} & {word.lower() for word in given[0]["tokens"]}
    for line in lines[4:]:
        word, number = re.fullmatch(r"      (\S+): OCR token (\d+) at \[0\.[0-9., ]+\]", line).groups()
        assert found[number] == word
    Image.new("RGB", (256, 256)).save(tmp_path / "empty.png")
    nothing = ["--images", str(tmp_path / "empty.png"), "--question", "what is written?"]
    assert cli.main(["predict", str(trained), *nothing]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  words in the picture: none" and all("vocabulary" in line for line in lines[4:])


def test_vocabulary_is_built_and_trained_with(compared, tmp_path, capsys):
    file = tmp_path / "answers.txt"
    assert cli.main(["build-vocabulary", "--size", "12", "--output", str(file), *SMALL]) == 0
    assert capsys.readouterr().out == f"12 words: {file}\n"
    words = read_answer_vocabulary(file)
    assert len(words) == 12 and "yes" in words
    content = file.read_bytes()
    assert cli.main(["build-vocabulary", "--size", "12", "--output", str(file), *SMALL]) == 0
    assert file.read_bytes() == content
    write_answer_vocabulary([*words, "octarine"], file)
    command = ["train", "--task", "textvqa", "--output", str(tmp_path), "--answer-vocabulary", str(file), *TRAINING]
    assert cli.main([*command, "--alignment-function", "dot"]) == 0
    model = M4CForQuestionAnswering.from_pretrained(tmp_path / RUN.replace("general_query", "dot") / "model")
    assert [*model.config.id2label.values()] == [*words, "octarine"]


def test_vocabulary_of_published_answers(textvqa, tmp_path, capsys):
    file = tmp_path / "answers.txt"
    published = ["build-vocabulary", "--data-dir", str(textvqa / "data"), "--output", str(file)]
    assert cli.main([*published, "--dataset", "textvqa"]) == 0
    assert read_answer_vocabulary(file) == [*SPECIAL_WORDS, "go", "stop", "now"]
    (textvqa / "data" / "train_task_3.json").write_text(
        json.dumps({"data": [{"question": "What?", "file_path": "a.jpg", "question_id": 1, "answers": ["two words"]}]})
    )
    assert cli.main([*published, "--dataset", "stvqa"]) == 0
    assert read_answer_vocabulary(file) == [*SPECIAL_WORDS, "two", "words"]


def test_dry_run_prints_the_plan(tmp_path, capsys):
    command = ["compare", "--task", "textvqa", "--dry-run", "--output", str(tmp_path), "--seeds", "0", *SMALL]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "would train scaled_dot, seed 0" in printed and "train: 16 pictures, 96 questions" in printed
    assert not list(tmp_path.iterdir())


TEXT = ["--task", "textvqa"]
PUBLISHED = ["--preset", "textvqa", "--data-dir", "{textvqa}/data"]
ASK = ["--images", "{pictures}/0.png", "--question"]
WORDS = ["--ocr-tokens", "{tmp}/words.json"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ["compare", *TEXT, "--preset", "blocks-vqa"],
            "'blocks-vqa' is for question-answering, not for --task textvqa",
        ),
        (["train", *TEXT, "--all-negatives-epochs", "2"], "--all-negatives-epochs is a setting of retrieval"),
        (["train", "--ocr", "read"], "--ocr is a setting of text-question-answering, not of retrieval"),
        (["train", *TEXT, "--ocr", "corrupted", "--character-error-rate", "2"], "character_error_rate=2"),
        (["train", *TEXT, "--character-error-rate", "0.1"], "does not go with ocr='true'"),
        (["train", *TEXT, "--ocr", "read", "--reader", "nobody"], "unknown text reader 'nobody'"),
        (["train", *TEXT, "--answer-vocabulary", "{tmp}/nothing.txt"], "make it with build-vocabulary"),
        (["train", *TEXT, "--fasttext", "{tmp}/nothing.bin"], "{tmp}/nothing.bin"),
        (["train", *PUBLISHED, "--ocr", "true"], "only the built-in pictures with words"),
        (["train", *PUBLISHED, "--text-encoder", "{tmp}/nothing"], "{tmp}/nothing"),
        (["train", *PUBLISHED, "--text-encoder", "{textvqa}/bert"], "has no images, only features"),
        (["train", "--preset", "textvqa", "--data-dir", "{tmp}/nothing"], "{tmp}/nothing"),
        (["build-vocabulary", "--dataset", "vqa2", "--output", "{tmp}/v.txt"], "unknown data set 'vqa2'"),
        (["build-vocabulary", "--size", "4", "--output", "{tmp}/v.txt", *SMALL], "leaves no room for a word"),
        (["build-vocabulary", "--output", "{tmp}/words.json/v.txt", *SMALL], "{tmp}/words.json/v.txt"),
        (["evaluate", "{trained}", "--folds", "5"], "folds=5"),
        (["evaluate", "{trained}", "--preset", "blocks"], "'blocks' is for retrieval"),
        (["evaluate", "{trained}", "--ocr", "read", "--character-error-rate", "0.1"], "does not go with ocr='read'"),
        (["evaluate", "{trained}", *SMALL, "--fasttext", "{tmp}/two.vec"], "'fasttext:two' of size 2"),
        (["predict", "{trained}", *ASK, "?", *WORDS], "question '?' has no words"),
        (["predict", "{trained}", *ASK, "what?", "--ocr-tokens", "{tmp}/two.vec"], "no text of pictures can be read"),
        (["predict", "{trained}", *ASK, "what?", "--ocr-tokens", "{tmp}/three.json"], "text of 3 pictures for 1"),
        (["predict", "{trained}", *ASK, "what?", "--ocr", "nobody"], "unknown text reader 'nobody'"),
        (["predict", "{trained}", *ASK[:2], "--text", "a cube"], "give it questions (--question)"),
        (["predict", "{trained}", *ASK[:2], "--text", "a cube", *WORDS], "--ocr-tokens is for questions"),
        (["predict", "{trained}", "--images", "{tmp}/words.json", "--question", "what?", *WORDS], "cannot be read"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(arguments, named, trained, textvqa, pictures, tmp_path, capsys):
    (tmp_path / "words.json").write_text('{"tokens": ["stop"], "boxes": [[0.1, 0.1, 0.2, 0.2]]}')
    (tmp_path / "three.json").write_text('[{"tokens": []}, {"tokens": []}, {"tokens": []}]')
    (tmp_path / "two.vec").write_text("stop 1 2\ngo 3 4\n")
    capsys.readouterr()
    places = {"tmp": tmp_path, "textvqa": textvqa, "trained": trained, "pictures": pictures[0]}
    filled = [argument.format(**places) for argument in arguments]
    if filled[0] in ("compare", "train"):
        filled += ["--output", str(tmp_path / "out")]
    assert cli.main(filled) == 2
    assert named.format(**places) in one_line(capsys)
