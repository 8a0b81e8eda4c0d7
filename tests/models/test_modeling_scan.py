import pytest
import torch
from transformers import AutoModel, ResNetConfig, Trainer, TrainingArguments, ViTConfig

from vl_alignment.models.configuration_scan import ScanConfig
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.models.modeling_scan import ScanForImageTextRetrieval, ScanModel, triplet_loss

from .model_tester import ModelTester
from .scan_model import FEATURES, HIDDEN, VOCABULARY, caption_ids, tiny_config, tiny_inputs, tiny_model


class TestScan(ModelTester):
    config_class = ScanConfig
    model_class = ScanForImageTextRetrieval
    scores = "logits_per_image"
    # The norm over words makes 1 of the smallest score that a ReLU lets through beside zeros.
    continuous = {"score_normalization": "clipped"}

    def make_config(self, **fields):
        return tiny_config(**fields)

    def make_inputs(self, examples=3):
        lengths = torch.arange(examples) % 2 + 3
        return {**tiny_inputs(examples), "region_mask": torch.arange(4) < lengths.unsqueeze(1)}

    def alone(self, inputs, index):
        words, regions = inputs["attention_mask"][index].bool(), inputs["region_mask"][index]
        return {
            "input_ids": inputs["input_ids"][index : index + 1, words],
            "region_features": inputs["region_features"][index : index + 1, regions],
        }

    def scores_alone(self, scores, index):
        return scores[index, index]

    def queries_and_keys(self, inputs):
        return [(inputs["attention_mask"].bool(), inputs["region_mask"])]


class TestScanFromRegionsToWords(TestScan):
    """The same for direction "i2t"."""

    def make_config(self, **fields):
        return tiny_config(direction="i2t", **fields)

    def queries_and_keys(self, inputs):
        return [(inputs["region_mask"], inputs["attention_mask"].bool())]


def test_starting_values_are_those_of_the_published_code():
    state = tiny_model(bidirectional=False, hidden_size=64, word_embedding_size=50, vocab_size=100).state_dict()
    for name, bound in {
        "region_encoder.projection.weight": (6 / (FEATURES + 64)) ** 0.5,
        "text_encoder.embedding.weight": 0.1,
        "text_encoder.gru.weight_ih_l0": 64**-0.5,
        "text_encoder.gru.weight_hh_l0": 64**-0.5,
        "text_encoder.gru.bias_ih_l0": 64**-0.5,
    }.items():
        numbers = state[f"model.{name}"]
        assert 0.9 * bound < numbers.abs().max() <= bound, name
        assert numbers.abs().mean().item() == pytest.approx(bound / 2, rel=0.15), name
    assert state["model.region_encoder.projection.bias"].abs().max() == 0


# Embeddings


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_embeddings_have_unit_length_and_are_zero_at_padding(layers, bidirectional):
    model = tiny_model(num_hidden_layers=layers, bidirectional=bidirectional)
    inputs = tiny_inputs()
    region_mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    output = model(**inputs, region_mask=region_mask)
    assert output.region_embeddings.shape == (3, 4, HIDDEN) and output.word_embeddings.shape == (3, 5, HIDDEN)
    torch.testing.assert_close(output.region_embeddings.norm(dim=-1), region_mask.float())
    torch.testing.assert_close(output.word_embeddings.norm(dim=-1), inputs["attention_mask"].float())


def test_embeddings_may_keep_their_length():
    output = tiny_model(normalize_regions=False, normalize_words=False)(**tiny_inputs())
    assert (output.region_embeddings.norm(dim=-1) - 1).abs().min() > 1e-4
    assert (output.word_embeddings.norm(dim=-1) - 1).abs().min() > 1e-4


