import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoModel,
    AutoModelForVisualQuestionAnswering,
    BertConfig,
    BertModel,
    ResNetConfig,
    Trainer,
    TrainingArguments,
)

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS
from vl_alignment.models.configuration_m4c import M4CConfig
from vl_alignment.models.embedding_m4c import first_text_layers, pool_regions
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering, M4CModel
from vl_alignment.models.vision import grid_boxes

from .m4c_model import (
    FEATURES,
    HIDDEN,
    LAYERS,
    NO_DROPOUT,
    OBJECTS,
    OCR_INPUTS,
    PHOC,
    PIECES,
    SLOTS,
    STEPS,
    VOCABULARY,
    alone,
    random_boxes,
    teaching_inputs,
    tiny_config,
    tiny_inputs,
    tiny_model,
    tiny_text_config,
)
from .model_tester import ModelTester


class TestM4C(ModelTester):
    config_class = M4CConfig
    model_class = M4CForQuestionAnswering
    scores = "logits"
    continuous = NO_DROPOUT | {"initializer_range": 0.1}
    with_loss: dict = {}
    spread_of_draws = 4.0  # some tensors have few numbers
    alignment_modules = LAYERS

    def make_config(self, **fields):
        return tiny_config(**{**NO_DROPOUT, **fields})

    def make_inputs(self, examples=3):
        return teaching_inputs(examples)

    def alone(self, inputs, index):
        return alone(inputs, index)

    def scores_alone(self, scores, index):
        return scores[index, :, : scores.shape[-1] - index]  # one token fewer in each picture

    def has_no_gradient(self, model, parameter_name):
        if "text_model" in parameter_name:  # a plain product of query and key
            return parameter_name.endswith("self.key.bias")
        row = ALIGNMENT_FUNCTIONS[model.config.alignment_function]
        same_for_all_keys = row.module is None and not (row.activated or row.normalized)
        names = ["attention.key.bias"] + ["alignment.bias"] * (row.transforms == "key")
        return same_for_all_keys and any(parameter_name.endswith(name) for name in names)

    @pytest.mark.parametrize("name", ALIGNMENT_FUNCTIONS)
    def test_attentions_are_rows_that_sum_to_one(self, name):
        model, inputs = self.make_model(alignment_function=name), self.make_inputs()
        with torch.no_grad():
            assert model(**inputs).attentions is None
            output = model(**inputs, output_attentions=True)
            expected = model(**inputs).logits
        torch.testing.assert_close(output.logits, expected, rtol=1e-5, atol=1e-5)
        keys = torch.cat(
            [inputs["attention_mask"].bool(), inputs["region_mask"], inputs["ocr_mask"]], dim=1
        )  # of the entities
        entities, size = keys.shape[1], keys.shape[1] + STEPS
        assert len(output.attentions) == LAYERS
        for maps in output.attentions:
            assert maps.shape == (3, model.config.num_attention_heads, size, size)
            torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
            assert (maps >= 0).all()
            assert maps[..., :entities].masked_fill(keys[:, None, None], 0).abs().max() == 0
            assert maps[..., :entities, entities:].abs().max() == 0  # no entity sees a step
            assert maps[..., entities:, entities:].triu(1).abs().max() == 0  # no step sees a later one
            assert (maps[..., entities:, entities:].diagonal(dim1=-2, dim2=-1) > 0).all()


class TestM4CWithAllWidthsEqual(TestM4C):
    """The text encoder's width is the transformer's, and no feature is normalised."""

    def make_config(self, **fields):
        text_config = tiny_text_config(hidden_size=HIDDEN)
        return super().make_config(**{"text_config": text_config, "normalize_features": False, **fields})


# Starting values


