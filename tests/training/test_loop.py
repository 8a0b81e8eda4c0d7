import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vl_alignment.models.errors import CheckpointError, ConfigurationError
from vl_alignment.training.epoch_loop import NonFiniteLossError
from vl_alignment.training.interruption import TrainingInterrupted
from vl_alignment.training.loop import train
from vl_alignment.training.optimisation import learning_rate_factor
from vl_alignment.training.runs import RunDirectory

from .tiny import SIZE, TinyModel, TinyObjective, history, tiny_settings, weights


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


def die():
    raise Killed


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def uninterrupted(tmp_path):
    settings = tiny_settings()
    run, model = RunDirectory(tmp_path / "whole"), TinyModel()
    summary = train(model, TinyObjective(settings), settings, run)
    return run, model, summary


def test_training_lowers_the_loss_and_keeps_the_best_weights(uninterrupted):
    run, model, summary = uninterrupted
    assert (summary.steps, summary.epochs, summary.device) == (3 * SIZE // 8, 3, "cpu")
    scores = [row["validation"]["score"] for row in history(run) if "validation" in row]
    assert scores[-1] > scores[0] and summary.best_metric == max(scores)
    best = TinyModel()
    best.load_state_dict(weights(run.model))
    assert TinyObjective(tiny_settings()).evaluate(best, "validation", None).metrics["score"] == max(scores)


@pytest.mark.parametrize("call", [1, 4, 5, 7, 10, 15])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, uninterrupted, call):
    run_whole, model_whole, summary_whole = uninterrupted
    settings = tiny_settings()
    run, objective = RunDirectory(tmp_path / "stopped"), TinyObjective(settings)
    objective.before_loss = {call: lambda: os.kill(os.getpid(), signal.SIGINT)}
    handler = signal.getsignal(signal.SIGINT)  # a shell's background jobs ignore it
    with pytest.raises(TrainingInterrupted, match="same command"):
        train(TinyModel(), objective, settings, run)
    assert signal.getsignal(signal.SIGINT) is handler

    model = TinyModel(seed=5)  # its weights must come from the checkpoint
    summary = train(model, TinyObjective(settings), settings, run)
    assert equal(model.state_dict(), model_whole.state_dict())
    assert equal(weights(run.model), weights(run_whole.model))
    assert history(run) == history(run_whole)
    assert (summary.best_metric, summary.best_step) == (summary_whole.best_metric, summary_whole.best_step)


@pytest.mark.parametrize(("call", "repeated"), [(6, 2), (9, 1), (14, 2)])
def test_killed_run_goes_on_from_the_last_periodic_checkpoint(tmp_path, uninterrupted, call, repeated):
    _, model_whole, _ = uninterrupted
    settings = tiny_settings(checkpoint_every_steps=4)
    run, objective = RunDirectory(tmp_path / "killed"), TinyObjective(settings)
    objective.before_loss = {call: die}
    with pytest.raises(Killed):
        train(TinyModel(), objective, settings, run)
    model, objective = TinyModel(seed=5), TinyObjective(settings)
    train(model, objective, settings, run)
    assert equal(model.state_dict(), model_whole.state_dict())
    assert objective.calls < 15


def test_damaged_and_half_written_checkpoints_are_skipped_with_a_warning(tmp_path, uninterrupted):
    _, model_whole, _ = uninterrupted
    settings = tiny_settings(checkpoint_every_steps=2)
    run, objective = RunDirectory(tmp_path / "damaged"), TinyObjective(settings)
    objective.before_loss = {10: die}
    with pytest.raises(Killed):
        train(TinyModel(), objective, settings, run)
    older, newest = sorted(run.checkpoints.iterdir())
    file = newest / "optimizer.bin"
    file.write_bytes(file.read_bytes()[:-20])
    (run.checkpoints / ".writing-epoch-0009-step-00000099").mkdir()
    (run.checkpoints / "epoch-0009-step-00000099").mkdir()
    model = TinyModel(seed=5)
    with pytest.warns(UserWarning, match="damaged"):
        train(model, TinyObjective(settings), settings, run)
    assert equal(model.state_dict(), model_whole.state_dict())
    assert not list(run.checkpoints.glob(".writing-*"))


def test_checkpoint_of_another_model_is_refused(tmp_path, uninterrupted):
    run, *_ = uninterrupted
    other = TinyModel()
    other.linear = torch.nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match="another model"):
        train(other, TinyObjective(tiny_settings()), tiny_settings(), run)


def test_other_settings_in_the_same_folder_are_refused(uninterrupted):
    run, *_ = uninterrupted
    settings = tiny_settings(learning_rate=0.1)
    with pytest.raises(ConfigurationError, match=r"learning_rate 0.05 -> 0.1"):
        train(TinyModel(), TinyObjective(settings), settings, run)


