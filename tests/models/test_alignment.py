import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vl_alignment.models.alignment import (
    ALIGNMENT_FUNCTIONS,
    AlignmentFunction,
    AlignmentSpecification,
    alignment_function_names,
    build_alignment_function,
    register_alignment_function,
)
from vl_alignment.models.configuration_scan import ScanConfig
from vl_alignment.models.errors import ConfigurationError
from vl_alignment.models.modeling_scan import ScanForImageTextRetrieval

from .scan_model import tiny_config

NAMES = alignment_function_names()
D = 6
BILINEAR = [name for name, row in ALIGNMENT_FUNCTIONS.items() if not row.activated and name != "additive"]


def function(name, size=D, **options):
    return build_alignment_function(name, size, **options).double()


def sides(*shape, size=D):
    query, key = torch.randn(*shape, 4, size).double(), torch.randn(*shape, 5, size).double()
    return query.requires_grad_(), key.requires_grad_()


def with_weights(name, weight=None, bias=None, **options):
    module = function(name, **options)
    with torch.no_grad():
        if weight is not None:
            module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)
    return module


# Q = [3, 4], K = [1, 2]; W = [[1, 2], [0, 1]], b = [1, -1]: W K = [5, 2], W Q = [11, 4].
LITERAL_SCORES = {
    "dot": 11.0,
    "scaled_dot": 11 / math.sqrt(2),
    "cosine": 11 / (5 * math.sqrt(5)),
    "general_key": 3 * 5 + 4 * 2,
    "general_query": 11 * 1 + 4 * 2,
    "biased_general_key": 3 * 6 + 4 * 1,
    "biased_general_query": 12 * 1 + 3 * 2,
    "activated_general_key": 3 * 6 + 4 * 1,
    "activated_general_query": 12 * 1 + 3 * 2,
    "additive": 2 * math.tanh(11 + 1) - 3 * math.tanh(4 + 0),
}


def literal_function(name, **options):
    module = function(name, size=2, **options)
    numbers = {
        "weight": [[1.0, 2.0], [0.0, 1.0]],
        "bias": [1.0, -1.0],
        "query_weight": [[1.0, 2.0], [0.0, 1.0]],
        "key_weight": [[1.0, 0.0], [2.0, -1.0]],
        "vector": [2.0, -3.0],
    }
    with torch.no_grad():
        for parameter_name, parameter in module.named_parameters():
            parameter.copy_(torch.tensor(numbers[parameter_name]))
    return module


@pytest.mark.parametrize("name", NAMES)
def test_each_row_gives_the_number_computed_by_hand(name):
    module = literal_function(name)
    query, key = torch.tensor([[3.0, 4.0]]).double(), torch.tensor([[1.0, 2.0]]).double()
    assert module(query, key).item() == pytest.approx(LITERAL_SCORES[name], rel=1e-12)


def test_the_table_has_the_rows_of_the_paper_and_says_which_they_are():
    published = [name for name in NAMES if ALIGNMENT_FUNCTIONS[name].published]
    assert published == [
        *("dot", "scaled_dot", "cosine", "general_key", "general_query"),
        *("biased_general_key", "biased_general_query", "activated_general_key"),
    ]
    assert set(NAMES) - set(published) == {"activated_general_query", "additive"}


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("relu", 0.0), ("leaky_relu", -0.22), ("tanh", math.tanh(-22)), ("sigmoid", 1 / (1 + math.exp(22)))],
)
def test_activation_is_applied_to_the_score(activation, expected):
    module = literal_function("activated_general_key", activation=activation)
    query, key = torch.tensor([[-3.0, -4.0]]).double(), torch.tensor([[1.0, 2.0]]).double()
    assert module(query, key).item() == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_activation_leaves_the_other_rows_alone():
    query, key = sides()
    torch.testing.assert_close(function("dot", activation="relu")(query, key), query @ key.T)


def test_scale_can_be_given_and_only_scaled_rows_take_it():
    query, key = sides()
    torch.testing.assert_close(function("scaled_dot", scale=0.25)(query, key), query @ key.T / 4)
    torch.testing.assert_close(function("dot", scale=0.25)(query, key), query @ key.T)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_query_major_for_any_leading_dimensions(name):
    query, key = sides(2, 3)
    module = function(name)
    scores = module(query, key)
    assert scores.shape == (2, 3, 4, 5)
    torch.testing.assert_close(scores[1, 2, 3, 4], module(query[1, 2, 3:4], key[1, 2, 4:5]).squeeze())