def test_starting_values_are_those_of_the_published_code():
    model = tiny_model(hidden_size=32, intermediate_size=64, initializer_range=0.02, feature_size=64)
    state = model.state_dict()
    for name, fan_in in [
        ("model.picture_embedding.objects.features", 64),
        ("model.picture_embedding.objects.boxes", 4),
        ("model.question_encoder.projection", 6),
        ("classifier", 32),
        ("pointer.key", 32),
    ]:
        bound = fan_in**-0.5
        assert 0.8 * bound < state[f"{name}.weight"].abs().max() <= bound, name
        assert 0.3 * bound < state[f"{name}.bias"].abs().max() <= bound, name
    layer = "model.transformer.layers.0"
    assert 0.015 < state[f"{layer}.attention.query.weight"].std() < 0.025
    assert state[f"{layer}.attention.query.bias"].abs().max() == 0
    assert (state[f"{layer}.norm.weight"] == 1).all()


def test_functions_share_all_other_starting_values():
    first, second = (tiny_model(alignment_function=name).state_dict() for name in ("dot", "activated_general_key"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert sum("alignment" in name for name in second) == 2 * LAYERS


# Questions and pictures


@pytest.mark.parametrize("function", ["scaled_dot", "activated_general_key"])
def test_questions_about_the_same_picture_share_it(function):
    model = tiny_model(alignment_function=function).double()
    together = teaching_inputs(questions=6, pictures=2)
    seen = []
    model.model.picture_embedding.register_forward_hook(lambda _, __, output: seen.append(output.objects.shape))
    output = model(**together)
    assert seen == [(2, OBJECTS, HIDDEN)]
    repeated = {
        name: tensor.repeat_interleave(3, dim=0) if name.startswith(("region", "ocr")) else tensor
        for name, tensor in together.items()
    }
    torch.testing.assert_close(output.logits, model(**repeated).logits)
    assert len(model.generate(**tiny_inputs(6, 2)).sequences) == 6


def test_encoded_pictures_and_questions_are_reusable():
    model, inputs = tiny_model(), teaching_inputs()
    pictures = model.encode_images(**{n: t for n, t in inputs.items() if n.startswith(("region", "ocr"))})
    words, mask = model.model.encode_texts(inputs["input_ids"], inputs["attention_mask"])
    assert pictures.objects.shape == (3, OBJECTS, HIDDEN) and pictures.ocr_tokens.shape == (3, SLOTS, HIDDEN)
    output = model.answer(model.model.join(words, mask, pictures), inputs["previous_ids"])
    assert torch.equal(output.logits, model(**inputs).logits)
    assert output.decoder_states.shape == (3, STEPS, HIDDEN) and output.entity_states is None


@pytest.mark.parametrize("function", ["dot", "additive"])
def test_only_the_states_that_are_asked_for_are_computed_at_the_end(function):
    model, inputs = tiny_model(alignment_function=function), teaching_inputs()
    rows = []
    model.model.transformer.layers[-1].register_forward_hook(lambda _, given, __: rows.append(given[0].shape[1]))
    output = model(**inputs)
    fed = {name: tensor for name, tensor in inputs.items() if "label" not in name}
    whole = model.model(**fed, answers=model.classifier.weight)
    entities = 6 + OBJECTS + SLOTS
    assert rows == [SLOTS + STEPS, entities + STEPS]
    assert whole.entity_states.shape == (3, entities, HIDDEN)
    torch.testing.assert_close(output.decoder_states, whole.decoder_states)


def test_words_of_a_question_are_those_of_the_text_encoder():
    model = tiny_model()
    inputs = tiny_inputs()
    words, mask = model.model.encode_texts(inputs["input_ids"])  # the mask follows from the padding
    assert torch.equal(mask, inputs["attention_mask"].bool())
    encoder = model.model.question_encoder
    single = encoder.text_model(inputs["input_ids"][1:2, :5]).last_hidden_state
    torch.testing.assert_close(words[1, :5], encoder.projection(single)[0])


def test_picture_without_text():
    model, inputs = tiny_model(), teaching_inputs()
    inputs["ocr_mask"][1] = False
    padded = model(**inputs).logits[1]
    assert (padded[:, VOCABULARY:] < -9000).all()
    bare = {name: tensor[1:2] for name, tensor in inputs.items() if name not in OCR_INPUTS}
    bare["labels"] = bare["labels"][..., :VOCABULARY]
    bare["previous_ids"] = bare["previous_ids"].clamp_max(VOCABULARY - 1)
    inputs["previous_ids"][1].clamp_(max=VOCABULARY - 1)
    output = model(**bare)
    assert output.logits.shape == (1, STEPS, VOCABULARY) and torch.isfinite(output.loss)
    torch.testing.assert_close(output.logits[0], model(**inputs).logits[1, :, :VOCABULARY])
    del bare["previous_ids"], bare["labels"], bare["label_mask"]
    for beams in (1, 3):
        assert model.generate(**bare, num_beams=beams).sequences.max() < VOCABULARY
    empty = {**bare, "ocr_boxes": torch.zeros(1, 0, 4), "ocr_word_vectors": torch.zeros(1, 0, 3)}
    empty |= {"ocr_phoc": torch.zeros(1, 0, 5), "ocr_features": torch.zeros(1, 0, FEATURES)}
    assert torch.equal(model(**empty).logits, model(**bare).logits)


def test_zeros_at_the_end_of_the_ocr_feature_are_not_multiplied():
    model, inputs = tiny_model(), teaching_inputs()
    expected = model(**inputs).logits
    layer = model.model.picture_embedding.ocr_tokens.features
    assert layer.weight.shape[1] == 3 + 5 + FEATURES + 2
    with torch.no_grad():
        layer.weight[:, -2:] += 100
    assert torch.equal(model(**inputs).logits, expected)
    with torch.no_grad():
        layer.weight[:, -3] += 1
    assert not torch.allclose(model(**inputs).logits, expected)


@pytest.mark.parametrize("normalize", [True, False])
def test_size_of_a_feature_counts_only_where_it_is_not_normalised(normalize):
    model = tiny_model(normalize_features=normalize).double()
    inputs = teaching_inputs()
    expected = model(**inputs).logits
    for name in ("region_features", "ocr_word_vectors", "ocr_phoc", "ocr_features"):
        changed = model(**{**inputs, name: 3 * inputs[name]}).logits
        assert torch.allclose(changed, expected) == normalize, name


# Regions of a grid


def test_pooling_weighs_cells_by_their_overlap():
    grid = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])  # 2 x 2
    boxes = torch.tensor(
        [
            [
                [0.0, 0.0, 1.0, 1.0],  # everything
                [0.5, 0.0, 1.0, 0.5],  # the second cell
                [0.25, 0.0, 1.0, 0.5],  # a third of the first row's part is in the first cell
                [0.0, 0.4, 0.5, 0.6],  # half of each cell of the first column
                [0.7, 0.7, 0.7, 0.7],  # a point
                [1.0, 1.0, 1.0, 1.0],
                [0.0, 0.0, 1.4, -0.3],  # beyond the picture, of no height
            ]
        ]
    )
    expected = torch.tensor([2.5, 2.0, 5 / 3, 2.0, 4.0, 4.0, 1.5])
    torch.testing.assert_close(pool_regions(grid, boxes)[0, :, 0], expected, rtol=0, atol=1e-5)


