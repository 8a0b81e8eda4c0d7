"""What holds of every alignment function on any tensors: shapes, rows of zeros, huge and tiny numbers, four types."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import strategies as st

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS, alignment_function_names, build_alignment_function

from .random_tensors import FEW, MANY, fill, kinds_of_rows, laid_out, layouts, properties, seeds

# As large as numbers may be without their products, summed over the width, leaving the type.
LARGEST = {torch.float64: 1e120, torch.float32: 1e12, torch.bfloat16: 1e12, torch.float16: 40.0}
DTYPES, EXACT = tuple(LARGEST), (torch.float64,)
NAMES = alignment_function_names()
BILINEAR = [name for name, row in ALIGNMENT_FUNCTIONS.items() if not row.activated and row.module is None]


@dataclass
class Sides:
    """A function, and a query [..., nQ, d] and a key [..., nK, d] for it."""

    name: str
    function: torch.nn.Module
    query: torch.Tensor
    key: torch.Tensor

    def __repr__(self):
        return f"{self.name}, {self.query.dtype}: query {self.query.tolist()}, key {self.key.tolist()}"


@st.composite
def sides(draw, dtypes=DTYPES, names=NAMES):
    dtype, name = draw(st.sampled_from(dtypes)), draw(st.sampled_from(names))
    leading = draw(st.lists(st.integers(0, 3), max_size=2))
    size = draw(st.integers(1, 9))
    torch.manual_seed(draw(seeds))
    activation = draw(st.sampled_from(["relu", "leaky_relu", "tanh", "sigmoid"]))
    function = build_alignment_function(name, size, activation).to(dtype)
    largest = draw(st.sampled_from([1.0, LARGEST[dtype] ** 0.5, LARGEST[dtype]]))
    query, key = (
        laid_out(
            fill((*leading, draw(st.integers(0, 5)), size), draw(kinds_of_rows), largest, draw(seeds), dtype),
            draw(layouts),
        )
        for _ in range(2)
    )
    return Sides(name, function, query, key)


def exact_side(function, side, name):
    """phi of a side in float64, and the sums of magnitudes that its rounding is relative to."""
    row, dtype = function.specification, side.dtype
    weight, bias = function.weight if row.module is None else None, getattr(function, "bias", None)
    if row.module is not None:
        weight = getattr(function, f"{name}_weight")
    values, magnitudes = side.double(), side.double().abs()
    if row.module is not None or row.transforms == name:
        values, magnitudes = values @ weight.double().T, magnitudes @ weight.double().abs().T
        if bias is not None:
            values, magnitudes = values + bias.double(), magnitudes + bias.double().abs()
    if row.normalized:
        norm = values.norm(dim=-1, keepdim=True).clamp_min(max(1e-12, torch.finfo(dtype).tiny))
        values, magnitudes = values / norm, magnitudes / norm
    return values, magnitudes


def definition(case):
    """Scores [..., nQ, nK] as the table defines them, in float64, and what their rounding is relative to."""
    function = case.function
    query, of_query = exact_side(function, case.query, "query")
    key, of_key = exact_side(function, case.key, "key")
    if function.specification.module is not None:
        vector = function.vector.double()
        inner = (of_query.unsqueeze(-2) + of_key.unsqueeze(-3)).clamp_max(8)  # beyond, tanh is flat in every type
        scores = (torch.tanh(query.unsqueeze(-2) + key.unsqueeze(-3)) * vector).sum(-1)
        return scores, ((inner + 1) * vector.abs()).sum(-1)
    scores = torch.einsum("...qd,...kd->...qk", query, key) * function.scale
    magnitudes = torch.einsum("...qd,...kd->...qk", of_query, of_key) * function.scale
    return (scores if function.activation is None else function.activation(scores)), magnitudes


def equals_its_definition(case):
    found = case.function(case.query, case.key)
    expected, magnitudes = definition(case)
    assert found.shape == expected.shape and found.dtype == case.query.dtype
    assert found.isfinite().all()
    precision, size = torch.finfo(found.dtype), case.query.shape[-1]
    sums = [side.abs().sum(-1).amax().item() if side.numel() else 0.0 for side in (case.query, case.key)]
    lost = precision.tiny * precision.eps * (size + 1) * (1 + sum(sums))  # what fell below the smallest number
    allowed = 4 * (size + 4) * precision.eps * (magnitudes + expected.abs()) + lost
    assert ((found.double() - expected).abs() <= allowed).all()


def layout_batch_and_order_do_not_matter(case):
    """Each row alone, in one piece and in another order gives what it gives among all."""
    found = case.function(case.query, case.key)
    _, magnitudes = definition(case)
    allowed = 8 * (case.query.shape[-1] + 4) * torch.finfo(torch.float64).eps * magnitudes + 1e-290

    def same(other):
        assert ((other - found).abs() <= allowed).all()

    query, key = case.query.clone(memory_format=torch.contiguous_format), case.key.clone()
    same(case.function(query, key))
    rows, columns = torch.randperm(query.shape[-2]), torch.randperm(key.shape[-2])
    ordered = case.function(query[..., rows, :], key[..., columns, :])
    same(ordered[..., torch.argsort(rows), :][..., torch.argsort(columns)])
    if query.shape[-2]:
        alone = [case.function(query[..., [row], :], key) for row in range(query.shape[-2])]
        same(torch.cat(alone, dim=-2))
    if query.dim() == 3 and len(query):
        same(torch.stack([case.function(*pair) for pair in zip(query, key, strict=True)]))


def gradients_are_finite(case):
    query, key = case.query.detach().requires_grad_(), case.key.detach().requires_grad_()
    scores = case.function(query, key)
    (scores * torch.randn(scores.shape).to(scores.dtype)).sum().backward()
    for gradient in (query.grad, key.grad, *(parameter.grad for parameter in case.function.parameters())):
        assert gradient is None or gradient.isfinite().all()


def elementwise_form_sums_to_the_matrix_form(case):
    query, key = case.query[..., :1, :], case.key
    if not query.shape[-2]:
        return
    terms = case.function.elementwise(query, key)
    _, magnitudes = definition(Sides(case.name, case.function, query, key))
    allowed = 8 * (key.shape[-1] + 4) * torch.finfo(torch.float64).eps * magnitudes.squeeze(-2) + 1e-290
    assert ((terms.sum(-1) - case.function(query, key).squeeze(-2)).abs() <= allowed).all()


def the_transposed_statement_holds(case):
    """f(Q, K) of one side's row is f(K, Q) of the other side's, and general is one function with W transposed."""
    query, key = case.query, case.key
    found = case.function(query, key)
    exchanged = build_alignment_function(case.name, query.shape[-1], exchange_sides=True).double()
    exchanged.load_state_dict(case.function.state_dict())
    exchanged.activation = case.function.activation
    _, magnitudes = definition(case)
    allowed = 8 * (query.shape[-1] + 4) * torch.finfo(torch.float64).eps * magnitudes + 1e-290
    assert ((exchanged(key, query).transpose(-1, -2) - found).abs() <= allowed).all()
    if case.name in ("general_key", "general_query"):
        exchanged.load_state_dict({"weight": case.function.weight.T})
        assert ((exchanged(query, key) - found).abs() <= allowed).all()


def factors_and_inner_products_are_those_of_the_scores(case):
    function, query, key = case.function, case.query, case.key
    scores = function(query, key)
    changed_query, changed_key, scale = function.factors(query, key)
    _, magnitudes = definition(case)
    allowed = 8 * (query.shape[-1] + 4) * torch.finfo(torch.float64).eps * magnitudes + 1e-290
    assert ((changed_query @ changed_key.transpose(-1, -2) * scale - scores).abs() <= allowed).all()
    if function.scores_give_inner_products and not function.specification.normalized:
        plain = function.inner_products(scores, query.norm(dim=-1)[..., None], key.norm(dim=-1)[..., None, :])
        of_sides = torch.einsum("...qd,...kd->...qk", query.abs(), key.abs())
        assert ((plain - query @ key.transpose(-1, -2)).abs() <= 64 * torch.finfo(torch.float64).eps * of_sides).all()


def a_bias_of_the_keys_cancels_under_a_plain_softmax(case):
    """Statement 2: q . b is the same for all keys."""
    plain = build_alignment_function("general_key", case.query.shape[-1]).double()
    plain.load_state_dict({"weight": case.function.weight})
    moderate = [side / side.abs().amax().clamp_min(1.0) if side.numel() else side for side in (case.query, case.key)]
    weights = [function(*moderate).softmax(-1) for function in (case.function, plain)]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-12)


PROPERTIES = [
    properties(equals_its_definition, sides()),
    properties(layout_batch_and_order_do_not_matter, sides(EXACT)),
    properties(gradients_are_finite, sides((torch.float64, torch.float32))),
    properties(elementwise_form_sums_to_the_matrix_form, sides(EXACT, [*BILINEAR, "additive"])),
    properties(the_transposed_statement_holds, sides(EXACT, [name for name in NAMES if name != "additive"])),
    properties(factors_and_inner_products_are_those_of_the_scores, sides(EXACT, BILINEAR)),
    properties(a_bias_of_the_keys_cancels_under_a_plain_softmax, sides(EXACT, ["biased_general_key"])),
]


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_property(holds):
    holds(FEW)


@pytest.mark.slow
@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_property_in_a_thousand_cases(holds):
    holds(MANY)
