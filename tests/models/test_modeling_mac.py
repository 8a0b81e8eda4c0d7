import pytest
import torch
from transformers import AutoModel, AutoModelForVisualQuestionAnswering, ResNetConfig, Trainer, TrainingArguments

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS
from vl_alignment.models.configuration_mac import MacConfig
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.models.modeling_mac import MacForQuestionAnswering, MacModel

from .mac_model import (
    ANSWERS,
    CELLS,
    FEATURES,
    GRID,
    HIDDEN,
    NO_DROPOUT,
    VOCABULARY,
    question_ids,
    tiny_config,
    tiny_inputs,
    tiny_model,
)
from .model_tester import ModelTester


class TestMac(ModelTester):
    config_class = MacConfig
    model_class = MacForQuestionAnswering
    scores = "logits"
    continuous = NO_DROPOUT
    with_loss: dict = {}
    spread_of_draws = 4.0  # the first memory is eight normal numbers
    cell: dict = {}

    def make_config(self, **fields):
        return tiny_config(**{**self.cell, **fields})

    def make_inputs(self, examples=3):
        return {**tiny_inputs(examples), "labels": torch.arange(examples) % ANSWERS}

    def alone(self, inputs, index):
        words = inputs["attention_mask"][index].bool()
        return {
            "input_ids": inputs["input_ids"][index : index + 1, words],
            "region_features": inputs["region_features"][index : index + 1],
        }

    def queries_and_keys(self, inputs):
        steps, cells = torch.ones(3, 3, dtype=torch.bool), torch.ones(3, CELLS, dtype=torch.bool)
        return [(steps, inputs["attention_mask"].bool()), (steps, cells)]

    def has_no_gradient(self, model, parameter_name):
        row = ALIGNMENT_FUNCTIONS[model.config.alignment_function]
        unit = model.model.cell.control_unit if "control_unit" in parameter_name else model.model.cell.read_unit
        # Where the terms are linear in the key, a bias beside it adds the same to the score of every key.
        linear = unit.score.alignment.terms_are_linear and (
            "control_unit" in parameter_name or model.config.cell == "pytorch"
        )
        of_key = parameter_name.endswith("score.alignment.bias") and row.transforms == "key"
        return linear and (of_key or parameter_name.endswith("read_unit.interaction.bias"))


class TestMacWithEverything(TestMac):
    """The released cell with all options, the function in both units."""

    cell = {
        "alignment_units": "read_and_control",
        "memory_gate": True,
        "self_attention": True,
        "feed_previous_control": True,
        "stem_coordinates": True,
    }
    alignment_modules = 2


class TestPytorchMac(TestMac):
    """The other cell, with all options; its scores do not depend on padding where that is masked."""

    cell = {"cell": "pytorch", "mask_padding": True, "memory_gate": True, "self_attention": True}


def test_starting_values_are_those_of_the_published_code():
    sizes = {"hidden_size": 32, "vocab_size": 100, "word_embedding_size": 50}
    state = tiny_model(**sizes, memory_gate=True).model.state_dict()
    assert 0.98 < state["question_encoder.embedding.weight"].abs().max() <= 1
    assert 0.3 < state["cell.initial_memory"].std() < 3
    assert (state["cell.write_unit.gate.bias"] == 1).all()
    bound = (6 / (32 + 32)) ** 0.5
    assert 0.9 * bound < state["cell.read_unit.memory_projection.weight"].abs().max() <= bound
    assert state["cell.read_unit.memory_projection.bias"].abs().max() == 0
    state = tiny_model(**sizes, memory_gate=True, cell="pytorch").model.state_dict()
    for name in ("cell.initial_memory", "cell.initial_control", "cell.write_unit.gate.bias"):
        assert state[name].abs().max() == 0
    assert 0 < state["question_encoder.projection.bias"].abs().max() <= 64**-0.5
    assert (tiny_model(memory_gate=True, memory_gate_bias=-2).model.cell.write_unit.gate.bias == -2).all()


# Questions and pictures


