"""Naming the attributes of the object in each cell of a blocks picture: what the region encoder learns.

pictures [B, 3, S, S] --> ResNet --> cells [B, G, G, d] --> a linear head an attribute --> class a cell
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import ResNetConfig, ResNetModel

from vl_alignment.data.blocks.grid_labels import cell_attributes, center_attributes
from vl_alignment.data.blocks.scene import ATTRIBUTES, Scene
from vl_alignment.models.errors import ConfigurationError
from vl_alignment.models.vision import vision_feature_size
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.objectives import Evaluation

__all__ = ["COLUMNS", "HEADS_NAME", "AttributeCells", "RegionAttributeModel", "RegionAttributeObjective"]

HEADS_NAME = "heads.safetensors"
COLUMNS = ("image_id", "image", "scene", "masks")
# Which cells an object labels -> weight of the cells with nothing. These are the most; at full weight they would keep
# the loss from what the regions are for.
EMPTY_CELL_WEIGHT = {"cover": 0.2, "centers": 0.1}


class RegionAttributeModel(nn.Module):
    """A ResNet with a linear head for each attribute on every cell of its last feature map.

    Args:
        config: Of the backbone.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.backbone = ResNetModel(config)
        width = vision_feature_size(config)
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(values) + 1) for name, values in ATTRIBUTES.items()})

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Return logits [B, G, G, classes] of each attribute for pictures [B, 3, S, S]; class 0 is nothing."""
        cells = self.backbone(pixel_values).last_hidden_state.permute(0, 2, 3, 1)  # [B, G, G, d]
        return {name: head(cells) for name, head in self.heads.items()}

    def save_pretrained(self, folder: Path) -> None:
        """Write the backbone, and the heads beside it."""
        self.backbone.save_pretrained(folder)
        save_file(self.heads.state_dict(), Path(folder) / HEADS_NAME)


class AttributeCells:
    """Pictures of one split and the attributes of what their cells show.

    Args:
        split: Of a blocks data set.
        image_size: Side S the pictures are brought to.
        grid: Cells G along a side.
        label: "cover" names in each cell the object that covers most of it; "centers" names every object once, in the
            cell of its middle, so that objects can be counted.

    Attributes:
        image_ids: In the order of the rows.
        pixels: uint8 [N, 3, S, S].
        labels: int64 [N, G, G] of each attribute, 0 where there is nothing.
    """

    def __init__(self, split: datasets.Dataset, image_size: int, grid: int, label: str = "cover") -> None:
        self.label = label
        self.image_ids: list[str] = list(split["image_id"])
        self.pixels = torch.empty((len(split), 3, image_size, image_size), dtype=torch.uint8)
        labels = {name: np.empty((len(split), grid, grid), dtype=np.int64) for name in ATTRIBUTES}
        for row, record in enumerate(split.select_columns(list(COLUMNS))):
            picture = record["image"].convert("RGB")
            if picture.size != (image_size, image_size):
                picture = picture.resize((image_size, image_size), Image.Resampling.BICUBIC)
            self.pixels[row] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
            scene = Scene.from_json(record["scene"])
            if label == "centers":
                cells = center_attributes(scene, grid)
            else:
                cells = cell_attributes(scene, np.asarray(record["masks"]), grid)
            for name, values in cells.items():
                labels[name][row] = values
        self.labels = {name: torch.from_numpy(values) for name, values in labels.items()}


@dataclass(frozen=True)
class FlippedRows:
    """The rows of one epoch, some of them mirrored: left and right are no attributes."""

    flipped: np.ndarray  # bool [N]

    def __len__(self) -> int:
        return len(self.flipped)

    def __getitem__(self, index: int) -> tuple[int, bool]:
        return index, bool(self.flipped[index])


class RegionAttributeObjective:
    """Naming the attributes of the object in each cell.

    Args:
        train: Cells to learn from.
        validation: Cells by which the best weights are chosen.
        settings: Seed and batch sizes.
        processor: The image processor; its scaling is applied to the pixels, and it is saved with the weights.
    """

    task = "region-attributes"
    selection_metric = "attribute_accuracy"

    def __init__(
        self, train: AttributeCells, validation: AttributeCells, settings: TrainingSettings, processor: Any
    ) -> None:
        self.cells = {"train": train, "validation": validation}
        self.settings, self.processor = settings, processor
        self.mean, self.deviation = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (processor.image_mean, processor.image_std)
        )

    def check_model(self, model: nn.Module) -> None:
        """Raise a ConfigurationError where the model's cells are not those of the labels."""
        with torch.no_grad():
            logits = model.eval()(self._pixel_values(self.cells["train"].pixels[:1]))
        given, wanted = logits["shape"].shape[1:3], self.cells["train"].labels["shape"].shape[1:]
        if given != wanted:
            raise ConfigurationError(
                f"The backbone gives {tuple(given)} cells, but the labels have {tuple(wanted)}; change its stages."
            )

    def train_dataset(self, epoch: int) -> FlippedRows:
        """Return the rows of an epoch, half of them mirrored."""
        # A stream of its own, apart from the one that orders the rows.
        draw = np.random.default_rng([self.settings.seed, epoch, 2])
        return FlippedRows(draw.random(len(self.cells["train"].image_ids)) < 0.5)

    def collate(self, examples: list[tuple[int, bool]]) -> dict[str, Any]:
        """Return `pixel_values` [B, 3, S, S], the `labels` [B, G, G] by attribute, and image ids as "ids"."""
        cells = self.cells["train"]
        rows = [row for row, _ in examples]
        flipped = torch.tensor([flip for _, flip in examples])
        return {
            "pixel_values": self._pixel_values(_mirrored(cells.pixels[rows], flipped)),
            "labels": {name: _mirrored(labels[rows], flipped) for name, labels in cells.labels.items()},
            "ids": [cells.image_ids[row] for row in rows],
        }

    def loss(self, model: nn.Module, batch: dict[str, Any], epoch: int) -> Tensor:
        """Return the sum over attributes of the cross-entropy of all cells, those with nothing weighing less."""
        logits = model(batch["pixel_values"])
        losses = []
        for name, labels in batch["labels"].items():
            scores = logits[name].float().flatten(0, 2)  # [B * G * G, classes]
            weight = scores.new_ones(scores.shape[1])
            weight[0] = EMPTY_CELL_WEIGHT[self.cells["train"].label]
            losses.append(functional.cross_entropy(scores, labels.flatten(), weight))
        return torch.stack(losses).sum()

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str, accelerator: Accelerator, *, final: bool = True) -> Evaluation:
        """Return accuracies in percent; every process looks at the whole of the (small) split."""
        training = model.training
        model.eval()
        cells, size = self.cells[split], self.settings.evaluation_batch_size
        batches = [model(self._pixel_values(pixels).to(accelerator.device)) for pixels in cells.pixels.split(size)]
        model.train(training)
        right = {
            name: torch.cat([logits[name].argmax(-1).cpu() for logits in batches]) == labels
            for name, labels in cells.labels.items()
        }  # [N, G, G] each
        occupied = cells.labels["shape"] > 0
        metrics = {f"accuracy_{name}": _percent(values[occupied]) for name, values in right.items()}
        mean = sum(metrics.values()) / len(metrics)
        found = [{self.selection_metric: mean, **metrics, "accuracy_empty": _percent(right["shape"][~occupied])}]
        # Batch norm's running statistics differ from process to process by the last batch.
        broadcast_object_list(found)
        return Evaluation(found[0])

    def _pixel_values(self, pixels: Tensor) -> Tensor:
        """Scale pixels uint8 [B, 3, S, S] as the image processor does."""
        return (pixels.float() * self.processor.rescale_factor - self.mean) / self.deviation


def _mirrored(values: Tensor, flipped: Tensor) -> Tensor:
    """Mirror the rows [B, ..., W] that are `flipped` [B] along their last side."""
    return torch.where(flipped.view(-1, *[1] * (values.dim() - 1)), values.flip(-1), values)


def _percent(right: Tensor) -> float:
    """Share of true values in percent; 0 where there are none, which is worth no selection."""
    return 100.0 * float(right.float().mean()) if right.numel() else 0.0