def test_encoders_and_similarity_equal_forward():
    model, inputs = tiny_model(), tiny_inputs()
    region_mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]]).bool()
    output = model(**inputs, region_mask=region_mask)
    regions = model.encode_images(region_features=inputs["region_features"], region_mask=region_mask)
    words = model.encode_texts(inputs["input_ids"], inputs["attention_mask"])
    assert torch.equal(regions, output.region_embeddings) and torch.equal(words, output.word_embeddings)
    for similarity in (
        model.similarity(regions, words, region_mask=region_mask, word_mask=inputs["attention_mask"]),
        model.model.similarity(regions, words, region_mask, inputs["attention_mask"].bool()),
    ):
        assert torch.equal(similarity, output.logits_per_image)
    assert torch.equal(output.logits_per_text, output.logits_per_image.T)
    assert torch.equal(model.model(**inputs, region_mask=region_mask).logits_per_image, output.logits_per_image)


def test_mask_of_words_follows_from_the_padding():
    model, inputs = tiny_model(), tiny_inputs()
    expected = model(**inputs).logits_per_image
    del inputs["attention_mask"]
    assert torch.equal(model(**inputs).logits_per_image, expected)


def test_without_a_padding_id_every_position_is_a_word():
    model = tiny_model(pad_token_id=None)
    ids = torch.tensor([[0, 3, 0]])
    assert torch.equal(model.encode_texts(ids), model.encode_texts(ids, torch.ones(1, 3)))


def test_base_and_retrieval_models_read_each_others_weights(tmp_path):
    model, inputs = tiny_model(), tiny_inputs()
    expected = model(**inputs).logits_per_image
    model.save_pretrained(tmp_path / "retrieval")
    base = ScanModel.from_pretrained(tmp_path / "retrieval")
    assert torch.equal(base(**inputs).logits_per_image, expected)
    base.save_pretrained(tmp_path / "base")
    again = ScanForImageTextRetrieval.from_pretrained(tmp_path / "base")
    assert torch.equal(again(**inputs).logits_per_image, expected)


