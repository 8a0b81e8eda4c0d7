"""DAMSM against the outputs of the published code."""

import json

import pytest
import torch

from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.matching_damsm import WordRegionMatching, matching_losses, sentence_similarity

from .attngan_golden import golden_text_encoder, load_golden

pytestmark = pytest.mark.golden

CASES = ["no_class_ids", "class_ids_distinct", "class_ids_repeated"]


def close(actual, expected, atol=1e-5):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def root(golden_root):
    return golden_root / "attngan"


@pytest.fixture(scope="module")
def meta(root):
    return json.loads((root / "meta.json").read_text())


@pytest.fixture(scope="module")
def golden(root):
    return load_golden(root / "damsm.safetensors")


@pytest.fixture(scope="module")
def config(meta):
    gammas = {name.lower(): value for name, value in meta["smooth"].items() if name.startswith("GAMMA")}
    assert len(gammas) == 3
    return DamsmConfig(hidden_size=meta["dims"]["EMBEDDING_DIM"], **gammas)


@pytest.mark.parametrize("recurrence", ["lstm", "gru"])
def test_text_encoder(root, recurrence):
    golden = load_golden(root / f"text_encoder_{recurrence}.safetensors")
    encoder = golden_text_encoder(golden["weight"], recurrence)
    lengths = golden["input"]["cap_lens"]
    ids = golden["input"]["captions"][:, : int(lengths.max())]
    words, sentences = encoder(ids, torch.arange(ids.shape[1]) < lengths.unsqueeze(1))
    close(words.transpose(1, 2), golden[""]["words_emb"])
    close(sentences, golden[""]["sent_emb"])


@pytest.mark.parametrize("case", CASES)
def test_losses_and_their_gradients(golden, meta, config, case):
    given = {name: tensor.clone() for name, tensor in golden["input"].items()}
    leaves = {name: given[name].requires_grad_() for name in ("img_features", "words_emb", "cnn_code", "rnn_code")}
    expected = golden[case]
    classes = meta["damsm"].get(case)
    class_ids = None if classes is None else torch.tensor(classes)

    regions, words = leaves["img_features"].flatten(2).transpose(1, 2), leaves["words_emb"].transpose(1, 2)
    mask = torch.arange(words.shape[1]) < given["cap_lens"].unsqueeze(1)
    by_words = matching_losses(config.gamma3 * WordRegionMatching(config)(regions, words, mask), class_ids)
    by_sentences = matching_losses(
        config.gamma3 * sentence_similarity(leaves["cnn_code"], leaves["rnn_code"]), class_ids
    )
    for name, losses in (("words", by_words), ("sent", by_sentences)):
        for number, loss in enumerate(losses):
            close(loss, expected[f"{name}_loss{number}"].squeeze())

    sum([*by_words, *by_sentences]).backward()
    for name, leaf in leaves.items():
        published = expected[f"grad.{name}"]
        assert published.abs().max() > 1e-4, name
        close(leaf.grad, published, atol=1e-5 * max(1.0, published.abs().max().item()))


def test_attention_of_the_pairs(golden, config):
    given = golden["input"]
    regions, words = given["img_features"].flatten(2).transpose(1, 2), given["words_emb"].transpose(1, 2)
    mask = torch.arange(words.shape[1]) < given["cap_lens"].unsqueeze(1)
    attention = WordRegionMatching(config).attention(regions, words, mask)
    for row, length in enumerate(given["cap_lens"].tolist()):
        close(attention[row, :length], golden["att_map"][str(row)][0].flatten(1))
        assert (attention[row, length:] == 0).all()