@pytest.mark.parametrize("name", [*BILINEAR, "additive"])
def test_elementwise_form_sums_to_the_matrix_form(name):
    query, key = sides(2)
    module = function(name)
    terms = module.elementwise(query[:, :1], key)
    assert terms.shape == (2, 5, D)
    torch.testing.assert_close(terms.sum(-1), module(query[:, :1], key).squeeze(1))


@pytest.mark.parametrize("name", ["activated_general_key", "activated_general_query"])
def test_elementwise_form_of_an_activated_row_activates_each_term(name):
    query, key = sides(2)
    module = function(name)
    products = module.transform_query(query[:, :1]) * module.transform_key(key)
    torch.testing.assert_close(module.elementwise(query[:, :1], key), products.relu())


def test_additive_equals_its_loop():
    query, key = sides()
    module = function("additive")
    looped = torch.stack(
        [
            torch.stack([module.vector @ torch.tanh(module.query_weight @ q + module.key_weight @ k) for k in key])
            for q in query
        ]
    )
    torch.testing.assert_close(module(query, key), looped)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_right(name):
    query, key = sides()
    module = function(name, activation="tanh")
    assert torch.autograd.gradcheck(module, (query, key))


# "What can differ at all", statements 1 to 6


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


# Factors for fused kernels


@pytest.mark.parametrize("name", BILINEAR)
def test_factors_with_a_fused_kernel_equal_the_materialised_attention(name):
    query, key = sides(2, 3)
    value = torch.randn(2, 3, 5, D).double()
    module = function(name)
    q, k, scale = module.factors(query, key)
    torch.testing.assert_close(scale * (q @ k.transpose(-1, -2)), module(query, key))
    fused = F.scaled_dot_product_attention(q, k, value, scale=scale)
    materialised = module(query, key).softmax(-1) @ value
    torch.testing.assert_close(fused, materialised)
    of_fused, of_materialised = (torch.autograd.grad(out.sum(), query)[0] for out in (fused, materialised))
    torch.testing.assert_close(of_fused, of_materialised)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(BILINEAR)))
def test_factors_are_refused_where_something_stands_between(name):
    query, key = sides()
    module = function(name)
    assert not module.is_bilinear
    with pytest.raises(ConfigurationError, match="no factors"):
        module.factors(query, key)


@pytest.mark.parametrize("name", NAMES)
def test_inner_products_from_scores_are_the_plain_ones_or_refused(name):
    query, key = sides()
    module = function(name)
    products = module.inner_products(
        module(query, key), query.norm(dim=-1, keepdim=True), key.norm(dim=-1).unsqueeze(0)
    )
    if name in ("dot", "scaled_dot", "cosine"):
        torch.testing.assert_close(products, query @ key.T)
    else:
        assert products is None


# A function of the user's own


def test_registered_row_works_by_name_in_a_config(open_table):
    register_alignment_function(
        "scaled_general_key", AlignmentSpecification("Q (W K) / sqrt(d)", transforms="key", scaled=True)
    )
    assert "scaled_general_key" in alignment_function_names()
    model = ScanForImageTextRetrieval(tiny_config(alignment_function="scaled_general_key"))
    module = model.model.cross_attention.alignment.double()
    query, key = sides(size=module.size)
    torch.testing.assert_close(module(query, key), query @ (key @ module.weight.T).T / math.sqrt(module.size))


def test_row_that_transforms_and_normalises_does_both(open_table):
    row = AlignmentSpecification("cos(Q, W K)", transforms="key", normalized=True)
    register_alignment_function("cosine_general_key", row)
    module = function("cosine_general_key")
    query, key = sides()
    expected = F.cosine_similarity(query.unsqueeze(1), (key @ module.weight.T).unsqueeze(0), dim=-1)
    torch.testing.assert_close(module(query, key), expected)


class NegativeDistance(AlignmentFunction):
    """-|q - k|^2 times a learned number: no row of the table can say it."""

    def create_parameters(self):
        self.sharpness = nn.Parameter(torch.empty(1))

    def scores(self, query, key):
        return -self.sharpness * torch.cdist(query, key).square()


def test_registered_subclass_works_by_name_in_a_config(open_table):
    register_alignment_function("negative_distance", NegativeDistance)
    config = ScanConfig.from_dict(tiny_config(alignment_function="negative_distance").to_dict())
    module = ScanForImageTextRetrieval(config).model.cross_attention.alignment
    assert isinstance(module, NegativeDistance)
    query, key = sides(size=module.size)
    module.double()
    expected = -module.sharpness * (query.unsqueeze(1) - key.unsqueeze(0)).square().sum(-1)
    torch.testing.assert_close(module(query, key), expected)


