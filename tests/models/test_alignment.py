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

from .alignment_sides import D, function, sides
from .scan_model import tiny_config

NAMES = alignment_function_names()
BILINEAR = [name for name, row in ALIGNMENT_FUNCTIONS.items() if not row.activated and name != "additive"]


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


@pytest.mark.parametrize("name", NAMES)
def test_two_layers_of_the_key_are_one(name):
    module = function(name)
    vectors, weight, bias = torch.randn(2, 5, 3).double(), torch.randn(D, 3).double(), torch.randn(D).double()
    expected = module.transform_key(F.linear(vectors, weight, bias))
    composed = module.compose_key(weight, bias)
    assert (composed is None) == (name == "cosine")
    if composed is not None:
        torch.testing.assert_close(F.linear(vectors, *composed), expected)


@pytest.mark.parametrize("name", NAMES)
def test_linear_terms_are_weighed_before_there_are_keys(name):
    module = function(name)
    query, key = sides(2)
    weights = torch.randn(D).double()
    if name in ("cosine", "additive", "activated_general_key", "activated_general_query"):
        assert not module.terms_are_linear
        with pytest.raises(ConfigurationError, match="elementwise"):
            module.contract(query, weights)
        return
    vector, constant = module.contract(query[:, :1], weights)
    assert (constant is None) == (name != "biased_general_key")
    scores = (vector * key).sum(-1) + (0 if constant is None else constant)
    torch.testing.assert_close(scores, module.elementwise(query[:, :1], key) @ weights)


@pytest.mark.parametrize("override", ["transform_key", "products"])
def test_a_subclass_that_changes_keys_or_terms_is_not_taken_for_linear(override):
    changed = type("Own", (AlignmentFunction,), {override: lambda self, *sides: sides[0].tanh()})
    module = changed(ALIGNMENT_FUNCTIONS["dot"], D)
    assert not module.terms_are_linear
    assert (module.compose_key(torch.eye(D), torch.zeros(D)) is None) == (override == "transform_key")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_zeros_have_finite_scores_in_every_precision(name, dtype):
    function = build_alignment_function(name, 4).to(dtype)
    query, key = torch.zeros(2, 4, dtype=dtype), torch.zeros(3, 4, dtype=dtype)
    assert function(query, key).isfinite().all()


@pytest.mark.parametrize("name", BILINEAR)
def test_exchanged_sides(name):
    exchanged, original = build_alignment_function(name, D, exchange_sides=True).double(), function(name)
    exchanged.load_state_dict(original.state_dict())
    query, key = sides(2)
    torch.testing.assert_close(exchanged(query, key), original(key, query).transpose(-1, -2))
    assert exchanged.specification.exchanged().transforms == original.specification.transforms


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
def test_inner_products_from_scores_are_the_plain_ones(name):
    query, key = sides()
    module = function(name)
    assert module.scores_give_inner_products == (name in ("dot", "scaled_dot", "cosine"))
    if module.scores_give_inner_products:
        norms = query.norm(dim=-1, keepdim=True), key.norm(dim=-1).unsqueeze(0)
        torch.testing.assert_close(module.inner_products(module(query, key), *norms), query @ key.T)


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
    assert not module.is_bilinear
    assert not module.scores_give_inner_products


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
    layers = [(nn.Linear(D, D), build_alignment_function("general_key", D)) for _ in range(3)]
    numbers = [alignment.weight.flatten()[0].item() for _, alignment in layers]
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
