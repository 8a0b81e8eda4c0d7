"""The controls of a comparison: what a model reaches that cannot know, and one that knows everything."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..data.blocks import Scene, caption_holds, make_captions
from ..metrics.retrieval import chance_metrics, retrieval_metrics
from ..training.arguments import TrainingSettings
from ..training.preparation import RetrievalStudy
from ..training.retrieval import train_retrieval_run

__all__ = ["perfect_reader", "retrieval_controls", "shuffled_captions"]

# The shuffled run takes one epoch in so many of the others'.
SHARE_OF_EPOCHS = 3


def retrieval_controls(study: RetrievalStudy, output: Path, first: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Chance, shuffled captions, a blind model and, where the scenes are known, a perfect reader.

    Args:
        study: What the runs share.
        output: Folder of the runs; the shuffled run goes into its sub-folder `controls`.
        first: Results of the run whose function and seed the shuffled run repeats.

    Returns:
        {"name", "description", "metrics"} each.
    """
    test = study.data["test"]
    folds = study.options["folds"]
    owner = caption_owners(test)
    # What leaks from captions of other pictures would show early.
    epochs = max(1, study.settings["epochs"] // SHARE_OF_EPOCHS)
    shuffled = train_retrieval_run(
        shuffled_captions(study.data, first["seed"]),
        dataset_name=f"{study.name}-shuffled",
        output=output / "controls",
        settings=TrainingSettings.from_dict({**study.settings, "seed": first["seed"], "epochs": epochs}),
        model_fields={**study.model_fields, "alignment_function": first["alignment_function"]},
        region_store=study.store,
        image_processor=study.image_processor,
        vision_model=study.vision_model,
        minimum_count=study.options["minimum_count"],
        folds=folds,
        command=first["command"],
    )
    controls = [
        {
            "name": "chance",
            "description": "the expectation of random scores",
            "metrics": chance_metrics(owner, folds=folds),
        },
        {
            "name": "shuffled captions",
            "description": f"{first['alignment_function']}, {epochs} epochs, trained and tested on captions of others",
            "metrics": shuffled["metrics"],
        },
        {
            "name": "blind",
            "description": "every picture looks the same; ties count against the model",
            "metrics": retrieval_metrics(np.zeros((len(test), len(owner)), np.float32), owner, folds=folds),
        },
    ]
    if "scene" in test.column_names:
        controls.append(
            {
                "name": "ceiling",
                "description": "a perfect reader of the scenes, who breaks ties at random",
                "metrics": perfect_reader(test, folds=folds),
            }
        )
    return json.loads(json.dumps(controls))


def caption_owners(split: datasets.Dataset) -> np.ndarray:
    """The picture of each caption: int [captions]."""
    return np.repeat(np.arange(len(split)), [len(captions) for captions in split["captions"]])


def shuffled_captions(data: datasets.DatasetDict, seed: int) -> datasets.DatasetDict:
    """Give every picture the captions of another one of its split."""
    mixed = datasets.DatasetDict()
    for number, (name, split) in enumerate(data.items()):
        order = np.random.default_rng([seed, number]).permutation(len(split))
        following = np.empty(len(split), dtype=int)
        following[order] = np.roll(order, 1)  # one cycle through all pictures: none keeps its own
        captions = split["captions"]
        others = [captions[int(row)] for row in following]
        mixed[name] = split.remove_columns("captions").add_column("captions", others)
    return mixed


def perfect_reader(split: datasets.Dataset, folds: int = 1, seed: int = 0) -> dict[str, float]:
    """What is reached by knowing of every caption in which scenes of blocks it is true, and nothing else.

    Args:
        split: With a column "scene"; its captions are those that the scenes themselves give.
        folds: As of `retrieval_metrics`.
        seed: Of the random order among what is equally true.
    """
    scenes = [Scene.from_json(text) for text in split["scene"]]
    rows, owners = [], []
    for number, scene in enumerate(scenes):
        for caption in make_captions(scene):
            rows.append([caption_holds(caption, other) for other in scenes])
            owners.append(number)
    truth = np.asarray(rows, dtype=np.float64).T  # [scenes, captions]
    noise = np.random.default_rng(seed).random(truth.shape)
    return retrieval_metrics(truth + 0.5 * noise, np.asarray(owners), folds=folds)