def test_loading_overrides_fields_but_refuses_typos(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    assert ScanForImageTextRetrieval.from_pretrained(tmp_path, margin=0.5).config.margin == 0.5
    with pytest.raises(CheckpointError, match="'marjin'"):
        ScanForImageTextRetrieval.from_pretrained(tmp_path, marjin=0.5)
    with pytest.raises(ConfigurationError, match="'dott' is unknown"):
        ScanForImageTextRetrieval.from_pretrained(tmp_path, alignment_function="dott")


# Loss

SIMILARITY = torch.tensor([[0.9, 0.8, 0.1], [0.3, 0.5, 0.45], [0.2, 0.6, 0.7]])


@pytest.mark.parametrize(
    ("negatives", "expected"),
    [
        # Rows: [0.1, 0], [0, 0.15], [0, 0.1]; columns: [0, 0], [0.5, 0.3], [0, 0]. The last of them by hand:
        # caption 1 has 0.5 for its own picture, 0.8 and 0.6 for the others: 0.2 + 0.8 - 0.5 and 0.2 + 0.6 - 0.5.
        ("all", 0.1 + 0.15 + 0.1 + 0.5 + 0.3),
        ("hardest", 0.1 + 0.15 + 0.1 + 0.5),
    ],
)
def test_triplet_loss_by_hand(negatives, expected):
    assert triplet_loss(SIMILARITY, 0.2, negatives).item() == pytest.approx(expected, abs=1e-6)


def test_triplet_loss_of_satisfied_margins_is_zero():
    for negatives in ("all", "hardest"):
        assert triplet_loss(torch.eye(3), 0.2, negatives) == 0
        assert triplet_loss(torch.zeros(3, 3), 0.2, "hardest").item() == pytest.approx(2 * 0.2 * 3)
        assert triplet_loss(torch.ones(1, 1), 0.2, negatives) == 0  # a single pair has no negatives


def test_loss_is_that_of_the_similarities_and_negatives_override_the_config():
    model, inputs = tiny_model(margin=0.3), tiny_inputs()
    output = model(**inputs, return_loss=True)
    assert torch.equal(output.loss, triplet_loss(output.logits_per_image, 0.3, "hardest"))
    every = model(**inputs, return_loss=True, negatives="all")
    assert torch.equal(every.loss, triplet_loss(output.logits_per_image, 0.3, "all"))
    assert every.loss > output.loss
    configured = tiny_model(margin=0.3, negatives="all")(**inputs, return_loss=True)
    assert torch.equal(configured.loss, every.loss)


def test_loss_is_computed_in_training_or_on_request():
    model, inputs = tiny_model(), tiny_inputs()
    assert model(**inputs).loss is None
    assert model(**inputs, return_loss=True).loss is not None
    model.train()
    assert model(**inputs).loss is not None
    assert model(**inputs, return_loss=False).loss is None


def test_scores_need_no_pairs_but_loss_and_attentions_do():
    model, inputs = tiny_model(), tiny_inputs()
    inputs["region_features"] = inputs["region_features"][:2]
    assert model(**inputs).logits_per_image.shape == (2, 3)
    with pytest.raises(DataError, match="as many captions as pictures"):
        model(**inputs, return_loss=True)
    with pytest.raises(DataError, match="2 pictures, 3 captions"):
        model(**inputs, output_attentions=True)
    with pytest.raises(ConfigurationError, match="'hard'"):
        model(**tiny_inputs(), return_loss=True, negatives="hard")


# Pictures

RESNET = ResNetConfig(
    num_channels=3, embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic"
)  # stride 8
VIT = ViTConfig(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=8
)


def pictures(number=3):
    return torch.rand(number, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def pixel_inputs():
    inputs = tiny_inputs()
    del inputs["region_features"]
    return {**inputs, "pixel_values": pictures()}


@pytest.mark.parametrize(("vision_config", "width"), [(RESNET, 6), (VIT, 8)], ids=["resnet", "vit"])
def test_pixels_become_regions_in_reading_order(vision_config, width, tmp_path):
    model = tiny_model(vision_config=vision_config)
    assert model.config.feature_size == width
    features = model.model.extract_regions(pictures())
    assert features.shape == (3, 16, width)
    output = model(**pixel_inputs())
    assert torch.equal(output.region_embeddings, model.encode_images(region_features=features))
    assert output.logits_per_image.shape == (3, 3)
    hidden = model.model.vision_model(pictures()).last_hidden_state
    third_row_second_column = hidden[:, :, 2, 1] if hidden.dim() == 4 else hidden[:, 1 + 2 * 4 + 1]
    assert torch.equal(features[:, 9], third_row_second_column)

    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(**pixel_inputs()).logits_per_image, output.logits_per_image)


@pytest.mark.parametrize("vision_config", [RESNET, VIT], ids=["resnet", "vit"])
def test_frozen_backbone_does_not_move(vision_config, tmp_path):
    model = tiny_model(vision_config=vision_config)
    model.save_pretrained(tmp_path)
    for candidate in (model, AutoModel.from_pretrained(tmp_path)):
        candidate.train()
        before = {key: tensor.clone() for key, tensor in candidate.model.vision_model.state_dict().items()}
        assert not any(parameter.requires_grad for parameter in candidate.model.vision_model.parameters())
        assert all(parameter.requires_grad for parameter in candidate.model.region_encoder.parameters())
        optimizer = torch.optim.SGD(candidate.parameters(), lr=0.1, weight_decay=0.1)
        for _ in range(2):
            candidate(**pixel_inputs()).loss.backward()
            optimizer.step()
        for key, tensor in candidate.model.vision_model.state_dict().items():
            assert torch.equal(tensor, before[key]), key


@pytest.mark.parametrize("vision_config", [RESNET, VIT], ids=["resnet", "vit"])
def test_trainable_backbone_learns(vision_config, tmp_path):
    model = tiny_model(vision_config=vision_config, freeze_vision=False)
    model.save_pretrained(tmp_path)
    for candidate in (model, AutoModel.from_pretrained(tmp_path)):
        candidate.train()
        before = {key: tensor.clone() for key, tensor in candidate.model.vision_model.state_dict().items()}
        candidate(**pixel_inputs(), negatives="all").loss.backward()
        for name, parameter in candidate.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        moved = [key for key in before if not torch.equal(candidate.model.vision_model.state_dict()[key], before[key])]
        assert all("running" in key or "num_batches" in key for key in moved)
        assert bool(moved) == (vision_config is RESNET)  # statistics of the batches


def test_a_frozen_model_can_be_loaded_to_be_trained(tmp_path):
    tiny_model(vision_config=RESNET).save_pretrained(tmp_path)
    model = ScanForImageTextRetrieval.from_pretrained(tmp_path, freeze_vision=False)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_statistics_that_are_not_finite_are_refused(tmp_path):
    model = tiny_model(vision_config=RESNET)
    name, statistics = next((n, b) for n, b in model.named_buffers() if n.endswith("running_var"))
    statistics[0] = torch.inf
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"{name}.*not finite"):
        AutoModel.from_pretrained(tmp_path)


