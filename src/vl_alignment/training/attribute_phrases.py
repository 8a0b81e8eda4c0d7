"""Telling which phrases about objects a picture of blocks shows: what the attribute classifier learns.

pictures [B, 3, S, S] --> three stages --> cells [B, d, G, G] --> is an object's middle here? x its attributes
    --> the chance that some cell shows what a phrase says ("red", "small cube", "shiny blue cone") [B, P]
"""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vl_alignment.data.blocks.grid_labels import center_attributes
from vl_alignment.data.blocks.scene import ATTRIBUTES, Scene
from vl_alignment.data.blocks.spoken_attributes import spoken_attributes
from vl_alignment.metrics.image_features import FeatureNetwork, tensors_sha256
from vl_alignment.metrics.text_to_image import attribute_accuracy, mismatched_captions
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.objectives import Evaluation

__all__ = [
    "COLUMNS",
    "PHRASES",
    "AttributeClassifier",
    "AttributeFeatures",
    "AttributePhraseObjective",
    "DescribedPictures",
]

COLUMNS = ("image_id", "image", "captions", "scene")
CELL = 8
"""Pixels along a side of a cell."""

PHRASES: tuple[Mapping[str, str], ...] = tuple(
    {name: value for name, value in zip(ATTRIBUTES, values, strict=True) if value is not None}
    for values in itertools.product(*((None, *choices) for choices in ATTRIBUTES.values()))
)
"""All that can be said of an object: each attribute told or not; the first phrase tells none."""

_PLACES = {frozenset(phrase.items()): place for place, phrase in enumerate(PHRASES)}
_CONFIGURATION, _WEIGHTS = "config.json", "model.safetensors"
# A chance below it tells no more: one odd detail should not outweigh all that is right.
_LEAST_CHANCE = 1e-4
_NEAR_NOTHING = 1e-6
# What the parts of the loss weigh: so many cells, and so many phrases, have nothing to say about a picture.
_MIDDLE_WEIGHT, _PHRASE_WEIGHT = 20.0, 40.0


@dataclass
class CellReadings:
    """What is seen in the cells of pictures.

    Attributes:
        middle: Logits of an object's middle being in a cell [B, G, G].
        attributes: Logits of each attribute's values [B, values, G, G].
        log_absent: Logarithm of the chance that no cell shows a phrase [B, P].
        features: Means over each stage [B, sum of the widths].
    """

    middle: Tensor
    attributes: dict[str, Tensor]
    log_absent: Tensor
    features: Tensor


