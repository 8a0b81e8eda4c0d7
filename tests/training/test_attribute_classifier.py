import json

import datasets
import numpy as np
import pytest
import torch
from torch.nn import functional

from vl_alignment.data.blocks import Scene, load_blocks
from vl_alignment.data.blocks.captions import make_descriptions
from vl_alignment.data.blocks.scene import ATTRIBUTES
from vl_alignment.data.blocks.spoken_attributes import spoken_attributes
from vl_alignment.data.blocks.statements import matching_objects
from vl_alignment.metrics.image_distribution import frechet_distance
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.training import attribute_classifier
from vl_alignment.training.attribute_classifier import (
    attribute_classifier_settings,
    load_attribute_classifier,
    train_attribute_classifier,
)
from vl_alignment.training.attribute_phrases import (
    PHRASES,
    AttributeClassifier,
    AttributeFeatures,
    AttributePhraseObjective,
    CellReadings,
    DescribedPictures,
)

SIZE, WIDTHS = 32, (8, 8, 16)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    return load_blocks(
        train=24,
        validation=10,
        test=0,
        image_size=SIZE,
        minimum_objects=1,
        maximum_objects=3,
        descriptions=True,
        cache_dir=tmp_path_factory.mktemp("blocks"),
    )


def settings(**changes):
    return attribute_classifier_settings(
        **{"epochs": 2, "batch_size": 8, "decay_epochs": (), "warmup_steps": 0, "device": "cpu", **changes}
    )


def train(blocks, folder, **changes):
    return train_attribute_classifier(blocks, folder, settings=settings(**changes), widths=WIDTHS, image_size=SIZE)


@pytest.fixture(scope="module")
def trained(blocks, tmp_path_factory):
    """Trained and chosen on the same few pictures, until it knows them."""
    folder = tmp_path_factory.mktemp("classifier")
    same = {"train": blocks["train"], "validation": blocks["train"]}
    return folder, same, train(same, folder, epochs=30, learning_rate=1e-2, evaluate_every=10)


def refuse(*arguments, **keywords):
    raise AssertionError("this should have come from the cache")


def test_phrases_of_a_picture_are_those_that_are_true_of_an_object(blocks):
    pictures = DescribedPictures(blocks["train"], SIZE)
    assert pictures.shown.shape == (24, len(PHRASES)) and len(PHRASES) == 5 * 9 * 3 * 3
    for row, record in enumerate(blocks["train"]):
        scene = Scene.from_json(record["scene"])
        expected = [bool(matching_objects(scene, phrase)) for phrase in PHRASES]
        assert pictures.shown[row].tolist() == expected
        assert int((pictures.middles["shape"][row] > 0).sum()) in {len(scene.objects), len(scene.objects) - 1}
    picture = np.asarray(blocks["train"][3]["image"].convert("RGB"))
    assert np.array_equal(pictures.pixels[3].permute(1, 2, 0).numpy(), picture)


def test_chance_of_a_phrase_is_that_of_any_cell():
    model = AttributeClassifier(WIDTHS, SIZE).eval()
    with torch.no_grad():
        readings = model(torch.rand(2, 3, SIZE, SIZE) * 2 - 1)
    assert readings.middle.shape == (2, 4, 4) and readings.features.shape == (2, 32)
    for place in (0, 7, 133, 404):
        absent = torch.ones(2)
        for row, column in np.ndindex(4, 4):
            chance = readings.middle[:, row, column].sigmoid()
            for name, value in PHRASES[place].items():
                told = readings.attributes[name][:, :, row, column].softmax(dim=1)
                chance = chance * told[:, ATTRIBUTES[name].index(value)]
            absent = absent * (1 - chance)
        torch.testing.assert_close(readings.log_absent[:, place].exp(), absent, rtol=1e-4, atol=1e-5)


