"""A task of a few numbers, small enough to train in milliseconds, that shows every step of the loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.objectives import Evaluation

SIZE = 40


class TinyModel(nn.Module):
    """A linear regression with dropout, which shows whether random numbers are the same after a resume."""

    def __init__(self, seed: int = 0, dropout: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(3, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.dropout(x)).squeeze(-1)

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        save_file(self.state_dict(), folder / "model.safetensors")


class TinyObjective:
    task = "regression"
    selection_metric = "score"
    processor = None

    def __init__(self, settings: TrainingSettings, size: int = SIZE) -> None:
        self.settings = settings
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(size, 3, generator=generator)
        self.y = self.x @ torch.tensor([1.0, -2.0, 0.5])
        self.calls = 0
        self.before_loss: dict[int, Any] = {}  # number of the call -> what happens then
        self.batches: list[list[int]] = []

    def check_model(self, model: nn.Module) -> None:
        pass

    def train_dataset(self, epoch: int) -> list[tuple[int, float]]:
        noise = np.random.default_rng([self.settings.seed, epoch]).normal(size=len(self.x))
        return list(enumerate(noise.tolist()))

    def collate(self, examples: list[tuple[int, float]]) -> dict[str, Any]:
        rows = [index for index, _ in examples]
        noise = torch.tensor([value for _, value in examples], dtype=torch.float32)
        return {"x": self.x[rows], "y": self.y[rows] + 0.1 * noise, "ids": [f"row-{row}" for row in rows]}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], epoch: int) -> torch.Tensor:
        self.calls += 1
        result = ((model(batch["x"]) - batch["y"]) ** 2).mean()
        action = self.before_loss.get(self.calls)
        replaced = action() if action else None
        return result * replaced if replaced is not None else result

    def evaluate(self, model: nn.Module, split: str, accelerator: Any, *, final: bool = True) -> Evaluation:
        model.eval()
        with torch.no_grad():
            return Evaluation({"score": -float(((model(self.x) - self.y) ** 2).mean())})


def tiny_settings(**changes: Any) -> TrainingSettings:
    values = {"epochs": 3, "batch_size": 8, "learning_rate": 0.05, "decay_epochs": (2,), "device": "cpu"}
    return TrainingSettings(**{**values, "log_every_steps": 2, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def history(run: Any) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in run.history.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