def test_pooling_over_the_cells_themselves_gives_them_back_and_has_gradients():
    grid = torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    boxes = grid_boxes(3, 3).expand(2, -1, -1)
    torch.testing.assert_close(pool_regions(grid, boxes), grid, rtol=0, atol=1e-5)
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(2, 3, generator=generator)
    assert torch.autograd.gradcheck(lambda grid: pool_regions(grid, boxes), (grid,))


def test_objects_of_a_coarser_grid_are_means_of_its_cells():
    inputs = {name: tensor for name, tensor in tiny_inputs().items() if not name.startswith("region_")}
    cells = torch.randn(3, 16, FEATURES, generator=torch.Generator().manual_seed(1))
    model = tiny_model(object_grid_size=2)
    coarse = cells.view(3, 2, 2, 2, 2, FEATURES).mean(dim=(2, 4)).flatten(1, 2)
    ocr = {name: inputs[name] for name in OCR_INPUTS}
    expected = model.encode_images(region_features=coarse, region_boxes=grid_boxes(2, 2).expand(3, -1, -1), **ocr)
    pictures = model.encode_images(region_features=cells, **ocr)
    torch.testing.assert_close(pictures.objects, expected.objects)
    torch.testing.assert_close(pictures.ocr_tokens, expected.ocr_tokens)
    # Tokens without features of their own are still read from the fine grid.
    del ocr["ocr_features"]
    pooled = model.encode_images(region_features=cells, **ocr).ocr_tokens
    own = model.encode_images(region_features=cells, ocr_features=pool_regions(cells, ocr["ocr_boxes"]), **ocr)
    torch.testing.assert_close(pooled, own.ocr_tokens)


