"""AttnGAN's and DAMSM's checkpoints: the golden networks, written as published, give the golden pictures and scores."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.models.attngan_golden import load_golden
from tests.models.test_attngan_golden import SIZES, close, close_sampled, grid, pictures

from vl_alignment import AttnGanForTextToImageGeneration, AttnGanProcessor, DamsmModel
from vl_alignment.hub.convert import convert_checkpoint
from vl_alignment.hub.convert_attngan import ATTNGAN_FUNCTIONS
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.models.inception_v3 import InceptionV3
from vl_alignment.models.matching_damsm import matching_losses
from vl_alignment.models.modeling_attngan import AttnGanDiscriminators
from vl_alignment.models.modeling_damsm import DamsmImages, DamsmTexts

from .published_files import captions_pickle, golden_weights, write_weights

golden = pytest.mark.golden


@pytest.fixture(scope="module")
def root(golden_root):
    return golden_root / "attngan"


@pytest.fixture(scope="module")
def base(root):
    return load_golden(root / "generator_base.safetensors")


@pytest.fixture(scope="module")
def judged(root):
    return load_file(root / "discriminators.safetensors")


@pytest.fixture(scope="module")
def files(root, judged, tmp_path_factory):
    """The golden networks as published; the generator in the wrapper of training on several devices."""
    folder = tmp_path_factory.mktemp("published")
    found = {
        "generator": write_weights(
            folder / "netG_epoch_600.pth", golden_weights(root / "generator_base.safetensors"), prefix="module."
        )
    }
    for recurrence in ("lstm", "gru"):
        weights = golden_weights(root / f"text_encoder_{recurrence}.safetensors")
        found[recurrence] = write_weights(folder / f"text_encoder599_{recurrence}.pth", weights)
    for number, size in enumerate(SIZES):
        prefix = f"weight.D{size}."
        weights = {name.removeprefix(prefix): tensor for name, tensor in judged.items() if name.startswith(prefix)}
        found[f"D{size}"] = write_weights(folder / f"netD{number}.pth", weights)
    return found


def words(root, recurrence):
    """The ids and mask, and what the golden text encoder makes of them."""
    stored = load_golden(root / f"text_encoder_{recurrence}.safetensors")
    lengths = stored["input"]["cap_lens"]
    ids = stored["input"]["captions"][:, : int(lengths.max())]
    return ids, torch.arange(ids.shape[1]) < lengths.unsqueeze(1), stored[""]


@golden
@pytest.mark.parametrize("layout", ["released", pytest.param("aligned", marks=pytest.mark.slow)])
@pytest.mark.parametrize("variant", ATTNGAN_FUNCTIONS)
def test_golden_generator(root, base, files, tmp_path, variant, layout):
    record = convert_checkpoint(
        [files["lstm"], files["generator"]],
        tmp_path / "model",
        released_layout=layout == "released",
        **ATTNGAN_FUNCTIONS[variant],
    )
    model = AttnGanForTextToImageGeneration.from_pretrained(tmp_path / "model")
    given = base["input"]
    noises = given["z"], given["eps"]
    with torch.no_grad():
        output = model.draw(
            given["word_embs"].transpose(1, 2), given["sent_emb"], ~given["mask"], *noises, output_attentions=True
        )
    expected = load_golden(root / f"generator_{variant}_mask_{layout}.safetensors")["eval"]
    assert sum(close_sampled(output.stage_images[n - 1], expected, f"fake{n}") for n in (2, 3)) == 2
    assert sum(close_sampled(grid(output.attentions[n - 1]), expected, f"att{n}") for n in (1, 2)) == 2
    generator, text_encoder = record["sources"]
    assert generator["file"] == "netG_epoch_600.pth" and text_encoder["left"] == {}
    layers = {name.split(".att.")[1].split(".")[0] for name in generator["left"]}
    assert layers <= {"attn_general", "attn_biased_general", "attn_act_general_qwk"}
    assert set(generator["left"].values()) == {"of another alignment function"}


@golden
@pytest.mark.parametrize("recurrence", ["lstm", "gru"])
def test_golden_text_encoder(root, files, tmp_path, recurrence):
    convert_checkpoint([files["generator"], files[recurrence]], tmp_path / "model", alignment_function="dot")
    model = AttnGanForTextToImageGeneration.from_pretrained(tmp_path / "model")
    ids, mask, expected = words(root, recurrence)
    states, sentences, _ = model.encode_texts(ids, mask)
    close(states.transpose(1, 2), expected["words_emb"], atol=1e-5)
    close(sentences, expected["sent_emb"], atol=1e-5)


@golden
@pytest.mark.parametrize("alone", [True, False])
def test_golden_discriminators(judged, files, tmp_path, alone):
    given = [files[f"D{size}"] for size in (256, 64, 128)]  # in any order
    if alone:
        convert_checkpoint(given, tmp_path / "model")
    else:
        convert_checkpoint([*given, files["generator"], files["lstm"]], tmp_path / "model", alignment_function="dot")
        AttnGanForTextToImageGeneration.from_pretrained(tmp_path / "model")
    folder = tmp_path / "model" if alone else tmp_path / "model" / "discriminators"
    model = AttnGanDiscriminators.from_pretrained(folder)
    with torch.no_grad():
        judgements = model(pictures(judged, "fake"), judged["input.sent_emb"])
    for number, size in enumerate(SIZES):
        close(judgements.unconditional[number].sigmoid(), judged[f"eval.D{size}.uncond"])
        close(judgements.conditional[number].sigmoid(), judged[f"eval.D{size}.cond"])
    sources = json.loads((tmp_path / "model" / "conversion.json").read_text())["sources"]
    assert len(sources) == (3 if alone else 5)


@golden
def test_missing_discriminators(files, tmp_path):
    with pytest.raises(ConfigurationError, match=r"discriminators of \[64, 256\] pixels are given; the stages have"):
        convert_checkpoint([files["D64"], files["D256"]], tmp_path / "model")


def image_encoder(size):
    """An untrained CNN_ENCODER under its published names; golden data have none: it is torchvision's."""
    weights = dict(InceptionV3(num_classes=None).state_dict())
    weights["emb_features.weight"] = torch.randn(size, 768, 1, 1)
    weights["emb_cnn_code.weight"], weights["emb_cnn_code.bias"] = torch.randn(size, 2048), torch.randn(size)
    return weights


