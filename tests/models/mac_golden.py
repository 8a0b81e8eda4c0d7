"""The published MAC cells' weights under the names of ours."""

import torch

from vl_alignment.hub.convert_mac import mac_name, mac_tensor, mac_unused
from vl_alignment.models.configuration_mac import MacConfig
from vl_alignment.models.modeling_mac import MacForQuestionAnswering
from vl_alignment.models.reasoning_mac import MacCell

# Released variants -> ours. What the release calls kwq transforms the control in the read unit, the words in the other.
RELEASED_FUNCTIONS = {
    "original": "dot",
    "scaled": "scaled_dot",
    "general_kwq": "general_query",
    "general_qwk": "general_key",
    "biased_general_kwq": "biased_general_query",
    "biased_general_qwk": "biased_general_key",
    "act_general_relu_kwq": "activated_general_query",
    "act_general_relu_qwk": "activated_general_key",
}
# TensorFlow's scopes below MACnetwork/MACCell/ -> our modules.
RELEASED_LAYERS = {
    "linearLayerqInput": "control_unit.question_projection",
    **{f"linearLayerqInput{step}": f"control_unit.position_aware.{step}" for step in range(4)},
    "control/linearLayer": "control_unit.score.alignment",
    "control/inter2logits/linearLayerlogits": "control_unit.score.weight",
    "read/mulmemInter/linearLayerprojX": "read_unit.knowledge_projection",
    "read/mulmemInter/linearLayerprojY": "read_unit.memory_projection",
    "read/linearLayermemKbProj": "read_unit.interaction",
    "read/linearLayermemKbProj/linearLayermemKbProj_2": "read_unit.key_projection",
    "read/mulctrlInter/linearLayer": "read_unit.score.alignment",
    "read/inter2att/inter2logits/linearLayerlogits": "read_unit.score.weight",
    "write/linearLayernewMemory": "write_unit.combine",
}


def released_name(variable):
    """`MACnetwork/MACCell/.../weights/weight` -> the name of the cell's parameter."""
    if variable == "MACnetwork/initMem":
        return "initial_memory"
    scope, kind = variable.removeprefix("MACnetwork/MACCell/").rsplit("/", 2)[0::2]
    return f"{RELEASED_LAYERS[scope]}.{kind}"


def released_tensor(tensor, parameter):
    """TensorFlow's [in, out] -> ours [out, in]; its score weights are vectors."""
    return tensor.T if tensor.dim() == 2 else tensor.reshape(parameter.shape)


def released_cell(golden, function, **fields):
    """The cell with the weights of a golden file, and those of its variables that ours has a parameter for."""
    size = golden["initial_memory"].shape[1]
    config = MacConfig(hidden_size=size, num_steps=4, alignment_function=function, **fields)
    cell = MacCell(config).eval()
    parameters = dict(cell.named_parameters())
    names = {}
    for key in (key.removeprefix("weight.") for key in golden if key.startswith("weight.")):
        name = released_name(key)
        if name in parameters:
            names[key] = name
        else:  # what the softmax cancels, or the release declares but does not use
            assert name.endswith("score.weight.bias") or (name.endswith("alignment.bias") and "biased" not in function)
    with torch.no_grad():
        for key, name in names.items():
            parameters[name].copy_(released_tensor(golden[f"weight.{key}"], parameters[name]))
    assert set(names.values()) == set(parameters)
    return cell, names


def pytorch_model(meta, weights, **fields):
    """The model with golden weights; the biases of the scores, which the softmax cancels, have no place in ours."""
    sizes = meta["dims"]
    config = MacConfig(
        cell="pytorch",
        vocab_size=sizes["n_vocab"],
        hidden_size=sizes["dim"],
        word_embedding_size=sizes["embed_hidden"],
        num_steps=sizes["max_step"],
        grid_size=sizes["grid"],
        num_labels=sizes["classes"],
        **fields,
    )
    model = MacForQuestionAnswering(config).eval()
    names = [key.removeprefix("weight.") for key in weights if key.startswith("weight.")]
    state = {mac_name(name): mac_tensor(name, weights[f"weight.{name}"]) for name in names if mac_unused(name) is None}
    model.load_state_dict(state, strict=True)
    return model
