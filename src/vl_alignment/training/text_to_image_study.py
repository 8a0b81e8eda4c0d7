"""The study of text-to-image generation: one DAMSM and one set of judges for the generators of all functions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from accelerate import Accelerator

from ..metrics.image_features import FeatureNetwork, InceptionPictureFeatures, load_feature_network
from ..models.configuration_attngan import AttnGanConfig
from ..models.errors import ConfigurationError, DataError
from ..models.inception_v3 import InceptionV3
from ..models.modeling_damsm import DamsmModel
from ..models.processing_attngan import AttnGanProcessor
from .adversarial_settings import AdversarialSettings
from .arguments import TrainingSettings
from .attribute_classifier import attribute_classifier_settings, train_attribute_classifier
from .attribute_phrases import AttributeClassifier, AttributeFeatures
from .damsm import shared_damsm
from .picture_judges import DamsmFeatures, PictureJudges
from .studies import Study
from .text_to_image import train_text_to_image_run
from .text_to_image_task import TextToImageTask

__all__ = ["TextToImageStudy", "damsm_arguments", "with_all_splits"]

HELD_OUT = 20
"""Where a data set has no validation split, one training picture in so many becomes it."""


@dataclass(kw_only=True)
class TextToImageStudy(Study):
    """Pictures from captions with AttnGAN.

    Attributes:
        judges: Of drawn pictures; made by `make_judges`.
        processor: DAMSM's, which becomes the generators'.
    """

    data: datasets.DatasetDict
    judges: PictureJudges | None = None
    processor: Any = None

    task = "text-to-image"
    settings_class = AdversarialSettings
    draws = True
    preparation = "for training DAMSM and what else judges the pictures"

    @property
    def images(self) -> datasets.DatasetDict:
        """The data itself: captions stand in the pictures' records."""
        return self.data

    @images.setter
    def images(self, images: datasets.DatasetDict) -> None:
        self.data = images

    def train(self, **arguments: Any) -> dict[str, Any]:
        """See `train_text_to_image_run`."""
        own = {"dataset_dict": self.data, "dataset_name": self.name, "judges": self.judges, "processor": self.processor}
        own |= {name: self.options[name] for name in ("reading", "pictures_per_image") if name in self.options}
        return train_text_to_image_run(**{**own, **arguments})

    def build_task(self, stage_sizes: list[int], settings: AdversarialSettings) -> TextToImageTask:
        """Return what measures a generator, after `make_judges`."""
        assert self.judges is not None
        reading = {**self.options.get("reading", {}), "max_words": self.processor.max_words}
        return TextToImageTask(
            self.data,
            self.processor.tokenizer,
            settings,
            stage_sizes=stage_sizes,
            judges=self.judges,
            processor=self.processor,
            reading=reading,
            pictures_per_image=self.options.get("pictures_per_image", 1),
        )

    def make_judges(self, cache_dir: Path, accelerator: Accelerator | None = None) -> None:
        """Train the DAMSM of the study and what else judges its pictures, or take them from the cache.

        Args:
            cache_dir: Where they are kept.
            accelerator: To be given where there are several processes.

        Raises:
            ConfigurationError: There is nothing to see pictures with, or settings do not fit.
            CheckpointError: Weights cannot be read.
        """
        arguments = damsm_arguments(self.options, self.model_fields)
        run, result = shared_damsm(
            self.data, cache_dir / "damsm", dataset_name=self.name, accelerator=accelerator, **arguments
        )
        damsm = DamsmModel.from_pretrained(run.model)
        self.processor = AttnGanProcessor.from_pretrained(run.model)
        seconds = result["training"]["seconds"]
        self.preparation_seconds += seconds
        self.notes.append(
            f"One DAMSM trained and judged the generators of all functions. It was trained once, in {seconds:.0f} s, "
            f"and finds the caption of a real test picture among {result['evaluation']['candidates']} in "
            f"{result['metrics']['r_precision']:.1f} % of cases."
        )
        attributes = self._attribute_classifier(cache_dir, accelerator)
        self.judges = PictureJudges(damsm, self._feature_network(damsm, attributes), attributes)

    def _attribute_classifier(self, cache_dir: Path, accelerator: Accelerator | None) -> AttributeClassifier | None:
        """Train what reads the attributes of blocks, or take it from the cache; None where scenes are not known."""
        if "scene" not in self.data["train"].column_names:
            return None
        kept = train_attribute_classifier(
            self.data,
            cache_dir / "attribute-classifiers",
            settings=attribute_classifier_settings(**self.options.get("classifier", {})),
            accelerator=accelerator,
        )
        self.preparation_seconds += kept.seconds
        self.notes.append(
            f"The attribute classifier was trained once, in {kept.seconds:.0f} s, on real training pictures; of real "
            "validation pictures it tells which of two captions is theirs in "
            f"{kept.metrics['attribute_accuracy']:.1f} %."
        )
        return kept.model()

    def _feature_network(self, damsm: DamsmModel, attributes: AttributeClassifier | None) -> FeatureNetwork:
        source = self.options.get("feature_network")
        if source is not None:
            return load_feature_network(source, variant=self.options.get("feature_variant", "fid"))
        if attributes is not None:
            network: FeatureNetwork = AttributeFeatures(attributes)
            about = "which was trained on real pictures of this world"
        else:
            network = DamsmFeatures(damsm)
            about = "against which the generators were trained"
        self.notes.append(
            "No weights of FID's network were given (feature_network), so that there is no FID: the feature distance "
            f"is the Frechet distance between features of the {network.name}, {about}."
        )
        return network