@pytest.mark.parametrize("cell", ["released", "pytorch"])
@pytest.mark.parametrize("function", ["dot", "activated_general_key", "additive"])
def test_questions_about_the_same_picture_share_it(cell, function):
    model = tiny_model(cell=cell, alignment_function=function, alignment_units="read_and_control").double()
    together = tiny_inputs(questions=6, pictures=2)
    output = model(**together, output_attentions=True)
    repeated = {**together, "region_features": together["region_features"].repeat_interleave(3, dim=0)}
    expected = model(**repeated, output_attentions=True)
    for name in ("logits", "memory", "question_attentions", "image_attentions"):
        torch.testing.assert_close(output[name], expected[name])
    assert output.question_attentions.shape == (6, 3, 8) and output.image_attentions.shape == (6, 3, CELLS)


def test_pictures_are_seen_once_for_any_number_of_questions(monkeypatch):
    model, inputs = tiny_model(), tiny_inputs(questions=6, pictures=2)
    seen = []
    model.model.stem.register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    model.model.cell.read_unit.knowledge_projection.register_forward_hook(
        lambda _, given, __: seen.append(given[0].shape)
    )
    expected = model(**inputs).logits
    assert seen == [(2, CELLS, FEATURES), (2, CELLS, HIDDEN)]
    features = inputs.pop("region_features")
    knowledge = model.encode_images(region_features=features)
    assert knowledge.shape == (2, CELLS, HIDDEN)
    assert torch.equal(model.answer(knowledge, **inputs).logits, expected)
    assert torch.equal(
        model.model(**inputs, region_features=features).memory, model(**inputs, region_features=features).memory
    )


