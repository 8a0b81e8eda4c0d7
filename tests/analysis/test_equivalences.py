"""Every class of functions is proven on weights, under every kind of configuration."""

import re
from pathlib import Path

import pytest
import torch
from tests.models import attngan_model, damsm_model, m4c_model, mac_model, scan_model

from vl_alignment.analysis.equivalence_proofs import PROOFS
from vl_alignment.analysis.equivalences import equivalences, equivalences_markdown, equivalences_page, open_model
from vl_alignment.analysis.function_classes import configurable_functions, function_classes
from vl_alignment.cli import main
from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS, AlignmentSpecification, register_alignment_function
from vl_alignment.models.errors import CheckpointError, ConfigurationError

PRESETS = ("blocks", "blocks-vqa", "blocks-text", "blocks-t2i")
EVERYWHERE = {"alignment_units": "read_and_control"}
MODELS = {
    "scan": (scan_model, {}),
    "scan, regions are queries": (scan_model, {"direction": "i2t"}),
    "scan, l2norm": (scan_model, {"score_normalization": "l2norm", "pooling": "log_sum_exp"}),
    "scan, no norm": (scan_model, {"score_normalization": "no_norm"}),
    "scan, softmax": (scan_model, {"score_normalization": "softmax"}),
    "scan, no unit length": (scan_model, {"normalize_words": False, "normalize_regions": False}),
    "scan, released": (scan_model, {"released_layout": True}),
    "mac": (mac_model, {}),
    "mac, everywhere": (mac_model, {**EVERYWHERE, "self_attention": True, "memory_gate": True}),
    "mac, fed back": (mac_model, {**EVERYWHERE, "feed_previous_control": True}),
    "mac, released": (mac_model, {**EVERYWHERE, "released_layout": True}),
    "mac, pytorch": (mac_model, {"cell": "pytorch"}),
    "mac, pytorch everywhere": (mac_model, {**EVERYWHERE, "cell": "pytorch"}),
    "mac, pytorch at once": (mac_model, {**EVERYWHERE, "cell": "pytorch", "feed_previous_control": False}),
    "m4c": (m4c_model, {}),
    "m4c, norm first": (m4c_model, {"norm_first": True}),
    "m4c, released": (m4c_model, {"released_layout": True}),
    "attngan": (attngan_model, {}),
    "attngan, two blocks": (attngan_model, {"num_residual_blocks": 2, "alignment_activation": "tanh"}),
    "attngan, released": (attngan_model, {"released_layout": True}),
}


def lively(module, **fields):
    """A tiny model all of whose weights and running statistics are random, as after training."""
    model = module.tiny_model(**fields)
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(generator=draw)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0, generator=draw)
    return model


@pytest.mark.parametrize(("module", "fields"), MODELS.values(), ids=MODELS)
def test_weights_show_what_the_statements_say(module, fields):
    found = equivalences(lively(module, **fields), "tiny")
    assert sorted(check.function for check in found.checks) == sorted(configurable_functions(found.config))
    for check in found.checks:
        assert check.confirmed, check
        if check.difference is not None and check.same and check.function not in ("scaled_dot", "cosine"):
            assert check.difference < 1e-9, check
        if check.difference is not None and not check.same:
            assert check.difference > 1e-4, check
    for one in found.classes:
        compared = [check for check in found.checks if check.function in one.functions]
        assert [check.other for check in compared] == [None] + [one.functions[0]] * (len(one.functions) - 1)


@pytest.mark.parametrize(
    ("module", "function", "base"),
    [
        (mac_model, "general_query", "dot"),
        (mac_model, "biased_general_query", "dot"),
        (mac_model, "activated_general_key", "dot"),
        (m4c_model, "activated_general_key", "dot"),
        (attngan_model, "biased_general_query", "dot"),
        (scan_model, "biased_general_key", "general_query"),
    ],
)
def test_folding_does_not_make_equal_what_differs(module, function, base):
    model = lively(module)
    assert function not in function_classes(model.config)[0].functions
    assert PROOFS[model.config.model_type](model).folding_gap(function, base) > 1e-3


