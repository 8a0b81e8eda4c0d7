import pytest
import torch

from vl_alignment.models.alignment import AlignmentFunction, alignment_function_names, register_alignment_function
from vl_alignment.models.attention_m4c import M4CCache, M4CTransformer, key_mask, prefix_mask
from vl_alignment.models.configuration_m4c import M4CConfig

from .m4c_model import NO_DROPOUT, tiny_config

ENTITIES, STEPS, SIZE = 7, 4, 8
MASK = torch.arange(ENTITIES) < torch.tensor([[7], [5], [1]])


def transformer(function, **fields):
    torch.manual_seed(0)
    layers = M4CTransformer(tiny_config(alignment_function=function, **NO_DROPOUT, **fields)).double().eval()
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.normal_(0, 0.5)
    return layers


def states(size=ENTITIES + STEPS):
    return torch.randn(3, size, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_prefix_mask_by_hand():
    mask = prefix_mask(torch.tensor([[True, True, False]]), 2, torch.float32)
    assert mask.shape == (1, 1, 5, 5) and set(mask.unique().tolist()) == {-torch.inf, 0}
    expected = [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],  # padding sees what is there: it has to see something
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]
    assert (mask[0, 0] == 0).int().tolist() == expected


def attention_by_hand(module, sequence, mask, heads):
    """One layer's attention, head by head, scores by the function's own `forward`."""
    size, contexts, maps = sequence.shape[-1] // heads, [], []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        query, key, value = (layer(sequence)[..., part] for layer in (module.query, module.key, module.value))
        weights = (module.alignment(query, key) + mask[:, 0]).softmax(dim=-1)
        contexts.append(weights @ value)
        maps.append(weights)
    output = module.output(torch.cat(contexts, dim=-1))
    return module.norm(output + sequence), torch.stack(maps, dim=1)


@pytest.mark.parametrize("name", alignment_function_names())
def test_layers_by_hand(name):
    layers, sequence = transformer(name), states()
    mask = prefix_mask(MASK, STEPS, torch.float64)
    expected, expected_maps = sequence, []
    for layer in layers.layers:
        attended, weights = attention_by_hand(layer.attention, expected, mask, 2)
        hidden = layer.output(torch.nn.functional.gelu(layer.intermediate(attended)))
        expected = layer.norm(hidden + attended)
        expected_maps.append(weights)
    for output_attentions in (False, True):
        actual, maps = layers(sequence, mask, output_attentions=output_attentions)
        torch.testing.assert_close(actual, expected)
    for weights, expected_weights in zip(maps, expected_maps, strict=True):
        torch.testing.assert_close(weights, expected_weights)


def test_layers_that_normalise_first_by_hand():
    layers, expected = transformer("general_key", norm_first=True), states()
    mask = prefix_mask(MASK, STEPS, torch.float64)
    for layer in layers.layers:
        taken, norm = layer.attention.norm(expected), layer.attention.norm
        layer.attention.norm = torch.nn.Identity()
        attended = expected + attention_by_hand(layer.attention, taken, mask, 2)[0] - taken
        layer.attention.norm = norm
        expected = attended + layer.output(torch.nn.functional.gelu(layer.intermediate(layer.norm(attended))))
    torch.testing.assert_close(layers(states(), mask)[0], layers.norm(expected))


@pytest.mark.parametrize("name", ["general_query", "biased_general_query"])
def test_released_layout_transposes_the_scores(name):
    layers, sequence = transformer(name, released_layout=True), states()
    mask = prefix_mask(MASK, STEPS, torch.float64)
    layer = layers.layers[0].attention
    _, maps = layers(sequence, mask, output_attentions=True)
    query, key = (
        projection(sequence).unflatten(-1, (2, -1)).transpose(1, 2) for projection in (layer.query, layer.key)
    )
    transformed = query @ layer.alignment.weight.T
    if layer.alignment.bias is not None:
        transformed = transformed + layer.alignment.bias
    scores = key @ transformed.transpose(-1, -2)  # K (W Q + b)^T
    torch.testing.assert_close(maps[0], (scores + mask).softmax(-1))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("name", alignment_function_names())