class AttributeClassifier(nn.Module):
    """Reads the attributes of objects from pictures of blocks.

    An object is where its middle is; a cell shows a phrase if there is one, with all the attributes that are told.

    Args:
        widths: Channels of the three stages, each of which halves the sides.
        image_size: Pixels a side S that pictures are brought to, a multiple of 8.

    Raises:
        ConfigurationError: The size or the number of widths does not fit.
    """

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 128), image_size: int = 64) -> None:
        super().__init__()
        if len(widths) != 3 or min(widths) < 1:
            raise ConfigurationError(f"widths={widths} must be three numbers of channels.")
        if image_size < CELL or image_size % CELL:
            raise ConfigurationError(f"image_size={image_size} must be a multiple of {CELL}, the side of a cell.")
        self.widths, self.image_size = tuple(widths), image_size
        first, second, third = widths
        self.stages = nn.ModuleList(
            [
                nn.Sequential(_convolution(3, first, kernel=4, stride=2), _convolution(first, first)),
                nn.Sequential(_convolution(first, second, stride=2), _convolution(second, second)),
                nn.Sequential(_convolution(second, third, stride=2), _convolution(third, third)),
            ]
        )
        self.middle = nn.Conv2d(third, 1, 1)
        nn.init.constant_(self.middle.bias, -3.0)  # type: ignore[arg-type]  # most cells have none
        self.heads = nn.ModuleDict({name: nn.Conv2d(third, len(values), 1) for name, values in ATTRIBUTES.items()})

    @property
    def name(self) -> str:
        """For results, with the first digits of the weights' hash."""
        return f"attribute classifier of blocks {tensors_sha256(self)[:8]}"

    def forward(self, images: Tensor) -> CellReadings:
        """Look at pictures in [-1, 1] [B, 3, H, W]; other sizes are brought to S, bilinear with antialiasing."""
        size = (self.image_size, self.image_size)
        if images.shape[2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        grid, means = images, []
        for stage in self.stages:
            grid = stage(grid)
            means.append(grid.mean(dim=(2, 3)))
        middle = self.middle(grid)  # [B, 1, G, G]
        attributes = {name: head(grid) for name, head in self.heads.items()}
        chances = middle.sigmoid().flatten(2)  # [B, 1, G * G], of the phrases with the attributes so far
        for logits in attributes.values():
            told = F.pad(logits.softmax(dim=1), (0, 0, 0, 0, 1, 0), value=1.0).flatten(2)  # the first: not told
            chances = (chances.unsqueeze(2) * told.unsqueeze(1)).flatten(1, 2)  # in the order of PHRASES
        log_absent = torch.log1p(-chances.clamp(max=1 - _NEAR_NOTHING)).sum(dim=2).clamp(max=-_NEAR_NOTHING)
        return CellReadings(middle[:, 0], attributes, log_absent, torch.cat(means, dim=1))

    @torch.no_grad()
    def phrase_fits(self, images: Tensor) -> Tensor:
        """Pictures in [-1, 1] [B, 3, H, W] -> log of the chance that each phrase of `PHRASES` is seen [B, P].

        Raises:
            DataError: They are no such pictures.
        """
        if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise DataError(f"pictures must be floats [B, 3, H, W], not {images.dtype} {tuple(images.shape)}")
        return _fits(self.eval()(images.to(self.middle.weight)).log_absent).cpu()

    def fit(self, phrase_fits: Any, caption: str) -> float:
        """Return how well a picture fits a caption: the mean of its `phrase_fits` [P] over what the caption says.

        Raises:
            DataError: The caption names no attributes.
        """
        phrases = spoken_attributes(caption)
        if not phrases:
            raise DataError(f"caption {caption!r} names no attributes of blocks; leave it out")
        return float(sum(float(phrase_fits[_PLACES[frozenset(phrase.items())]]) for phrase in phrases) / len(phrases))

    def caption_fit(self, images: Tensor, captions: list[str]) -> Tensor:
        """How well each of B pictures fits its caption [B], 0 at best; see `fit`."""
        if len(images) != len(captions):
            raise DataError(f"there are {len(captions)} captions for {len(images)} pictures")
        rows = zip(self.phrase_fits(images), captions, strict=True)
        return torch.tensor([self.fit(fits, caption) for fits, caption in rows])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write configuration and weights."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        configuration = {"widths": list(self.widths), "image_size": self.image_size}
        (Path(folder) / _CONFIGURATION).write_text(json.dumps(configuration, indent=2) + "\n")
        save_file(self.state_dict(), Path(folder) / _WEIGHTS)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "AttributeClassifier":
        """Load what `save_pretrained` wrote, in evaluation mode.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        try:
            configuration = json.loads((Path(folder) / _CONFIGURATION).read_text())
            model = cls(tuple(configuration["widths"]), configuration["image_size"])
            model.load_state_dict(load_file(Path(folder) / _WEIGHTS))
        except Exception as error:  # safetensors and torch each raise errors of their own
            reason = str(error).strip().split("\n")[0]
            raise CheckpointError(
                f"The attribute classifier cannot be loaded ({reason}); train it again.", path=folder
            ) from error
        return model.eval()


class AttributeFeatures(FeatureNetwork):
    """The attribute classifier as a network whose features pictures are compared by: means over each stage.

    It was trained on pictures of blocks, so that its distance between such pictures means something; it goes by a name
    of its own, never by FID's.

    Args:
        classifier: With its weights.
    """

    def __init__(self, classifier: AttributeClassifier) -> None:
        size = classifier.image_size
        resize = f"to {size} x {size}, bilinear with antialiasing, 8 bits a channel (RGB) before"
        super().__init__(classifier.name, tensors_sha256(classifier), sum(classifier.widths), resize)
        self.classifier = classifier.requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        """Means over each stage, from edges and colours to objects."""
        return self.classifier(images).features


class DescribedPictures:
    """Pictures of one split, and what can be said of them.

    Args:
        split: Of a blocks data set.
        image_size: Side S the pictures are brought to.

    Attributes:
        image_ids: In the order of the rows.
        captions: The first of each picture.
        pixels: uint8 [N, 3, S, S].
        shown: Bool [N, P], which phrases are true of an object of the picture.
        middles: int64 [N, G, G] of each attribute, 0 where no object has its middle.
    """

    def __init__(self, split: datasets.Dataset, image_size: int) -> None:
        grid = image_size // CELL
        self.image_ids: list[str] = list(split["image_id"])
        self.captions: list[str] = [captions[0] for captions in split["captions"]]
        self.pixels = torch.empty((len(split), 3, image_size, image_size), dtype=torch.uint8)
        self.shown = torch.zeros((len(split), len(PHRASES)), dtype=torch.bool)
        self.middles = {name: torch.empty((len(split), grid, grid), dtype=torch.long) for name in ATTRIBUTES}
        for row, record in enumerate(split.select_columns(["image", "scene"])):
            picture = record["image"].convert("RGB")
            if picture.size != (image_size, image_size):
                picture = picture.resize((image_size, image_size), Image.Resampling.BICUBIC)
            self.pixels[row] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
            scene = Scene.from_json(record["scene"])
            self.shown[row, [place for item in scene.objects for place in _true_phrases(vars(item))]] = True
            for name, values in center_attributes(scene, grid).items():
                self.middles[name][row] = torch.from_numpy(values)


@dataclass(frozen=True)
class MirroredRows:
    """The rows of one epoch, some of them mirrored: left and right are no attributes."""

    mirrored: np.ndarray  # bool [N]

    def __len__(self) -> int:
        return len(self.mirrored)

    def __getitem__(self, index: int) -> tuple[int, bool]:
        return index, bool(self.mirrored[index])


class AttributePhraseObjective:
    """Telling which phrases a picture shows.

    Args:
        train: Pictures to learn from.
        validation: Pictures by which the best weights are chosen.
        settings: Seed and batch sizes.
    """

    task = "attribute-phrases"
    selection_metric = "log_likelihood"
    processor = None

    def __init__(self, train: DescribedPictures, validation: DescribedPictures, settings: TrainingSettings) -> None:
        self.pictures = {"train": train, "validation": validation}
        self.settings = settings

    def check_model(self, model: nn.Module) -> None:
        """Raise a ConfigurationError where the model looks at pictures of another size."""
        given, wanted = self.pictures["train"].pixels.shape[-1], model.image_size
        if given != wanted:
            raise ConfigurationError(f"The pictures have {given} pixels a side, but the model takes {wanted}.")

    def train_dataset(self, epoch: int) -> MirroredRows:
        """Return the rows of an epoch, half of them mirrored."""
        # A stream of its own, apart from the one that orders the rows.
        draw = np.random.default_rng([self.settings.seed, epoch, 3])
        return MirroredRows(draw.random(len(self.pictures["train"].image_ids)) < 0.5)

    def collate(self, examples: list[tuple[int, bool]]) -> dict[str, Any]:
        """Return `images` [B, 3, S, S], phrases `shown` [B, P], `middles` [B, G, G] by attribute, image "ids"."""
        pictures = self.pictures["train"]
        rows = [row for row, _ in examples]
        mirrored = torch.tensor([mirror for _, mirror in examples])
        return {
            "images": _scaled(_mirror(pictures.pixels[rows], mirrored)),
            "shown": pictures.shown[rows].float(),
            "middles": {name: _mirror(labels[rows], mirrored) for name, labels in pictures.middles.items()},
            "ids": [pictures.image_ids[row] for row in rows],
        }

    def loss(self, model: nn.Module, batch: dict[str, Any], epoch: int) -> Tensor:
        """Return the cross-entropies of middles, attributes there, and phrases.

        The phrases are what counts; the cells show the model where to look, without which it learns several times
        slower.
        """
        readings = model(batch["images"])
        occupied = (batch["middles"]["shape"] > 0).float()
        loss = _MIDDLE_WEIGHT * F.binary_cross_entropy_with_logits(readings.middle, occupied)
        for name, logits in readings.attributes.items():
            loss = loss + F.cross_entropy(logits, batch["middles"][name] - 1, ignore_index=-1)
        return loss - _PHRASE_WEIGHT * _log_likelihood(readings.log_absent, batch["shown"])

    @torch.no_grad()
    def evaluate(self, model: Any, split: str, accelerator: Accelerator, *, final: bool = True) -> Evaluation:
        """Return how well phrases are told; every process looks at the whole of the (small) split.

        `log_likelihood` is the mean over phrases, times 1000; `phrase_f1`, in percent, takes all phrases of all
        pictures together; `attribute_accuracy` is that of the real pictures.
        """
        training = model.training
        model.eval()
        pictures, size = self.pictures[split], self.settings.evaluation_batch_size
        batches = [model(_scaled(pixels).to(accelerator.device)) for pixels in pictures.pixels.split(size)]
        log_absent = torch.cat([readings.log_absent.cpu() for readings in batches])
        model.train(training)
        seen, shown = (-torch.expm1(log_absent) > 0.5)[:, 1:], pictures.shown[:, 1:]  # the first tells nothing
        right, both = int((seen & shown).sum()), int(seen.sum()) + int(shown.sum())
        fits, captions = _fits(log_absent), pictures.captions
        others = [captions[row] for row in mismatched_captions(captions)]
        own, other = (
            np.array([model.fit(row, text) for row, text in zip(fits, texts, strict=True)])
            for texts in (captions, others)
        )
        found = [
            {
                self.selection_metric: 1000 * float(_log_likelihood(log_absent, pictures.shown.float())),
                "phrase_f1": 200.0 * right / max(both, 1),
                "attribute_accuracy": attribute_accuracy(own, other),
            }
        ]
        # Batch norm's running statistics differ from process to process by the last batch.
        broadcast_object_list(found)
        return Evaluation(found[0])


def _convolution(before: int, after: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


def _fits(log_absent: Tensor) -> Tensor:
    """Log of the chance that phrases are seen, from that of their absence."""
    return (-torch.expm1(log_absent)).clamp(min=_LEAST_CHANCE).log()


def _log_likelihood(log_absent: Tensor, shown: Tensor) -> Tensor:
    """Mean log-likelihood of phrases that are shown or not, both [B, P]."""
    return torch.where(shown > 0, torch.log(-torch.expm1(log_absent)), log_absent).mean()


def _true_phrases(attributes: Mapping[str, Any]) -> list[int]:
    """Places in `PHRASES` of all that is true of an object with these attributes."""
    told = itertools.product(*((None, attributes[name]) for name in ATTRIBUTES))
    phrases = ({name: value for name, value in zip(ATTRIBUTES, values, strict=True) if value} for values in told)
    return [_PLACES[frozenset(phrase.items())] for phrase in phrases]


def _scaled(pixels: Tensor) -> Tensor:
    """Pixels uint8 -> [-1, 1]."""
    return pixels.float() / 127.5 - 1.0


def _mirror(values: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the rows [B, ..., W] that are `mirrored` [B] along their last side."""
    return torch.where(mirrored.view(-1, *[1] * (values.dim() - 1)), values.flip(-1), values)