def test_starting_values_that_a_small_model_needs():
    published, started = tiny_model(), tiny_model(pointer_gain=3, answer_bias=-4)
    for layer in ("query", "key"):
        before, after = (getattr(model.pointer, layer).weight for model in (published, started))
        torch.testing.assert_close(after, 3 * before)
    torch.testing.assert_close(started.classifier.bias, published.classifier.bias - 4)
    torch.testing.assert_close(started.classifier.weight, published.classifier.weight)


def test_bias_of_every_token_is_learned():
    inputs = {**tiny_inputs(), "previous_ids": torch.ones(3, 1, dtype=torch.long)}
    plain, biased = tiny_model(), tiny_model(pointer_bias=-2)
    tokens = slice(VOCABULARY, None)
    expected, found = plain(**inputs).logits, biased(**inputs).logits
    torch.testing.assert_close(found[..., tokens], expected[..., tokens] - 2)
    torch.testing.assert_close(found[..., :VOCABULARY], expected[..., :VOCABULARY])
    assert plain.pointer.bias is None and biased.pointer.bias.requires_grad


def test_boxes_are_stretched_about_the_middle():
    inputs = tiny_inputs()
    plain, stretched = tiny_model(), tiny_model(box_scale=4)
    with torch.no_grad():  # the same map of the stretched boxes
        for embedding in (stretched.model.picture_embedding.objects, stretched.model.picture_embedding.ocr_tokens):
            embedding.boxes.bias += 0.5 * (4 - 1) * embedding.boxes.weight.sum(dim=1) / 4
            embedding.boxes.weight /= 4
    expected = plain(**inputs, previous_ids=torch.ones(3, 1, dtype=torch.long)).logits
    torch.testing.assert_close(stretched(**inputs, previous_ids=torch.ones(3, 1, dtype=torch.long)).logits, expected)
    embedded = stretched.model.picture_embedding.objects(inputs["region_features"], inputs["region_boxes"])
    middle = torch.full_like(inputs["region_boxes"], 0.5)
    unmoved = tiny_model(box_scale=2).model.picture_embedding.objects(inputs["region_features"], middle)
    torch.testing.assert_close(
        tiny_model(box_scale=9).model.picture_embedding.objects(inputs["region_features"], middle), unmoved
    )
    assert embedded.shape == (3, OBJECTS, HIDDEN)


def test_spelling_of_unknown_words_joins_the_question():
    inputs, model = tiny_inputs(), tiny_model(question_spellings=True)
    phoc = torch.zeros(3, 6, PHOC)
    phoc[0, 2, :3] = 1
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    words, mask = model.model.encode_texts(**texts, question_phoc=phoc)
    without, _ = model.model.encode_texts(**texts, question_phoc=torch.zeros_like(phoc))
    plain = tiny_model()
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(without, plain.model.encode_texts(**texts)[0])
    assert (words != without).any(dim=-1).nonzero().tolist() == [[0, 2]]
    found = model.generate(**inputs, question_phoc=phoc, output_scores=True)
    scores = model(**inputs, question_phoc=phoc, previous_ids=torch.ones(3, 1, dtype=torch.long)).logits
    torch.testing.assert_close(found.scores[:, 0], scores[:, 0])
    for given, message in ((None, "question_phoc is missing"), (phoc[:, :2], r"question_phoc is \(3, 2, 5\)")):
        with pytest.raises(DataError, match=message):
            model.model.encode_texts(**texts, question_phoc=given)
    with pytest.raises(DataError, match="this model reads none"):
        plain.model.encode_texts(**texts, question_phoc=phoc)