def test_steps_with_a_cache_are_the_whole_sequence(name, norm_first):
    layers, sequence = transformer(name, norm_first=norm_first), states()
    expected, _ = layers(sequence, prefix_mask(MASK, STEPS, torch.float64))
    cache = M4CCache(MASK, STEPS, torch.float64)
    with torch.no_grad():
        entities, _ = layers(sequence[:, :ENTITIES], key_mask(MASK, torch.float64), first=3, cache=cache)
        torch.testing.assert_close(entities, expected[:, 3:ENTITIES])
        assert (cache.length, cache.steps) == (ENTITIES, 0)
        for number in range(ENTITIES, ENTITIES + STEPS):
            found, _ = layers(sequence[:, number : number + 1], cache.mask_for(1), cache=cache)
            torch.testing.assert_close(found[:, 0], expected[:, number])
        assert cache.steps == STEPS


def test_beams_share_entities_and_exchange_their_steps():
    layers, sequence = transformer("scaled_dot"), states(ENTITIES)[:1]
    mask = MASK[:1]
    cache = M4CCache(mask, 2, torch.float64)
    layers(sequence, key_mask(mask, torch.float64), cache=cache)
    cache.repeat(2)
    first = states(2).transpose(0, 1)[:, :1]  # another step in each of two beams
    second = states(3)[:2, 2:3]
    with torch.no_grad():
        layers(first, cache.mask_for(1), cache=cache)
        cache.reorder(torch.tensor([1, 1]))
        found, _ = layers(second, cache.mask_for(1), cache=cache)
        for beam in range(2):
            whole = torch.cat([sequence, first[1:], second[beam : beam + 1]], dim=1)
            expected, _ = layers(whole, prefix_mask(mask, 2, torch.float64))
            torch.testing.assert_close(found[beam, 0], expected[0, -1])


def test_last_layer_leaves_out_what_is_not_asked_for():
    layers, sequence = transformer("dot"), states()
    mask = prefix_mask(MASK, STEPS, torch.float64)
    whole, _ = layers(sequence, mask)
    part, _ = layers(sequence, mask, first=5)
    torch.testing.assert_close(part, whole[:, 5:])
    with_maps, maps = layers(sequence, mask, first=5, output_attentions=True)
    torch.testing.assert_close(with_maps, whole[:, 5:])
    assert maps[-1].shape[-2:] == (ENTITIES + STEPS, ENTITIES + STEPS)


@pytest.mark.parametrize(("name", "fused"), [("dot", True), ("general_key", True), ("activated_general_key", False)])
def test_functions_without_activation_run_through_the_fused_kernel(name, fused, monkeypatch):
    calls = []
    kernel = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "vl_alignment.models.attention_m4c.F.scaled_dot_product_attention",
        lambda *given, **options: calls.append(options["scale"]) or kernel(*given, **options),
    )
    layers = transformer(name)
    mask = prefix_mask(MASK, STEPS, torch.float64)
    layers(states(), mask)
    assert calls == ([1.0, 1.0] if fused else [])
    layers(states(), mask, output_attentions=True)
    assert len(calls) == 2 * fused


def test_dropout_on_the_cpu_has_no_fused_kernel_and_goes_without(monkeypatch):
    monkeypatch.delattr("vl_alignment.models.attention_m4c.F.scaled_dot_product_attention")
    mask = prefix_mask(MASK, STEPS, torch.float64)
    layers = M4CTransformer(tiny_config(**{**NO_DROPOUT, "attention_dropout": 0.5})).double()
    assert not torch.equal(layers(states(), mask)[0], layers(states(), mask)[0])
    with pytest.raises(AttributeError):
        layers.eval()(states(), mask)


def test_function_of_the_users_own(open_table):
    class Distance(AlignmentFunction):
        def scores(self, query, key):
            return -torch.cdist(query, key)

    register_alignment_function("distance", Distance)
    layers, sequence = transformer("distance"), states()
    mask = prefix_mask(MASK, STEPS, torch.float64)
    layer = layers.layers[0].attention
    _, maps = layers(sequence, mask, output_attentions=True)
    torch.testing.assert_close(maps[0], attention_by_hand(layer, sequence, mask, 2)[1])


def test_dropout_is_of_training_alone():
    torch.manual_seed(0)
    layers = M4CTransformer(M4CConfig(**{**tiny_config().to_dict(), "attention_dropout": 0.5})).double()
    mask = prefix_mask(MASK, STEPS, torch.float64)
    assert not torch.equal(layers(states(), mask)[0], layers(states(), mask)[0])
    layers.eval()
    assert torch.equal(layers(states(), mask)[0], layers(states(), mask)[0])
