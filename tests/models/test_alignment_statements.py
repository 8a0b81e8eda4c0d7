"""What can differ at all between the alignment functions: six statements, each on random tensors in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS, alignment_function_names, build_alignment_function
from vl_alignment.models.modeling_scan import ScanForImageTextRetrieval

from .alignment_sides import D, function, sides
from .scan_model import tiny_config

NAMES = alignment_function_names()
BILINEAR = [name for name, row in ALIGNMENT_FUNCTIONS.items() if not row.activated and name != "additive"]


def with_weights(name, weight=None, bias=None, **options):
    module = function(name, **options)
    with torch.no_grad():
        if weight is not None:
            module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)
    return module


def test_statement_1_general_key_is_general_query_with_w_transposed():
    query, key = sides()
    of_key = function("general_key")
    of_query = with_weights("general_query", of_key.weight.T)
    upstream = torch.randn(4, 5).double()
    gradients = []
    for module in (of_key, of_query):
        scores = module(query, key)
        gradients.append(torch.autograd.grad((scores * upstream).sum(), (module.weight, query, key)))
        torch.testing.assert_close(scores, query @ of_key.weight @ key.T)
    torch.testing.assert_close(gradients[0][0], gradients[1][0].T)
    torch.testing.assert_close(gradients[0][1:], gradients[1][1:])


def test_statement_1_does_not_hold_with_a_bias():
    query, key = sides()
    of_key = function("biased_general_key")
    of_query = with_weights("biased_general_query", of_key.weight.T, of_key.bias)
    assert (of_key(query, key) - of_query(query, key)).abs().max() > 1e-2


def test_statement_2_bias_of_the_key_side_cancels_under_a_plain_softmax():
    query, key = sides(2)
    biased = function("biased_general_key")
    plain = with_weights("general_key", biased.weight)
    attended = [module(query, key).softmax(-1) @ key for module in (biased, plain)]
    torch.testing.assert_close(attended[0], attended[1])
    upstream = torch.randn_like(attended[0])
    gradients = [
        torch.autograd.grad((output * upstream).sum(), (module.weight, query, key), retain_graph=True)
        for output, module in zip(attended, (biased, plain), strict=True)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])
    of_bias = torch.autograd.grad((attended[0] * upstream).sum(), biased.bias)[0]
    assert of_bias.abs().max() < 1e-12 < biased.bias.abs().max()


def test_statement_2_bias_of_the_query_side_is_a_prior_over_keys():
    query, key = sides(2)
    biased = function("biased_general_query")
    plain = with_weights("general_query", biased.weight)
    torch.testing.assert_close(biased(query, key), plain(query, key) + (key @ biased.bias).unsqueeze(-2))
    weights = biased(query, key).softmax(-1)
    assert (weights - plain(query, key).softmax(-1)).abs().max() > 1e-3
    of_bias = torch.autograd.grad((weights @ key).square().sum(), biased.bias)[0]
    assert of_bias.abs().max() > 1e-3


def scan_similarity(name, score_normalization, normalize=True, state=None):
    torch.manual_seed(3)
    config = tiny_config(alignment_function=name, score_normalization=score_normalization, hidden_size=8)
    attention = ScanForImageTextRetrieval(config).double().model.cross_attention
    if state is not None:
        attention.alignment.load_state_dict(state)
    regions, words = torch.randn(3, 5, 8).double(), torch.randn(4, 6, 8).double()
    if normalize:
        regions, words = F.normalize(regions, dim=-1), F.normalize(words, dim=-1)
    return attention(regions, words), attention.alignment.state_dict()


@pytest.mark.parametrize("score_normalization", ["clipped_l2norm", "l2norm"])
def test_statement_3_scan_under_its_norm_cannot_tell_the_parameter_free_functions_apart(score_normalization):
    dot = scan_similarity("dot", score_normalization)[0]
    torch.testing.assert_close(scan_similarity("cosine", score_normalization)[0], dot, rtol=0, atol=1e-5)
    torch.testing.assert_close(scan_similarity("scaled_dot", score_normalization)[0], dot, rtol=0, atol=1e-5)


def test_statement_3_needs_the_norm_and_unit_embeddings():
    for normalization, normalize, name in [
        ("no_norm", True, "scaled_dot"),
        ("clipped", True, "scaled_dot"),
        ("clipped_l2norm", False, "cosine"),
    ]:
        dot = scan_similarity("dot", normalization, normalize)[0]
        assert (scan_similarity(name, normalization, normalize)[0] - dot).abs().max() > 1e-4


class SelfAttention(nn.Module):
    """M4C's attention of one head over one sequence: free affine projections of it, then f, then the softmax."""

    def __init__(self, name):
        super().__init__()
        self.query, self.key = nn.Linear(D, D), nn.Linear(D, D)
        self.alignment = build_alignment_function(name, D)
        self.double()

    def forward(self, sequence, mask=None):
        scores = self.alignment(self.query(sequence), self.key(sequence))
        return scores.softmax(-1) if mask is None else scores.masked_fill(~mask, -torch.inf).softmax(-1)


def fold(linear, alignment):
    """Absorb W and b, or the scale, of an alignment function into the linear layer before it."""
    weight = alignment.weight if alignment.weight is not None else alignment.scale * torch.eye(D).double()
    folded = nn.Linear(D, D).double()
    with torch.no_grad():
        folded.weight.copy_(weight @ linear.weight)
        folded.bias.copy_(weight @ linear.bias + (0 if alignment.bias is None else alignment.bias))
    return folded


