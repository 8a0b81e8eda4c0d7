"""One run of AttnGAN on a few pictures, from the study to its results, and what measures it."""

import json

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import torch
from accelerate import Accelerator
from transformers import ResNetConfig, ResNetModel

from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.inception_v3 import InceptionV3
from vl_alignment.models.modeling_attngan import AttnGanForTextToImageGeneration
from vl_alignment.models.modeling_damsm import DamsmModel
from vl_alignment.models.processing_base import SquareImageProcessorPil
from vl_alignment.training.adversarial_settings import AdversarialSettings
from vl_alignment.training.damsm import train_damsm_run
from vl_alignment.training.data_options import changed_options
from vl_alignment.training.evaluation import evaluate
from vl_alignment.training.preparation import prepare_study
from vl_alignment.training.presets import get_preset
from vl_alignment.training.text_to_image_study import (
    TextToImageStudy,
    damsm_arguments,
    load_image_encoder,
    with_all_splits,
)

from .pictures import FIELDS, OPTIONS, SETTINGS, SIZES, drawing_study

RUN = "attngan-blocks-dot-seed0"
MEASURED = {"feature_distance", "r_precision", "attribute_accuracy"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp("drawing")
    study = drawing_study(output)
    return study, output, study.run_cell(output, "dot", 0, command="test")


def test_results_say_what_was_measured_with_what_and_against_what(finished):
    _, output, result = finished
    assert json.loads((output / RUN / "results.json").read_text()) == result
    assert (result["task"], result["model"], result["run_id"]) == ("text-to-image", "attngan", RUN)
    assert {name: result["dataset"][name] for name in SIZES} == SIZES and result["dataset"]["image_size"] == 64
    assert set(result["metrics"]) == MEASURED
    held_against = {f"{name}_{metric}" for name in ("untrained", "mean_picture", "real") for metric in MEASURED}
    assert set(result["bounds"]) == held_against | {"chance_r_precision", "chance_attribute_accuracy"}
    assert np.isfinite([*result["metrics"].values(), *result["bounds"].values()]).all()
    stated = result["evaluation"]
    assert stated["network"].startswith("attribute classifier of blocks") and stated["network"] == stated["classifier"]
    assert (stated["generated_images"], stated["real_images"]) == (10, 10) and len(stated["weights_sha256"]) == 64
    assert result["bounds"]["chance_r_precision"] == pytest.approx(100 / stated["candidates"])
    # The mean picture is as good or bad for every caption.
    assert result["bounds"]["mean_picture_r_precision"] < 50


def test_run_directory_holds_pictures_weights_and_predictions(finished):
    _, output, result = finished
    folder = output / RUN
    assert {path.name for path in (folder / "samples").glob("*.png")} >= {"step-00000000.png", "step-00000002.png"}
    rows = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pylist()
    assert len(rows) == 10 and {"item_id", "reference", "score", "own_fit", "mismatched_fit", "found"} <= set(rows[0])
    right = np.mean([row["own_fit"] > row["mismatched_fit"] for row in rows])
    assert result["metrics"]["attribute_accuracy"] == pytest.approx(100 * right)
    model = AttnGanForTextToImageGeneration.from_pretrained(folder / "model")
    assert model.config.alignment_function == "dot" and model.config.stage_sizes == [16, 32, 64]
    picture = model.generate("a red ball", seed=0, output_type="pil").images[0]
    assert picture.size == (64, 64)


def test_finished_run_is_kept_and_another_model_in_its_folder_refused(finished):
    study, output, result = finished
    assert study.run_cell(output, "dot", 0, command="test") == result
    with pytest.raises(ConfigurationError, match="another model"):
        study.train(
            output=output,
            settings=AdversarialSettings.from_dict({**study.settings, "seed": 0}),
            model_fields={**study.model_fields, "alignment_function": "dot", "noise_size": 7},
        )


def test_pictures_do_not_depend_on_the_batch_they_are_measured_in(finished):
    study, output, result = finished
    model = AttnGanForTextToImageGeneration.from_pretrained(output / RUN / "model")
    settings = AdversarialSettings.from_dict({**study.settings, "evaluation_batch_size": 3})
    task = study.build_task(model.config.stage_sizes, settings)
    measured = task.evaluate(model, "test", Accelerator(cpu=True)).metrics
    assert measured == pytest.approx(result["metrics"], rel=1e-3)
    with pytest.raises(DataError, match="no split 'dev'"):
        task.evaluate(model, "dev", Accelerator(cpu=True))


def test_several_pictures_of_each_image_from_captions_of_its_own(finished):
    study, output, _ = finished
    study.options["pictures_per_image"] = 2
    try:
        task = study.build_task([16, 32, 64], AdversarialSettings.from_dict(study.settings))
    finally:
        del study.options["pictures_per_image"]
    model = AttnGanForTextToImageGeneration.from_pretrained(output / RUN / "model")
    evaluation = task.evaluate(model, "test", Accelerator(cpu=True))
    assert evaluation.details["generated_images"] == 20 and evaluation.details["real_images"] == 10
    assert len({row["item_id"] for row in evaluation.predictions}) == 20


def test_the_model_is_measured_again_as_it_was(finished):
    _, output, result = finished
    measured = evaluate(output / RUN / "model", sizes=SIZES, options=OPTIONS, device="cpu")
    assert {name: measured[name] for name in MEASURED} == pytest.approx(result["metrics"], rel=1e-3)
    with pytest.raises(ConfigurationError, match="no regions"):
        evaluate(output / RUN / "model", sizes=SIZES, options=OPTIONS, regions="store")


def test_another_seed_starts_elsewhere_and_is_measured_on_the_same_captions(finished):
    study = finished[0]
    tasks = [
        study.build_task([16, 32, 64], AdversarialSettings.from_dict({**study.settings, "seed": seed}))
        for seed in (0, 1)
    ]
    items = [task.pictures["test"][0] for task in tasks]
    assert items[0]["caption_row"] == items[1]["caption_row"]
    assert torch.equal(items[0]["stage_images"][-1], items[1]["stage_images"][-1])


def test_generators_take_no_regions(tmp_path):
    with pytest.raises(ConfigurationError, match="leave regions and extractor out"):
        drawing_study(tmp_path, regions=tmp_path / "regions")


def test_wrong_settings_are_found_before_the_data(tmp_path):
    for settings, message in (({"matching_weigth": 1}, "matching_weigth"), ({"questions_per_image": 0}, "questions")):
        with pytest.raises(ConfigurationError, match=message):
            drawing_study(tmp_path, settings={**SETTINGS, **settings})
    with pytest.raises(ConfigurationError, match="discriminator_sise"):
        drawing_study(tmp_path, model_fields={**FIELDS, "discriminator_sise": 3})


def test_published_recipes_need_an_image_encoder():
    for name in ("cub", "coco-t2i"):
        preset = get_preset(name)
        with pytest.raises(ConfigurationError, match="image_encoder"):
            damsm_arguments(preset["data"], preset["model"])


def test_another_data_set_takes_the_place_of_the_preset_s():
    preset = get_preset("blocks-t2i")["data"]
    changed = changed_options(preset, {"dataset": "folder", "damsm_epochs": 3})
    assert changed["name"] == "folder" and "loading" not in changed and "sizes" not in changed
    settings = changed["damsm"]["settings"]
    assert settings["epochs"] == 3 and settings["decay_epochs"] == [2] and preset["damsm"]["settings"]["epochs"] > 3
    with pytest.raises(ConfigurationError, match="pictures from words alone"):
        changed_options(get_preset("blocks")["data"], {"feature_network": "weights.pth"})


def test_pictures_whose_scenes_nobody_knows_are_judged_by_damsm(finished, tmp_path):
    known = finished[0]
    study = TextToImageStudy(
        name="own",
        data=known.data.remove_columns("scene"),
        model_fields=known.model_fields,
        settings=known.settings,
        options=known.options,
    )
    study.make_judges(tmp_path)
    result = study.run_cell(tmp_path / "runs", "dot", 0, command="test")
    assert set(result["metrics"]) == {"feature_distance", "r_precision"}
    assert result["evaluation"]["network"] == "image encoder of the study's DAMSM"
    assert "against which the generators were trained" in study.notes[-1]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match="the folder of cub"):
        prepare_study("cub", output=tmp_path, data_dir=tmp_path / "nothing")