def test_finished_training_is_not_repeated(uninterrupted):
    run, model, summary = uninterrupted
    objective = TinyObjective(tiny_settings())
    again = train(TinyModel(seed=5), objective, tiny_settings(), run)
    assert objective.calls == 0 and again.steps == summary.steps


def test_only_two_checkpoints_are_kept_while_training_and_one_after(tmp_path, uninterrupted):
    settings = tiny_settings(checkpoint_every_steps=1)
    run, objective = RunDirectory(tmp_path / "kept"), TinyObjective(settings)
    objective.before_loss = {9: die}
    with pytest.raises(Killed):
        train(TinyModel(), objective, settings, run)
    assert len(list(run.checkpoints.iterdir())) == 2
    assert len(list(uninterrupted[0].checkpoints.iterdir())) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path, value):
    settings = tiny_settings(checkpoint_every_steps=2)
    run, objective = RunDirectory(tmp_path / "nan"), TinyObjective(settings)
    objective.before_loss = {8: lambda: value}
    with pytest.raises(NonFiniteLossError, match=r"loss is not finite at step 8 of epoch 2.*row-\d+"):
        train(TinyModel(), objective, settings, run)
    objective = TinyObjective(settings)
    train(TinyModel(), objective, settings, run)
    assert objective.calls == 15 - 6


def test_gradient_that_is_not_finite_reaches_no_checkpoint_without_clipping_either(tmp_path):
    class Steep(TinyObjective):
        def loss(self, model, batch, epoch):
            loss = super().loss(model, batch, epoch)
            return (
                loss + (loss - loss).abs().sqrt() if self.calls == 4 else loss
            )  # zero, with a slope that is no number

    settings = tiny_settings(gradient_clipping=None, checkpoint_every_steps=1)
    run = RunDirectory(tmp_path)
    with pytest.raises(NonFiniteLossError, match=r"gradient is not finite at step 4 of epoch 1.*row-\d+"):
        train(TinyModel(), Steep(settings), settings, run)
    for checkpoint in run.checkpoints.iterdir():
        assert all(value.isfinite().all() for value in weights(checkpoint).values())


def test_unwritable_output_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    objective = TinyObjective(tiny_settings())
    with pytest.raises(ConfigurationError, match="cannot be written"):
        train(TinyModel(), objective, tiny_settings(), RunDirectory(tmp_path / "file" / "run"))
    assert objective.calls == 0


def test_accumulated_small_batches_equal_a_large_batch(tmp_path):
    large, small = tiny_settings(), tiny_settings(batch_size=4, gradient_accumulation_steps=2)
    models = []
    for name, settings in [("large", large), ("small", small)]:
        model = TinyModel(dropout=0.0)
        summary = train(model, TinyObjective(settings), settings, RunDirectory(tmp_path / name))
        assert summary.steps == 15
        models.append(model.state_dict())
    for key in models[0]:
        torch.testing.assert_close(models[0][key], models[1][key], rtol=1e-5, atol=1e-6)


def test_bfloat16_autocast_trains_and_does_not_leak_into_the_next_run(tmp_path):
    settings = tiny_settings(precision="bf16")
    summary = train(TinyModel(), TinyObjective(settings), settings, RunDirectory(tmp_path / "bf16"))
    assert summary.precision == "bf16" and summary.best_metric > -3
    model = TinyModel()
    train(model, TinyObjective(tiny_settings()), tiny_settings(), RunDirectory(tmp_path / "full"))
    assert model(torch.ones(2, 3)).dtype == torch.float32


def test_precision_that_the_device_lacks_is_a_configuration_error(tmp_path):
    settings = tiny_settings(precision="fp16")
    with pytest.raises(ConfigurationError, match="fp16"):
        train(TinyModel(), TinyObjective(settings), settings, RunDirectory(tmp_path / "fp16"))


def test_sharded_weights_are_refused_before_anything_hangs(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigurationError, match=r"launch without it \(docs/devices.md\)"):
        train(TinyModel(), TinyObjective(tiny_settings()), tiny_settings(), RunDirectory(tmp_path))