def test_grid_gives_the_features_of_objects_and_tokens():
    model, inputs = tiny_model(), teaching_inputs()
    del inputs["ocr_features"]
    grid = torch.randn(3, 16, FEATURES)
    boxes = {"region_boxes": inputs.pop("region_boxes"), "region_mask": inputs.pop("region_mask")}
    inputs.pop("region_features")
    pooled = {"region_features": pool_regions(grid, boxes["region_boxes"])}
    of_tokens = {"ocr_features": pool_regions(grid, inputs["ocr_boxes"])}
    by_box = model(**inputs, **boxes, grid_features=grid).logits
    torch.testing.assert_close(by_box, model(**inputs, **boxes, **pooled, **of_tokens).logits)
    cells = {"region_features": grid, "region_boxes": grid_boxes(4, 4).expand(3, -1, -1)}
    by_cell = model(**inputs, grid_features=grid).logits
    torch.testing.assert_close(by_cell, model(**inputs, **cells, **of_tokens).logits)
    assert torch.equal(by_cell, model(**inputs, region_features=grid).logits)


RESNET = ResNetConfig(
    num_channels=3, embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic"
)  # stride 8


@pytest.mark.parametrize("freeze", [True, False])
def test_answers_from_pixels(freeze, tmp_path):
    model = tiny_model(vision_config=RESNET, freeze_vision=freeze, **NO_DROPOUT)
    assert model.config.feature_size == model.config.ocr_feature_size == 6
    inputs = teaching_inputs()
    for name in ("region_features", "ocr_features"):
        del inputs[name]
    pixels = {"pixel_values": torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(4))}
    grid = model.model.extract_regions(pixels["pixel_values"])
    assert grid.shape == (3, 9, 6)
    output = model(**inputs, **pixels)
    torch.testing.assert_close(model(**inputs, grid_features=grid).logits, output.logits)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs, **pixels).logits, output.logits)
    loaded.train()(**inputs, **pixels).loss.backward()
    for name, parameter in loaded.named_parameters():
        assert (parameter.grad is None) == (freeze and "vision_model" in name), name
    with pytest.raises(DataError, match="6 cells a picture are no square grid"):
        model(**inputs, pixel_values=torch.rand(3, 3, 16, 24))


def test_pixels_without_a_backbone_are_refused_with_the_name_of_the_extractor():
    with pytest.raises(ConfigurationError, match="made with resnet101"):
        tiny_model(region_extractor="resnet101").encode_images(pixel_values=torch.ones(1, 3, 8, 8))


# Loss


def test_loss_is_summed_over_answers_and_meaned_over_the_steps_that_count():
    model, inputs = tiny_model(), teaching_inputs()
    output = model(**inputs)
    of_steps = F.binary_cross_entropy_with_logits(output.logits, inputs["labels"], reduction="none").sum(-1)
    counted = inputs["label_mask"].bool()
    torch.testing.assert_close(output.loss, of_steps[counted].sum() / counted.sum())
    inputs["label_mask"][:] = 0
    nothing = model(**inputs)
    assert nothing.loss == 0
    nothing.loss.backward()
    del inputs["label_mask"]
    torch.testing.assert_close(model(**inputs).loss, of_steps.mean())
    del inputs["labels"]
    assert model(**inputs).loss is None


def test_ablated_pointer_never_copies_and_has_no_part_in_the_loss(tmp_path):
    model, inputs = tiny_model(), teaching_inputs()
    model.save_pretrained(tmp_path)
    ablated = M4CForQuestionAnswering.from_pretrained(tmp_path, copy_words=False)
    logits = ablated(**inputs).logits
    assert torch.equal(logits[..., :VOCABULARY], model(**inputs).logits[..., :VOCABULARY])
    assert (logits[..., VOCABULARY:] < -9000).all()
    loss = ablated(**inputs).loss
    inputs["labels"][..., VOCABULARY:] = 1
    assert torch.equal(ablated(**inputs).loss, loss)
    # A pointer that is sure of every token copies nothing either.
    for network in (model.pointer, ablated.pointer):
        torch.nn.init.zeros_(network.query.weight)
        network.query.bias.data.fill_(100)
        torch.nn.init.zeros_(network.key.weight)
        network.key.bias.data.fill_(100)
    given = tiny_inputs()
    assert (model.generate(**given).sequences >= VOCABULARY).all()
    for beams in (1, 4):
        assert (ablated.generate(**given, num_beams=beams).sequences < VOCABULARY).all()


