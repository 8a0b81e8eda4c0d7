"""AttnGAN against the outputs of the paper's code."""

import json

import pytest
import torch
from safetensors.torch import load_file

from vl_alignment.hub.convert_attngan import (
    ATTNGAN_FUNCTIONS,
    discriminator_name,
    generator_name,
    generator_unused,
)
from vl_alignment.models.attention_attngan import WordAttention
from vl_alignment.models.configuration_attngan import AttnGanConfig
from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.discriminators_attngan import conditioning_divergence
from vl_alignment.models.matching_damsm import WordRegionMatching, matching_losses, sentence_similarity
from vl_alignment.models.modeling_attngan import AttnGanDiscriminators

from .attngan_golden import golden_fields, golden_model, load_golden, load_published

pytestmark = pytest.mark.golden

SIZES = (64, 128, 256)
# One or two of 9,216 pixels differ by more than 1e-4; the published ones are up to 1.5e-4 from float64 themselves.
IMAGE_ATOL = 3e-4


def close(actual, expected, atol=1e-4):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def close_gradient(actual, published, atol=1e-4):
    close(actual.view(published.shape), published, atol=atol * max(1.0, published.abs().max().item()))


@pytest.fixture(scope="module")
def root(golden_root):
    return golden_root / "attngan"


@pytest.fixture(scope="module")
def meta(root):
    return json.loads((root / "meta.json").read_text())


@pytest.fixture(scope="module")
def base(root):
    return load_golden(root / "generator_base.safetensors")


def close_sampled(actual, expected, name):
    """A tensor against every K-th of its rows and columns, its mean and the sum of its squares, as far as stored."""
    compared = 0
    for key, published in expected.items():
        if key.startswith(f"{name}.stride"):
            stride = int(key.removeprefix(f"{name}.stride"))
            close(actual[..., ::stride, ::stride], published, atol=IMAGE_ATOL)
            compared += 1
    full = actual.detach().double()
    close(full.mean(), expected[f"{name}.mean_f64"].squeeze(), atol=1e-5)
    torch.testing.assert_close(full.square().sum(), expected[f"{name}.sumsq_f64"].squeeze(), rtol=1e-4, atol=1e-4)
    return compared


def grid(attention):
    """[B, H * W, L] -> the published [B, L, H, W]."""
    side = int(attention.shape[1] ** 0.5)
    return attention.transpose(1, 2).unflatten(2, (side, side))


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("layout", ["aligned", "released"])
@pytest.mark.parametrize("variant", ATTNGAN_FUNCTIONS)
def test_generator(root, meta, base, variant, layout, mode):
    expected = load_golden(root / f"generator_{variant}_mask_{layout}.safetensors")[mode]
    model = golden_model(meta, base["weight"], variant, released_layout=layout == "released").train(mode == "train")
    given = base["input"]
    words, sentences, mask = given["word_embs"].transpose(1, 2), given["sent_emb"], ~given["mask"]
    noises = given["z"], given["eps"]
    output = model.draw(words, sentences, mask, *noises, output_attentions=True)

    assert sum(close_sampled(output.stage_images[n - 1], expected, f"fake{n}") for n in (2, 3)) == 2
    assert sum(close_sampled(grid(output.attentions[n - 1]), expected, f"att{n}") for n in (1, 2)) == 2
    if "fake1.mean_f64" in expected:
        close_sampled(output.stage_images[0], expected, "fake1")
    if "mu" in expected:
        close(output.mean, expected["mu"], atol=1e-5)
        close(output.log_variance, expected["logvar"], atol=1e-5)

    loss = sum(images.square().mean() for images in output.stage_images)
    close(loss, expected["loss_sum_of_mean_squares"].squeeze())
    loss.backward()
    gradients = [name.removeprefix("grad.") for name in expected if name.startswith("grad.")]
    assert gradients
    for name in gradients:
        close_gradient(model.generator.get_parameter(generator_name(name)).grad, expected[f"grad.{name}"])
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.generator.parameters())


@pytest.mark.parametrize("variant", ATTNGAN_FUNCTIONS)
def test_generator_without_maps(root, meta, base, variant):
    expected = load_golden(root / f"generator_{variant}_mask_released.safetensors")["eval"]
    model = golden_model(meta, base["weight"], variant, released_layout=True)
    given = base["input"]
    with torch.no_grad():
        output = model.draw(
            given["word_embs"].transpose(1, 2), given["sent_emb"], ~given["mask"], given["z"], given["eps"]
        )
    assert close_sampled(output.images, expected, "fake3") == 1 and output.attentions is None


