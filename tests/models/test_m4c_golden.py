"""M4C against the outputs of the paper's code."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from vl_alignment.hub.convert_m4c import M4C_FUNCTIONS, m4c_name
from vl_alignment.models.configuration_m4c import ANSWER_BEGIN, ANSWER_END

from .m4c_golden import golden_config, golden_inputs, golden_model

pytestmark = pytest.mark.golden

OPTIONS = {
    "scaled__text_width_equals_hidden": {"text": {"hidden_size": 64, "intermediate_size": 128}},
    "scaled__no_normalize": {"normalize_features": False},
    "scaled__no_phoc_fasttext": {"word_vector_size": 0, "phoc_size": 0},
}
NOT_IN_THE_PAPER = {"scaled__spatial_n_s"}  # the spatial layers of SA-M4C


def close(actual, expected, atol=2e-4):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def close_scores(actual, expected, ocr_mask):
    """Scores of slots with a token; padding is at -10,000, where a float32 is no finer than 0.001."""
    there = F.pad(ocr_mask.bool(), (30, 0), value=True).unsqueeze(1).expand_as(expected)
    close(actual[there], expected[there])
    close(actual[~there], expected[~there], atol=2e-3)


@pytest.fixture(scope="module")
def root(golden_root):
    return golden_root / "m4c"


@pytest.fixture(scope="module")
def meta(root):
    return json.loads((root / "meta.json").read_text())


@pytest.fixture(scope="module")
def inputs(root):
    return golden_inputs(load_file(root / "inputs.safetensors"))


def weights_of(*files):
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    return {name.removeprefix("weight."): tensor for name, tensor in tensors.items() if name.startswith("weight.")}


@pytest.fixture(scope="module")
def weights(root):
    return weights_of(root / "weights.safetensors")


def released_model(meta, weights, variant):
    return golden_model(golden_config(meta, M4C_FUNCTIONS[variant], released_layout="kwq" in variant), weights)


def assert_answers_itself(model, inputs, expected):
    """The scores that the model gives when fed its own words, and `generate`, as far as the published words are sure.

    Where the two best scores of a step are nearer to each other than the tolerance, what follows is not determined.
    """
    given = {name: inputs[name] for name in inputs if name not in ("previous_ids", "labels", "label_mask")}
    with torch.no_grad():
        output = model(**given, labels=inputs["labels"], label_mask=inputs["label_mask"])
    published, chosen = expected["eval.argmax"], output.logits.argmax(dim=-1)
    best = expected["eval.scores"].topk(2, dim=-1).values
    sure = (best[..., 0] - best[..., 1] > 4e-4).long().cumprod(dim=1).bool()
    fed = F.pad(sure[:, :-1], (1, 0), value=True)  # steps whose previous words are all determined
    assert sure.float().mean() > 0.5
    assert torch.equal(chosen[sure], published[sure])
    assert torch.equal(published[:, :-1], expected["eval.prev_inds"][:, 1:])
    for row, steps in enumerate(fed.sum(dim=1).tolist()):
        pair = output.logits[row : row + 1, :steps], expected["eval.scores"][row : row + 1, :steps]
        close_scores(*pair, inputs["ocr_mask"][row : row + 1])
    if fed.all() and "eval.loss" in expected:
        assert output.loss.item() == pytest.approx(expected["eval.loss"].item(), rel=2e-6, abs=2e-4)
    sequences = model.generate(**given).sequences
    assert (expected["eval.prev_inds"][:, 0] == ANSWER_BEGIN).all()
    ended = F.pad((published == ANSWER_END).long().cumsum(dim=1)[:, :-1], (1, 0)).bool()[:, : sequences.shape[1]]
    compared = sure[:, : sequences.shape[1]]
    assert torch.equal(sequences[compared], published[:, : sequences.shape[1]].masked_fill(ended, 0)[compared])


@pytest.mark.parametrize("variant", M4C_FUNCTIONS)
def test_released_variant(root, meta, inputs, weights, variant):
    expected = load_file(root / f"{variant}.safetensors")
    model = released_model(meta, weights, variant)
    output = model(**inputs)
    close_scores(output.logits, expected["train.scores"], inputs["ocr_mask"])
    close(output.loss, expected["train.loss"].squeeze())
    output.loss.backward()
    gradients = [name.removeprefix("grad.") for name in expected if name.startswith("grad.")]
    assert len(gradients) >= 7
    for name in gradients:
        gradient, published = model.get_parameter(m4c_name(name)).grad, expected[f"grad.{name}"]
        close(gradient, published, atol=2e-4 * max(1.0, published.abs().max().item()))

    words = {name: inputs[name] for name in inputs if name not in ("labels", "label_mask")}
    states = model.model(**words, answers=model.classifier.weight)
    close(torch.cat([states.entity_states, states.decoder_states], dim=1), expected["train.mmt_seq_output"])
    assert_answers_itself(model, inputs, expected)


def assert_embeds(model, inputs, expected):
    pictures = {name: inputs[name] for name in inputs if name.startswith(("region", "ocr"))}
    embedded = model.encode_images(**pictures)
    close(model.model.encode_texts(inputs["input_ids"], inputs["attention_mask"])[0], expected["train.text_bert_emb"])
    close(embedded.ocr_tokens, expected["train.ocr_mmt_in"])
    if "train.obj_mmt_in" in expected:
        close(embedded.objects, expected["train.obj_mmt_in"])


def test_entities(root, meta, inputs, weights):
    expected = load_file(root / "scaled.safetensors")
    assert_embeds(released_model(meta, weights, "scaled"), inputs, expected)


@pytest.mark.parametrize("variant", OPTIONS)
def test_option(root, meta, inputs, variant):
    expected = load_file(root / f"{variant}.safetensors")
    weights = weights_of(root / "weights.safetensors", root / f"{variant}.safetensors")
    if variant == "scaled__text_width_equals_hidden":
        weights = {name: tensor for name, tensor in weights.items() if "text_bert_out_linear" not in name}
    model = golden_model(golden_config(meta, "scaled_dot", **OPTIONS[variant]), weights)
    if variant == "scaled__no_phoc_fasttext":
        inputs = {name: tensor for name, tensor in inputs.items() if name not in ("ocr_word_vectors", "ocr_phoc")}
    output = model(**inputs)
    close_scores(output.logits, expected["train.scores"], inputs["ocr_mask"])
    close(output.loss, expected["train.loss"].squeeze())
    assert_embeds(model, inputs, expected)
    assert_answers_itself(model, inputs, expected)


def test_every_published_case_is_here(meta):
    assert set(meta["cases"]) == set(M4C_FUNCTIONS) | set(OPTIONS) | NOT_IN_THE_PAPER


# What the release should have computed


@pytest.mark.parametrize("biased", [False, True])
def test_right_query_function_is_the_key_function_with_w_transposed(root, meta, inputs, weights, biased):
    prefix = "biased_general" if biased else "general"
    expected = load_file(root / f"{prefix}_qwk.safetensors")
    turned = {name: tensor.T if name.endswith(".W.weight") else tensor for name, tensor in weights.items()}
    if biased:  # the bias of the query's side is a prior over the keys; that of the key's side cancels
        turned = {name: tensor * 0 if name.endswith(".W.bias") else tensor for name, tensor in turned.items()}
    model = golden_model(golden_config(meta, f"{prefix}_query"), turned)
    with torch.no_grad():
        close_scores(model(**inputs).logits, expected["train.scores"], inputs["ocr_mask"])


def test_released_query_function_is_the_key_function_with_both_projections_exchanged(root, meta, inputs, weights):
    places = {".self.query.": ".self.key.", ".self.key.": ".self.query."}
    exchanged = dict(weights)
    for name in weights:
        for place, other in places.items():
            if name.startswith("mmt.") and place in name:
                exchanged[name.replace(place, other)] = weights[name]
    expected = load_file(root / "general_kwq.safetensors")
    model = golden_model(golden_config(meta, "general_key"), exchanged)
    with torch.no_grad():
        close_scores(model(**inputs).logits, expected["train.scores"], inputs["ocr_mask"])


def test_released_layout_changes_the_query_functions_alone(meta, inputs, weights):
    for function in set(M4C_FUNCTIONS.values()):
        with torch.no_grad():
            right, released = (
                golden_model(golden_config(meta, function, released_layout=layout), weights)(**inputs).logits
                for layout in (False, True)
            )
        assert torch.equal(right, released) != function.endswith("_query")