# Text encoders and weights


@pytest.fixture
def text_checkpoint(tmp_path):
    torch.manual_seed(5)
    text_model = BertModel(tiny_text_config(num_hidden_layers=4)).eval()
    text_model.save_pretrained(tmp_path / "bert")
    return text_model, str(tmp_path / "bert")


def test_first_layers_of_a_checkpoint_become_the_text_encoder(text_checkpoint, tmp_path):
    whole, folder = text_checkpoint
    fields = {name: value for name, value in tiny_config().to_dict().items() if name in M4C_SIZES}
    model = M4CForQuestionAnswering.from_text_encoder(folder, num_text_layers=2, **fields).eval()
    assert model.config.text_config.num_hidden_layers == 2
    inputs = tiny_inputs()
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    states = whole(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    words = model.model.question_encoder.text_model(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(words, states[2])
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded(**teaching_inputs()).logits, model(**teaching_inputs()).logits)


M4C_SIZES = {
    *("feature_size", "word_vector_size", "phoc_size", "ocr_padding_size", "hidden_size", "num_hidden_layers"),
    *("num_attention_heads", "intermediate_size", "pointer_size", "num_decoding_steps", "id2label"),
}


def test_text_encoders_that_do_not_fit_are_refused(text_checkpoint, tmp_path):
    _, folder = text_checkpoint
    for layers in (0, 5):
        with pytest.raises(ConfigurationError, match=f"num_text_layers is {layers}, but .* has 4 layers"):
            first_text_layers(folder, layers)
    with pytest.raises(CheckpointError, match="nowhere"):
        M4CForQuestionAnswering.from_text_encoder(str(tmp_path / "nowhere"))
    BertModel(tiny_text_config(num_hidden_layers=1)).save_pretrained(tmp_path / "short")
    BertConfig(**tiny_text_config(num_hidden_layers=2).to_dict()).save_pretrained(tmp_path / "short")
    with pytest.raises(CheckpointError, match="lacks 16 tensor"):
        M4CForQuestionAnswering.from_text_encoder(str(tmp_path / "short"), num_text_layers=2)


def test_model_for_answering_is_found_by_its_task(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVisualQuestionAnswering.from_pretrained(tmp_path)
    assert type(loaded) is M4CForQuestionAnswering and loaded.config.id2label == model.config.id2label


def test_base_and_answering_models_read_each_others_weights(tmp_path):
    model, inputs = tiny_model(), teaching_inputs()
    model.save_pretrained(tmp_path / "answering")
    base = M4CModel.from_pretrained(tmp_path / "answering", allow_partial=True)
    fed = {name: tensor for name, tensor in inputs.items() if "label" not in name}
    states = base(**fed, answers=model.classifier.weight).decoder_states
    torch.testing.assert_close(states, model(**inputs).decoder_states)
    with pytest.raises(CheckpointError, match="unexpected tensor.*classifier"):
        M4CModel.from_pretrained(tmp_path / "answering")
    base.save_pretrained(tmp_path / "base")
    with pytest.raises(CheckpointError, match="missing tensor.*classifier"):
        M4CForQuestionAnswering.from_pretrained(tmp_path / "base")


# Input that a model cannot take


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"region_features": None}, "give one of pixel_values, grid_features and region_features"),
        ({"pixel_values": torch.ones(3, 3, 8, 8)}, "give one of"),
        ({"region_features": torch.ones(3, OBJECTS, FEATURES + 1)}, f"size {FEATURES + 1}.*{FEATURES}"),
        ({"region_boxes": torch.ones(3, OBJECTS, 5)}, r"region_boxes is \(3, 4, 5\).*\[pictures, boxes, 4\]"),
        ({"region_boxes": torch.ones(3, OBJECTS + 1, 4)}, "5 region_boxes for 4 region_features.*grid_features"),
        ({"region_boxes": 640 * torch.ones(3, OBJECTS, 4)}, "divide pixels by"),
        ({"region_boxes": torch.nan * torch.ones(3, OBJECTS, 4)}, "region_boxes must lie in"),
        ({"region_mask": torch.ones(3, OBJECTS + 1)}, "region_mask is"),
        ({"ocr_boxes": torch.ones(2, SLOTS, 4)}, "ocr_boxes is .*for 3 pictures"),
        ({"ocr_boxes": None}, "ocr_boxes are missing"),
        ({"ocr_mask": torch.ones(3, SLOTS + 1)}, "ocr_mask is"),
        ({"ocr_phoc": None}, "ocr_phoc is missing"),
        ({"ocr_word_vectors": torch.ones(3, SLOTS, 2)}, r"ocr_word_vectors is \(3, 5, 2\)"),
        ({"ocr_features": None}, "ocr_features is missing"),
        ({"input_ids": torch.zeros(3, 6, dtype=torch.long)}, "record 0: question has no words"),
        ({"input_ids": torch.full((3, 6), PIECES)}, f"token id {PIECES}"),
        ({"input_ids": torch.ones(3, 17, dtype=torch.long)}, "17 word pieces, the text encoder reads 16"),
        ({"input_ids": torch.ones(4, 6, dtype=torch.long)}, "4 questions about 3 pictures"),
        ({"previous_ids": torch.ones(3, STEPS + 1, dtype=torch.long)}, r"previous_ids is \(3, 5\).*at most 4 steps"),
        ({"previous_ids": torch.full((3, 2), VOCABULARY + SLOTS)}, "below 13: 8 words and 5 OCR slots"),
        ({"previous_ids": torch.full((3, 2), -100)}, "reach from -100"),
        ({"labels": torch.ones(3, STEPS, VOCABULARY)}, r"labels is \(3, 4, 8\).*\(3, 4, 13\)"),
        ({"label_mask": torch.ones(3)}, "label_mask is"),
    ],
)
def test_wrong_input_is_refused(change, message):
    inputs = {**teaching_inputs(), **change}
    if "input_ids" in change:
        del inputs["attention_mask"]
    with pytest.raises(DataError, match=message):
        tiny_model()(**inputs)


