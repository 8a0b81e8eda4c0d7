"""M4C's checkpoints: the golden models, written as the study and as MMF publish, give the golden scores."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.models.m4c_golden import golden_inputs
from tests.models.test_m4c_golden import OPTIONS, assert_embeds, close_scores

from vl_alignment import M4CForQuestionAnswering, M4CProcessor
from vl_alignment.data.answer_vocabulary import write_answer_vocabulary
from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.hub.convert import convert_checkpoint
from vl_alignment.hub.convert_m4c import M4C_FUNCTIONS
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError

from .published_files import golden_weights, write_weights

pytestmark = pytest.mark.golden
HEADS = {"text_config": {"num_attention_heads": 4}}


@pytest.fixture(scope="module")
def root(golden_root):
    return golden_root / "m4c"


@pytest.fixture(scope="module")
def inputs(root):
    return golden_inputs(load_file(root / "inputs.safetensors"))


@pytest.fixture(scope="module")
def weights(root):
    return golden_weights(root / "weights.safetensors")


def scores(folder, inputs):
    with torch.no_grad():
        return M4CForQuestionAnswering.from_pretrained(folder)(**inputs).logits


def write_study(path, weights):
    """`best_model.tar`; the optimizer's state lies beside."""
    return write_weights(path, weights, optimizer_state_dict={"state": {}, "param_groups": [{"lr": 1e-4}]}, epoch_id=3)


@pytest.mark.parametrize("variant", M4C_FUNCTIONS)
def test_golden_variant(root, inputs, weights, tmp_path, variant):
    path = write_study(tmp_path / "best_model.tar", weights)
    record = convert_checkpoint(
        [path],
        tmp_path / "model",
        alignment_function=M4C_FUNCTIONS[variant],
        released_layout="kwq" in variant,
        fields=HEADS,
    )
    expected = load_file(root / f"{variant}.safetensors")["train.scores"]
    close_scores(scores(tmp_path / "model", inputs), expected, inputs["ocr_mask"])
    left = record["sources"][0]["left"]
    unused = {"scaled": ["weight", "bias"], "dot": ["weight", "bias"], "general_qwk": ["bias"], "general_kwq": ["bias"]}
    kinds = unused.get(variant, [])
    assert set(left) == {f"mmt.encoder.normal_layers.{n}.attention.self.W.{kind}" for n in (0, 1) for kind in kinds}


@pytest.mark.parametrize("variant", OPTIONS)
def test_golden_option(root, inputs, weights, tmp_path, variant):
    """Sizes are seen in the weights; only what leaves no trace in them is a field."""
    published = weights | golden_weights(root / f"{variant}.safetensors")
    if variant == "scaled__text_width_equals_hidden":
        published = {name: tensor for name, tensor in published.items() if "text_bert_out_linear" not in name}
    fields = {**HEADS, "num_attention_heads": 4, "normalize_features": "no_normalize" not in variant}
    path = write_study(tmp_path / "best_model.tar", published)
    convert_checkpoint([path], tmp_path / "model", alignment_function="scaled_dot", fields=fields)
    if variant == "scaled__no_phoc_fasttext":
        inputs = {name: tensor for name, tensor in inputs.items() if name not in ("ocr_word_vectors", "ocr_phoc")}
    expected = load_file(root / f"{variant}.safetensors")
    close_scores(scores(tmp_path / "model", inputs), expected["train.scores"], inputs["ocr_mask"])
    assert_embeds(M4CForQuestionAnswering.from_pretrained(tmp_path / "model"), inputs, expected)


def as_mmf(weights):
    """The same weights under MMF's names, with a last layer of the detector of its own, which here changes nothing."""
    renamed = {
        name.replace("mmt.encoder.normal_layers.", "mmt.encoder.layer.").replace("classifier.", "classifier.module."): (
            tensor
        )
        for name, tensor in weights.items()
        if ".attention.self.W." not in name
    }
    for kind, size in (("obj", 20), ("ocr", 16)):
        renamed[f"{kind}_faster_rcnn_fc7.lc.weight"] = torch.eye(size)
        renamed[f"{kind}_faster_rcnn_fc7.lc.bias"] = torch.zeros(size)
    renamed["text_bert.embeddings.position_ids"] = torch.arange(32).unsqueeze(0)
    return renamed