@pytest.mark.parametrize("cell", ["released", "pytorch"])
def test_words_are_those_of_the_lstm_and_the_question_its_last_states(cell):
    model = tiny_model(cell=cell).model
    ids, mask = question_ids(5, 3)
    words, question, given = model.encode_texts(ids, mask)
    encoder, size = model.question_encoder, model.config.question_size
    assert words.shape == (2, 5, HIDDEN) and question.shape == (2, size) and torch.equal(given, mask.bool())
    states, _ = encoder.lstm(encoder.embedding(ids[1:, :3]), mask[1:, :3])
    torch.testing.assert_close(question[1], torch.cat([states[0, -1, : size // 2], states[0, 0, size // 2 :]]))
    torch.testing.assert_close(words[1, :3], states[0] if encoder.projection is None else encoder.projection(states)[0])
    padding = torch.zeros(HIDDEN) if encoder.projection is None else encoder.projection.bias
    torch.testing.assert_close(words[1, 3:], padding.expand(2, -1))


def test_only_the_published_pytorch_cell_attends_to_padding():
    ids, mask = question_ids(3)
    features = tiny_inputs(1)["region_features"]
    padded = {"input_ids": torch.cat([ids, torch.zeros(1, 4, dtype=torch.long)], dim=1), "region_features": features}
    for fields, attends in [
        ({}, False),
        ({"cell": "pytorch"}, True),
        ({"cell": "pytorch", "mask_padding": True}, False),
    ]:
        model = tiny_model(**fields).double()
        alone = model(input_ids=ids, region_features=features)
        output = model(**padded, output_attentions=True)
        assert (output.question_attentions[:, :, 3:].abs().max() > 0) == attends
        assert torch.allclose(output.logits, alone.logits) != attends


def test_mask_of_words_follows_from_the_padding():
    model, inputs = tiny_model(), tiny_inputs()
    expected = model(**inputs).logits
    del inputs["attention_mask"]
    assert torch.equal(model(**inputs).logits, expected)


def test_coordinates_are_those_of_the_cells():
    stem = tiny_model(stem_coordinates=True, stem_layers=1, stem_kernel_size=1).model.stem
    assert stem.convolutions[0].in_channels == FEATURES + 2
    with torch.no_grad():
        stem.convolutions[0].weight.zero_()
        stem.convolutions[0].weight[0, FEATURES] = 1.0  # x
        stem.convolutions[0].weight[1, FEATURES + 1] = 1.0  # y
    knowledge = stem(torch.zeros(1, CELLS, FEATURES))
    line = torch.nn.functional.elu(torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(knowledge[0, :, 0].view(GRID, GRID), line.expand(3, 3))
    torch.testing.assert_close(knowledge[0, :, 1].view(GRID, GRID), line.unsqueeze(1).expand(3, 3))


def test_coordinates_lie_between_plus_and_minus_their_scale():
    features, fields = torch.zeros(1, CELLS, FEATURES), {"stem_coordinates": True, "stem_layers": 1}
    once = tiny_model(**fields, stem_kernel_size=1).model.stem
    four = tiny_model(**fields, stem_kernel_size=1, coordinate_scale=4.0).model.stem
    with torch.no_grad():
        once.convolutions[0].weight[:, FEATURES:] *= 4.0
    torch.testing.assert_close(four(features), once(features))


def test_gain_multiplies_the_starting_weights_of_the_read_score_alone():
    plain, gained = (dict(tiny_model(score_gain=gain).named_parameters()) for gain in (1.0, 3.0))
    name = "model.cell.read_unit.score.weight.weight"
    torch.testing.assert_close(gained.pop(name), 3.0 * plain.pop(name))
    assert all(torch.equal(gained[other], parameter) for other, parameter in plain.items())


@pytest.mark.parametrize(("function", "expected"), [("dot", 1.0), ("scaled_dot", HIDDEN**0.5), ("general_key", 1.0)])
def test_gain_of_the_inverse_scale_starts_all_functions_with_one_spread(function, expected):
    fields = {"alignment_function": function, "alignment_units": "read"}
    name = "model.cell.read_unit.score.weight.weight"
    plain, gained = (
        dict(tiny_model(**fields, score_gain=gain).named_parameters())[name] for gain in (1.0, "inverse_scale")
    )
    torch.testing.assert_close(gained, expected * plain)


def test_gain_leaves_loaded_weights_alone(tmp_path):
    model = tiny_model(score_gain=3.0)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(own, other) for own, other in zip(model.parameters(), loaded.parameters(), strict=True))


def test_stem_sees_the_neighbours_of_a_cell():
    features = torch.zeros(1, CELLS, FEATURES)
    moved = features.clone()
    moved[0, 0] = 1.0  # the corner
    for kernel, reached in [(1, {0}), (3, {0, 1, 3, 4})]:
        stem = tiny_model(stem_layers=1, stem_kernel_size=kernel).model.stem
        assert set((stem(features) != stem(moved)).any(-1)[0].nonzero().flatten().tolist()) == reached


# Loss and answers


def test_loss_is_the_mean_over_the_answers_that_count():
    model, inputs = tiny_model(), tiny_inputs()
    labels = torch.tensor([2, -100, 4])
    output = model(**inputs, labels=labels)
    log_probabilities = output.logits.log_softmax(dim=-1)
    expected = -(log_probabilities[0, 2] + log_probabilities[2, 4]) / 2
    torch.testing.assert_close(output.loss, expected)
    assert model(**inputs).loss is None
    nothing = model(**inputs, labels=torch.full((3,), -100))
    assert nothing.loss == 0
    nothing.loss.backward()


@pytest.mark.parametrize("labels", [[0, 1, ANSWERS], [0, 1, -1], [0, 1], [[0], [1], [2]]])
def test_labels_that_are_no_answers_are_refused(labels):
    with pytest.raises(DataError, match=f"3 numbers of the {ANSWERS} answers"):
        tiny_model()(**tiny_inputs(), labels=torch.tensor(labels))


def test_answers_have_words(tmp_path):
    model = tiny_model(id2label={0: "yes", 1: "no", 2: "red"})
    assert model.answer_words(torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])) == ["no", "yes"]
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVisualQuestionAnswering.from_pretrained(tmp_path)
    assert type(loaded) is MacForQuestionAnswering and loaded.config.id2label == {0: "yes", 1: "no", 2: "red"}
    assert loaded(**tiny_inputs()).logits.shape == (3, 3)


def test_base_and_answering_models_read_each_others_weights(tmp_path):
    model, inputs = tiny_model(), tiny_inputs()
    model.save_pretrained(tmp_path / "answering")
    base = MacModel.from_pretrained(tmp_path / "answering", allow_partial=True)
    assert torch.equal(base(**inputs).memory, model(**inputs).memory)
    with pytest.raises(CheckpointError, match="unexpected tensor.*classifier"):
        MacModel.from_pretrained(tmp_path / "answering")
    base.save_pretrained(tmp_path / "base")
    with pytest.raises(CheckpointError, match="missing tensor.*classifier"):
        MacForQuestionAnswering.from_pretrained(tmp_path / "base")


# Pictures

RESNET = ResNetConfig(
    num_channels=3, embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic"
)  # stride 8


def pixel_inputs(side=8 * GRID):
    inputs = {**tiny_inputs(), "labels": torch.arange(3)}
    del inputs["region_features"]
    return {**inputs, "pixel_values": torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(4))}


@pytest.mark.parametrize("freeze", [True, False])
def test_answers_from_pixels(freeze, tmp_path):
    model = tiny_model(vision_config=RESNET, freeze_vision=freeze)
    assert model.config.feature_size == 6
    inputs = pixel_inputs()
    features = model.model.extract_regions(inputs["pixel_values"])
    output = model(**inputs)
    torch.testing.assert_close(
        model.encode_images(region_features=features), model.encode_images(pixel_values=inputs["pixel_values"])
    )
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs).logits, output.logits)
    loaded.train()(**inputs).loss.backward()
    for name, parameter in loaded.named_parameters():
        assert (parameter.grad is None) == (freeze and "vision_model" in name), name
    with pytest.raises(DataError, match=f"16 cells a picture.*grid of {GRID} x {GRID}"):
        model(**pixel_inputs(side=8 * (GRID + 1)))


