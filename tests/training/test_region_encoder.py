import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transformers import AutoModel

from vl_alignment.data.blocks import COLORS, MATERIALS, SHAPES, SIZES, Scene, load_blocks
from vl_alignment.data.blocks.grid_labels import cell_objects, center_attributes
from vl_alignment.models import ScanConfig, ScanForImageTextRetrieval
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.models.processing_base import SquareImageProcessorPil
from vl_alignment.training import region_encoder
from vl_alignment.training.interruption import TrainingInterrupted
from vl_alignment.training.kept_models import best_validation
from vl_alignment.training.region_attributes import AttributeCells, RegionAttributeModel, RegionAttributeObjective
from vl_alignment.training.region_encoder import (
    _seconds,
    blocks_regions,
    load_region_encoder,
    region_encoder_settings,
    train_region_encoder,
)
from vl_alignment.training.runs import RunDirectory

SIZE, GRID = 48, 3
TINY = {"embedding_size": 8, "hidden_sizes": [8, 8, 16]}


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    return load_blocks(train=24, validation=8, test=6, image_size=SIZE, cache_dir=tmp_path_factory.mktemp("blocks"))


def settings(**changes):
    values = {
        "epochs": 2,
        "batch_size": 8,
        "decay_epochs": (),
        "warmup_steps": 0,
        "device": "cpu",
        "log_every_steps": 1,
    }
    return region_encoder_settings(**{**values, **changes})


@pytest.fixture(scope="module")
def regions(blocks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    return folder, blocks_regions(blocks, folder, settings=settings(), vision_fields=TINY, progress=False)


def refuse(*arguments, **keywords):
    raise AssertionError("this should have come from the cache")


def objective_of(blocks, **changes):
    cells = AttributeCells(blocks["train"], SIZE, GRID)
    return RegionAttributeObjective(cells, cells, settings(**changes), SquareImageProcessorPil())


def test_cells_and_pictures_keep_the_order_of_the_split(blocks):
    cells = AttributeCells(blocks["train"], SIZE, GRID)
    assert cells.image_ids == list(blocks["train"]["image_id"])
    record = blocks["train"][5]
    assert np.array_equal(cells.pixels[5].permute(1, 2, 0).numpy(), np.asarray(record["image"].convert("RGB")))
    scene, mask = Scene.from_json(record["scene"]), np.asarray(record["masks"])
    objects = cell_objects(mask, GRID)
    assert objects.any()
    tables = {"shape": SHAPES, "color": COLORS, "material": MATERIALS, "size": SIZES}
    for row, column in np.ndindex(GRID, GRID):
        for name, values in tables.items():
            label = int(cells.labels[name][5, row, column])
            number = objects[row, column]
            assert (label == 0) == (number == 0)
            assert label == 0 or values[label - 1] == getattr(scene.objects[number - 1], name)


def test_labels_lie_where_the_backbone_looks(blocks):
    """Changing the pixels of one cell changes that cell's features most: rows and columns are not exchanged."""
    torch.manual_seed(0)
    model = RegionAttributeModel(region_encoder._vision_config(TINY)[0]).eval()
    first = torch.zeros(1, 3, 96, 96)
    second = first.clone()
    second[:, :, 16:32, 64:80] = 1.0  # row 1, column 4
    with torch.no_grad():
        difference = (model.backbone(first).last_hidden_state - model.backbone(second).last_hidden_state).norm(dim=1)[0]
    assert divmod(int(difference.argmax()), 6) == (1, 4)


def test_mirrored_pictures_have_mirrored_labels(blocks):
    objective = objective_of(blocks)
    plain, mirrored = (objective.collate([(3, False), (7, flip)]) for flip in (False, True))
    assert torch.equal(plain["pixel_values"][0], mirrored["pixel_values"][0])
    assert torch.equal(plain["pixel_values"][1].flip(-1), mirrored["pixel_values"][1])
    for name, labels in plain["labels"].items():
        assert torch.equal(labels[0], mirrored["labels"][name][0])
        assert torch.equal(labels[1].flip(-1), mirrored["labels"][name][1])
    assert not torch.equal(plain["pixel_values"][1], mirrored["pixel_values"][1])


def test_mirroring_depends_on_seed_and_epoch_alone(blocks):
    objective = objective_of(blocks)
    draws = [objective.train_dataset(epoch).flipped for epoch in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])


