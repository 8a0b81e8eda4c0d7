import pytest
import torch
from transformers import AutoModel

from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS, alignment_function_names
from vl_alignment.models.attention_attngan import WordAttention
from vl_alignment.models.configuration_attngan import AttnGanConfig
from vl_alignment.models.discriminators_attngan import StageDiscriminator, conditioning_divergence
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.modeling_attngan import AttnGanDiscriminators, AttnGanForTextToImageGeneration
from vl_alignment.models.processing_attngan import AttnGanProcessor

from . import damsm_model
from .attngan_model import CONDITION, NOISE, SIZE, STAGES, TEXT, tiny_config, tiny_inputs, tiny_model
from .model_tester import ModelTester
from .scan_model import VOCABULARY, caption_ids


class TestAttnGan(ModelTester):
    config_class = AttnGanConfig
    model_class = AttnGanForTextToImageGeneration
    scores = "images"
    alignment_modules = 2
    atol_of_dtype = {torch.bfloat16: 0.15, torch.float16: 3e-2}

    def make_config(self, **fields):
        return tiny_config(**fields)

    def make_inputs(self, examples=3):
        return tiny_inputs(examples)

    def alone(self, inputs, index):
        words = inputs["attention_mask"][index].bool()
        noise = {name: inputs[name][index : index + 1] for name in ("noise", "conditioning_noise")}
        return {"input_ids": inputs["input_ids"][index : index + 1, words], **noise}

    def queries_and_keys(self, inputs):
        words = inputs["attention_mask"].bool()
        return [(torch.ones(3, side * side, dtype=torch.bool), words) for side in STAGES[:2]]

    @pytest.mark.parametrize("name", alignment_function_names())
    def test_gradients_reach_every_parameter(self, name):
        model = self.make_model(alignment_function=name).train()
        output = model(**self.make_inputs())
        weights = [torch.randn_like(images) for images in output.stage_images]
        loss = sum((images * weight).mean() for images, weight in zip(output.stage_images, weights, strict=True))
        (loss + conditioning_divergence(output.mean, output.log_variance)).backward()
        row = ALIGNMENT_FUNCTIONS[name]
        for parameter_name, parameter in model.named_parameters():
            if "text_encoder" in parameter_name:
                assert parameter.grad is None
                continue
            assert torch.isfinite(parameter.grad).all(), parameter_name
            # Without an activation a bias on the key adds the same to every word, which the softmax cancels.
            cancelled = parameter_name.endswith("alignment.bias") and row.transforms == "key" and not row.activated
            assert (parameter.grad.abs().sum() > 1e-7) != cancelled, parameter_name

    @pytest.mark.parametrize("name", alignment_function_names())
    def test_trains_under_autocast(self, name):
        model = self.make_model(alignment_function=name).train()
        with torch.autocast("cpu", torch.bfloat16):
            output = model(**self.make_inputs())
        sum(images.float().square().mean() for images in output.stage_images).backward()
        gradients = [parameter.grad for parameter in model.generator.parameters()]
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


# Stages and attention


def test_shapes():
    output = tiny_model()(**tiny_inputs(), output_attentions=True)
    assert [images.shape for images in output.stage_images] == [(3, 3, side, side) for side in STAGES]
    assert output.images is output.stage_images[-1] and output.images.abs().max() <= 1
    assert output.mean.shape == output.log_variance.shape == (3, CONDITION)
    assert [maps.shape for maps in output.attentions] == [(3, 64, 5), (3, 256, 5)]


@pytest.mark.parametrize(("size", "stages"), [(8, 1), (64, 2), (64, 4)])
def test_other_sizes(size, stages):
    model = tiny_model(image_size=size, num_stages=stages)
    output = model(**tiny_inputs(), output_attentions=True)
    assert [images.shape[-1] for images in output.stage_images] == model.config.stage_sizes
    assert model.config.stage_sizes[-1] == size and len(output.attentions) == stages - 1


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("name", ["dot", "cosine", "scaled_dot", "biased_general_query", "activated_general_key"])
def test_maps_change_nothing(name, released):
    model = tiny_model(alignment_function=name, released_layout=released).double()
    inputs = tiny_inputs()
    with_maps, without = model(**inputs, output_attentions=True), model(**inputs)
    torch.testing.assert_close(with_maps.images, without.images)
    assert without.attentions is None


@pytest.mark.parametrize("name", ["dot", "cosine", "general_query", "biased_general_key", "scaled_dot"])
def test_scores_without_activation_are_fused(name, monkeypatch):
    attention = WordAttention(tiny_config(alignment_function=name))
    monkeypatch.setattr(attention.alignment, "scores", None)  # whoever asked for scores would fail
    words, mask = torch.randn(2, 5, TEXT), torch.ones(2, 5, dtype=torch.bool)
    context, maps = attention(torch.randn(2, 4, 3, 3), words, mask)
    assert context.shape == (2, 4, 3, 3) and maps is None
    with pytest.raises(TypeError):
        attention(torch.randn(2, 4, 3, 3), words, mask, output_attentions=True)


