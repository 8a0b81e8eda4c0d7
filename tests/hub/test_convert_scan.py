"""SCAN's checkpoints: every golden case, written as published and converted, gives the golden similarities."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.models.test_scan_golden import CASES, model_inputs

from vl_alignment import ScanForImageTextRetrieval, ScanProcessor
from vl_alignment.hub.convert import convert_checkpoint
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError

from .published_files import golden_weights, write_scan, write_scan_vocabulary

golden = pytest.mark.golden


@pytest.fixture(scope="module")
def root(golden_root):
    return golden_root / "scan"


@pytest.fixture(scope="module")
def meta(root):
    return json.loads((root / "meta.json").read_text())


@pytest.fixture(scope="module")
def inputs(root):
    base = load_file(root / "base.safetensors")
    return model_inputs(base["input.captions"], base["input.lengths"], base["input.images"])


def similarity(folder, inputs):
    with torch.no_grad():
        return ScanForImageTextRetrieval.from_pretrained(folder)(**inputs).logits_per_image


def tiny_weights(hidden=6, vocabulary=9, regions=4, words=5):
    """A SCAN of a few numbers under its published names."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "img_enc.fc.weight": (hidden, regions),
        "img_enc.fc.bias": (hidden,),
        "txt_enc.embed.weight": (vocabulary, words),
        "txt_enc.rnn.weight_ih_l0": (3 * hidden, words),
        "txt_enc.rnn.weight_hh_l0": (3 * hidden, hidden),
        "txt_enc.rnn.bias_ih_l0": (3 * hidden,),
        "txt_enc.rnn.bias_hh_l0": (3 * hidden,),
        "sim_enc.attention_general.weight": (hidden, hidden),
        "sim_enc.attention_biased_general.weight": (hidden, hidden),
        "sim_enc.attention_biased_general.bias": (hidden,),
        "sim_enc.b_activated_general": (36, 1),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


OPTIONS = {
    **{"attention_method": "general_qwk", "cross_attn": "t2i", "agg_func": "Mean", "raw_feature_norm": "l2norm"},
    **{"bi_gru": False, "num_layers": 1, "embed_size": 6, "lambda_softmax": 4.0, "max_violation": False},
}


@golden
@pytest.mark.parametrize(("name", "layout"), CASES, ids=[name + layout for name, layout in CASES])
def test_golden_case(root, meta, inputs, tmp_path, name, layout):
    case = meta["cases"][name]
    own = root / f"{name}.safetensors"
    encoders = [own] if case["own_encoder_weights"] else []
    weights = golden_weights(root / "base.safetensors")
    if encoders:
        weights = {key: tensor for key, tensor in weights.items() if key.startswith("sim_enc.")} | golden_weights(own)
    path = write_scan(tmp_path / "model_best.pth.tar", weights, case["options"])
    released = layout == "_released" or (layout == "" and case["options"]["attention_method"] == "scaled_dot")
    record = convert_checkpoint([path], tmp_path / "model", released_layout=released)
    expected = load_file(own)[f"similarity{layout}"]
    torch.testing.assert_close(similarity(tmp_path / "model", inputs), expected, rtol=0, atol=1e-5)
    [source] = record["sources"]
    assert set(source["taken"]) | set(source["left"]) == set(weights)
    assert source["left"]["sim_enc.b_activated_general"] == "the published code never reads it"


@golden
@pytest.mark.parametrize("zipped", [True, False])
def test_the_original_scan_without_the_studys_layers(root, meta, inputs, tmp_path, zipped):
    options = dict(meta["cases"]["dot"]["options"])
    del options["attention_method"]
    weights = golden_weights(root / "base.safetensors")
    path = write_scan(tmp_path / "model_best.pth.tar", weights, options, parts=("img_enc", "txt_enc"), zipped=zipped)
    with pytest.raises(ConfigurationError, match="give --alignment-function"):
        convert_checkpoint([path], tmp_path / "model")
    record = convert_checkpoint([path], tmp_path / "model", alignment_function="dot")
    expected = load_file(root / "dot.safetensors")["similarity"]
    torch.testing.assert_close(similarity(tmp_path / "model", inputs), expected, rtol=0, atol=1e-5)
    assert record["sources"][0]["left"] == {}
    with pytest.raises(CheckpointError, match=r"lacks 1 tensor.*model.cross_attention.alignment.weight \(64, 64\)"):
        convert_checkpoint([path], tmp_path / "other", alignment_function="general_key")