def test_fit_is_the_mean_over_what_a_caption_says():
    model = AttributeClassifier(WIDTHS, SIZE)
    images = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    fits = model.phrase_fits(images)
    phrases = [{"color": "red", "shape": "cube"}, {"shape": "sphere", "material": "metal"}]
    places = [[dict(phrase) for phrase in PHRASES].index(phrase) for phrase in phrases]
    caption = "A red block left of a shiny ball."
    assert model.fit(fits[0], caption) == pytest.approx(float(fits[0, places].mean()))
    assert model.fit(fits[0].numpy(), caption) == pytest.approx(model.fit(fits[0], caption))
    torch.testing.assert_close(model.caption_fit(images, [caption, "a cone"])[0], fits[0, places].mean())
    with pytest.raises(DataError, match="'a bird' names no attributes"):
        model.fit(fits[0], "a bird")
    with pytest.raises(DataError, match="1 captions for 2 pictures"):
        model.caption_fit(images, [caption])
    with pytest.raises(DataError, match="must be floats"):
        model.phrase_fits(torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8))


def test_larger_pictures_are_made_smaller():
    model = AttributeClassifier(WIDTHS, SIZE)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    small = functional.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(model.phrase_fits(images), model.phrase_fits(small))


def test_mirrored_pictures_have_mirrored_middles_and_the_same_phrases(blocks):
    pictures = DescribedPictures(blocks["train"], SIZE)
    objective = AttributePhraseObjective(pictures, pictures, settings())
    plain, mirrored = (objective.collate([(3, False), (7, mirror)]) for mirror in (False, True))
    assert torch.equal(plain["images"][1].flip(-1), mirrored["images"][1])
    assert torch.equal(plain["images"][0], mirrored["images"][0])
    for name, middles in plain["middles"].items():
        assert torch.equal(middles[1].flip(-1), mirrored["middles"][name][1])
    assert torch.equal(plain["shown"], mirrored["shown"]) and plain["ids"] == mirrored["ids"]
    assert plain["images"].min() >= -1 and plain["images"].max() <= 1
    drawn = [objective.train_dataset(epoch).mirrored for epoch in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_a_model_that_sees_everything_is_right_about_everything(blocks):
    pictures = DescribedPictures(blocks["validation"], SIZE)
    objective = AttributePhraseObjective(pictures, pictures, settings())

    class Perfect(AttributeClassifier):
        def forward(self, images):
            absent = torch.where(pictures.shown, torch.tensor(-30.0), torch.tensor(-1e-6))
            return CellReadings(images, {}, absent, images)

    class Accelerator:
        device = torch.device("cpu")

    metrics = objective.evaluate(Perfect(WIDTHS, SIZE), "validation", Accelerator()).metrics
    assert metrics["phrase_f1"] == metrics["attribute_accuracy"] == 100.0
    assert metrics["log_likelihood"] == pytest.approx(0, abs=1e-2)


def test_training_learns_and_records_what_it_did(trained):
    _, same, classifier = trained
    assert classifier.metrics["phrase_f1"] > 40 and classifier.metrics["attribute_accuracy"] > 80
    assert (classifier.image_size, classifier.widths, classifier.steps) == (SIZE, list(WIDTHS), 90)
    assert classifier.seconds > 0 and classifier.settings["epochs"] == 30 and classifier.versions["torch"]
    assert not (classifier.folder / "checkpoints").exists()
    # What was measured while training is what the kept model sees.
    pictures = DescribedPictures(same["validation"], SIZE)
    model = classifier.model()
    seen = model.phrase_fits(pictures.pixels.float() / 127.5 - 1) > np.log(0.5)
    both = int(seen[:, 1:].sum() + pictures.shown[:, 1:].sum())
    right = int((seen & pictures.shown)[:, 1:].sum())
    assert 200 * right / both == pytest.approx(classifier.metrics["phrase_f1"], abs=0.01)


def test_second_call_takes_it_from_the_cache_and_other_settings_do_not(trained, monkeypatch):
    folder, same, classifier = trained
    monkeypatch.setattr(attribute_classifier, "train", refuse)
    chosen = {"epochs": 30, "learning_rate": 1e-2, "evaluate_every": 10}
    assert train(same, folder, **chosen, evaluation_batch_size=4) == classifier
    assert load_attribute_classifier(classifier.folder) == classifier
    for changes in ({"seed": 1}, {"epochs": 31}):
        with pytest.raises(AssertionError, match="cache"):
            train(same, folder, **{**chosen, **changes})


def test_one_seed_gives_the_same_weights_and_captions_do_not_matter_to_them(blocks, tmp_path):
    first = train(blocks, tmp_path / "first", epochs=1).model().state_dict()
    others = [make_descriptions(Scene.from_json(scene))[1].text for scene in blocks["train"]["scene"]]
    changed = dict(blocks)
    changed["train"] = blocks["train"].remove_columns("captions").add_column("captions", [[text] for text in others])
    second = train(changed, tmp_path / "second", epochs=1).model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_only_the_first_pictures_are_learnt_from(trained, monkeypatch):
    folder, same, classifier = trained
    monkeypatch.setattr(attribute_classifier, "train", refuse)
    more = {**same, "train": datasets.concatenate_datasets([same["train"], same["train"].select([3, 5])])}
    chosen = settings(epochs=30, learning_rate=1e-2, evaluate_every=10)
    again = train_attribute_classifier(more, folder, settings=chosen, widths=WIDTHS, image_size=SIZE, pictures=24)
    assert again == classifier


def test_features_stand_under_the_classifiers_own_name(trained, blocks):
    network = trained[2].features()
    assert isinstance(network, AttributeFeatures) and network.name == trained[2].model().name
    assert (network.distance_name, network.score_name, network.num_features) == ("feature_distance", None, 32)
    real, blank = (DescribedPictures(split, SIZE).pixels.float() / 127.5 - 1 for split in blocks.values())
    blank = blank.mean(dim=0, keepdim=True).expand(10, -1, -1, -1)
    assert network(real).shape == (24, 32)
    assert (
        0 <= frechet_distance(network(real), network(real.flip(-1))) < frechet_distance(network(real), network(blank))
    )


def test_every_phrase_of_a_caption_has_a_place(blocks):
    phrases = [dict(phrase) for phrase in PHRASES]
    for captions in blocks["train"]["captions"]:
        assert all(phrase in phrases for caption in captions for phrase in spoken_attributes(caption))


def test_unusable_input_is_named_before_training(blocks, tmp_path):
    with pytest.raises(DataError, match="'validation'"):
        train_attribute_classifier({"train": blocks["train"]}, tmp_path)
    with pytest.raises(ConfigurationError, match="'scene'"):
        train_attribute_classifier({name: split.remove_columns("scene") for name, split in blocks.items()}, tmp_path)
    with pytest.raises(ConfigurationError, match="multiple of 8"):
        train_attribute_classifier(blocks, tmp_path, image_size=50)
    with pytest.raises(ConfigurationError, match="three numbers"):
        train_attribute_classifier(blocks, tmp_path, widths=(8, 8))
    pictures = DescribedPictures(blocks["train"], SIZE)
    with pytest.raises(ConfigurationError, match="32 pixels a side, but the model takes 64"):
        AttributePhraseObjective(pictures, pictures, settings()).check_model(AttributeClassifier(WIDTHS, 64))


def test_damaged_missing_and_newer_classifiers_are_refused(tmp_path, trained):
    with pytest.raises(CheckpointError, match="no finished attribute classifier here; train it first"):
        load_attribute_classifier(tmp_path)
    (tmp_path / "attribute_classifier.json").write_text('{"schema_version": 99}')
    with pytest.raises(CheckpointError, match="update vl-alignment"):
        load_attribute_classifier(tmp_path)
    model = tmp_path / "model"
    trained[2].model().save_pretrained(model)
    assert json.loads((model / "config.json").read_text()) == {"widths": list(WIDTHS), "image_size": SIZE}
    (model / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="model: The attribute classifier cannot be loaded"):
        AttributeClassifier.from_pretrained(model)
