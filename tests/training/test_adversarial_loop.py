import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vl_alignment.models.discriminators_attngan import StageDiscriminator, conditioning_divergence
from vl_alignment.models.errors import ConfigurationError
from vl_alignment.models.modeling_attngan import AttnGanDiscriminators, AttnGanForTextToImageGeneration
from vl_alignment.training import adversarial_loop
from vl_alignment.training.adversarial_loop import train_adversarial
from vl_alignment.training.adversarial_settings import AdversarialSettings
from vl_alignment.training.batches import EpochBatches
from vl_alignment.training.epoch_loop import NonFiniteLossError
from vl_alignment.training.interruption import TrainingInterrupted
from vl_alignment.training.optimisation import step_seed
from vl_alignment.training.runs import RunDirectory

from .launching import launched
from .tiny import history, weights
from .tiny_adversarial import BATCH, SIZE, STAGES, STEPS, TinyTask, interrupt, tiny_damsm, tiny_models, tiny_settings
from .tiny_adversarial import train_tiny as train_tiny_in

LOSSES = {"discriminator_8", "discriminator_16", "generator_8", "generator_16", "divergence"}
MATCHING = {"word_matching", "sentence_matching"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train_tiny_in(tmp_path_factory.mktemp("whole"))


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def all_equal(first, second):
    return all(equal(one.state_dict(), other.state_dict()) for one, other in zip(first, second, strict=True))


def test_first_step_equals_one_that_is_written_out(tmp_path):
    settings = tiny_settings(epochs=1, batch_size=SIZE, matching_weight=3.0, divergence_weight=0.5)
    _, trained, _, task = train_tiny_in(tmp_path, settings)
    model, discriminators, damsm = tiny_models()
    model.train(), discriminators.train(), damsm.eval().requires_grad_(False)
    batch = task.collate([task.train_dataset(0)[index] for index in task.batches[0]])
    noise = torch.randn(SIZE, 5 + 4, generator=torch.Generator().manual_seed(step_seed(0, 0, 0)))
    output = model(batch["input_ids"], batch["attention_mask"], noise[:, :5], noise[:, 5:])
    _, sentences, _ = model.encode_texts(batch["input_ids"], batch["attention_mask"])

    losses = discriminators.discriminator_losses(batch["stage_images"], output.stage_images, sentences)
    for stage, loss in zip(discriminators.stages, losses, strict=True):
        optimizer = torch.optim.Adam(stage.parameters(), lr=1e-3, betas=(0.5, 0.999))
        loss.backward()
        optimizer.step()
    matched = damsm(
        batch["input_ids"], batch["attention_mask"], output.images, class_ids=batch["class_ids"], return_loss=True
    )
    total = sum(discriminators.generator_losses(output.stage_images, sentences))
    total = total + 3.0 * matched.loss + 0.5 * conditioning_divergence(output.mean, output.log_variance)
    optimizer = torch.optim.Adam(model.generator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    total.backward()
    optimizer.step()
    for network, expected in zip(trained, (model, discriminators), strict=True):
        for (name, weight), other in zip(network.named_parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(weight, other, rtol=1e-4, atol=1e-6, msg=name)


def test_every_network_is_trained_but_the_text_encoder_and_damsm(whole):
    _, networks, summary, _ = whole
    for trained, fresh in zip(networks, tiny_models()[:2], strict=True):
        for (name, tensor), start in zip(trained.named_parameters(), fresh.parameters(), strict=True):
            assert torch.equal(tensor, start) == ("text_encoder" in name), name
    assert (summary.steps, summary.epochs, summary.winners) == (2 * STEPS, 2, {})


def test_learning_curve_has_every_loss(whole):
    rows = [row for row in history(whole[0]) if "loss" in row]
    assert [row["step"] for row in rows] == [2, 4, 6]
    for row in rows:
        assert row["losses"].keys() == LOSSES | MATCHING and row["learning_rate"] == pytest.approx(2e-3)
        losses = row["losses"]
        total = losses["generator_8"] + losses["generator_16"] + losses["divergence"]
        assert row["loss"] == pytest.approx(total + 5 * (losses["word_matching"] + losses["sentence_matching"]))


def test_average_generator_is_what_is_kept_and_loads(whole):
    run, (model, _), *_ = whole
    kept = weights(run.model)
    assert not equal(kept, model.state_dict())
    assert all(torch.equal(kept[name], model.state_dict()[name]) for name in kept if "text_encoder" in name)
    loaded = AttnGanForTextToImageGeneration.from_pretrained(run.model)
    assert loaded.generate("a red picture", seed=0).images.shape == (1, 3, 16, 16)


def test_sample_grids_are_of_the_same_captions_and_noise(whole):
    folder = whole[0].path / "samples"
    assert sorted(path.name for path in folder.iterdir()) == [
        "captions.txt", "step-00000000.png", "step-00000003.png", "step-00000006.png",
    ]  # fmt: skip
    assert folder.joinpath("captions.txt").read_text().splitlines() == ["a red picture", "a green picture"]
    grids = [np.asarray(Image.open(folder / f"step-{step:08d}.png")) for step in (0, 6)]
    assert grids[0].shape == (2 * 18 + 2, 3 * 18 + 2, 3) and (grids[0] != grids[1]).any()


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, whole, batch):
    with pytest.raises(TrainingInterrupted, match="same command"):
        train_tiny_in(tmp_path, before_batch={batch: interrupt})
    run, networks, summary, task = train_tiny_in(tmp_path, seed=5)  # weights must come from the checkpoint
    assert len(task.batches) == 2 * STEPS - batch
    assert all_equal(networks, whole[1])
    assert equal(weights(run.model), weights(whole[0].model))
    assert history(run) == history(whole[0])
    assert (summary.best_metric, summary.best_step) == (whole[2].best_metric, whole[2].best_step)


@pytest.mark.parametrize(("stage", "name"), [(0, "discriminator_8"), (1, "discriminator_16")])
def test_loss_that_is_not_finite_is_named_and_the_last_good_checkpoint_goes_on(tmp_path, whole, stage, name):
    def spoil(batch):
        batch["stage_images"][stage][0] = math.nan

    settings = tiny_settings(checkpoint_every_steps=2)
    with pytest.raises(NonFiniteLossError, match=rf"loss '{name}' is not finite at step 5 of epoch 2.*picture-\d+"):
        train_tiny_in(tmp_path, settings, before_batch={5: spoil})
    _, networks, _, task = train_tiny_in(tmp_path, settings, seed=5)
    assert len(task.batches) == 2
    assert all_equal(networks, whole[1])


def test_matching_loss_that_is_not_finite_is_named(tmp_path):
    settings = tiny_settings()
    model, discriminators, damsm = tiny_models()
    damsm.code_projection.weight.data[0] = math.nan
    with pytest.raises(NonFiniteLossError, match="loss 'sentence_matching' is not finite at step 1 of epoch 1"):
        train_adversarial(model, discriminators, damsm, TinyTask(settings), settings, RunDirectory(tmp_path))


def test_gradient_that_is_not_finite_is_named(tmp_path, monkeypatch):
    def steep(mean, log_variance):
        return (mean - mean).abs().sqrt().sum()  # zero, with a slope that is no number

    monkeypatch.setattr(adversarial_loop, "conditioning_divergence", steep)
    with pytest.raises(NonFiniteLossError, match="gradient of 'generator' is not finite at step 1"):
        train_tiny_in(tmp_path)


def test_discriminator_that_wins_outright_is_reported_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(adversarial_loop, "WINNING_WINDOW", 2)

    def nothing_left(stage, real, drawn, sentences):
        return 1e-3 * sum(weight.square().sum() for weight in stage.parameters()) * (stage.image_size == STAGES[1])

    monkeypatch.setattr(StageDiscriminator, "discriminator_loss", nothing_left)
    monkeypatch.setattr(adversarial_loop, "WINNING_LOSS", 0.5)
    with caplog.at_level(logging.WARNING):
        summary = train_tiny_in(tmp_path)[2]
    assert summary.winners == {"discriminator_8": 2, "discriminator_16": 2}
    assert caplog.text.count("discriminator_16 wins outright") == 1


def test_equal_game_has_no_winner(whole):
    assert whole[2].winners == {}


@pytest.mark.parametrize("fields", [{"matching_weight": 0.0}, {"ema_decay": None}, {"precision": "bf16"}])
def test_parts_can_be_left_out(tmp_path, fields):
    settings = tiny_settings(epochs=1, **fields)
    model, discriminators, damsm = tiny_models()
    damsm = None if settings.matching_weight == 0 else damsm
    run = RunDirectory(tmp_path)
    train_adversarial(model, discriminators, damsm, TinyTask(settings, ()), settings, run)
    row = next(row for row in history(run) if "loss" in row)
    assert row["losses"].keys() == (LOSSES | MATCHING if damsm else LOSSES)
    assert equal(weights(run.model), model.state_dict()) == (settings.ema_decay is None)
    assert not (tmp_path / "samples").exists()


def test_models_that_do_not_belong_together_are_refused(tmp_path):
    settings = tiny_settings()
    model, discriminators, damsm = tiny_models()
    other = AttnGanDiscriminators(tiny_models(num_stages=1)[0].config)
    stranger = tiny_damsm(model.config.vocab_size, seed=1)
    for judges, matcher, message in [
        (other, damsm, r"draws pictures of \[8, 16\] pixels"),
        (discriminators, None, "matching_weight=5.0 needs a DAMSM"),
        (discriminators, stranger, "from_damsm"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            train_adversarial(model, judges, matcher, TinyTask(settings), settings, RunDirectory(tmp_path))


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    train_tiny_in(tmp_path, tiny_settings(epochs=1))
    with pytest.raises(ConfigurationError, match=r"matching_weight 5.0 -> 1.0"):
        train_tiny_in(tmp_path, tiny_settings(epochs=1, matching_weight=1.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": [0.5]}, "two numbers"),
        ({"betas": [0.5, 1.0]}, "below 1"),
        ({"matching_weight": -1.0}, "matching_weight"),
        ({"discriminator_learning_rate": 0.0}, "discriminator_learning_rate"),
        ({"batch_size": 1}, "unfitting caption"),
        ({"gradient_accumulation_steps": 2}, "whole batch"),
        ({"plateau_factor": 0.5}, "two sides"),
        ({"text_encoder_factor": 0.1}, "stays so"),
        ({"sample_every_steps": 0}, "sample_every_steps"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        AdversarialSettings(**changes)


def test_settings_survive_json():
    settings = AdversarialSettings(betas=(0.0, 0.9), matching_weight=50.0)
    assert AdversarialSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_share_batches_and_keep_the_same_weights(tmp_path):
    tests = Path(__file__).parents[1]
    first, second = launched("distributed_adversarial_run.py", tests, tmp_path, processes=2)
    assert first["weights"] == second["weights"] and first["statistics"] == second["statistics"]
    order = [batch for epoch in (0, 1) for batch in EpochBatches(SIZE, BATCH, seed=0, epoch=epoch)]
    assert [[*one, *other] for one, other in zip(first["batches"], second["batches"], strict=True)] == order
    rows = [row for row in history(RunDirectory(tmp_path)) if "loss" in row]
    assert len(rows) == 3 and all(math.isfinite(row["loss"]) for row in rows)