def test_a_validation_split_is_held_out_where_there_is_none():
    def split(*names):
        return datasets.DatasetDict({name: datasets.Dataset.from_dict({"image_id": [*range(40)]}) for name in names})

    data = with_all_splits(split("train", "test"))
    assert {name: len(part) for name, part in data.items()} == {"train": 38, "validation": 2, "test": 40}
    assert not set(data["train"]["image_id"]) & set(data["validation"]["image_id"])
    assert len(with_all_splits(split("train", "validation"))["test"]) == 40
    assert len(with_all_splits(split("train", "validation", "test"))["train"]) == 40
    with pytest.raises(DataError, match="train and test"):
        with_all_splits(split("train", "else"))


def test_pictures_of_one_split_are_divided():
    data = datasets.DatasetDict({"all": datasets.Dataset.from_dict({"image_id": [*range(400)]})})
    divided = with_all_splits(data)
    assert {name: len(part) for name, part in divided.items()} == {"train": 361, "validation": 19, "test": 20}
    assert sorted(number for part in divided.values() for number in part["image_id"]) == [*range(400)]
    few = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"image_id": [*range(19)]})})
    with pytest.raises(DataError, match="19 pictures are too few"):
        with_all_splits(few)


def test_image_encoder_is_a_file_of_inception_s_weights(tmp_path):
    torch.manual_seed(0)
    network = InceptionV3("torchvision", 1000)
    torch.save(network.state_dict(), tmp_path / "inception.pth")
    encoder, fields = load_image_encoder(str(tmp_path / "inception.pth"))
    damsm = DamsmModel(DamsmConfig(vocab_size=9, hidden_size=8, word_embedding_size=4, **fields))
    damsm.vision_model.load_state_dict(encoder.state_dict())
    weight = damsm.vision_model.state_dict()["Conv2d_1a_3x3.conv.weight"]
    assert torch.equal(weight, network.state_dict()["Conv2d_1a_3x3.conv.weight"]) and damsm.config.freeze_vision


def test_image_encoder_is_a_backbone_that_damsm_trains_with(tmp_path, finished):
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")
    backbone = ResNetModel(config)
    backbone.save_pretrained(tmp_path / "backbone")
    pictures = SquareImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.4] * 3, image_std=[0.2] * 3)
    pictures.save_pretrained(tmp_path / "backbone")
    study = finished[0]
    options = {**study.options, "image_encoder": str(tmp_path / "backbone")}
    options["damsm"] = {**options["damsm"], "model": {"hidden_size": 8, "word_embedding_size": 4}}
    arguments = damsm_arguments(options, study.model_fields)
    result = train_damsm_run(study.data, dataset_name="blocks", output=tmp_path, command="test", **arguments)
    trained = DamsmModel.from_pretrained(tmp_path / result["run_id"] / "model")
    assert (trained.config.vision_image_size, trained.config.vision_mean) == (32, [0.4] * 3)
    for name, tensor in backbone.state_dict().items():  # frozen: neither weights nor statistics have moved
        assert torch.equal(trained.vision_model.state_dict()[name], tensor), name
