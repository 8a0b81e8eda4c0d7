import pytest
from transformers import AutoConfig, ResNetConfig

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS, alignment_function_names
from vl_alignment.models.configuration_attngan import AttnGanConfig
from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.errors import ConfigurationError


def test_defaults_are_those_of_the_paper():
    config = AttnGanConfig()
    assert (config.alignment_function, config.alignment_activation, config.released_layout) == ("dot", "relu", False)
    assert config.stage_sizes == [64, 128, 256] and config.hidden_size == 256
    assert (config.noise_size, config.conditioning_size, config.num_residual_blocks) == (100, 100, 2)
    assert (config.generator_size, config.discriminator_size) == (32, 64)
    assert AttnGanConfig(image_size=64).stage_sizes == [16, 32, 64]
    config = DamsmConfig()
    assert (config.feature_size, config.pooled_size, config.vision_image_size) == (768, 2048, 299)
    assert (config.gamma1, config.gamma2, config.gamma3) == (4, 5, 10) and config.freeze_vision
    assert (config.hidden_size, config.recurrence, config.alignment_function) == (256, "lstm", "dot")


@pytest.mark.parametrize(
    ("config_class", "fields", "message"),
    [
        *(
            (config_class, fields, message)
            for config_class in (AttnGanConfig, DamsmConfig)
            for fields, message in [
                ({"alignment_function": "general"}, "'general' is unknown"),
                ({"vocab_size": 0}, "vocab_size is 0"),
                ({"hidden_size": 7}, "hidden_size is 7; two directions need an even number"),
                ({"word_dropout": 1.0}, "word_dropout is 1.0"),
                ({"recurrence": "rnn"}, "recurrence"),
                ({"hiden_size": 8}, "no field 'hiden_size'; did you mean 'hidden_size'"),
            ]
        ),
        (AttnGanConfig, {"image_size": 96}, "image_size is 96; 3 stages need a power of two of at least 32"),
        (AttnGanConfig, {"image_size": 16}, "image_size is 16; 3 stages need a power of two of at least 32"),
        (AttnGanConfig, {"num_stages": 0}, "num_stages is 0"),
        (AttnGanConfig, {"generator_size": 0}, "generator_size is 0"),
        (AttnGanConfig, {"num_residual_blocks": 0}, "num_residual_blocks is 0"),
        (DamsmConfig, {"gamma2": 0}, "gamma2 is 0; it must be above 0"),
        (DamsmConfig, {"vision_image_size": -1}, "vision_image_size is -1"),
        (DamsmConfig, {"vision_mean": [0.5] * 3}, "vision_mean and vision_std belong together"),
        (DamsmConfig, {"vision_mean": [0.5], "vision_std": [0.5]}, "vision_mean has 1 numbers"),
        (DamsmConfig, {"released_layout": True}, "belongs in AttnGanConfig"),
        (DamsmConfig, {"vision_config": {"hidden_sizes": [4]}}, "model_type"),
    ],
)
def test_wrong_value_is_refused_by_name(config_class, fields, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        config_class(**fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", alignment_function_names())
def test_released_layout_is_for_what_was_released(name):
    fields = {"alignment_function": name, "released_layout": True}
    if ALIGNMENT_FUNCTIONS[name].published:
        assert AttnGanConfig(**fields).released_layout
    else:
        with pytest.raises(ConfigurationError, match=f"has no '{name}'"):
            AttnGanConfig(**fields)


def test_backbone_of_damsm_survives_its_file_and_gives_the_widths(tmp_path):
    config = DamsmConfig(vision_config=ResNetConfig(hidden_sizes=[4, 6], depths=[1, 1]))
    assert (config.feature_size, config.pooled_size, config.vision_image_size) == (6, 6, None)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is DamsmConfig and loaded.pooled_size == 6
    assert loaded.vision_config.to_dict() == config.vision_config.to_dict()