def test_released_layout_masks_with_the_padding_of_other_captions():
    model = tiny_model(released_layout=True).double()
    inputs = tiny_inputs()
    lengths = inputs["attention_mask"].sum(dim=1)
    maps = model(**inputs, output_attentions=True).attentions[0]
    for caption in range(3):
        for pixel in range(64):
            seen = int(lengths[(caption * 64 + pixel) % 3])
            assert (maps[caption, pixel] > 0).tolist() == [word < seen for word in range(5)]
    right = tiny_model().double()(**inputs).images
    assert not torch.allclose(model(**inputs).images, right)
    tester = TestAttnGan()
    alone = model(**tester.alone(inputs, 1)).images
    torch.testing.assert_close(alone[0], right[1])  # alone a caption is drawn the same either way


def test_attention_refuses_a_mask_that_does_not_fit():
    attention, features, words = WordAttention(tiny_config()), torch.randn(2, 4, 3, 3), torch.randn(2, 5, TEXT)
    for mask in (torch.ones(2, 4).bool(), torch.tensor([[1, 1, 1, 1, 1], [0] * 5]).bool()):
        with pytest.raises(DataError, match="leave each of the captions"):
            attention(features, words, mask)


def test_starting_values_are_those_of_the_published_code():
    model = tiny_model()
    weight = model.generator.stages[0].attention.word_projection.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(4))
    assert model.generator.conditioning.linear.bias.abs().max() == 0
    norm = model.generator.first_stage.norm
    assert 0.01 < norm.weight.std() < 0.03 and 0.98 < norm.weight.mean() < 1.02 and norm.bias.abs().max() == 0


# The text encoder


def test_text_encoder_comes_from_damsm_and_stays():
    damsm = damsm_model.tiny_model(word_dropout=0.5)
    fields = {"image_size": SIZE, "generator_size": 4, "noise_size": NOISE, "conditioning_size": CONDITION}
    model = AttnGanForTextToImageGeneration.from_damsm(damsm, alignment_function="dot", **fields).train()
    ids, mask = caption_ids(5, 3)
    words, sentences, seen = model.encode_texts(ids, mask)
    texts = damsm.encode_texts(ids, mask)
    assert torch.equal(words, texts.words) and torch.equal(sentences, texts.sentences) and torch.equal(seen, texts.mask)
    assert not words.requires_grad and not model.text_encoder.training and model.generator.training


def test_text_encoder_is_frozen_after_loading(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path).train()
    assert not any(parameter.requires_grad for parameter in model.text_encoder.parameters())
    assert all(parameter.requires_grad for parameter in model.generator.parameters())


# Generation


def test_same_seed_same_pictures_whatever_stands_beside():
    model = tiny_model()
    ids, mask = caption_ids(5, 3)
    both = model.generate(ids, num_images=3, seed=7, attention_mask=mask, output_attentions=True)
    assert both.images.shape == (6, 3, SIZE, SIZE) and both.images.abs().max() <= 1
    assert [maps.shape for maps in both.attentions] == [(6, 64, 5), (6, 256, 5)]
    again = model.generate(input_ids=ids, attention_mask=mask, num_images=3, seed=7)
    assert torch.equal(again.images, both.images) and again.attentions is None
    alone = model.generate(ids[1:, :3], num_images=2, seed=7)
    torch.testing.assert_close(alone.images, both.images[3:5], rtol=0, atol=1e-5)
    other = model.generate(ids, num_images=3, seed=8, attention_mask=mask)
    assert not torch.allclose(other.images, both.images)
    unseeded = [model.generate(ids[:1], attention_mask=mask[:1]).images for _ in range(2)]
    assert not torch.equal(*unseeded)


def test_more_pictures_than_are_drawn_at_once():
    model, (ids, _) = tiny_model(), caption_ids(3, 3)
    many = model.generate(ids, num_images=10, seed=0).images
    torch.testing.assert_close(many[10:12], model.generate(ids[1:], num_images=2, seed=0).images, rtol=0, atol=1e-5)