def damsm_arguments(options: dict[str, Any], model_fields: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `train_damsm_run` that a preset states.

    Args:
        options: Of the preset's data: `damsm` with its `model` and `settings`, `image_encoder`, and how pictures and
            captions are read.
        model_fields: Of the generator, whose last stage's size DAMSM sees.

    Raises:
        ConfigurationError: The preset's DAMSM sees with a trained network, and none is given.
    """
    chosen, encoder = options["damsm"], options.get("image_encoder")
    fields, vision_model = dict(chosen.get("model", {})), None
    if encoder is not None:
        vision_model, of_encoder = load_image_encoder(encoder)
        fields = {**fields, **of_encoder}
    elif "vision_config" not in fields:
        raise ConfigurationError(
            "DAMSM sees pictures with a trained network: give weights of Inception-v3 (a file) or a vision backbone of "
            "transformers (a folder or Hub id) as image_encoder"
        )
    named = ("reading", "max_words", "minimum_count")
    return {
        "settings": TrainingSettings.from_dict(chosen.get("settings", {})),
        "model_fields": fields,
        "image_size": AttnGanConfig(**model_fields).image_size,
        "vision_model": vision_model,
        **{name: options[name] for name in named if name in options},
    }


def load_image_encoder(source: str) -> tuple[Any, dict[str, Any]]:
    """Load a trained image encoder for DAMSM.

    Args:
        source: A file of Inception-v3's weights under torchvision's names, or a vision backbone of transformers.

    Returns:
        The network, and the fields of `DamsmConfig` that go with it.
    """
    if Path(source).is_file():
        network = load_feature_network(source, variant="torchvision")
        assert isinstance(network, InceptionPictureFeatures)
        encoder = InceptionV3(num_classes=None)
        encoder.load_published(network.network.state_dict(), path=source)
        return encoder, {"vision_config": None, "freeze_vision": True}
    from transformers import AutoModel
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    backbone = AutoModel.from_pretrained(source)
    backbone = getattr(backbone, "vision_model", backbone)
    pictures = AutoImageProcessor.from_pretrained(source)
    size = pictures.size.get("height") or pictures.size.get("shortest_edge")
    fields = {"vision_config": backbone.config.to_dict(), "freeze_vision": True, "vision_image_size": size}
    return backbone, {**fields, "vision_mean": list(pictures.image_mean), "vision_std": list(pictures.image_std)}


def with_all_splits(data: datasets.DatasetDict) -> datasets.DatasetDict:
    """Return the data with the splits that training needs.

    Data sets for pictures from words have two: training, and one that results are measured on ("test", or
    "validation" where there is no other). Then one training picture in twenty becomes the validation split. Where there
    is but one split, whatever its name, as of pictures of one's own, another one in twenty becomes the test split.

    Raises:
        DataError: There is no training split among several, or too few pictures to hold some out.
    """
    splits = dict(data)
    if len(splits) == 1:
        splits["train"] = splits.pop(*splits)
        splits["train"], splits["test"] = _hold_out(splits["train"])
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    if "train" not in splits or "test" not in splits:
        raise DataError(f"Training needs the splits train and test; the data set has {sorted(data)}.")
    if "validation" not in splits:
        splits["train"], splits["validation"] = _hold_out(splits["train"])
    return datasets.DatasetDict({name: splits[name] for name in ("train", "validation", "test")})


def _hold_out(pictures: datasets.Dataset) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Divide pictures into those that stay and one in twenty, the same ones every time."""
    held = np.arange(len(pictures)) % HELD_OUT == HELD_OUT - 1
    if not held.any():
        raise DataError(
            f"{len(pictures)} pictures are too few to hold one in {HELD_OUT} out for testing; give at least "
            f"{HELD_OUT}, or the splits train, validation and test."
        )
    return pictures.select(np.flatnonzero(~held)), pictures.select(np.flatnonzero(held))
