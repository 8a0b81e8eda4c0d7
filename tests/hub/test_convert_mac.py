"""The PyTorch MAC's checkpoints: every golden model, written as published and converted, gives the golden answers."""

import json

import pytest
import torch
from safetensors.torch import load_file

from vl_alignment import MacForQuestionAnswering, MacProcessor
from vl_alignment.hub.convert import convert_checkpoint
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError

from .published_files import golden_weights, write_pickle, write_weights

pytestmark = pytest.mark.golden
GRID = {"grid_size": 5}


@pytest.fixture(scope="module")
def root(golden_root):
    return golden_root / "mac"


@pytest.fixture(scope="module")
def base(root):
    return load_file(root / "pytorch_base.safetensors")


@pytest.fixture
def checkpoint(root, tmp_path):
    """The plain model, as published."""
    return write_weights(tmp_path / "checkpoint_20.model", golden_weights(root / "pytorch_base.safetensors"))


@pytest.mark.parametrize("case", ["plain", "self_attention", "memory_gate", "self_attention_memory_gate"])
def test_golden_case(root, base, tmp_path, case):
    files = root / "pytorch_base.safetensors", root / f"pytorch_{case}.safetensors"
    path = write_weights(tmp_path / "checkpoint_20.model", golden_weights(*files), prefix="module." * ("gate" in case))
    record = convert_checkpoint([path], tmp_path / "model", alignment_function="dot", fields=GRID)
    question, expected = base["input.question"], load_file(files[1])
    with torch.no_grad():
        output = MacForQuestionAnswering.from_pretrained(tmp_path / "model")(
            input_ids=question,
            attention_mask=torch.arange(question.shape[1]) < base["input.question_len"].unsqueeze(1),
            region_features=base["input.image"].flatten(2).transpose(1, 2),
            output_attentions=True,
        )
    torch.testing.assert_close(output.logits, expected["eval.logits"], rtol=0, atol=2e-5)
    for step in range(4):
        attended = expected[f"eval.step{step}.attention_kb"]
        torch.testing.assert_close(output.image_attentions[:, step], attended, rtol=0, atol=2e-5)
    left = record["sources"][0]["left"]
    assert set(left) == {name for name in golden_weights(*files) if name.endswith(".attn.bias")}
    assert set(left.values()) == {"one number for all scores, which the softmax cancels"}


def test_vocabularies_become_the_tokenizer_and_the_answers(checkpoint, tmp_path):
    words = ["Is", "there", "a", "ball", "?", *(f"word{n}" for n in range(19))]
    answers = ["yes", "no", *(str(n) for n in range(7))]
    content = {
        "word_dic": {word: number for number, word in enumerate(words, start=1)},
        "answer_dic": {word: number for number, word in enumerate(answers)},
    }
    dictionary = write_pickle(tmp_path / "dic.pkl", content)
    convert_checkpoint([checkpoint], tmp_path / "model", alignment_function="dot", vocabulary=dictionary, fields=GRID)
    processor = MacProcessor.from_pretrained(tmp_path / "model")
    assert processor(text=["Is there a ball?"])["input_ids"].tolist() == [[1, 2, 3, 4, 5]]
    with pytest.raises(DataError, match="question 'Is there a cow\\?' has a word that the vocabulary lacks"):
        processor(text=["Is there a ball?", "Is there a cow?"])
    model = MacForQuestionAnswering.from_pretrained(tmp_path / "model")
    assert model.answer_words(torch.eye(9)) == answers
    write_pickle(dictionary, {**content, "answer_dic": {"yes": 0}})
    with pytest.raises(DataError, match="dic.pkl: the vocabulary has 1 answers, the checkpoint's classifier 9"):
        convert_checkpoint(
            [checkpoint], tmp_path / "other", alignment_function="dot", vocabulary=dictionary, fields=GRID
        )


def test_functions_that_the_weights_are_not_of(checkpoint, tmp_path):
    with pytest.raises(ConfigurationError, match="give --alignment-function"):
        convert_checkpoint([checkpoint], tmp_path / "model", fields=GRID)
    with pytest.raises(CheckpointError, match="checkpoint_20.model: lacks .*score.alignment.weight"):
        convert_checkpoint([checkpoint], tmp_path / "model", alignment_function="general_key", fields=GRID)
    with pytest.raises(ConfigurationError, match="released_layout"):
        convert_checkpoint([checkpoint], tmp_path / "model", alignment_function="dot", released_layout=True)


def test_conversion_json_of_a_later_run_replaces_the_earlier(checkpoint, tmp_path):
    for function in ("dot", "scaled_dot"):
        convert_checkpoint([checkpoint], tmp_path / "model", alignment_function=function, fields=GRID)
    assert json.loads((tmp_path / "model" / "conversion.json").read_text())["alignment_function"] == "scaled_dot"
    assert MacForQuestionAnswering.from_pretrained(tmp_path / "model").config.alignment_function == "scaled_dot"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
