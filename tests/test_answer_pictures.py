"""The example that answers questions about photographs, on pictures made here and with a reader that knows them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ResNetConfig

from vl_alignment.data import text_recognition
from vl_alignment.data.text_recognition import RecognizedText
from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models.configuration_m4c import M4CConfig
from vl_alignment.models.hashed_word_vectors import HashedWordVectors
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering
from vl_alignment.models.processing_base import SquareImageProcessorPil
from vl_alignment.models.processing_m4c import M4CProcessor

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "answer_pictures.py"
QUESTIONS = ["what does the sign say?", "which word is red?"]


class RedReader:
    """Reads "stop" and "go" in red pictures and nothing in others."""

    name, version = "red", "1"
    pictures = 0

    def read(self, image):
        RedReader.pictures += 1
        if image.getpixel((0, 0))[0] < 100:
            return RecognizedText([], np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
        return RecognizedText(["stop", "go"], boxes, np.array([0.75, 0.5], np.float32))


@pytest.fixture
def example(monkeypatch):
    monkeypatch.setattr(text_recognition, "_FACTORIES", {"red": RedReader})
    monkeypatch.setattr(RedReader, "pictures", 0)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    specification = importlib.util.spec_from_file_location("answer_pictures", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def arguments(tmp_path):
    records = []
    for number, (name, colour) in enumerate({"a/red.png": (200, 0, 0), "a/blue.png": (0, 0, 200)}.items()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), colour).save(tmp_path / name)
        for question in QUESTIONS[: 2 - number]:
            records.append({"question_id": len(records), "question": question, "file_path": name})
    records.append({"question_id": 9, "question": QUESTIONS[0], "file_path": "a/none.png"})
    (tmp_path / "questions.json").write_text(json.dumps({"questions": records}))
    folders = {"--questions": tmp_path / "questions.json", "--images": tmp_path, "--output": tmp_path / "out"}
    return [str(part) for pair in folders.items() for part in pair] + ["--reader", "red"]


def save_model(folder):
    tokenizer = build_word_tokenizer(QUESTIONS, minimum_count=1)
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = M4CConfig(
        text_config={"model_type": "bert", "vocab_size": len(tokenizer), **text},
        vision_config=ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic"),
        **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
        **{"num_labels": 6, "word_vector_size": 12, "num_decoding_steps": 2},
    )
    model = M4CForQuestionAnswering(config)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([-100.0] * 5 + [-50]))  # copies where it can, else says LABEL_5
    model.save_pretrained(folder)
    image_processor = SquareImageProcessorPil(size={"height": 16, "width": 16})
    M4CProcessor(image_processor, tokenizer, HashedWordVectors(12)).save_pretrained(folder)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "pictures.jsonl").read_text().splitlines()]


def test_answers_with_sources_and_a_summary(example, arguments, tmp_path, capsys):
    save_model(tmp_path / "model")
    assert example.main([*arguments, "--model", str(tmp_path / "model")]) == 0
    settings, red, blue, missing = lines_of(tmp_path / "out")
    assert red["tokens"] == ["stop", "go"] and red["size"] == [30, 20] and len(red["answers"]) == 2
    for word in (word for answer in red["answers"] for word in answer["words"]):
        assert word["source"] == "ocr" and red["tokens"][word["token"]] == word["word"]
        assert red["boxes"][word["token"]] == word["box"]
    assert blue["tokens"] == []
    assert blue["answers"][0]["words"] == [{"word": "LABEL_5", "source": "vocabulary"}] * 2
    assert blue["answers"][0]["answer"] == "LABEL_5 LABEL_5" and blue["answers"][0]["question_id"] == 2
    assert "cannot be read" in missing["failure"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["pictures"], summary["failures"], summary["pictures_with_text"]) == (3, 1, 1)
    assert summary["words_from"] == {"vocabulary": 2, "ocr": 4} and summary["answers_with_a_copied_word"] == 2
    save_model(tmp_path / "model")  # with other weights
    assert example.main([*arguments, "--model", str(tmp_path / "model")]) == 2
    assert "a run with other settings" in capsys.readouterr().err
    assert summary["tokens_a_picture"] == {"mean": 1.0, "median": 1.0, "most": 2}


def test_it_goes_on_where_it_stopped(example, arguments, tmp_path):
    assert example.main(arguments) == 0
    path = tmp_path / "out" / "pictures.jsonl"
    before = path.read_text().splitlines()
    # Killed in the middle of the second picture's line; the missing picture has come in the meantime.
    path.write_text("\n".join([*before[:2], before[2][:20]]))
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "none.png")
    RedReader.pictures = 0
    assert example.main(arguments) == 0
    assert RedReader.pictures == 2
    after = lines_of(tmp_path / "out")
    assert after[1] == json.loads(before[1]) and [line["file_path"] for line in after[2:]] == [
        "a/blue.png",
        "a/none.png",
    ]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["failures"] == 0


def test_wrong_input_is_one_line(example, arguments, tmp_path, capsys):
    assert example.main(arguments) == 0
    (tmp_path / "questions.json").write_text("[]")
    assert example.main(arguments) == 2
    assert "questions.json: no questions can be read" in capsys.readouterr().err
    assert example.main([*arguments, "--model", str(tmp_path / "nothing")]) == 2
