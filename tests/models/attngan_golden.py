"""The published AttnGAN's and DAMSM's golden tensors under the names of ours."""

from safetensors.torch import load_file

from vl_alignment.hub.convert_attngan import (
    ATTNGAN_FUNCTIONS,
    generator_name,
    generator_unused,
    text_encoder_name,
)
from vl_alignment.models.configuration_attngan import AttnGanConfig
from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.modeling_attngan import AttnGanForTextToImageGeneration
from vl_alignment.models.text_encoder_damsm import DamsmTextEncoder


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
    encoder.load_state_dict({text_encoder_name(name): tensor for name, tensor in weights.items()}, strict=True)
    return encoder.eval()


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
    config = AttnGanConfig(**golden_fields(meta, **ATTNGAN_FUNCTIONS[variant], **fields))
    model = AttnGanForTextToImageGeneration(config).eval()
    function = config.alignment_function
    own = {name: tensor for name, tensor in weights.items() if generator_unused(name, function) is None}
    load_published(model.generator, own, generator_name)
    return model