# Input that a model cannot take


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "either pixel_values or region_features"),
        ({"region_features": torch.ones(2, CELLS, FEATURES), "pixel_values": torch.ones(2, 3, 8, 8)}, "either"),
        ({"region_features": torch.ones(2, CELLS, FEATURES + 1)}, f"size {FEATURES + 1}.*{FEATURES}"),
        ({"region_features": torch.ones(2, 16, FEATURES)}, f"16 cells a picture, .*grid of {GRID} x {GRID}.*extract"),
        ({"region_features": torch.ones(2, FEATURES)}, r"\(2, 6\)"),
    ],
)
def test_encode_images_refuses(inputs, message):
    with pytest.raises(DataError, match=message):
        tiny_model().encode_images(**inputs)


def test_pixels_without_a_backbone_are_refused_with_the_name_of_the_extractor():
    with pytest.raises(ConfigurationError, match="made with resnet101"):
        tiny_model(region_extractor="resnet101").encode_images(pixel_values=torch.ones(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 2], [0, 0]], "record 1: question has no words"),
        ([[0, 1]], "questions must be padded on the right"),
        ([[1, VOCABULARY]], f"token id {VOCABULARY}"),
        ([1, 2], r"\[questions, words\]"),
    ],
)
def test_encode_texts_refuses(ids, message):
    with pytest.raises(DataError, match=message):
        tiny_model().model.encode_texts(torch.tensor(ids))


def test_questions_must_be_as_many_about_each_picture():
    with pytest.raises(DataError, match="3 questions about 2 pictures"):
        tiny_model()(**tiny_inputs(questions=3, pictures=2))


# Trainer


class Questions(torch.utils.data.Dataset):
    """Pairs of a picture and a question, as many as one batch."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        ids, mask = question_ids(4, seed=index)
        features = torch.randn(CELLS, FEATURES, generator=torch.Generator().manual_seed(index))
        return {
            "input_ids": ids[0],
            "attention_mask": mask[0],
            "region_features": features,
            "labels": torch.tensor(index % 2),
        }


@pytest.mark.parametrize("cell", ["released", "pytorch"])
def test_trainer_of_transformers_trains_it(cell, tmp_path):
    model = tiny_model(cell=cell, **NO_DROPOUT)
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
    unmoved = [key for key, tensor in model.state_dict().items() if torch.equal(tensor, before[key])]
    assert all("interaction.bias" in key for key in unmoved)  # which the softmax of the PyTorch cell cancels
    assert trainer.predict(Questions()).predictions.shape == (8, ANSWERS)
    trainer.save_model(tmp_path / "trained")
    trained = AutoModel.from_pretrained(tmp_path / "trained")
    assert torch.equal(trained(**tiny_inputs()).logits, model.eval()(**tiny_inputs()).logits)