@pytest.mark.parametrize("variant", [name for name in ATTNGAN_FUNCTIONS if not name.endswith("relu")])
def test_attention_module_alone(root, meta, variant):
    golden = load_golden(root / "attention_module.safetensors")
    config = AttnGanConfig(**golden_fields(meta, **ATTNGAN_FUNCTIONS[variant]))
    attention = WordAttention(config)
    weights = {
        name: tensor
        for name, tensor in golden["weight"].items()
        if generator_unused(f"h_net2.att.{name}", config.alignment_function) is None
    }
    load_published(attention, weights, lambda name: generator_name(f"h_net2.att.{name}").split("attention.")[1])
    features, words = golden["input"]["h"], golden["input"]["context"].transpose(1, 2)
    mask = torch.ones(words.shape[:2], dtype=torch.bool)
    for with_maps in (True, False):
        context, weights = attention(features, words, mask, output_attentions=with_maps)
        close(context, golden[variant]["context"], atol=1e-5)
        if with_maps:
            close(weights.transpose(1, 2).unflatten(2, (5, 7)), golden[variant]["attention"], atol=1e-5)


# Discriminators and losses


@pytest.fixture(scope="module")
def judged(root):
    return load_file(root / "discriminators.safetensors")


def golden_discriminators(meta, judged):
    discriminators = AttnGanDiscriminators(AttnGanConfig(**golden_fields(meta)))
    for stage, size in zip(discriminators.stages, SIZES, strict=True):
        prefix = f"weight.D{size}."
        weights = {name.removeprefix(prefix): tensor for name, tensor in judged.items() if name.startswith(prefix)}
        load_published(stage, weights, discriminator_name)
    return discriminators


def pictures(judged, kind):
    return [judged[f"input.{kind}{size}_u8"].float() / 127.5 - 1 for size in SIZES]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_discriminators(meta, judged, mode):
    real, drawn, sentences = pictures(judged, "real"), pictures(judged, "fake"), judged["input.sent_emb"]
    model = golden_discriminators(meta, judged).train(mode == "train")
    for stage, size, images in zip(model.stages, SIZES, drawn, strict=True):  # what is stored is of the drawn ones
        close(stage.features(images), judged[f"{mode}.D{size}.features"])
    model = golden_discriminators(meta, judged).train(mode == "train")
    judgements = model(drawn, sentences)
    for number, size in enumerate(SIZES):
        close(judgements.unconditional[number].sigmoid(), judged[f"{mode}.D{size}.uncond"])
        close(judgements.conditional[number].sigmoid(), judged[f"{mode}.D{size}.cond"])
    for size, loss in zip(SIZES, model.discriminator_losses(real, drawn, sentences), strict=True):
        close(loss, judged[f"{mode}.D{size}.discriminator_loss"].squeeze())


@pytest.mark.parametrize("case", ["class_ids_distinct", "class_ids_repeated"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_loss_of_the_generator(root, meta, judged, mode, case):
    drawn, sentences = pictures(judged, "fake"), judged["input.sent_emb"]
    adversarial = golden_discriminators(meta, judged).train(mode == "train").generator_losses(drawn, sentences)

    given = load_golden(root / "damsm.safetensors")["input"]
    gammas = {name.lower(): value for name, value in meta["smooth"].items() if name.startswith("GAMMA")}
    config = DamsmConfig(hidden_size=meta["dims"]["EMBEDDING_DIM"], **gammas)
    regions, words = given["img_features"].flatten(2).transpose(1, 2)[:3], given["words_emb"].transpose(1, 2)[:3]
    mask = torch.arange(words.shape[1]) < given["cap_lens"][:3].unsqueeze(1)
    class_ids = torch.tensor(meta["generator_loss"][case])
    by_words = matching_losses(config.gamma3 * WordRegionMatching(config)(regions, words, mask), class_ids)
    by_sentences = matching_losses(config.gamma3 * sentence_similarity(given["cnn_code"][:3], sentences), class_ids)
    total = sum(adversarial) + meta["smooth"]["LAMBDA"] * sum([*by_words, *by_sentences])
    close(total, judged[f"{mode}.generator_loss.{case}"].squeeze(), atol=2e-4)


def test_divergence_of_the_condition(root):
    golden = load_golden(root / "damsm.safetensors")
    divergence = conditioning_divergence(golden["input"]["mu"], golden["input"]["logvar"])
    close(divergence, golden[""]["kl_loss"].squeeze(), atol=1e-6)
