"""Valid published weights of M4C, AttnGAN and DAMSM, and of networks of pictures, for `fuzz_readers.py`.

They are tiny models of ours under the published names. Inception-v3 and EfficientNet-Lite0 have one size: theirs are a
single stored number each, which the file says to repeat.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from fuzz_models import convert
from torch import Tensor, nn
from transformers import BertConfig

from vl_alignment.data.efficientnet_lite import EfficientNetLite0, load_efficientnet_lite0
from vl_alignment.hub.convert_m4c import _LAYER, _PREFIXES
from vl_alignment.metrics.image_features import load_feature_network
from vl_alignment.models.configuration_attngan import AttnGanConfig
from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.configuration_m4c import SPECIAL_ANSWERS, M4CConfig
from vl_alignment.models.inception_v3 import InceptionV3
from vl_alignment.models.modeling_attngan import AttnGanForTextToImageGeneration
from vl_alignment.models.modeling_damsm import DamsmModel
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering

HEADS = {"text_config": {"num_attention_heads": 2}, "num_decoding_steps": 4}
ATTNGAN = {"vocab_size": 4, "word_embedding_size": 3, "hidden_size": 4, "alignment_function": "general_key"}
NUMBERS = {0: "<end>", 1: "a", 2: "dog", 3: "runs"}

# Our names -> the published ones; of several that fit the first counts.
TEXT_ENCODER = ((r"text_encoder\.embedding\.", "encoder."), (r"text_encoder\.recurrence\.", "rnn."))
GENERATOR = (
    (r"conditioning\.linear\.", lambda _: "ca_net.fc."),
    (r"painters\.(\d)\.", lambda found: f"img_net{int(found[1]) + 1}.img.0."),
    (r"first_stage\.(linear|norm)\.", lambda found: f"h_net1.fc.{'linear norm'.split().index(found[1])}."),
    (
        r"first_stage\.doublings\.(\d)\.(convolution|norm)\.",
        lambda found: f"h_net1.upsample{int(found[1]) + 1}.{'- convolution norm'.split().index(found[2])}.",
    ),
    (r"stages\.0\.attention\.word_projection\.", lambda _: "h_net2.att.conv_context."),
    (r"stages\.0\.attention\.alignment\.", lambda _: "h_net2.att.attn_general."),
    (
        r"stages\.0\.doubling\.(convolution|norm)\.",
        lambda found: f"h_net2.upsample.{'- convolution norm'.split().index(found[1])}.",
    ),
    (
        r"stages\.0\.residual_blocks\.(\d)\.(\w+)\.",
        lambda found: (
            f"h_net2.residual.{found[1]}.block.{'gated gated_norm - plain plain_norm'.split().index(found[2])}."
        ),
    ),
)
EFFICIENTNET = {
    "stem.convolution.": "_conv_stem.",
    "stem.norm.": "_bn0.",
    "head.convolution.": "_conv_head.",
    "head.norm.": "_bn1.",
    "classifier.": "_fc.",
    "blocks.": "_blocks.",
    ".expand.convolution.": "._expand_conv.",
    ".expand.norm.": "._bn0.",
    ".depthwise.convolution.": "._depthwise_conv.",
    ".depthwise.norm.": "._bn1.",
    ".project.convolution.": "._project_conv.",
    ".project.norm.": "._bn2.",
}


def _renamed(state: dict[str, Tensor], table: Any) -> dict[str, Tensor]:
    """What of a state has a published name, under it."""
    renamed = {}
    for name, tensor in state.items():
        published = next((re.sub(f"^{ours}", theirs, name) for ours, theirs in table if re.match(ours, name)), None)
        if published is not None:
            renamed[published] = tensor
    return renamed


def _repeated(module: nn.Module) -> dict[str, Tensor]:
    """A state of its shapes that is one stored number."""
    one = torch.tensor(1.0)
    return {name: one.expand(tensor.shape) for name, tensor in module.state_dict().items()}


def make_m4c_checkpoint(folder: Path) -> dict[str, str]:
    torch.manual_seed(0)
    answers = [*SPECIAL_ANSWERS, "yes", "no"]
    text = BertConfig(
        **{"vocab_size": 5, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 4, "max_position_embeddings": 8},
    )
    config = M4CConfig(
        **{"text_config": text, "feature_size": 3, "word_vector_size": 0, "phoc_size": 0, "ocr_padding_size": 50},
        **{"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 4},
        **{"pointer_size": 3, "num_decoding_steps": 4, "id2label": dict(enumerate(answers))},
        **{"alignment_function": "general_key"},
    )
    prefixes: dict[str, str] = {}
    for theirs, ours in _PREFIXES.items():
        prefixes.setdefault(ours, theirs)
    published = {}
    for name, tensor in M4CForQuestionAnswering(config).state_dict().items():
        ours = max((prefix for prefix in prefixes if name.startswith(prefix)), key=len)
        rest = name.removeprefix(ours)
        if ours == "model.transformer.layers.":
            number, _, rest = rest.partition(".")
            layer, _, kind = rest.rpartition(".")
            rest = f"{number}.{next(theirs for theirs, our in _LAYER.items() if our == layer)}.{kind}"
        published[prefixes[ours] + rest] = tensor
    torch.save({"model_state_dict": published, "epoch_id": 3}, folder / "best_model.tar")
    (folder / "answers.txt").write_text("\n".join(answers) + "\n")
    return {"best_model.tar": "zip", "answers.txt": "lines"}


def read_m4c_checkpoint(folder: Path) -> object:
    return convert(folder, ["best_model.tar"], "answers.txt", alignment_function="general_key", fields=HEADS)


def _write_captions(folder: Path) -> None:
    captions = [[[1, 2]], [[2]], NUMBERS, {word: number for number, word in NUMBERS.items()}]
    (folder / "captions.pickle").write_bytes(pickle.dumps(captions, protocol=2))


def make_attngan_checkpoint(folder: Path) -> dict[str, str]:
    torch.manual_seed(0)
    sizes = {"image_size": 128, "num_stages": 2, "noise_size": 2, "conditioning_size": 2, "generator_size": 2}
    model = AttnGanForTextToImageGeneration(
        AttnGanConfig(**ATTNGAN, **sizes, num_residual_blocks=1, discriminator_size=2)
    )
    torch.save(_renamed(model.generator.state_dict(), GENERATOR), folder / "netG_epoch_600.pth")
    torch.save(_renamed(model.state_dict(), TEXT_ENCODER), folder / "text_encoder599.pth")
    _write_captions(folder)
    return {"netG_epoch_600.pth": "zip", "text_encoder599.pth": "zip", "captions.pickle": "pickle"}


def read_attngan_checkpoint(folder: Path) -> object:
    files = ["netG_epoch_600.pth", "text_encoder599.pth"]
    return convert(folder, files, "captions.pickle", alignment_function="general_key")


def make_damsm_checkpoint(folder: Path) -> dict[str, str]:
    torch.manual_seed(0)
    with torch.device("meta"):
        model = DamsmModel(DamsmConfig(**ATTNGAN))
    state = _repeated(model)
    images = {
        re.sub("^region_projection", "emb_features", re.sub("^code_projection", "emb_cnn_code", name)): tensor
        for name, tensor in ((name.removeprefix("vision_model."), tensor) for name, tensor in state.items())
        if not name.startswith(("text_encoder.", "matching."))
    }
    words = {name: tensor.clone() for name, tensor in _renamed(state, TEXT_ENCODER).items()}
    torch.save(images, folder / "image_encoder599.pth")
    torch.save(words, folder / "text_encoder599.pth")
    _write_captions(folder)
    return {"image_encoder599.pth": "zip", "text_encoder599.pth": "zip", "captions.pickle": "pickle"}


def read_damsm_checkpoint(folder: Path) -> object:
    files = ["image_encoder599.pth", "text_encoder599.pth"]
    return convert(folder, files, "captions.pickle", alignment_function="general_key")


def make_inception(folder: Path) -> dict[str, str]:
    with torch.device("meta"):
        network = InceptionV3("torchvision", 2)
    state = _repeated(network)
    state["fc.weight"] = state["fc.weight"].clone()
    torch.save(state, folder / "inception.pth")
    return {"inception.pth": "zip"}


def read_inception(folder: Path) -> object:
    return load_feature_network(folder / "inception.pth", variant="torchvision")


def make_efficientnet(folder: Path) -> dict[str, str]:
    with torch.device("meta"):
        network = EfficientNetLite0()
    state = {}
    for name, tensor in _repeated(network).items():
        for ours, theirs in EFFICIENTNET.items():
            name = name.replace(ours, theirs) if not ours[0].isalpha() or name.startswith(ours) else name
        state[name] = tensor
    torch.save(state, folder / "lite0.pth")
    return {"lite0.pth": "zip"}


def read_efficientnet(folder: Path) -> object:
    return load_efficientnet_lite0(folder / "lite0.pth")