def test_subclass_with_scores_of_its_own_claims_no_factors(open_table):
    # Fused kernels and SCAN's shortcut for inner products would otherwise compute a dot product in silence.
    register_alignment_function("negative_distance", NegativeDistance)
    module = function("negative_distance")
    query, key = sides()
    assert not module.is_bilinear
    assert module.inner_products(module(query, key), torch.ones(4, 1), torch.ones(1, 5)) is None


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("dot", AlignmentSpecification("Q K"), "registered already"),
        ("my function", AlignmentSpecification("Q K"), "no identifier"),
        ("mine", "dot", "AlignmentSpecification"),
        ("mine", nn.Linear, "AlignmentSpecification"),
    ],
)
def test_registration_refuses(name, row, message, open_table):
    before = dict(open_table)
    with pytest.raises(ConfigurationError, match=message):
        register_alignment_function(name, row)
    assert open_table == before


def test_unknown_name_lists_the_known_ones():
    for build in (lambda: build_alignment_function("general", D), lambda: tiny_config(alignment_function="general")):
        with pytest.raises(ConfigurationError, match="'general' is unknown") as error:
            build()
        assert all(name in str(error.value) for name in NAMES)


@pytest.mark.parametrize("options", [{"activation": "gelu"}, {"initialization": "zeros"}])
def test_unknown_option_is_refused(options):
    with pytest.raises(ConfigurationError, match="choose one of|neither"):
        build_alignment_function("dot", D, **options)


# Starting values


def model_of(name, seed=0, **fields):
    torch.manual_seed(seed)
    return ScanForImageTextRetrieval(tiny_config(alignment_function=name, **fields))


def test_shared_weights_do_not_depend_on_the_function():
    reference = model_of("dot").state_dict()
    following = torch.rand(3)
    for name in NAMES:
        for initialization in ("linear", "identity"):
            state = model_of(name, alignment_initialization=initialization).state_dict()
            assert torch.equal(torch.rand(3), following)  # nor do dropout and data that are drawn afterwards
            assert {key for key in state if ".alignment." not in key} == set(reference)
            for key, tensor in reference.items():
                assert torch.equal(state[key], tensor), (name, key)


def test_own_weights_follow_the_seed_and_differ_between_layers():
    first, again, other = (model_of("biased_general_key", seed).state_dict() for seed in (5, 5, 6))
    for name in ("weight", "bias"):
        key = f"model.cross_attention.alignment.{name}"
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])
    torch.manual_seed(0)
    layers = nn.Sequential(*(SelfAttention("general_key") for _ in range(3)))
    numbers = [layer.alignment.weight.flatten()[0].item() for layer in layers]
    assert len(set(numbers)) == 3


def test_own_weights_are_drawn_as_of_a_linear_layer():
    module = build_alignment_function("biased_general_key", 64)
    for parameter in module.parameters():
        assert parameter.abs().max() <= 1 / 8
        assert parameter.abs().mean().item() == pytest.approx(1 / 16, rel=0.15)


@pytest.mark.cuda
@pytest.mark.parametrize("name", NAMES)
def test_weights_can_be_drawn_on_a_device(name):
    with torch.device("cuda"):
        module = build_alignment_function(name, D)
    assert all(parameter.is_cuda and parameter.abs().sum() > 0 for parameter in module.parameters())


def test_own_weights_wait_for_a_device_on_meta():
    with torch.device("meta"):
        module = build_alignment_function("biased_general_key", D)
    module.to_empty(device="cpu").reset_parameters()
    assert all(
        torch.isfinite(parameter).all() and parameter.abs().max() <= D**-0.5 for parameter in module.parameters()
    )


@pytest.mark.parametrize(
    "name", ["general_key", "general_query", "biased_general_key", "biased_general_query", "activated_general_key"]
)
def test_identity_start_equals_dot(name):
    query, key = sides(2)
    expected = query @ key.transpose(-1, -2)
    expected = expected.relu() if name.startswith("activated") else expected
    assert torch.equal(function(name, initialization="identity")(query, key), expected)


def test_additive_from_the_identity_can_learn():
    query, key = sides()
    module = function("additive", initialization="identity")
    assert torch.equal(module.query_weight, torch.eye(D).double())
    module(query, key).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())