def test_the_model_s_own_weights_are_those_that_are_folded():
    model = lively(mac_model, alignment_function="general_key", alignment_initialization="identity")
    proof = PROOFS["mac"](model)
    own, other = proof.unit("general_key"), proof.unit("biased_general_key")
    kept = model.model.cell.read_unit.score.alignment.weight
    torch.testing.assert_close(own.read_unit.score.alignment.weight, kept.double())
    assert not torch.allclose(other.read_unit.score.alignment.weight, kept.double())
    torch.testing.assert_close(
        other.read_unit.interaction.weight, model.model.cell.read_unit.interaction.weight.double()
    )
    again = proof.unit("biased_general_key")
    torch.testing.assert_close(again.read_unit.score.alignment.weight, other.read_unit.score.alignment.weight)


def test_a_w_that_cannot_be_inverted_shows():
    model = lively(attngan_model, alignment_function="general_key")
    with torch.no_grad():
        for stage in model.generator.stages:
            stage.attention.alignment.weight[0] = 0
    check = next(check for check in equivalences(model, "tiny").checks if check.function == "general_key")
    assert check.difference > 1e-3 and not check.confirmed
    assert "not confirmed on these weights" in equivalences_markdown([equivalences(model, "tiny")])


def test_functions_of_one_s_own_are_held_against_what_lacks_one_thing():
    register_alignment_function("activated_dot", AlignmentSpecification("act(Q K)", activated=True))
    register_alignment_function("activated_cosine", AlignmentSpecification("..", normalized=True, activated=True))
    try:
        checks = {check.function: check for check in equivalences(lively(scan_model), "tiny").checks}
    finally:
        del ALIGNMENT_FUNCTIONS["activated_dot"], ALIGNMENT_FUNCTIONS["activated_cosine"]
    assert checks["activated_dot"].other == "dot" and checks["activated_dot"].difference > 1e-3
    assert checks["activated_cosine"].other == "cosine"


def test_a_folder_is_checked_from_the_command_line(tmp_path, capsys):
    lively(scan_model).save_pretrained(tmp_path / "run" / "model")
    assert main(["equivalences", str(tmp_path / "run"), str(tmp_path / "run" / "model"), "blocks"]) == 0
    page = capsys.readouterr().out
    assert page.count("\n## ") == 3 and "not confirmed" not in page
    assert "SCAN with direction='t2i', score_normalization='clipped_l2norm'" in page
    assert "Of the 8 functions of the paper's table at most 5 can differ; of all 10 at most 7." in page
    assert main(["equivalences", "blocks", "--output", str(tmp_path / "page.md")]) == 0
    assert "equivalences: " in capsys.readouterr().out and (tmp_path / "page.md").read_text().startswith("# Which")


def test_a_configuration_alone_is_checked_too(tmp_path, capsys):
    assert main(["equivalences", "blocks", "--config", "score_normalization=softmax"]) == 0
    page = capsys.readouterr().out
    assert "score_normalization='softmax'" in page and '--config score_normalization="softmax"`' in page
    lively(scan_model).config.save_pretrained(tmp_path / "config")
    lively(scan_model).config.save_pretrained(tmp_path / "run" / "model")
    assert main(["equivalences", str(tmp_path / "config")]) == 0
    assert "not confirmed" not in capsys.readouterr().out
    for arguments, message in (
        (["blocks", "--config", "hiden_size=3"], "hiden_size"),
        ([str(tmp_path / "run")], "cannot be loaded"),
        ([str(tmp_path / "config"), "--config", "hidden_size=3"], "has a configuration of its own"),
    ):
        assert main(["equivalences", *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("blokcs", ConfigurationError, "no folder of a model and no preset; presets are blocks, "),
        ("folder", CheckpointError, "the configuration cannot be loaded"),
        ("damsm", ConfigurationError, "has no alignment function"),
    ],
)
def test_what_cannot_be_checked_is_refused(name, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    damsm_model.tiny_model().save_pretrained(tmp_path / "damsm")
    with pytest.raises(error, match=message):
        open_model(name)


def test_a_page_that_cannot_be_written(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be written"):
        equivalences_page(["blocks"], tmp_path)


def test_the_committed_page_is_what_the_command_writes():
    path = Path(__file__).resolve().parents[2] / "docs" / "equivalences.md"

    def without_numbers(text):
        return re.sub(r"\d+e[+-]\d+", "", text)

    assert without_numbers(path.read_text(encoding="utf-8")) == without_numbers(equivalences_page(PRESETS))