@pytest.mark.parametrize("name", [name for name in BILINEAR if name != "cosine"])
def test_statement_4_m4c_absorbs_every_function_without_activation_or_normalisation(name):
    attention, as_dot = SelfAttention(name), SelfAttention("dot")
    side = attention.alignment.specification.transforms or "query"
    as_dot.query, as_dot.key = attention.query, attention.key
    setattr(as_dot, side, fold(getattr(attention, side), attention.alignment))
    sequence = torch.randn(2, 7, D).double()
    prefix_mask = torch.ones(7, 7, dtype=torch.bool).tril(2)
    torch.testing.assert_close(attention(sequence, prefix_mask), as_dot(sequence, prefix_mask))


@pytest.mark.parametrize("name", NAMES)
def test_statement_4_activation_and_normalisation_leave_the_class(name):
    # In the class, log attention is affine in the query up to a number per query, in any coordinates.
    sequence = torch.randn(9, D).double()
    sequence[2] = (sequence[0] + sequence[1]) / 2
    logarithms = SelfAttention(name)(3 * sequence).log()
    centred = logarithms - logarithms.mean(-1, keepdim=True)
    distance = (centred[2] - (centred[0] + centred[1]) / 2).abs().max()
    if name in BILINEAR and name != "cosine":
        assert distance < 1e-12
    else:
        assert distance > 1e-3


class ReadUnit(nn.Module):
    """MAC's read unit: the control state and projected interactions meet in f, then ELU, then a layer d -> 1."""

    def __init__(self, name):
        super().__init__()
        self.interaction = nn.Linear(D, D)
        self.alignment = build_alignment_function(name, D)
        self.score = nn.Linear(D, 1)
        self.double()

    def logits(self, control, memory):
        terms = self.alignment.elementwise(control.unsqueeze(1), self.interaction(memory))
        return self.score(F.elu(terms)).squeeze(-1)


@pytest.mark.parametrize("name", ["scaled_dot", "general_key", "biased_general_key"])
def test_statement_5_mac_folds_the_key_side_into_the_layer_before_it(name):
    unit, as_dot = ReadUnit(name), ReadUnit("dot")
    as_dot.score, as_dot.interaction = unit.score, fold(unit.interaction, unit.alignment)
    control, memory = torch.randn(2, D).double(), torch.randn(2, 9, D).double()
    torch.testing.assert_close(unit.logits(control, memory), as_dot.logits(control, memory))


def test_statement_5_biased_general_query_leaves_the_class_of_dot_in_the_read_unit():
    # A control state of zero gives every position the same logit in the whole class of `dot`.
    memory, nothing = torch.randn(2, 9, D).double(), torch.zeros(2, D).double()
    assert ReadUnit("dot").logits(nothing, memory).std(dim=1).max() < 1e-12
    assert ReadUnit("general_query").logits(nothing, memory).std(dim=1).max() < 1e-12
    assert ReadUnit("biased_general_query").logits(nothing, memory).std(dim=1).min() > 1e-3


def test_statement_5_activated_leaves_the_class_of_dot_in_the_read_unit():
    # Behind a ReLU the ELU does nothing: logits grow in proportion to the control state, those of `dot` do not.
    control, memory = torch.randn(2, D).double(), torch.randn(2, 9, D).double()
    for name, in_proportion in [("activated_general_key", True), ("activated_general_query", False), ("dot", False)]:
        unit = ReadUnit(name)
        once, twice = (unit.logits(factor * control, memory) - unit.score.bias for factor in (1, 2))
        assert torch.allclose(twice, 2 * once) == in_proportion


class ControlUnit(nn.Module):
    """MAC's control unit: the projected control input and the question words meet in f, then a layer d -> 1; no ELU."""

    def __init__(self, name):
        super().__init__()
        self.control_input = nn.Linear(D, D)
        self.alignment = build_alignment_function(name, D)
        self.score = nn.Linear(D, 1)
        self.double()

    def forward(self, control, words):
        terms = self.alignment.elementwise(self.control_input(control).unsqueeze(1), words)
        return self.score(terms).squeeze(-1).softmax(-1)


@pytest.mark.parametrize("name", [name for name in BILINEAR if name != "cosine"])
def test_statement_5_in_the_control_unit_all_functions_without_activation_are_one_class(name):
    unit, as_dot = ControlUnit(name), ControlUnit("dot")
    row = unit.alignment.specification
    with torch.no_grad():
        if row.transforms == "key":  # v . (q * (W k + b)) = (W^T (v * q)) . k + a number that is the same for all keys
            through = unit.alignment.weight.T @ torch.diag(unit.score.weight[0])
            as_dot.control_input.weight.copy_(through @ unit.control_input.weight)
            as_dot.control_input.bias.copy_(through @ unit.control_input.bias)
            as_dot.score.weight.fill_(1)
        else:
            as_dot.control_input, as_dot.score = fold(unit.control_input, unit.alignment), unit.score
    control, words = torch.randn(2, D).double(), torch.randn(2, 7, D).double()
    torch.testing.assert_close(unit(control, words), as_dot(control, words))


def test_statement_6_in_scan_the_biased_functions_are_functions_of_their_own_under_the_default_norm():
    for side in ("key", "query"):
        biased, state = scan_similarity(f"biased_general_{side}", "clipped_l2norm")
        plain, _ = scan_similarity(f"general_{side}", "clipped_l2norm", state={"weight": state["weight"]})
        assert (biased - plain).abs().max() > 1e-3


def test_statement_6_in_scan_without_norm_the_bias_of_the_key_side_cancels():
    biased, state = scan_similarity("biased_general_key", "no_norm")
    plain, _ = scan_similarity("general_key", "no_norm", state={"weight": state["weight"]})
    torch.testing.assert_close(biased, plain)
    biased, state = scan_similarity("biased_general_query", "no_norm")
    plain, _ = scan_similarity("general_query", "no_norm", state={"weight": state["weight"]})
    assert (biased - plain).abs().max() > 1e-3
