import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vl_alignment.models.alignment import AlignmentFunction, alignment_function_names, register_alignment_function

from .mac_by_hand import reasoning_by_hand
from .mac_model import CELLS, HIDDEN, NO_DROPOUT, cell_inputs, tiny_cell, tiny_model

NAMES = alignment_function_names()
EVERYTHING = {"memory_gate": True, "self_attention": True}
CASES = {
    "released": {},
    "released, all options": {**EVERYTHING, "feed_previous_control": True, "alignment_units": "read_and_control"},
    "pytorch": {"cell": "pytorch", "question_size": HIDDEN},
    "pytorch, all options": {
        **{**EVERYTHING, "cell": "pytorch", "feed_previous_control": False, "mask_padding": True},
        **{"alignment_units": "read_and_control", "question_size": HIDDEN},
    },
}


def gradients(outputs, sources):
    """Of a random combination of the outputs, the same for equal shapes."""
    generator = torch.Generator().manual_seed(3)
    loss = sum((output * torch.randn(output.shape, generator=generator)).sum() for output in outputs)
    return torch.autograd.grad(loss, sources, allow_unused=True)


def compare(cell, inputs, **masks):
    words, question, knowledge, mask = inputs
    sources = {**dict(cell.named_parameters()), "words": words, "question": question, "knowledge": knowledge}
    reasoning = cell(*inputs)
    ours = (reasoning.memory, reasoning.question_attentions, reasoning.image_attentions)
    by_hand = reasoning_by_hand(cell, *inputs, **masks)
    for actual, expected in zip(ours, by_hand, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    found, expected = (gradients(outputs, list(sources.values())) for outputs in (ours, by_hand))
    for name, actual, wanted in zip(sources, found, expected, strict=True):
        assert (actual is None) == (wanted is None), name
        if actual is not None:
            torch.testing.assert_close(
                actual, wanted, rtol=1e-8, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_equal_to_the_equations_with_gradients(name, case):
    compare(tiny_cell(alignment_function=name, **CASES[case]), cell_inputs())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["biased_general_key", "activated_general_query", "additive"])
def test_equal_for_several_questions_a_picture(name, case):
    compare(tiny_cell(alignment_function=name, **CASES[case]), cell_inputs(questions=6, pictures=2))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("activation", ["leaky_relu", "tanh", "sigmoid"])
def test_equal_for_every_activation(activation, case):
    compare(
        tiny_cell(alignment_function="activated_general_key", alignment_activation=activation, **CASES[case]),
        cell_inputs(),
    )


class Distance(AlignmentFunction):
    """A function that no row of the table can say: minus the weighted squared differences."""

    def create_parameters(self):
        self.vector = torch.nn.Parameter(torch.empty(self.size))

    def transform_key(self, key):
        return key.tanh()

    def products(self, query, key):
        return -self.vector * (query - key).square()


class SumOfSides(AlignmentFunction):
    """Transforms as a row does, but not the row's product."""

    def products(self, query, key):
        return query + key.exp()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("function", [Distance, SumOfSides])
def test_equal_for_a_function_of_the_users(function, case, open_table):
    register_alignment_function("own", function)
    compare(tiny_cell(alignment_function="own", **CASES[case]), cell_inputs())


@pytest.mark.parametrize("case", CASES)
def test_variational_dropout_keeps_one_mask_for_all_steps(case):
    fields = {**NO_DROPOUT, "memory_dropout": 0.5, "control_dropout": 0.5}
    cell = tiny_cell(alignment_function="general_query", **fields, **CASES[case]).train()
    inputs = cell_inputs()
    masks = cell.draw_masks(torch.ones(len(inputs[0]), HIDDEN, dtype=torch.float64))
    assert all(set(mask.unique().tolist()) == {0.0, 2.0} for mask in masks)
    assert (masks[0] != masks[1]).any() and (masks[0][0] != masks[0][1]).any()
    cell.draw_masks = lambda states: masks
    compare(cell, inputs, control_mask=masks[0], memory_mask=masks[1])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("per_step", [False, True])
def test_read_dropout(per_step, case):
    fields = {**NO_DROPOUT, "read_dropout": 0.5, "dropout_per_step": per_step}
    cell = tiny_cell(alignment_function="dot", **fields, **CASES[case])
    inputs = cell_inputs()
    expected = cell(*inputs).memory
    assert torch.equal(cell(*inputs).memory, expected)  # none in evaluation
    cell.train()
    torch.manual_seed(5)
    dropped = cell(*inputs)
    assert (dropped.memory != expected).all() and not torch.equal(cell(*inputs).memory, dropped.memory)
    torch.manual_seed(5)
    assert torch.equal(cell(*inputs).memory, dropped.memory)
    dropped.memory.sum().backward()
    assert torch.isfinite(cell.read_unit.memory_projection.weight.grad).all()


@pytest.mark.parametrize(("per_step", "times"), [(False, 1), (True, 3)])
def test_one_mask_projects_the_knowledge_base_once(per_step, times):
    cell = tiny_cell(dropout_per_step=per_step).train()
    seen = []
    cell.read_unit.knowledge_projection.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    cell(*cell_inputs())
    assert len(seen) == times
    if per_step:
        assert not torch.equal(seen[0], seen[1])


def test_dropout_keeps_the_mean_of_what_is_scored():
    # The masks are divided by what they keep: over many of them the scores' mean is that without dropout.
    cell = tiny_cell(cell="pytorch", num_steps=1, **{**NO_DROPOUT, "read_dropout": 0.3}).train().read_unit
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(1, HIDDEN, generator=generator, dtype=torch.float64).expand(20000, -1)
    knowledge = torch.randn(1, CELLS, HIDDEN, generator=generator, dtype=torch.float64)
    scores = []
    original = cell.scores
    cell.scores = lambda *given: scores.append(original(*given)) or scores[-1]
    with torch.no_grad():
        cell(cell.prepare(knowledge, states), states, states)
        cell.eval()
        cell(cell.prepare(knowledge, states), states, states)
    torch.testing.assert_close(scores[0].mean(dim=1), scores[1].mean(dim=1), rtol=0, atol=0.05 * scores[1].std())


# The two units and their functions


@pytest.mark.parametrize("name", NAMES)
def test_the_function_sits_in_the_read_unit_or_in_both(name):
    read, both = (
        tiny_cell(alignment_function=name),
        tiny_cell(alignment_function=name, alignment_units="read_and_control"),
    )
    assert read.read_unit.score.alignment.specification == both.read_unit.score.alignment.specification
    assert read.control_unit.score.alignment.specification.equation == "Q K"
    assert both.control_unit.score.alignment.specification == both.read_unit.score.alignment.specification


@pytest.mark.parametrize(
    ("name", "side"), [("general_key", "query"), ("biased_general_query", "key"), ("scaled_dot", None)]
)
def test_released_layout_exchanges_the_sides_of_the_control_unit(name, side):
    cell = tiny_cell(alignment_function=name, alignment_units="read_and_control", released_layout=True)
    original = cell.read_unit.score.alignment.specification
    exchanged = cell.control_unit.score.alignment.specification
    assert exchanged.transforms == side and original.transforms != (side or "none")
    assert (exchanged.bias, exchanged.scaled, exchanged.activated) == (
        original.bias,
        original.scaled,
        original.activated,
    )
    compare(cell, cell_inputs())


@pytest.mark.parametrize("name", ["scaled_dot", "general_key", "biased_general_key"])
def test_the_key_side_of_the_read_unit_folds_into_the_layer_before_it(name):
    # Fifth statement about what can differ: in the read unit these are the dot product in other coordinates.
    cell, dot = tiny_cell(alignment_function=name), tiny_cell(alignment_function="dot")
    state = cell.state_dict()
    alignment, before = cell.read_unit.score.alignment, cell.read_unit.key_projection
    weight, bias = (alignment.scale * tensor for tensor in alignment.compose_key(before.weight, before.bias))
    state |= {"read_unit.key_projection.weight": weight, "read_unit.key_projection.bias": bias}
    dot.load_state_dict({key: tensor for key, tensor in state.items() if "alignment" not in key})
    torch.testing.assert_close(dot(*cell_inputs()).memory, cell(*cell_inputs()).memory)


def test_a_first_control_that_nothing_reads_is_no_parameter():
    fields = {"cell": "pytorch", "question_size": HIDDEN}
    for given, learned in [({}, True), ({"feed_previous_control": False}, False)]:
        cell = tiny_cell(**fields, **given)
        assert (cell.initial_control is not None) == learned
        cell(*cell_inputs()).memory.sum().backward()
        assert all(parameter.grad is not None for parameter in cell.parameters())
    assert tiny_cell(**fields, feed_previous_control=False, self_attention=True).initial_control is not None


def test_functions_that_differ_in_the_table_differ_here():
    memories = {
        name: tiny_cell(alignment_function=name)(*cell_inputs()).memory for name in ("dot", "cosine", "scaled_dot")
    }
    assert (memories["dot"] - memories["cosine"]).abs().max() > 1e-3
    assert (memories["dot"] - memories["scaled_dot"]).abs().max() > 1e-3


# What is not made


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation gives."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        result = operation(*arguments, **(keywords or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize(
    ("name", "carried_back"),
    [("dot", True), ("biased_general_key", True), ("general_query", True), ("cosine", False), ("additive", False)],
)
def test_pytorch_cell_makes_nothing_as_large_as_cells_times_width_a_question(name, carried_back):
    cell = tiny_cell(cell="pytorch", alignment_function=name, question_size=HIDDEN)
    words, question, knowledge, mask = cell_inputs(questions=12, pictures=2)
    with LargestTensor() as largest:
        cell(words, question, knowledge, mask).memory.sum().backward()
    assert (largest.elements < 12 * CELLS * HIDDEN) == carried_back


def test_half_precision_keeps_masked_words_out():
    cell = tiny_model().half().model.cell
    words, question, knowledge, mask = (tensor.detach() for tensor in cell_inputs())
    attention = cell(words.half(), question.half(), knowledge.half(), mask).question_attentions
    assert torch.isfinite(attention).all() and attention.masked_fill(mask.unsqueeze(1), 0).abs().max() == 0
