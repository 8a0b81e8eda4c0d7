import pytest
from transformers import AutoConfig, BertConfig, DistilBertConfig, ResNetConfig

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS, alignment_function_names
from vl_alignment.models.configuration_m4c import SPECIAL_ANSWERS, M4CConfig
from vl_alignment.models.errors import ConfigurationError


def test_defaults_are_those_of_the_paper():
    config = M4CConfig()
    text = config.text_config
    assert (text.model_type, text.num_hidden_layers, text.hidden_size, text.vocab_size) == ("bert", 3, 768, 30522)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 4, 12)
    assert (config.intermediate_size, config.pointer_size, config.num_decoding_steps) == (3072, 768, 12)
    assert (config.feature_size, config.ocr_feature_size) == (2048, 2048)
    assert (config.word_vector_size, config.phoc_size, config.ocr_padding_size) == (300, 604, 50)
    assert config.normalize_features and config.copy_words and not config.released_layout
    assert {config.object_dropout, config.ocr_dropout, config.hidden_dropout, config.attention_dropout} == {0.1}
    assert (config.box_scale, config.pointer_gain, config.answer_bias) == (1, 1, 0)
    assert config.object_grid_size is None and not config.question_spellings
    assert config.layer_norm_eps == 1e-12
    assert config.num_labels == 5000 and tuple(config.id2label[n] for n in range(4)) == SPECIAL_ANSWERS


def test_answers_are_named_and_survive_the_file(tmp_path):
    config = M4CConfig(id2label=dict(enumerate([*SPECIAL_ANSWERS, "stop"])))
    assert config.label2id["stop"] == 4 and config.num_labels == 5
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is M4CConfig and loaded.id2label == config.id2label and loaded.label2id == config.label2id
    assert loaded.to_dict() == {**config.to_dict(), "_name_or_path": loaded.name_or_path}
    assert M4CConfig(num_labels=6).id2label == {**dict(enumerate(SPECIAL_ANSWERS)), 4: "LABEL_4", 5: "LABEL_5"}


@pytest.mark.parametrize("text", [BertConfig(num_hidden_layers=2), DistilBertConfig(n_layers=2)])
def test_text_config_survives_its_file(text, tmp_path):
    config = M4CConfig(text_config=text)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded.text_config) is type(text) and loaded.text_config.to_dict() == text.to_dict()
    assert loaded.text_config.num_hidden_layers == 2


def test_vision_config_survives_its_file_and_gives_the_widths(tmp_path):
    config = M4CConfig(vision_config=ResNetConfig(hidden_sizes=[4, 6], depths=[1, 1]))
    assert config.feature_size == config.ocr_feature_size == 6
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.vision_config.to_dict() == config.vision_config.to_dict() and loaded.ocr_feature_size == 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alignment_function": "general"}, "'general' is unknown"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": 770}, "hidden_size 770 is no multiple of num_attention_heads 12"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"pointer_size": -1}, "pointer_size is -1"),
        ({"num_decoding_steps": 0}, "num_decoding_steps is 0"),
        ({"phoc_size": -1}, "phoc_size is -1"),
        ({"phoc_size": 0, "question_spellings": True}, "question_spellings need a phoc_size"),
        ({"object_grid_size": 0}, "object_grid_size is 0"),
        ({"box_scale": 0}, "box_scale is 0"),
        ({"pointer_gain": -1}, "pointer_gain is -1"),
        ({"ocr_feature_size": 0}, "ocr_feature_size is 0"),
        ({"hidden_dropout": 1.0}, "hidden_dropout is 1.0"),
        ({"ocr_dropout": -0.1}, "ocr_dropout is -0.1"),
        ({"copy_words": "yes"}, "copy_words"),
        ({"text_config": {"hidden_size": 4}}, "text_config has model_type None"),
        ({"text_config": ResNetConfig()}, "text_config of type 'resnet' states no hidden_size"),
        ({"id2label": {0: "yes", 1: "no"}}, "begins with .*'yes', 'no', None.*must be.*<pad>"),
        ({"id2label": {**dict(enumerate(SPECIAL_ANSWERS)), 7: "seven"}}, "without gaps"),
        ({"num_layers": 3}, "no field 'num_layers'"),
    ],
)
def test_wrong_value_is_refused_by_name(fields, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        M4CConfig(**fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", alignment_function_names())
def test_released_layout_is_for_what_was_released(name):
    fields = {"alignment_function": name, "released_layout": True}
    if ALIGNMENT_FUNCTIONS[name].published:
        assert M4CConfig(**fields).released_layout
    else:
        with pytest.raises(ConfigurationError, match=f"has no '{name}'"):
            M4CConfig(**fields)