# Input that a model cannot take


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "either pixel_values or region_features"),
        ({"region_features": torch.ones(2, 3, FEATURES), "pixel_values": pictures()}, "either"),
        ({"region_features": torch.ones(2, 3, FEATURES + 1)}, f"size {FEATURES + 1}.*{FEATURES}"),
        ({"region_features": torch.ones(2, 0, FEATURES)}, r"\(2, 0, 6\)"),
        ({"region_features": torch.ones(2, FEATURES)}, r"\(2, 6\)"),
        ({"region_features": torch.ones(2, 3, FEATURES), "region_mask": torch.ones(2, 4)}, "region_mask"),
    ],
)
def test_encode_images_refuses(inputs, message):
    with pytest.raises(DataError, match=message):
        tiny_model().encode_images(**inputs)


def test_pixels_without_a_backbone_are_refused_with_the_name_of_the_extractor():
    with pytest.raises(ConfigurationError, match="an extractor of your own"):
        tiny_model().encode_images(pixel_values=pictures())
    with pytest.raises(ConfigurationError, match="made with efficientnet-lite0"):
        tiny_model(region_extractor="efficientnet-lite0").encode_images(pixel_values=pictures())


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([[1, 2], [0, 0]], None, "record 1: caption has no words"),
        ([[1, 2], [3, 4]], [[1, 1], [0, 0]], "record 1: caption has no words"),
        ([[0, 1, 2]], None, "padded on the right"),
        ([[1, 0, 2]], None, "padded on the right"),
        ([[1, VOCABULARY]], None, f"token id {VOCABULARY} .*vocabulary of {VOCABULARY}"),
        ([[1, -1]], None, "token id -1"),
        ([[1, 2]], [[1, 1, 1]], "attention_mask"),
        ([[], []], None, "no words"),
        ([1, 2], None, r"\[captions, words\]"),
        (torch.ones(0, 3), None, r"\[captions, words\]"),
    ],
)
def test_encode_texts_refuses(ids, mask, message):
    mask = mask if mask is None else torch.tensor(mask)
    with pytest.raises(DataError, match=message):
        tiny_model().encode_texts(torch.as_tensor(ids, dtype=torch.long), mask)


def test_picture_without_regions_is_refused():
    with pytest.raises(DataError, match="record 1: picture has no regions"):
        tiny_model()(**tiny_inputs(), region_mask=torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]]))


# Trainer


class Pairs(torch.utils.data.Dataset):
    """Pairs of a picture and a caption, as many as one batch."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        ids, mask = caption_ids(4, seed=index)
        features = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(index))
        return {"input_ids": ids[0], "attention_mask": mask[0], "region_features": features}


def test_trainer_of_transformers_trains_it(tmp_path):
    model = tiny_model(negatives="all")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=3,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Pairs())
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3 and losses[2] < losses[0]
    assert all(
        not torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items() if "embedding" not in key
    )
    trainer.save_model(tmp_path / "trained")
    trained = AutoModel.from_pretrained(tmp_path / "trained")
    assert torch.equal(trained(**tiny_inputs()).logits_per_image, model.eval()(**tiny_inputs()).logits_per_image)
