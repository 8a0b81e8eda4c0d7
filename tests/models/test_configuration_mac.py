import pytest
from transformers import AutoConfig, ResNetConfig

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS, alignment_function_names
from vl_alignment.models.configuration_mac import MacConfig
from vl_alignment.models.errors import ConfigurationError


def test_defaults_are_those_of_the_paper():
    config = MacConfig()
    assert (config.alignment_function, config.alignment_units, config.cell) == ("dot", "read", "released")
    assert (config.hidden_size, config.question_size, config.word_embedding_size) == (512, 512, 300)
    assert (config.feature_size, config.grid_size, config.stem_layers, config.stem_kernel_size) == (1024, 14, 2, 3)
    assert (config.num_steps, config.num_labels) == (4, 28)
    assert (config.stem_dropout, config.word_dropout, config.question_dropout) == (0.18, 0.15, 0.08)
    assert (config.read_dropout, config.memory_dropout, config.output_dropout) == (0.15, 0.15, 0.15)
    assert not (config.memory_gate or config.self_attention or config.feed_previous_control or config.dropout_per_step)
    assert config.control_dropout == 0 and config.mask_padding and not config.released_layout


def test_the_pytorch_cell_has_defaults_of_its_own_and_fields_override_them():
    config = MacConfig(cell="pytorch")
    assert config.feed_previous_control and not config.mask_padding and config.question_size == 1024
    assert (config.memory_dropout, config.control_dropout, config.read_dropout, config.stem_dropout) == (
        0.15,
        0.15,
        0,
        0,
    )
    assert config.memory_gate_bias == 0 and MacConfig().memory_gate_bias == 1
    config = MacConfig(cell="pytorch", feed_previous_control=False, mask_padding=True, stem_dropout=0.1)
    assert not config.feed_previous_control and config.mask_padding and config.stem_dropout == 0.1


def test_answers_are_named_and_survive_the_file(tmp_path):
    config = MacConfig(id2label={0: "yes", 1: "no"}, label2id={"yes": 0, "no": 1})
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is MacConfig and loaded.num_labels == 2
    assert loaded.id2label == {0: "yes", 1: "no"} and loaded.label2id == {"yes": 0, "no": 1}
    assert loaded.to_dict() == {**config.to_dict(), "_name_or_path": loaded.name_or_path}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alignment_function": "general"}, "'general' is unknown"),
        ({"alignment_units": "control"}, "alignment_units"),
        ({"cell": "tensorflow"}, "cell"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"feature_size": 0}, "feature_size is 0"),
        ({"grid_size": 0}, "grid_size is 0"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"hidden_size": 7}, "question_size is 7; two directions need an even number"),
        ({"question_size": 8}, "question_size is 8, hidden_size 512"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"stem_layers": 0}, "stem_layers is 0"),
        ({"coordinate_scale": 0.0}, "coordinate_scale is 0.0; it must be above 0"),
        ({"score_gain": -1.0}, "score_gain is -1.0; it must be above 0"),
        ({"score_gain": "scale"}, "score_gain"),
        ({"stem_kernel_size": 2}, "stem_kernel_size is 2; it must be odd"),
        ({"read_dropout": 1.0}, "read_dropout is 1.0"),
        ({"memory_dropout": -0.1}, "memory_dropout is -0.1"),
        ({"memory_gate": "yes"}, "memory_gate"),
        ({"mask_padding": False}, "only in the published PyTorch cell"),
        ({"released_layout": True}, "alignment_units='read_and_control'"),
        ({"released_layout": True, "cell": "pytorch", "alignment_units": "read_and_control"}, "cell='released'"),
        ({"vision_config": {"hidden_sizes": [4]}}, "model_type"),
        ({"num_stps": 3}, "no field 'num_stps'; did you mean 'num_steps'"),
    ],
)
def test_wrong_value_is_refused_by_name(fields, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        MacConfig(**fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", alignment_function_names())
def test_released_layout_is_for_what_was_released(name):
    fields = {"alignment_function": name, "alignment_units": "read_and_control", "released_layout": True}
    if ALIGNMENT_FUNCTIONS[name].published or name == "activated_general_query":
        assert MacConfig(**fields).released_layout
    else:
        with pytest.raises(ConfigurationError, match=f"has no '{name}'"):
            MacConfig(**fields)


def test_vision_config_survives_its_file_and_gives_the_width(tmp_path):
    config = MacConfig(vision_config=ResNetConfig(hidden_sizes=[4, 6], depths=[1, 1]))
    assert config.feature_size == 6
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.vision_config.to_dict() == config.vision_config.to_dict() and loaded.feature_size == 6
