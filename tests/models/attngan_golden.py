"""The published AttnGAN's and DAMSM's golden tensors under the names of ours."""

from safetensors.torch import load_file

from vl_alignment.models.configuration_attngan import AttnGanConfig
from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.modeling_attngan import AttnGanForTextToImageGeneration
from vl_alignment.models.text_encoder_damsm import DamsmTextEncoder

TEXT_PREFIXES = {"encoder.": "embedding.", "rnn.": "recurrence."}


def load_golden(path):
    """The tensors of a file by kind: {"weight": {...}, "input": {...}, ...}, and those without a dot in their name."""
    groups = {}
    for name, tensor in load_file(path).items():
        kind, dot, rest = name.partition(".")
        groups.setdefault(kind if dot else "", {})[rest if dot else kind] = tensor
    return groups


def golden_text_encoder(weights, recurrence):
    """The text encoder with the published weights."""
    (types, width), states = weights["encoder.weight"].shape, weights["rnn.weight_hh_l0"].shape[1]
    config = DamsmConfig(
        vocab_size=types, word_embedding_size=width, hidden_size=2 * states, recurrence=recurrence, word_dropout=0.0
    )
    encoder = DamsmTextEncoder(config)
    state = {}
    for name, tensor in weights.items():
        prefix = next(prefix for prefix in TEXT_PREFIXES if name.startswith(prefix))
        state[TEXT_PREFIXES[prefix] + name.removeprefix(prefix)] = tensor
    encoder.load_state_dict(state, strict=True)
    return encoder.eval()


def our_generator_name(published):
    """`h_net2.residual.0.block.3.weight` -> the name of our parameter; None for those of other functions."""
    net, *rest = published.split(".")
    number = int(net[-1]) if net[-1].isdigit() else 0
    kind = rest[-1]
    if net == "ca_net":
        return f"conditioning.linear.{kind}"
    if net.startswith("img_net"):
        return f"painters.{number - 1}.{kind}"
    if number == 1:
        layer, place = rest[0], rest[1]
        if layer == "fc":
            return f"first_stage.{('linear', 'norm')[int(place)]}.{kind}"
        return f"first_stage.doublings.{int(layer[-1]) - 1}.{DOUBLING[place]}.{kind}"
    stage = f"stages.{number - 2}"
    if rest[0] == "att":
        return f"{stage}.attention.{'word_projection' if rest[1] == 'conv_context' else 'alignment'}.{kind}"
    if rest[0] == "upsample":
        return f"{stage}.doubling.{DOUBLING[rest[1]]}.{kind}"
    return f"{stage}.residual_blocks.{rest[1]}.{RESIDUAL[rest[3]]}.{kind}"


def our_discriminator_name(published):
    """`img_code_s32_1.0.weight` -> the name of our parameter of one stage's discriminator."""
    part, *rest = published.split(".")
    place, kind = rest[-2], rest[-1]
    if part == "UNCOND_DNET":
        return f"unconditional_judge.{kind}"
    if part == "COND_DNET":
        return f"conditional_judge.{kind}" if rest[0] == "outlogits" else f"joint.{CONVOLUTION[place]}.{kind}"
    if part == "img_code_s16":
        if place == "0":
            return f"entrance.{kind}"
        block, inner = divmod(int(place) - 2, 3)
        return f"halvings.{block}.{CONVOLUTION[str(inner)]}.{kind}"
    size, _, narrowing = part.removeprefix("img_code_s").partition("_")
    layer = f"narrowings.{int(narrowing) - 1}" if narrowing else f"halvings.{ {'32': 3, '64': 4}[size] }"
    return f"{layer}.{CONVOLUTION[place]}.{kind}"


DOUBLING = {"1": "convolution", "2": "norm"}
CONVOLUTION = {"0": "convolution", "1": "norm"}
RESIDUAL = {"0": "gated", "1": "gated_norm", "3": "plain", "4": "plain_norm"}

# Released variants -> the fields of ours, and where their weights are among those of all variants.
VARIANTS = {
    "dot": ({"alignment_function": "dot"}, None),
    "scaled": ({"alignment_function": "scaled_dot"}, None),
    "general_kwq": ({"alignment_function": "general_query"}, "attn_general"),
    "general_qwk": ({"alignment_function": "general_key"}, "attn_general"),
    "biased_general_kwq": ({"alignment_function": "biased_general_query"}, "attn_biased_general"),
    "biased_general_qwk": ({"alignment_function": "biased_general_key"}, "attn_biased_general"),
    **{
        f"activated_general_qwk_{activation}": (
            {"alignment_function": "activated_general_key", "alignment_activation": activation},
            "attn_act_general_qwk",
        )
        for activation in ("relu", "sigmoid")
    },
}


def is_of_variant(published, variant):
    """Whether a published parameter of the generator belongs to this variant or to all of them."""
    _, _, layer = published.partition(".att.")
    return not layer.startswith("attn_") or layer.partition(".")[0] == VARIANTS[variant][1]


def load_published(module, weights, our_name):
    """Load published tensors into a module that has a parameter or buffer for each, and none beside."""
    expected = module.state_dict()
    state = {name: tensor for name, tensor in expected.items() if name.endswith("num_batches_tracked")}
    for name, tensor in weights.items():
        ours = our_name(name)
        assert ours not in state, (name, ours)
        state[ours] = tensor.view(expected[ours].shape)  # a 1 x 1 convolution of words is a linear layer
    module.load_state_dict(state, strict=True)
    return module


def golden_fields(meta, **fields):
    """The fields of the golden models' configurations."""
    sizes = meta["dims"]
    return {
        "vocab_size": 30,
        "hidden_size": sizes["EMBEDDING_DIM"],
        "noise_size": sizes["Z_DIM"],
        "conditioning_size": sizes["CONDITION_DIM"],
        "generator_size": sizes["GF_DIM"],
        "discriminator_size": sizes["DF_DIM"],
        "num_residual_blocks": sizes["R_NUM"],
        "num_stages": sizes["BRANCH_NUM"],
        **fields,
    }


def golden_model(meta, weights, variant, **fields):
    """The whole model, whose generator has the published weights."""
    config = AttnGanConfig(**golden_fields(meta, **VARIANTS[variant][0], **fields))
    model = AttnGanForTextToImageGeneration(config).eval()
    own = {name: tensor for name, tensor in weights.items() if is_of_variant(name, variant)}
    load_published(model.generator, own, our_generator_name)
    return model