def test_names_of_mmf(root, inputs, weights, tmp_path):
    path = write_weights(tmp_path / "m4c.pth", as_mmf(weights), prefix="model.")
    fields = {**HEADS, "num_attention_heads": 4}
    record = convert_checkpoint([path], tmp_path / "model", alignment_function="scaled_dot", fields=fields)
    assert record["sources"][0]["left"] == {
        "text_bert.embeddings.position_ids": "the numbers of positions, which are counted anew"
    }
    model = M4CForQuestionAnswering.from_pretrained(tmp_path / "model")
    assert model.config.fine_tuned_detector
    # Features after a ReLU stay as they are in an identity; the golden ones are not, so the study's model compares.
    positive = {
        name: t.clamp_min(0) if name in ("region_features", "ocr_features") else t for name, t in inputs.items()
    }
    study = write_study(tmp_path / "best_model.tar", weights)
    convert_checkpoint([study], tmp_path / "study", alignment_function="scaled_dot", fields=HEADS)
    torch.testing.assert_close(
        scores(tmp_path / "model", inputs), scores(tmp_path / "study", positive), rtol=0, atol=1e-5
    )
    close_scores(
        scores(tmp_path / "study", inputs),
        load_file(root / "scaled.safetensors")["train.scores"],
        inputs["ocr_mask"],
    )


def test_spatial_layers_are_another_model(root, weights, tmp_path):
    published = weights | golden_weights(root / "scaled__spatial_n_s.safetensors")
    path = write_study(tmp_path / "best_model.tar", published)
    with pytest.raises(CheckpointError, match=r"best_model.tar: tensor mmt.encoder.spatial_layers\S* .* has no place"):
        convert_checkpoint([path], tmp_path / "model", alignment_function="scaled_dot", fields=HEADS)


def test_heads_that_weights_do_not_show(weights, tmp_path):
    path = write_study(tmp_path / "best_model.tar", weights)
    with pytest.raises(ConfigurationError, match="text_config.num_attention_heads cannot be seen.* 48 is no multiple"):
        convert_checkpoint([path], tmp_path / "model", alignment_function="general_key")
    with pytest.raises(CheckpointError, match=r"attention.self.W.weight is \(16, 16\), .* needs \(32, 32\)"):
        convert_checkpoint(
            [path], tmp_path / "model", alignment_function="general_key", fields={**HEADS, "num_attention_heads": 2}
        )


def test_answers_and_tokenizer(weights, tmp_path):
    path = write_study(tmp_path / "best_model.tar", weights)
    answers = ["<pad>", "<s>", "</s>", "<unk>", *(f"answer{n}" for n in range(26))]
    write_answer_vocabulary(answers, tmp_path / "answers.txt")
    build_word_tokenizer(["what does the sign say"], minimum_count=1).save_pretrained(tmp_path / "bert")
    asked = {"alignment_function": "dot", "fields": HEADS, "vocabulary": tmp_path / "answers.txt"}
    record = convert_checkpoint([path], tmp_path / "model", tokenizer=str(tmp_path / "bert"), **asked)
    assert record["processor"] == "M4CProcessor"
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert [config["id2label"][str(n)] for n in range(30)] == answers
    processor = M4CProcessor.from_pretrained(tmp_path / "model")
    assert (processor.word_vectors.name, processor.word_vectors.size, processor.spellings) == (
        "fasttext:wiki.en",
        300,
        True,
    )
    write_answer_vocabulary(answers[:-1], tmp_path / "answers.txt")
    with pytest.raises(DataError, match="answers.txt: the vocabulary has 29 words, the checkpoint's classifier 30"):
        convert_checkpoint([path], tmp_path / "other", **asked)
    with pytest.raises(ConfigurationError, match="no tokenizer can be read from"):
        convert_checkpoint(
            [path], tmp_path / "other", alignment_function="dot", fields=HEADS, tokenizer=str(tmp_path / "nowhere")
        )
