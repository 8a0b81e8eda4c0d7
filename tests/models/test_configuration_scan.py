import json

import pytest
from transformers import AutoConfig, ResNetConfig, SegformerConfig, ViTConfig

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS, alignment_function_names
from vl_alignment.models.configuration_scan import ScanConfig
from vl_alignment.models.errors import ConfigurationError


def test_defaults_are_those_of_the_paper():
    config = ScanConfig()
    assert config.hidden_size == 1024 and config.word_embedding_size == 300 and config.feature_size == 2048
    assert config.bidirectional and config.num_hidden_layers == 1
    assert (config.direction, config.score_normalization, config.pooling) == ("t2i", "clipped_l2norm", "mean")
    assert (config.lambda_softmax, config.lambda_lse, config.margin) == (9, 6, 0.2)
    assert config.negatives == "hardest" and not config.released_layout and config.alignment_activation == "relu"


@pytest.mark.parametrize("name", alignment_function_names())
def test_every_function_is_a_choice(name):
    assert ScanConfig(alignment_function=name).alignment_function == name


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("alignment_functon", "alignment_function"),
        ("hiden_size", "hidden_size"),
        ("lambda_softmx", "lambda_softmax"),
        ("release_layout", "released_layout"),
        ("freeze_visions", "freeze_vision"),
    ],
)
def test_typo_is_refused_with_a_hint(typo, meant):
    with pytest.raises(ConfigurationError, match=f"no field '{typo}'; did you mean '{meant}'"):
        ScanConfig(**{typo: 1})


def test_field_that_resembles_none_is_refused_without_a_hint():
    with pytest.raises(ConfigurationError, match="ScanConfig has no field 'learning_rate'$"):
        ScanConfig(learning_rate=1e-4)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("alignment_function", "general", "'general' is unknown; choose one of dot"),
        ("alignment_activation", "gelu", "'gelu' is unknown; choose one of relu"),
        ("alignment_initialization", "zeros", "neither 'linear' nor 'identity'"),
        ("direction", "both", "direction"),
        ("score_normalization", "l2", "score_normalization"),
        ("pooling", "average", "pooling"),
        ("negatives", "hard", "negatives"),
        ("hidden_size", 0, "hidden_size is 0"),
        ("vocab_size", -1, "vocab_size is -1"),
        ("feature_size", 0, "feature_size is 0"),
        ("word_embedding_size", 0, "word_embedding_size is 0"),
        ("num_hidden_layers", 0, "num_hidden_layers is 0"),
        ("hidden_size", 3.5, "hidden_size"),
        ("hidden_size", "1024", "hidden_size"),
        ("lambda_softmax", 0, "lambda_softmax is 0"),
        ("lambda_lse", -1.0, "lambda_lse is -1"),
        ("margin", -0.1, "margin is -0.1"),
        ("bidirectional", "yes", "bidirectional"),
        ("vision_config", {"hidden_sizes": [4]}, "model_type"),
    ],
)
def test_wrong_value_is_refused_by_name(field, value, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        ScanConfig(**{field: value})
    assert "\n" not in str(error.value)


def test_whole_numbers_do_where_a_float_is_meant():
    config = ScanConfig(lambda_softmax=4, lambda_lse=5, margin=1)
    assert (config.lambda_softmax, config.lambda_lse, config.margin) == (4, 5, 1)


def test_config_of_a_newer_version_is_refused_even_with_fields_unknown_today(tmp_path):
    ScanConfig().save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {"config_version": 2, "heads_of_the_future": 8}))
    for load in (ScanConfig.from_pretrained, AutoConfig.from_pretrained):
        with pytest.raises(ConfigurationError, match="version 2, newer .* update"):
            load(tmp_path)


def test_unknown_field_in_a_file_is_refused(tmp_path):
    ScanConfig().save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {"poolng": "max"}))
    with pytest.raises(ConfigurationError, match="'poolng'; did you mean 'pooling'"):
        AutoConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", alignment_function_names())
def test_released_layout_is_for_what_was_released(name):
    if ALIGNMENT_FUNCTIONS[name].published:
        assert ScanConfig(alignment_function=name, released_layout=True).released_layout
    else:
        with pytest.raises(ConfigurationError, match=f"has no '{name}'"):
            ScanConfig(alignment_function=name, released_layout=True)


def test_released_layout_has_one_direction():
    with pytest.raises(ConfigurationError, match="direction 't2i' only"):
        ScanConfig(released_layout=True, direction="i2t")


@pytest.mark.parametrize(
    ("vision_config", "width"),
    [
        (ResNetConfig(hidden_sizes=[4, 6], depths=[1, 1]), 6),
        (ViTConfig(hidden_size=8), 8),
        (SegformerConfig(hidden_sizes=[4, 8, 10, 12]), 12),
    ],
    ids=["resnet", "vit", "segformer"],
)
def test_vision_config_survives_its_file_and_gives_the_width(vision_config, width, tmp_path):
    config = ScanConfig(vision_config=vision_config, feature_size=2048)
    assert config.feature_size == width
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded.vision_config) is type(vision_config)
    assert loaded.vision_config.to_dict() == vision_config.to_dict()
    assert loaded.feature_size == width
    given_as_a_dict = ScanConfig(vision_config=vision_config.to_dict())
    assert given_as_a_dict.vision_config.to_dict() == vision_config.to_dict()


def test_dict_of_the_vision_config_stays_as_it_was():
    given = {"model_type": "vit", "hidden_size": 8}
    ScanConfig(vision_config=given)
    assert given == {"model_type": "vit", "hidden_size": 8}


def test_vision_config_without_a_width_is_refused():
    from transformers import CLIPConfig

    with pytest.raises(ConfigurationError, match="'clip' states no width"):
        ScanConfig(vision_config=CLIPConfig())


def test_vision_config_of_an_unknown_type_is_refused():
    with pytest.raises(ConfigurationError, match="'resnext'"):
        ScanConfig(vision_config={"model_type": "resnext", "hidden_size": 8})
