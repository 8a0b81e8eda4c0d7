"""Conversion's errors, its command, and what it does with hostile files."""

import errno
import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from vl_alignment import ScanForImageTextRetrieval, cli
from vl_alignment.hub.convert import convert_checkpoint
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError

from .published_files import write_pickle, write_scan, write_scan_vocabulary, write_weights
from .test_convert_scan import OPTIONS, tiny_weights


class Exploit:
    """Makes a file when an ordinary reader unpickles it."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.fixture
def checkpoint(tmp_path):
    return write_scan(tmp_path / "model_best.pth.tar", tiny_weights(), OPTIONS)


def refused(path, tmp_path, message, error=CheckpointError, **arguments):
    with pytest.raises(error, match=message) as caught:
        convert_checkpoint([path], tmp_path / "model", **arguments)
    assert not (tmp_path / "model").exists()
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".model")]
    return str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "options", "weights"])
def test_a_malicious_checkpoint_is_refused_and_nothing_runs(tmp_path, place, zipped):
    target, path = tmp_path / "created", tmp_path / "model_best.pth.tar"
    weights, options = tiny_weights(), dict(OPTIONS)
    if place == "options":
        options["attention_method"] = Exploit(target)
    if place == "weights":
        weights["img_enc.fc.weight"] = Exploit(target)
    write_scan(path, weights, options, zipped=zipped)
    if place == "beside":
        content = torch.load(path, weights_only=False)
        torch.save({**content, "Eiters": Exploit(target)}, path, _use_new_zipfile_serialization=zipped)
    message = refused(path, tmp_path, "model_best.pth.tar: the torch file asks for posix.system, .*nothing ran")
    assert "\n" not in message
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists(), "the file is one that an ordinary load would run"


def test_a_malicious_plain_pickle_is_no_checkpoint(tmp_path):
    path = tmp_path / "netG.pth"
    path.write_bytes(pickle.dumps(Exploit(tmp_path / "created"), protocol=2))
    refused(path, tmp_path, "netG.pth: the torch file asks for posix.system")
    assert not (tmp_path / "created").exists()


def test_a_malicious_vocabulary_is_refused_and_nothing_runs(tmp_path):
    weights = {
        "mac.control_0": torch.zeros(1, 4),
        "embed.weight": torch.zeros(3, 2),
        "conv.0.weight": torch.zeros(4, 6, 3, 3),
        "classifier.2.weight": torch.zeros(2, 4),
    }
    path = write_weights(tmp_path / "checkpoint_01.model", weights)
    vocabulary = write_pickle(tmp_path / "dic.pkl", {"word_dic": Exploit(tmp_path / "created"), "answer_dic": {}})
    asked = {"alignment_function": "dot", "vocabulary": vocabulary}
    refused(path, tmp_path, "dic.pkl: the pickle asks for posix.system, .*nothing ran", DataError, **asked)
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("txt_enc.rnn.bias_hh_l0", None, "lacks 1 tensor.*model.text_encoder.gru.bias_hh_l0"),
        ("img_enc.fc.weight", None, "lacks the tensor img_enc.fc.weight"),
        ("img_enc.fc.weight", torch.zeros(3), "tensor img_enc.fc.weight is .3,.; it needs 2 dimensions"),
        ("img_enc.fc.bias", torch.zeros(5), r"tensor img_enc.fc.bias is \(5,\), .* needs \(6,\)"),
        ("txt_enc.embed.weight", torch.full((9, 5), torch.nan), "tensor txt_enc.embed.weight holds numbers that are"),
        ("txt_enc.extra", torch.zeros(2), r"tensor txt_enc.extra \(2,\) has no place"),
        ("sim_enc.attention_general.weight", None, "lacks 1 tensor.*model.cross_attention.alignment.weight"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, name, change, message):
    weights = tiny_weights()
    weights.pop(name, None)
    if change is not None:
        weights[name] = change
    path = write_scan(tmp_path / "model_best.pth.tar", weights, OPTIONS)
    refused(path, tmp_path, f"model_best.pth.tar: {message}")


def test_files_that_are_no_checkpoint(checkpoint, tmp_path):
    content = checkpoint.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not a checkpoint"):
        checkpoint.write_bytes(damaged)
        refused(checkpoint, tmp_path, "model_best.pth.tar: this torch file cannot be read")
    refused(tmp_path / "nowhere.pth", tmp_path, "nowhere.pth: there is no such torch file")
    other = write_weights(tmp_path / "resnet.pth", {"conv1.weight": torch.zeros(2)})
    refused(other, tmp_path, "resnet.pth: is of no model known here: its tensors begin with conv1.weight")
    torch.save([1, 2], tmp_path / "list.pth")
    refused(tmp_path / "list.pth", tmp_path, "list.pth: holds no tensors by name")
    with pytest.raises(CheckpointError, match="make no one model"):
        convert_checkpoint([], tmp_path / "model")


def test_arguments_of_no_use(checkpoint, tmp_path):
    refused(checkpoint, tmp_path, "a tokenizer is given, which only M4C needs", ConfigurationError, tokenizer="bert")
    refused(checkpoint, tmp_path, "vocab.json: the vocabulary cannot be read", DataError, vocabulary="vocab.json")


def test_other_folders_are_left_alone(checkpoint, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("the only copy")
    with pytest.raises(ConfigurationError, match="holds something else than a conversion"):
        convert_checkpoint([checkpoint], tmp_path / "model")
    assert (tmp_path / "model" / "thesis.txt").read_text() == "the only copy"
    with pytest.raises(ConfigurationError, match="is a file"):
        convert_checkpoint([checkpoint], checkpoint)


def test_a_conversion_that_cannot_be_written_leaves_the_earlier_one(checkpoint, tmp_path, monkeypatch):
    output = tmp_path / "model"
    convert_checkpoint([checkpoint], output)
    before = (output / "conversion.json").read_bytes()

    def full(model, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ScanForImageTextRetrieval, "save_pretrained", full)
    with pytest.raises(CheckpointError, match="model: The disk is full; make room"):
        convert_checkpoint([checkpoint], output)
    assert (output / "conversion.json").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"model", checkpoint.name}


def test_a_conversion_that_is_killed_while_it_replaces_loses_neither(checkpoint, tmp_path, monkeypatch):
    class Killed(BaseException):
        """Stands for SIGKILL: nothing after it runs."""

    output = tmp_path / "model"
    convert_checkpoint([checkpoint], output)
    rename = Path.rename

    def die(path, target):
        if Path(target) == output:
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", die)
        with pytest.raises(Killed):
            convert_checkpoint([checkpoint], output)
    with pytest.raises(CheckpointError):  # whatever comes next, the earlier one is back
        convert_checkpoint([tmp_path / "none.pth"], output)
    assert ScanForImageTextRetrieval.from_pretrained(output).config.alignment_function == "general_key"
    assert {path.name for path in tmp_path.iterdir()} == {"model", checkpoint.name}


def test_the_command(checkpoint, tmp_path, capsys):
    vocabulary = write_scan_vocabulary(tmp_path / "vocab.json", ["a", "dog", "runs", ".", "red"])
    command = ["convert", str(checkpoint), "--output", str(tmp_path / "model")]
    assert cli.main([*command, "--vocabulary", str(vocabulary), "--config", "margin=0.5"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "model_best.pth.tar: 8 tensors taken, 3 left"
    assert "  sim_enc.attention_biased_general.weight: of another alignment function" in printed
    assert printed[-1] == f"ScanForImageTextRetrieval with general_key: {tmp_path / 'model'}"
    assert ScanForImageTextRetrieval.from_pretrained(tmp_path / "model").config.margin == 0.5
    record = json.loads((tmp_path / "model" / "conversion.json").read_text())
    assert record["fields"] == {"margin": 0.5} and record["released_layout"] is False

    assert cli.main([*command, "--alignment-function", "dot"]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and "alignment_function is 'general_key' by the stored options" in error
    with pytest.raises(SystemExit):
        cli.main([*command, "--config", "margin"])
    assert "is not FIELD=VALUE" in capsys.readouterr().err