def test_stored_options_become_the_configuration(tmp_path):
    path = write_scan(tmp_path / "model_best.pth.tar", tiny_weights(), OPTIONS)
    record = convert_checkpoint([path], tmp_path / "model", alignment_function="general_key")
    config = ScanForImageTextRetrieval.from_pretrained(tmp_path / "model").config
    assert (config.alignment_function, config.score_normalization, config.negatives) == ("general_key", "l2norm", "all")
    assert (config.vocab_size, config.feature_size, config.bidirectional, config.lambda_softmax) == (9, 4, False, 4.0)
    assert record == json.loads((tmp_path / "model" / "conversion.json").read_text())
    assert record["stated_by_the_checkpoint"]["alignment_function"] == "general_key"
    assert record["sources"][0]["file"] == "model_best.pth.tar" and len(record["sources"][0]["sha256"]) == 64


@pytest.mark.parametrize(
    ("arguments", "changed", "message"),
    [
        ({"alignment_function": "dot"}, {}, "alignment_function is 'general_key' by the stored options, but 'dot' by"),
        ({"alignment_function": "additive"}, {}, "alignment_function is 'general_key'"),
        ({"fields": {"lambda_softmax": 9.0}}, {}, "lambda_softmax is 4.0 by the stored options, but 9.0 by your arg"),
        ({}, {"embed_size": 7}, "hidden_size is 6 by the tensors, but 7 by the stored options"),
        ({}, {"bi_gru": True}, "bidirectional is False by the tensors, but True by the stored options"),
        ({}, {"agg_func": "Median"}, "option agg_func is 'Median'; only"),
        ({}, {"agg_func": ["Mean"]}, "option agg_func is"),
        ({}, {"margin": "wide"}, "margin"),
        ({}, {"attention_method": 3}, "alignment_function '3' is unknown"),
        ({}, {"raw_feature_norm": "l1norm"}, "l1norm"),
        ({"alignment_activation": "tanh"}, {"attention_method": "activated_general_relu"}, "alignment_activation is"),
        ({"fields": {"hiden": 3}}, {}, "no field 'hiden'"),
    ],
)
def test_contradictions(tmp_path, arguments, changed, message):
    path = write_scan(tmp_path / "model_best.pth.tar", tiny_weights(), {**OPTIONS, **changed})
    with pytest.raises(ConfigurationError, match=message):
        convert_checkpoint([path], tmp_path / "model", **arguments)
    assert not (tmp_path / "model").exists()


def test_vocabulary_becomes_the_tokenizer(tmp_path):
    path = write_scan(tmp_path / "model_best.pth.tar", tiny_weights(), OPTIONS)
    vocabulary = write_scan_vocabulary(tmp_path / "vocab.json", ["dog", "'s", ".", "a"])
    with pytest.raises(DataError, match="8 entries, the checkpoint's word embedding 9"):
        convert_checkpoint([path], tmp_path / "model", vocabulary=vocabulary)
    write_scan_vocabulary(vocabulary, ["dog", "'s", ".", "a", "t-shirt"])
    record = convert_checkpoint([path], tmp_path / "model", vocabulary=vocabulary)
    assert record["processor"] == "ScanProcessor" and record["vocabulary"]["file"] == "vocab.json"
    processor = ScanProcessor.from_pretrained(tmp_path / "model")
    inputs = processor(text=["A dog's T-shirt.", "cat"], region_features=[torch.ones(2, 4)])
    assert inputs["input_ids"].tolist() == [[1, 7, 4, 5, 8, 6, 2], [1, 3, 2, 0, 0, 0, 0]]
    assert ScanForImageTextRetrieval.from_pretrained(tmp_path / "model")(**inputs).logits_per_image.shape == (1, 2)