def test_inputs_that_a_model_does_not_read_are_refused():
    with pytest.raises(DataError, match="ocr_phoc are given, but this model reads none"):
        tiny_model(phoc_size=0)(**teaching_inputs())
    with pytest.raises(DataError, match="give previous_ids and answers"):
        tiny_model().model(**tiny_inputs())


# Trainer


class Questions(torch.utils.data.Dataset):
    """Pairs of a picture and a question, as many as one batch."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {name: tensor[0] for name, tensor in teaching_inputs(1, seed=index).items()}


def test_trainer_of_transformers_trains_it(tmp_path):
    model = tiny_model(**NO_DROPOUT, initializer_range=0.1)
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
    trainer = Trainer(model=model, args=arguments, train_dataset=Questions(), eval_dataset=Questions())
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3 and losses[2] < losses[0]
    assert all(not torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert trainer.predict(Questions()).predictions.shape == (8, STEPS, VOCABULARY + SLOTS)
    trainer.save_model(tmp_path / "trained")
    trained = AutoModel.from_pretrained(tmp_path / "trained")
    assert torch.equal(trained(**teaching_inputs()).logits, model.eval()(**teaching_inputs()).logits)


def test_a_fine_tuned_detector_is_a_linear_layer_before_the_features():
    """As MMF's M4C: fc7 = relu(W fc6 + b), of objects and of OCR tokens, then as ever."""
    inputs, model = tiny_inputs(), tiny_model(fine_tuned_detector=True)
    plain = tiny_model()
    state = model.state_dict()
    plain.load_state_dict({name: tensor for name, tensor in state.items() if ".detector." not in name}, strict=True)
    given = dict(inputs)
    for name, kind in (("region_features", "objects"), ("ocr_features", "ocr_tokens")):
        layer = model.model.picture_embedding.get_submodule(f"{kind}.detector")
        given[name] = (inputs[name] @ layer.weight.T + layer.bias).clamp_min(0)
    torch.testing.assert_close(model(**inputs).logits, plain(**given).logits)
    assert not torch.allclose(plain(**inputs).logits, plain(**given).logits)