def test_pixel_values_are_those_of_the_image_processor(blocks):
    objective = objective_of(blocks)
    processor = SquareImageProcessorPil(size={"height": SIZE, "width": SIZE})
    expected = processor(images=[blocks["train"][2]["image"]], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(objective.collate([(2, False)])["pixel_values"], expected, rtol=0, atol=1e-5)


def test_accuracy_counts_cells_with_an_object_and_empty_ones_apart(blocks):
    objective = objective_of(blocks)
    labels = objective.cells["train"].labels

    class AlwaysNothing(torch.nn.Module):
        def forward(self, pixel_values):
            return {
                name: torch.nn.functional.one_hot(torch.zeros(len(pixel_values), GRID, GRID).long(), 9).float()
                for name in labels
            }

    class Perfect(torch.nn.Module):
        def forward(self, pixel_values):
            return {name: torch.nn.functional.one_hot(values, 9).float() for name, values in labels.items()}

    class Accelerator:
        device = torch.device("cpu")

    nothing = objective.evaluate(AlwaysNothing(), "train", Accelerator).metrics
    assert nothing["attribute_accuracy"] == 0.0 and nothing["accuracy_empty"] == 100.0
    assert set(objective.evaluate(Perfect(), "train", Accelerator).metrics.values()) == {100.0}


def test_training_learns_and_records_what_it_did(blocks, tmp_path):
    chosen = settings(epochs=12, learning_rate=5e-3, evaluate_every=6)
    same = {"train": blocks["train"], "validation": blocks["train"]}
    encoder = train_region_encoder(same, tmp_path, settings=chosen, vision_fields=TINY)
    assert (
        encoder.metrics["attribute_accuracy"] > 55 and encoder.metrics["accuracy_color"] > 35
    )  # the most frequent: 45, 20
    assert encoder.steps == 12 * 3 and encoder.seconds > 0
    assert (encoder.regions, encoder.feature_size, encoder.image_size) == (GRID * GRID, 16, SIZE)
    information = json.loads((encoder.folder / "region_encoder.json").read_text())
    assert information["versions"]["torch"] and information["settings"]["epochs"] == 12
    assert not (encoder.folder / "checkpoints").exists()
    assert load_region_encoder(encoder.folder) == encoder


def test_second_call_takes_encoder_and_regions_from_the_cache(blocks, regions, monkeypatch):
    folder, (store, encoder, seconds) = regions
    monkeypatch.setattr(region_encoder, "train", refuse)
    monkeypatch.setattr(region_encoder, "extract_regions", refuse)
    # How much is looked at together changes nothing.
    again = blocks_regions(blocks, folder, settings=settings(evaluation_batch_size=4), vision_fields=TINY)
    assert again.encoder == encoder and again.seconds == seconds >= encoder.seconds
    assert again.store.path == store.path


@pytest.mark.parametrize("change", ["learning_rate", "vision", "data"])
def test_other_settings_or_data_are_another_encoder(blocks, regions, monkeypatch, change):
    folder, _ = regions
    monkeypatch.setattr(region_encoder, "train", refuse)
    data = {**blocks, "validation": blocks["test"]} if change == "data" else blocks
    rate = 1e-3 if change == "learning_rate" else region_encoder.SETTINGS["learning_rate"]
    fields = {**TINY, "hidden_sizes": [8, 8, 8]} if change == "vision" else TINY
    with pytest.raises(AssertionError, match="cache"):
        train_region_encoder(data, folder, settings=settings(learning_rate=rate), vision_fields=fields)


def test_test_split_and_captions_do_not_matter_to_the_encoder(blocks, regions, monkeypatch):
    folder, (_, encoder, _) = regions
    monkeypatch.setattr(region_encoder, "train", refuse)
    data = {name: blocks[name].remove_columns("captions") for name in ("train", "validation")}
    assert train_region_encoder(data, folder, settings=settings(), vision_fields=TINY) == encoder


def test_regions_of_all_splits_and_no_machine_path_in_the_version(blocks, regions):
    folder, (store, encoder, _) = regions
    assert sorted(store.image_ids) == sorted(name for split in blocks.values() for name in split["image_id"])
    assert (store.regions, store.feature_size, str(store.dtype)) == (GRID * GRID, 16, "float32")
    assert store.extractor == "blocks_region_encoder" and str(folder) not in store.extractor_version


def test_retrieval_model_with_these_weights_sees_the_same_from_pixels(blocks, regions, tmp_path):
    _, (store, encoder, _) = regions
    backbone = encoder.backbone()
    config = ScanConfig(vocab_size=10, hidden_size=8, word_embedding_size=4, vision_config=backbone.config)
    model = ScanForImageTextRetrieval(config)
    model.model.vision_model.load_state_dict(backbone.state_dict())
    model.save_pretrained(tmp_path)
    encoder.image_processor().save_pretrained(tmp_path)
    model = ScanForImageTextRetrieval.from_pretrained(tmp_path).eval()

    assert encoder.image_processor().size["height"] == SIZE
    pixels = encoder.image_processor()(images=list(blocks["test"]["image"]), return_tensors="pt")
    stored = torch.from_numpy(store.features(blocks["test"]["image_id"]))
    from_pixels, from_store = (
        model.encode_images(**inputs)
        for inputs in ({"pixel_values": pixels["pixel_values"]}, {"region_features": stored})
    )
    assert stored.std() > 0.01
    torch.testing.assert_close(from_pixels, from_store, rtol=1e-4, atol=1e-5)


def test_larger_pictures_are_resized_alike_in_training_store_and_pixels(tmp_path):
    large = load_blocks(train=9, validation=3, test=2, image_size=80, cache_dir=tmp_path / "blocks")
    store, encoder, _ = blocks_regions(
        large, tmp_path, settings=settings(epochs=1), vision_fields=TINY, image_size=SIZE, progress=False
    )
    picture = large["test"][1]["image"]
    pixels = encoder.image_processor()(images=[picture], return_tensors="pt")["pixel_values"]
    cells = AttributeCells(large["test"], SIZE, GRID)
    objective = RegionAttributeObjective(cells, cells, settings(), encoder.image_processor())
    torch.testing.assert_close(objective.collate([(1, False)])["pixel_values"], pixels, rtol=0, atol=1e-5)
    with torch.no_grad():
        features = AutoModel.from_pretrained(encoder.model_folder)(pixels).last_hidden_state.flatten(2).mT
    torch.testing.assert_close(torch.from_numpy(store.features(large["test"]["image_id"][1:2])), features)


def test_interrupted_training_goes_on_and_ends_with_the_same_weights(blocks, regions, tmp_path, monkeypatch):
    _, (_, whole, _) = regions
    loss, calls = RegionAttributeObjective.loss, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*arguments)

    monkeypatch.setattr(RegionAttributeObjective, "loss", interrupted)
    with pytest.raises(TrainingInterrupted):
        train_region_encoder(blocks, tmp_path, settings=settings(), vision_fields=TINY)
    (folder,) = (entry for entry in tmp_path.iterdir() if entry.is_dir())  # beside its lock
    with pytest.raises(CheckpointError, match="no finished region encoder"):
        load_region_encoder(folder)
    resumed = train_region_encoder(blocks, tmp_path, settings=settings(), vision_fields=TINY)
    assert len(calls) == whole.steps
    assert resumed.metrics == whole.metrics
    weights, expected = resumed.backbone().state_dict(), whole.backbone().state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_unusable_input_is_named_before_training(blocks, tmp_path):
    with pytest.raises(DataError, match="'validation'"):
        train_region_encoder({"train": blocks["train"]}, tmp_path)
    with pytest.raises(ConfigurationError, match="'scene'"):
        train_region_encoder({name: split.remove_columns("scene") for name, split in blocks.items()}, tmp_path)
    with pytest.raises(ConfigurationError, match="multiple of 16"):
        train_region_encoder(blocks, tmp_path, image_size=50)
    with pytest.raises(ConfigurationError, match="hidden_layers"):
        train_region_encoder(blocks, tmp_path, vision_fields={"hidden_layers": 3})
    with pytest.raises(ConfigurationError, match="bottle"):
        train_region_encoder(blocks, tmp_path, vision_fields={"layer_type": "bottle"})
    with pytest.raises(ConfigurationError, match="'middles' is no way"):
        train_region_encoder(blocks, tmp_path, label="middles")