def test_generation_in_training_leaves_the_model_as_it_was():
    model, (ids, _) = tiny_model().train(), caption_ids(3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = model.generate(ids, seed=0).images
    assert model.training and not model.text_encoder.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(images, model.eval().generate(ids, seed=0).images)


def test_pictures_of_a_caption_in_one_line(tmp_path):
    tokenizer = build_word_tokenizer(["a small red bird"], minimum_count=1)
    model = tiny_model(vocab_size=len(tokenizer))
    with pytest.raises(ConfigurationError, match="set model.processor"):
        model.generate("a red bird")
    model.save_pretrained(tmp_path)
    AttnGanProcessor(tokenizer=tokenizer).save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    made = loaded.generate(["a red bird", "a bird"], num_images=2, seed=0, output_type="pil")
    assert len(made.images) == 4 and made.images[0].size == (SIZE, SIZE) and made.images[0].mode == "RGB"
    assert tokenizer.decode(made.input_ids[0]) == "<start> a red bird <end>"
    expected = loaded.generate("a red bird", seed=0).images[0]
    pixels = torch.tensor(list(made.images[0].getdata())).view(SIZE, SIZE, 3).permute(2, 0, 1)
    torch.testing.assert_close(pixels / 127.5 - 1, expected, rtol=0, atol=1 / 127.5)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, DataError, "either captions or input_ids"),
        ({"captions": torch.ones(1, 2).long(), "num_images": 0}, ConfigurationError, "num_images is 0"),
        ({"captions": torch.ones(1, 2).long(), "output_type": "png"}, ConfigurationError, "'png'"),
        ({"captions": torch.tensor([[0, 0]])}, DataError, "caption has no words"),
        ({"captions": torch.tensor([[1, VOCABULARY]])}, DataError, f"token id {VOCABULARY}"),
    ],
)
def test_generate_refuses(settings, error, message):
    with pytest.raises(error, match=message):
        tiny_model().generate(**settings)


def test_noise_of_another_shape_is_refused():
    with pytest.raises(DataError, match=r"noise is \(3, 4\); it must be \(3, 5\)"):
        tiny_model()(**{**tiny_inputs(), "noise": torch.ones(3, 4)})


# Discriminators


def judged_pictures(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, 3, side, side, generator=generator) * 2 - 1 for side in STAGES]


def test_discriminators_judge_every_stage(tmp_path):
    model = AttnGanDiscriminators(tiny_config()).eval()
    sentences = torch.randn(3, TEXT)
    judgements = model(judged_pictures(), sentences)
    assert [logits.shape for logits in judgements.unconditional + judgements.conditional] == [(3,)] * 6
    model.save_pretrained(tmp_path)
    loaded = AttnGanDiscriminators.from_pretrained(tmp_path)
    assert torch.equal(loaded(judged_pictures(), sentences).conditional[2], judgements.conditional[2])


def test_discriminator_loss_is_the_published_mean():
    stage = StageDiscriminator(tiny_config(), 32).double().eval()
    real, drawn = (judged_pictures(seed)[2].double() for seed in (0, 1))
    sentences = torch.randn(3, TEXT).double()
    of_real, of_drawn = stage.features(real), stage.features(drawn)
    real_log, drawn_log = stage.unconditional(of_real).sigmoid().log(), (-stage.unconditional(of_drawn)).sigmoid().log()
    fitting = stage.conditional(of_real, sentences).sigmoid().log()
    unfitting = (-stage.conditional(of_real[:2], sentences[1:])).sigmoid().log()
    false = (-stage.conditional(of_drawn, sentences)).sigmoid().log()
    expected = (real_log.mean() + fitting.mean()) / 2 + (drawn_log.mean() + unfitting.mean() + false.mean()) / 3
    torch.testing.assert_close(stage.discriminator_loss(real, drawn, sentences), -expected)


def test_losses_send_gradients_where_they_belong():
    model, sentences = AttnGanDiscriminators(tiny_config()), torch.randn(3, TEXT, requires_grad=True)
    drawn = [images.requires_grad_() for images in judged_pictures(1)]
    losses = model.discriminator_losses(judged_pictures(), drawn, sentences)
    assert len(losses) == 3
    sum(losses).backward()
    assert all(images.grad is None for images in drawn) and sentences.grad is None
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    sum(model.generator_losses(drawn, sentences)).backward()
    assert all(images.grad.abs().sum() > 0 for images in drawn)


def test_discriminators_refuse():
    model, pictures, sentences = AttnGanDiscriminators(tiny_config()), judged_pictures(), torch.randn(3, TEXT)
    with pytest.raises(DataError, match="one tensor a stage"):
        model(pictures[:2], sentences)
    with pytest.raises(DataError, match=r"judges \[B, 3, 8, 8\]"):
        model(pictures[::-1], sentences)
    with pytest.raises(DataError, match="at least two"):
        model.discriminator_losses(*([images[:1] for images in pictures] for _ in range(2)), sentences[:1])


def test_divergence_of_a_standard_normal_condition_is_zero():
    assert conditioning_divergence(torch.zeros(2, 3), torch.zeros(2, 3)) == 0
    assert conditioning_divergence(torch.full((2, 3), 2.0), torch.zeros(2, 3)) == 2  # mean^2 / 2