def test_learning_rate_warms_up_and_decays_after_the_named_epochs():
    settings = tiny_settings(warmup_steps=4, decay_epochs=(2, 3), decay_factor=0.1)
    factors = [learning_rate_factor(settings, step // 5, step) for step in (0, 1, 3, 4, 9, 10, 14, 15)]
    assert factors == pytest.approx([0.25, 0.5, 1.0, 1.0, 1.0, 0.1, 0.1, 0.01])


def test_history_shows_the_decayed_learning_rate(uninterrupted):
    rates = {row["step"]: row["learning_rate"] for row in history(uninterrupted[0]) if "learning_rate" in row}
    assert rates[8] == pytest.approx(0.05) and rates[12] == pytest.approx(0.005)


def test_epochs_have_their_own_lengths_and_decays_come_between_them(tmp_path, monkeypatch):
    settings = tiny_settings(epochs=3, decay_epochs=(1,), decay_factor=0.1, learning_rate=0.4, log_every_steps=1)
    objective = TinyObjective(settings)
    whole = objective.train_dataset(0)
    half = len(whole) // 2
    monkeypatch.setattr(objective, "train_dataset", lambda epoch: whole[:half] if epoch == 0 else whole)
    short, long = half // settings.batch_size, len(whole) // settings.batch_size
    run = RunDirectory(tmp_path)
    assert train(TinyModel(), objective, settings, run).steps == short + 2 * long
    rates = {row["step"]: row["learning_rate"] for row in history(run) if "learning_rate" in row}
    assert rates[short] == pytest.approx(0.4) and rates[short + 1] == pytest.approx(0.04)


def test_terminated_process_leaves_a_loadable_checkpoint(tmp_path):
    script = """
import sys
import time
from training.tiny import TinyModel, TinyObjective, tiny_settings
from vl_alignment.training.interruption import TrainingInterrupted
from vl_alignment.training.loop import train
from vl_alignment.training.runs import RunDirectory
settings = tiny_settings(epochs=3)
objective = TinyObjective(settings)
objective.before_loss = {call: lambda: time.sleep(0.5) for call in range(7, 16)}
try:
    train(TinyModel(), objective, settings, RunDirectory(sys.argv[1]))
except TrainingInterrupted:
    sys.exit(130)
"""
    folder = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], env=environment)
    deadline = time.monotonic() + 300
    while not list(folder.glob("checkpoints/epoch-*")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 130
    settings = tiny_settings()
    objective = TinyObjective(settings)
    assert train(TinyModel(seed=5), objective, settings, RunDirectory(folder)).steps == 15
    assert 0 < objective.calls <= 10


AVERAGED = {"ema_decay": 0.9, "plateau_factor": 0.5}


def test_moving_average_is_what_is_evaluated_and_kept(tmp_path):
    settings, run, model = tiny_settings(epochs=1, ema_decay=0.9), RunDirectory(tmp_path), TinyModel()
    seen = []

    class Watched(TinyObjective):
        def loss(self, model, batch, epoch):
            seen.append({name: value.clone() for name, value in model.state_dict().items()})
            return super().loss(model, batch, epoch)

    train(model, Watched(settings), settings, run)
    after_each_step = [*seen[1:], model.state_dict()]
    average = after_each_step[0]
    for number, now in enumerate(after_each_step[1:], start=1):
        decay = min(0.9, (1 + number) / (10 + number))
        average = {name: decay * value + (1 - decay) * now[name] for name, value in average.items()}
    kept = weights(run.model)
    assert all(torch.allclose(kept[name], average[name], atol=1e-6) for name in average)
    assert not equal(kept, model.state_dict())


def test_learning_rate_is_halved_for_good_after_an_epoch_whose_loss_does_not_fall(tmp_path):
    class Rising(TinyObjective):
        def loss(self, model, batch, epoch):
            return super().loss(model, batch, epoch) * 0.0 + (1.0, 2.0, 1.5, 0.5, 0.4)[epoch]

    settings = tiny_settings(epochs=5, decay_epochs=(), plateau_factor=0.5, learning_rate=0.8, log_every_steps=5)
    run = RunDirectory(tmp_path)
    train(TinyModel(), Rising(settings), settings, run)
    rates = [row["learning_rate"] for row in history(run) if "loss" in row]
    assert rates == pytest.approx([0.8, 0.8, 0.4, 0.2, 0.2])


@pytest.mark.parametrize("call", [4, 5, 10])
def test_resumed_run_keeps_its_average_and_its_plateaus(tmp_path, call):
    settings = tiny_settings(**AVERAGED, learning_rate=1.5)  # so high that the loss does not always fall
    whole, model_whole = RunDirectory(tmp_path / "whole"), TinyModel()
    train(model_whole, TinyObjective(settings), settings, whole)
    run, objective = RunDirectory(tmp_path / "stopped"), TinyObjective(settings)
    objective.before_loss = {call: lambda: os.kill(os.getpid(), signal.SIGINT)}
    with pytest.raises(TrainingInterrupted):
        train(TinyModel(), objective, settings, run)
    model = TinyModel(seed=5)
    train(model, TinyObjective(settings), settings, run)
    assert equal(model.state_dict(), model_whole.state_dict())
    assert equal(weights(run.model), weights(whole.model))
    assert history(run) == history(whole)
