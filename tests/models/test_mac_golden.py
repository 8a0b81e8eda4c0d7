"""MAC against the outputs of the paper's TensorFlow cell and of the published PyTorch model."""

import json

import pytest
import torch
from safetensors.torch import load_file

from vl_alignment.hub.convert_mac import mac_name, mac_tensor

from .mac_golden import RELEASED_FUNCTIONS, pytorch_model, released_cell, released_tensor

pytestmark = pytest.mark.golden

PYTORCH_CASES = ["plain", "self_attention", "memory_gate", "self_attention_memory_gate"]


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5, check_dtype=False)


def close_gradient(actual, expected):
    """Gradients reach 100: the tolerance is of the largest entry, if above one.

    Exact ones, in float64, are up to 4.6e-5 of it away from TensorFlow's float32.
    """
    tolerance = 6e-5 * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance, check_dtype=False)


@pytest.fixture(scope="module")
def root(golden_root):
    return golden_root / "mac"


@pytest.fixture(scope="module")
def cell_inputs(root):
    inputs = {key.removeprefix("input."): tensor for key, tensor in load_file(root / "tf_inputs.safetensors").items()}
    words = inputs["questionCntxWords"]
    mask = torch.arange(words.shape[1]) < inputs["questionLengths"].unsqueeze(1)
    return words, inputs["vecQuestions"], inputs["knowledgeBase"], mask


def recorded_steps(cell):
    """What the cell's units return, step by step."""
    steps = {"control": [], "read": [], "write": []}
    for name, calls in steps.items():
        getattr(cell, f"{name}_unit").register_forward_hook(lambda _, __, output, calls=calls: calls.append(output))
    return steps


@pytest.mark.parametrize("variant", [*RELEASED_FUNCTIONS, "original_stanford"])
def test_released_cell(root, cell_inputs, variant):
    expected = load_file(root / f"tf_cell_{variant}.safetensors")
    function = RELEASED_FUNCTIONS.get(variant, "dot")
    cell, names = released_cell(expected, function, alignment_units="read_and_control", released_layout=True)
    # In float64 the result is every machine's, and the tolerance that of the golden file alone.
    cell.double()
    *inputs, mask = cell_inputs
    words, question, knowledge = (tensor.double() for tensor in inputs)
    knowledge.requires_grad_()
    steps = recorded_steps(cell)
    reasoning = cell(words, question, knowledge, mask)
    ((controls, _),) = steps["control"]  # all steps at once: the control is not fed back
    for step in range(4):
        close(controls[:, step], expected[f"step{step}.control"])
        close(steps["read"][step][0], expected[f"step{step}.info"])
        close(steps["write"][step][0], expected[f"step{step}.memory"])
        close(reasoning.question_attentions[:, step], expected[f"step{step}.attention_question"])
        close(reasoning.image_attentions[:, step], expected[f"step{step}.attention_kb"])
    loss = reasoning.memory.square().sum()
    assert loss.item() == pytest.approx(expected["loss_sum_sq_final_memory"].item(), rel=1e-6)  # of the order of 100
    loss.backward()
    close_gradient(knowledge.grad, expected["grad.knowledgeBase"])
    for variable, name in names.items():
        parameter = cell.get_parameter(name)
        close_gradient(parameter.grad, released_tensor(expected[f"grad.{variable}"], parameter))
    for variable in {key.removeprefix("grad.") for key in expected if key.startswith("grad.MAC")} - set(names):
        assert expected[f"grad.{variable}"].abs().max() < 2e-5, variable  # cancelled by the softmax


def test_every_released_variant_is_here(root):
    cases = json.loads((root / "tf_meta.json").read_text())["cases"]
    assert set(cases) == {*RELEASED_FUNCTIONS, "original_stanford"}


@pytest.mark.parametrize("case", PYTORCH_CASES)
def test_pytorch_model(root, case):
    meta = json.loads((root / "pytorch_meta.json").read_text())
    base, expected = load_file(root / "pytorch_base.safetensors"), load_file(root / f"pytorch_{case}.safetensors")
    model = pytorch_model(meta, base | expected, **meta["cases"][case])
    question, lengths = base["input.question"], base["input.question_len"]
    inputs = {
        "input_ids": question,
        "attention_mask": torch.arange(question.shape[1]) < lengths.unsqueeze(1),
        "region_features": base["input.image"].flatten(2).transpose(1, 2),
        "labels": base["input.answer"],
    }
    output = model(**inputs, output_attentions=True)
    close(output.logits, expected["eval.logits"])
    close(output.loss, expected["eval.cross_entropy"].squeeze())
    for step in range(4):
        close(output.question_attentions[:, step], expected[f"eval.step{step}.attention_question"])
        close(output.image_attentions[:, step], expected[f"eval.step{step}.attention_kb"])
        if "self_attention" in case:
            close(output.self_attentions[:, step, : step + 1], expected[f"eval.step{step}.attention_self"].squeeze(2))
            assert output.self_attentions[:, step, step + 1 :].abs().sum() == 0
    output.loss.backward()
    gradients = [key.removeprefix("eval.grad.") for key in expected if key.startswith("eval.grad.")]
    assert len(gradients) >= 9
    for name in gradients:
        gradient = model.get_parameter(mac_name(name)).grad
        close(gradient, mac_tensor(name, expected[f"eval.grad.{name}"]))

    model.train()
    model.model.cell.draw_masks = lambda states: (expected["train.control_mask"], expected["train.memory_mask"])
    close(model(**inputs).logits, expected["train.logits"])


def test_every_pytorch_case_is_here(root):
    assert set(json.loads((root / "pytorch_meta.json").read_text())["cases"]) == set(PYTORCH_CASES)
