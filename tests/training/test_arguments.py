import json
from typing import Any

import pytest

from vl_alignment.models import AttnGanConfig, M4CConfig, MacConfig, ScanConfig
from vl_alignment.models.errors import ConfigurationError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.preparation import preset_settings
from vl_alignment.training.presets import PRESETS, get_preset


def test_settings_survive_json():
    settings = TrainingSettings(epochs=3, decay_epochs=(1, 2), trackers=("tensorboard",), gradient_clipping=None)
    assert TrainingSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.5),
        ("batch_size", True),
        ("batch_size", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", "1e-3"),
        ("decay_epochs", 15),
        ("decay_epochs", (3, 2)),
        ("decay_epochs", (0,)),
        ("decay_factor", -0.1),
        ("gradient_clipping", 0),
        ("precision", "float16"),
        ("device", "gpu"),
        ("seed", -1),
        ("epoch_captions", "five"),
        ("gather_negatives", 1),
        ("validation_captions", 0),
        ("trackers", "wandb"),
        ("trackers", ("wandbb",)),
        ("num_workers", None),
    ],
)
def test_value_out_of_range_is_named(name, value):
    with pytest.raises(ConfigurationError, match=f"{name}="):
        TrainingSettings(**{name: value})


def test_unknown_key_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"\['learning_rat'\].*learning_rate"):
        TrainingSettings.from_dict({"learning_rat": 1.0})


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_preset_is_valid(name):
    preset = get_preset(name)
    assert preset_settings(name).batch_size > 0
    if preset["task"] == "retrieval":
        config: Any = ScanConfig(**preset["model"])
        assert (config.lambda_softmax, config.negatives) == (9.0, "hardest")
    else:
        configs: dict[str, Any] = {
            "question-answering": MacConfig,
            "text-question-answering": M4CConfig,
            "text-to-image": AttnGanConfig,
        }
        config = configs[preset["task"]](**preset["model"])
    assert config.alignment_function  # the fields are those of the task's model


def test_preset_of_the_paper_for_clevr():
    preset = get_preset("clevr")
    config = MacConfig(**preset["model"])
    assert (config.cell, config.alignment_units, config.num_steps) == ("released", "read_and_control", 4)
    assert (config.hidden_size, config.word_embedding_size, config.feature_size) == (512, 300, 1024)
    settings = TrainingSettings.from_dict(preset["settings"])
    assert (settings.epochs, settings.batch_size, settings.learning_rate) == (8, 128, 1e-4)
    assert (settings.plateau_factor, settings.ema_decay, settings.gradient_clipping) == (0.5, 0.999, 8.0)
    assert preset["data"]["test_split"] == "validation"  # the answers of the test split are not public


def test_presets_of_the_paper():
    flickr, coco = get_preset("flickr30k"), get_preset("coco")
    names = ["epochs", "batch_size", "learning_rate", "decay_epochs", "decay_factor", "gradient_clipping"]
    assert [flickr["settings"][name] for name in names] == [30, 128, 2e-4, [15], 0.1, 2.0]
    assert [coco["settings"][name] for name in names] == [20, 128, 5e-4, [10], 0.1, 2.0]
    for preset in (flickr, coco):
        assert TrainingSettings.from_dict(preset["settings"]).all_negatives_epochs == 0
        assert preset["settings"]["epoch_captions"] == "all"
        assert [preset["model"][name] for name in ("hidden_size", "word_embedding_size")] == [1024, 300]


def test_preset_is_a_copy():
    get_preset("coco")["settings"]["epochs"] = 1
    assert get_preset("coco")["settings"]["epochs"] == 20


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match="blocks.*flickr30k"):
        get_preset("flickr31k")