def test_two_stages_name_each_object_once_in_the_cell_of_its_middle(blocks, tmp_path):
    two = {"hidden_sizes": [8, 8], "depths": [1, 1]}
    made = blocks_regions(
        blocks,
        tmp_path,
        settings=settings(epochs=1),
        vision_fields=two,
        label="centers",
        dtype="float16",
        progress=False,
    )
    assert (made.encoder.label, made.encoder.regions) == ("centers", 36)
    first = made.store.features(blocks["train"]["image_id"][:1])
    assert (first.dtype, first.shape) == ("float16", (1, 36, 8))
    scene = Scene.from_json(blocks["train"][0]["scene"])
    labels = center_attributes(scene, 6)
    shown = int((labels["shape"] > 0).sum())
    assert len(scene.objects) - 2 <= shown <= len(scene.objects)  # two objects may share a cell


def test_damaged_and_newer_encoders_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="train it first"):
        load_region_encoder(tmp_path)
    file = tmp_path / "region_encoder.json"
    file.write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        load_region_encoder(tmp_path)
    file.write_text('{"schema_version": 99}')
    with pytest.raises(CheckpointError, match="update vl-alignment"):
        load_region_encoder(tmp_path)


def test_two_programs_that_want_one_encoder_train_it_once(blocks, tmp_path, monkeypatch):
    trained, train = [], region_encoder.train

    def counted(*arguments, **keywords):
        trained.append(1)
        time.sleep(0.2)  # so that the other one asks for it meanwhile
        return train(*arguments, **keywords)

    monkeypatch.setattr(region_encoder, "train", counted)
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)  # threads stand for programs, and may not set it

    def ask(_):
        return train_region_encoder(blocks, tmp_path, settings=settings(epochs=1), vision_fields=TINY)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))
    assert len(trained) == 1 and first == second


def test_damaged_times_and_learning_curves_are_named(tmp_path):
    timing = tmp_path / "seconds.json"
    for text in ('{"seconds"', "[]", "{}"):
        timing.write_text(text)
        with pytest.raises(CheckpointError, match="seconds.json.*the regions are kept"):
            _seconds(timing)
    run = RunDirectory(tmp_path)
    run.history.write_text('{"validation": {"accuracy": 3.0}}\n{"vali')
    with pytest.raises(CheckpointError, match="history.jsonl.*cannot be read"):
        best_validation(run, "accuracy")
    run.history.write_text('{"step": 1}\n')
    with pytest.raises(CheckpointError, match="history.jsonl.*no accuracy"):
        best_validation(run, "accuracy")