@golden
@pytest.mark.slow
def test_golden_damsm(root, files, tmp_path):
    published = image_encoder(16)
    path = write_weights(tmp_path / "image_encoder599.pth", published)
    record = convert_checkpoint([path, files["lstm"]], tmp_path / "model", alignment_function="dot")
    model = DamsmModel.from_pretrained(tmp_path / "model")
    assert [source["left"] for source in record["sources"]] == [{}, {}]
    for name, tensor in model.vision_model.state_dict().items():
        assert torch.equal(tensor, published[name])
    features, pooled = torch.randn(2, 9, 768), torch.randn(2, 2048)
    images = model.encode_images(region_features=features, pooled_features=pooled)
    close(images.regions, features @ published["emb_features.weight"].flatten(1).T, atol=1e-3)
    codes = pooled @ published["emb_cnn_code.weight"].T + published["emb_cnn_code.bias"]
    close(images.codes, codes, atol=1e-3)

    ids, mask, expected = words(root, "lstm")
    close(model.encode_texts(ids, mask).words.transpose(1, 2), expected["words_emb"], atol=1e-5)
    stored = load_golden(root / "damsm.safetensors")
    given = stored["input"]
    embedded = DamsmImages(given["img_features"].flatten(2).transpose(1, 2), given["cnn_code"])
    captions = given["words_emb"].transpose(1, 2)
    word_mask = torch.arange(captions.shape[1]) < given["cap_lens"].unsqueeze(1)
    scored = model.similarity(embedded, DamsmTexts(captions, given["rnn_code"], word_mask))
    for name, logits in zip(("words", "sent"), scored, strict=True):
        for number, loss in enumerate(matching_losses(logits, None)):
            close(loss, stored["no_class_ids"][f"{name}_loss{number}"].squeeze(), atol=1e-5)


@golden
def test_captions_pickle_becomes_the_tokenizer(files, tmp_path):
    spelled = ["a", "small", "red", "bird", "s", *(f"word{n}" for n in range(24))]
    vocabulary = captions_pickle(tmp_path / "captions.pickle", spelled)
    given = [files["generator"], files["lstm"]]
    convert_checkpoint(given, tmp_path / "model", alignment_function="dot", vocabulary=vocabulary)
    processor = AttnGanProcessor.from_pretrained(tmp_path / "model")
    inputs = processor(text=["A small, really RED bird's!", "a bird"])  # "really" is left out, as published
    assert inputs["input_ids"].tolist() == [[1, 2, 3, 4, 5], [1, 4, 0, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    with pytest.raises(DataError, match="'zebra' has no word of the vocabulary of 30"):
        processor(text=["zebra"])
    model = AttnGanForTextToImageGeneration.from_pretrained(tmp_path / "model")
    assert model.generate("a red bird", seed=0).images.shape == (1, 3, 256, 256)
    captions_pickle(vocabulary, spelled[:-1])
    with pytest.raises(DataError, match="captions.pickle: the vocabulary has 29 entries"):
        convert_checkpoint(given, tmp_path / "other", alignment_function="dot", vocabulary=vocabulary)


@golden
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("lstm",), "make no one model .*text_encoder599_lstm.pth: DAMSM text encoder"),
        (("generator",), "netG_epoch_600.pth: AttnGAN generator"),
        (("generator", "lstm", "gru"), "make no one model"),
        (("D64", "lstm"), "make no one model"),
    ],
)
def test_files_that_make_no_model(files, tmp_path, names, message):
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint([files[name] for name in names], tmp_path / "model", alignment_function="dot")
