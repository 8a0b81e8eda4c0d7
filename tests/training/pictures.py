"""A study of pictures from words of a few small blocks pictures; DAMSM and judges are trained once a session."""

from vl_alignment.training.preparation import prepare_study

SIZES = {"train": 16, "validation": 8, "test": 10}
SETTINGS = {
    "epochs": 1,
    "batch_size": 8,
    "evaluate_every": 1,
    "sample_every_steps": 2,
    "samples_per_caption": 2,
    "log_every_steps": 1,
    "device": "cpu",
}
FIELDS = {"generator_size": 4, "discriminator_size": 4}
OPTIONS = {"damsm_epochs": 1, "classifier": {"epochs": 1}}


def drawing_study(output, **changes):
    """The study of the preset blocks-t2i, as small as its parts allow."""
    values = {"sizes": SIZES, "settings": SETTINGS, "model_fields": FIELDS, "options": OPTIONS}
    return prepare_study("blocks-t2i", output=output, **{**values, **changes})
