import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, ResNetConfig

from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.errors import CheckpointError, DataError
from vl_alignment.models.inception_v3 import InceptionV3
from vl_alignment.models.modeling_damsm import DamsmModel

from .damsm_model import CELLS, FEATURES, HIDDEN, SIDE, tiny_config, tiny_features, tiny_inputs, tiny_model
from .model_tester import ModelTester
from .scan_model import VOCABULARY, caption_ids


class TestDamsm(ModelTester):
    config_class = DamsmConfig
    model_class = DamsmModel
    scores = "logits_per_image"
    # In half precision the factors enlarge the rounding.
    continuous = {"gamma1": 1.0, "gamma2": 1.0, "gamma3": 1.0}

    def make_config(self, **fields):
        return tiny_config(**fields)

    def make_inputs(self, examples=3):
        return tiny_inputs(examples)

    def alone(self, inputs, index):
        words = inputs["attention_mask"][index].bool()
        return {
            "input_ids": inputs["input_ids"][index : index + 1, words],
            "pixel_values": inputs["pixel_values"][index : index + 1],
        }

    def scores_alone(self, scores, index):
        return scores[index, index]

    def queries_and_keys(self, inputs):
        return [(inputs["attention_mask"].bool(), torch.ones(3, CELLS, dtype=torch.bool))]


def test_gru_does_not_depend_on_padding():
    model = tiny_model(recurrence="gru").double()
    ids, mask = caption_ids(5, 3)
    together, alone = model.encode_texts(ids, mask), model.encode_texts(ids[1:, :3])
    torch.testing.assert_close(together.words[1:, :3], alone.words)
    torch.testing.assert_close(together.sentences[1:], alone.sentences)
    assert (together.words[1, 3:] == 0).all()


def test_starting_values_are_those_of_the_published_code():
    state = tiny_model(hidden_size=64, vocab_size=100, word_embedding_size=50).state_dict()
    for name in ("text_encoder.embedding.weight", "region_projection.weight", "code_projection.weight"):
        assert 0.09 < state[name].abs().max() <= 0.1, name
    assert "region_projection.bias" not in state


OTHER_BACKBONE = ResNetConfig(embedding_size=4, hidden_sizes=[5, FEATURES], depths=[1, 1], layer_type="basic")

# Texts and pictures


def test_shapes():
    model, inputs = tiny_model(), tiny_inputs(3)
    output = model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"][:2])
    assert output.logits_per_image.shape == (2, 3) and output.logits_per_text.shape == (3, 2)
    assert output.words.shape == (3, 5, HIDDEN) and output.sentences.shape == (3, HIDDEN)
    assert output.regions.shape == (2, CELLS, HIDDEN) and output.image_codes.shape == (2, HIDDEN)
    assert output.loss is output.attentions is None
    torch.testing.assert_close(output.logits_per_image, output.word_logits + output.sentence_logits)
    torch.testing.assert_close(output.logits_per_image.T, output.logits_per_text)


def test_sentence_is_the_last_state_of_both_directions():
    model = tiny_model()
    ids, mask = caption_ids(5, 3)
    texts = model.encode_texts(ids, mask)
    half = HIDDEN // 2
    for row, length in enumerate((5, 3)):
        ends = torch.cat([texts.words[row, length - 1, :half], texts.words[row, 0, half:]])
        torch.testing.assert_close(texts.sentences[row], ends)
    assert (texts.words[1, 3:] == 0).all() and torch.equal(texts.mask, mask.bool())
    assert torch.equal(model.encode_texts(ids).words, texts.words)  # the mask follows from the padding


def test_sentence_logits_are_cosines():
    model = tiny_model(gamma3=3.0)
    output = model(**tiny_inputs())
    for picture in range(3):
        for caption in range(3):
            cosine = F.cosine_similarity(output.image_codes[picture], output.sentences[caption], dim=0)
            torch.testing.assert_close(output.sentence_logits[picture, caption], 3 * cosine)


def test_features_given_are_as_good_as_pixels():
    model, inputs = tiny_model(), tiny_inputs()
    regions, pooled = model.extract_features(inputs["pixel_values"])
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    torch.testing.assert_close(
        model(**texts, region_features=regions, pooled_features=pooled).logits_per_image,
        model(**inputs).logits_per_image,
    )


def test_pictures_are_resized_and_brought_to_the_backbones_colours():
    model = tiny_model(vision_image_size=SIDE, vision_mean=[0.5, 0.4, 0.3], vision_std=[0.2, 0.3, 0.4])
    pixels = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    seen = []
    model.vision_model.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model.encode_images(pixels)
    model.encode_images(F.interpolate(pixels, scale_factor=2, mode="nearest"))
    colour = (seen[0] * torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1) + torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) * 2
    torch.testing.assert_close(colour - 1, pixels)
    torch.testing.assert_close(seen[1], seen[0])


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_network_lets_gradients_through_to_pictures(freeze):
    model, inputs = tiny_model(freeze_vision=freeze).train(), tiny_inputs()
    assert model.vision_model.training is not freeze
    inputs["pixel_values"].requires_grad_()
    model(**inputs).loss.backward()
    assert inputs["pixel_values"].grad.abs().sum() > 0
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (freeze and "vision_model" in name), name


def test_frozen_network_keeps_nothing_for_pictures_that_want_no_gradient():
    regions, pooled = tiny_model(freeze_vision=True).extract_features(tiny_inputs()["pixel_values"])
    assert not regions.requires_grad and not pooled.requires_grad


# Losses


def test_losses_are_in_training_or_on_request():
    model, inputs = tiny_model(), tiny_inputs()
    output = model(**inputs, return_loss=True)
    torch.testing.assert_close(output.loss, output.word_loss + output.sentence_loss)
    log_rows = output.word_logits.log_softmax(dim=1).diagonal().mean()
    log_columns = output.word_logits.log_softmax(dim=0).diagonal().mean()
    torch.testing.assert_close(output.word_loss, -(log_rows + log_columns))
    assert model(**inputs).loss is None and model.train()(**inputs).loss is not None


def test_pictures_of_one_class_are_no_negatives_of_each_other():
    model, inputs = tiny_model(), tiny_inputs()
    every, none = (model(**inputs, return_loss=True, class_ids=torch.tensor(ids)).loss for ids in ([1, 2, 3], [7] * 3))
    torch.testing.assert_close(every, model(**inputs, return_loss=True).loss)
    assert none == 0 and every > 0


def test_losses_of_embeddings_are_those_of_the_forward_pass():
    model, inputs = tiny_model(), tiny_inputs()
    images = model.encode_images(inputs["pixel_values"])
    texts = model.encode_texts(inputs["input_ids"], inputs["attention_mask"])
    words, sentences = model.matching_losses(images, texts)
    output = model(**inputs, return_loss=True)
    torch.testing.assert_close(words.captions + words.pictures, output.word_loss)
    torch.testing.assert_close(sentences.captions + sentences.pictures, output.sentence_loss)


# Inception-v3


def test_inception_is_the_default_and_frozen():
    torch.manual_seed(0)
    model = DamsmModel(DamsmConfig(vocab_size=VOCABULARY, word_embedding_size=5, hidden_size=HIDDEN)).train()
    assert isinstance(model.vision_model, InceptionV3) and not model.vision_model.training
    assert not any(parameter.requires_grad for parameter in model.vision_model.parameters())
    with torch.no_grad():
        images = model.encode_images(tiny_inputs(1)["pixel_values"])  # resized to 299 pixels
    assert images.regions.shape == (1, 17 * 17, HIDDEN) and images.codes.shape == (1, HIDDEN)


# Input that a model cannot take


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "either pixel_values or region_features"),
        ({"region_features": torch.ones(2, CELLS, FEATURES)}, r"pooled_features is None.*\(2, 6\)"),
        ({**tiny_features(2), "pooled_features": torch.ones(2, 5)}, r"pooled_features is \(2, 5\).*\(2, 6\)"),
        ({"region_features": torch.ones(2, CELLS, 5), "pooled_features": torch.ones(2, 6)}, "size 5"),
    ],
)
def test_encode_images_refuses(inputs, message):
    with pytest.raises(DataError, match=message):
        tiny_model().encode_images(**inputs)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 2], [0, 0]], "record 1: caption has no words"),
        ([[0, 1]], "captions must be padded on the right"),
        ([[1, VOCABULARY]], f"token id {VOCABULARY}"),
    ],
)
def test_encode_texts_refuses(ids, message):
    with pytest.raises(DataError, match=message):
        tiny_model().encode_texts(torch.tensor(ids))


def test_pairs_must_be_pairs():
    inputs = {**tiny_inputs(), "pixel_values": tiny_inputs(2)["pixel_values"]}
    with pytest.raises(DataError, match="as many captions as pictures, not"):
        tiny_model()(**inputs, return_loss=True)
    with pytest.raises(DataError, match="2 pictures, 3 captions"):
        tiny_model()(**inputs, output_attentions=True)
    with pytest.raises(DataError, match="class_ids"):
        tiny_model()(**tiny_inputs(), return_loss=True, class_ids=torch.ones(2))


def test_weights_of_another_backbone_are_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is DamsmModel and loaded.config.pooled_size == FEATURES
    with pytest.raises(CheckpointError, match="vision_model"):
        DamsmModel.from_pretrained(tmp_path, vision_config=OTHER_BACKBONE)
