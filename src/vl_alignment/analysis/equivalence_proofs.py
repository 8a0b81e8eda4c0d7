"""Weights under which one alignment function computes what another one does, in the part of a model where it sits.

Each proof takes that part with the model's own weights, puts another function into it, and folds what the function adds
(W, b, the scale) into the layers around it. Everything is computed in float64 and as after training, without dropout.
"""

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.alignment import AlignmentFunction
from ..models.attention_m4c import M4CAttention, M4CTransformer, prefix_mask
from ..models.generator_attngan import RefiningStage
from ..models.reasoning_mac import MacCell
from ..models.similarity_scan import StackedCrossAttention

__all__ = ["PROOFS", "AttnGanProof", "M4CProof", "MacProof", "Proof", "ScanProof"]

SEED = 0  # of inputs, and of the weights of functions that the model does not have


class Proof(ABC):
    """Checks of one model.

    Args:
        model: In evaluation mode; its alignment function keeps its own weights, other functions start fresh.
    """

    where = ""
    """What takes up W, b and the scale, for sentences."""

    def __init__(self, model: Any) -> None:
        self.config = model.config
        self.state = {name: tensor.double() for name, tensor in self.part(model).state_dict().items()}

    @abstractmethod
    def part(self, model: Any) -> nn.Module:
        """The part of a model where its alignment function sits."""

    @abstractmethod
    def build(self, config: Any) -> nn.Module:
        """The same part, fresh."""

    @abstractmethod
    def fold(self, unit: Any, base: Any, base_name: str) -> None:
        """Give `base`, a unit of the function `base_name`, the weights with which it computes what `unit` does."""

    @abstractmethod
    def outputs(self, unit: Any) -> Tensor:
        """What the part computes of fixed random inputs."""

    def unit(self, name: str) -> Any:
        """The part under another function, with the model's weights around it."""
        config = copy.deepcopy(self.config)
        own = config.alignment_function == name
        config.alignment_function = name
        if not own:
            config.alignment_initialization = "linear"  # from the identity there would be nothing to fold
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            unit = self.build(config)
        kept = {key: tensor for key, tensor in self.state.items() if own or not _of_alignment(key)}
        unit = unit.double().eval()
        unit.load_state_dict(kept, strict=False)
        return unit.requires_grad_(False)

    @torch.no_grad()
    def folding_gap(self, name: str, base_name: str) -> float:
        """The largest difference between a function and another one that was given folded weights."""
        unit, base = self.unit(name), self.unit(base_name)
        self.fold(unit, base, base_name)
        return _largest_difference(self.outputs(unit), self.outputs(base))

    @torch.no_grad()
    def plain_gap(self, name: str, other_name: str) -> float:
        """The largest difference between two functions that share the weights that both have."""
        unit, other = self.unit(name), self.unit(other_name)
        theirs = other.state_dict()
        shared = {
            key: tensor
            for key, tensor in unit.state_dict().items()
            if _of_alignment(key) and key in theirs and theirs[key].shape == tensor.shape
        }
        other.load_state_dict(shared, strict=False)
        return _largest_difference(self.outputs(unit), self.outputs(other))


class ScanProof(Proof):
    """SCAN: similarities of pictures and captions. Nothing but W of the other function can take up W."""

    def part(self, model: Any) -> nn.Module:
        """The cross attention."""
        return model.model.cross_attention

    def build(self, config: Any) -> nn.Module:
        """A cross attention."""
        return StackedCrossAttention(config)

    def fold(self, unit: Any, base: Any, base_name: str) -> None:
        """Transpose W where the sides differ; a bias that a softmax does not see is left out."""
        if unit.alignment.weight is None:
            return
        same_side = unit.alignment.specification.transforms == base.alignment.specification.transforms
        base.alignment.weight.copy_(unit.alignment.weight if same_side else unit.alignment.weight.T)

    def outputs(self, unit: Any) -> Tensor:
        """Similarities [3, 4]."""
        regions, words = _random((3, 6, self.config.hidden_size), (4, 5, self.config.hidden_size))
        if self.config.normalize_regions:
            regions = F.normalize(regions, dim=-1)
        if self.config.normalize_words:
            words = F.normalize(words, dim=-1)
        return unit(regions, words, word_mask=_lengths(4, 5))


class MacProof(Proof):
    """MAC: memory and attention after all steps."""

    where = "the linear layers before the score"

    def part(self, model: Any) -> nn.Module:
        """The cell."""
        return model.model.cell

    def build(self, config: Any) -> nn.Module:
        """A cell."""
        cell = MacCell(config)
        for state in (cell.initial_memory, cell.initial_control):
            if state is not None:
                nn.init.zeros_(state)  # the model's own are loaded
        return cell

    def fold(self, unit: Any, base: Any, base_name: str) -> None:
        """Fold into the dot product: in the read unit, and in the control unit where the function sits there too."""
        self._fold_read(unit.read_unit, base.read_unit)
        if self.config.alignment_units == "read_and_control":
            self._fold_control(unit.control_unit, base.control_unit)

    def _fold_read(self, unit: Any, base: Any) -> None:
        name = "key_projection" if self.config.cell == "released" else "interaction"
        layer, folded = getattr(unit, name), getattr(base, name)
        alignment, weights = unit.score.alignment, unit.score.weight.weight
        if alignment.specification.transforms == "query":
            # w . (W q * (A x + a)) = q . (W^T diag(w) (A x + a)), where no activation stands between.
            through = alignment.weight.T * weights
            folded.weight.copy_(through @ layer.weight)
            folded.bias.copy_(through @ layer.bias)
            base.score.weight.weight.fill_(1)
            return
        weight, bias = alignment.compose_key(layer.weight, layer.bias)
        folded.weight.copy_(alignment.scale * weight)
        folded.bias.copy_(alignment.scale * bias)

    def _fold_control(self, unit: Any, base: Any) -> None:
        alignment, weights = unit.score.alignment, unit.score.weight.weight
        if alignment.specification.transforms == "key":
            # w . (q * (W k + b)) = (W^T (w * q)) . k + a number that is the same for all keys.
            matrix, offset = alignment.weight.T * weights, torch.zeros_like(weights[0])
            base.score.weight.weight.fill_(1)
        else:
            matrix, offset = _query_map(alignment)
        for layer, folded in zip(self._control_layers(unit), self._control_layers(base), strict=True):
            folded.weight.copy_(matrix @ layer.weight)
            folded.bias.copy_(matrix @ layer.bias + offset)

    @staticmethod
    def _control_layers(unit: Any) -> list[Any]:
        """The last linear layers before the query of the control unit."""
        if unit.feedback is None:
            return [*unit.position_aware]
        return [unit.feedback[-1] if isinstance(unit.feedback, nn.Sequential) else unit.feedback]

    def outputs(self, unit: Any) -> Tensor:
        """Memory and attention maps of three questions in one row."""
        size, question_size = self.config.hidden_size, self.config.question_size
        words, question, knowledge = _random((3, 5, size), (3, question_size), (3, 9, size))
        reasoning = unit(words, question, knowledge, _lengths(3, 5))
        parts = (reasoning.memory, reasoning.question_attentions, reasoning.image_attentions)
        return torch.cat([part.flatten() for part in parts])


class M4CProof(Proof):
    """M4C: the last states of the multimodal transformer."""

    where = "the projections of queries and keys"

    def part(self, model: Any) -> nn.Module:
        """The multimodal transformer."""
        return model.model.transformer

    def build(self, config: Any) -> nn.Module:
        """A multimodal transformer."""
        return M4CTransformer(config)

    def fold(self, unit: Any, base: Any, base_name: str) -> None:
        """Fold into the dot product, layer by layer."""
        for layer, folded in zip(unit.layers, base.layers, strict=True):
            self._fold_layer(layer.attention, folded.attention)

    @staticmethod
    def _fold_layer(attention: M4CAttention, folded: M4CAttention) -> None:
        alignment = attention.alignment
        # As released, query and key change places under functions that transform the query.
        sides: dict[str, Any] = {"query": attention.query, "key": attention.key}
        if attention.transposed:
            sides = {"query": attention.key, "key": attention.query}
        transformed = alignment.specification.transforms or "query"
        for name, layer in sides.items():
            target: Any = getattr(folded, name)
            weight, bias = layer.weight, layer.bias
            if name == transformed:
                matrix, offset = _query_map(alignment)  # of a head; a layer's heads share it
                weight = (matrix @ weight.unflatten(0, (attention.heads, -1))).flatten(0, 1)
                bias = (bias.unflatten(0, (attention.heads, -1)) @ matrix.T + offset).flatten()
            target.weight.copy_(weight)
            target.bias.copy_(bias)

    def outputs(self, unit: Any) -> Tensor:
        """States [2, 11, d] of eight entities, one of them padding, and three decoding steps."""
        (states,) = _random((2, 11, self.config.hidden_size))
        there = torch.ones(2, 8, dtype=torch.bool)
        there[0, -1] = False
        return unit(states, prefix_mask(there, 3, states.dtype))[0]


class AttnGanProof(Proof):
    """AttnGAN: the features after each stage that attends to the words.

    Where W goes into the projection of the words, the context comes in other coordinates too; the layers that read it
    and those that add to it undo that. In training the batch's own statistics would stand between.
    """

    where = "the projection of the words"

    def part(self, model: Any) -> nn.Module:
        """The stages of the generator that attend to words."""
        return model.generator.stages

    def build(self, config: Any) -> nn.Module:
        """The same stages."""
        return nn.ModuleList(RefiningStage(config) for _ in range(config.num_stages - 1))

    def fold(self, unit: Any, base: Any, base_name: str) -> None:
        """Fold into the dot product, stage by stage; the softmax over the words does not see a bias of the key."""
        for stage, folded in zip(unit, base, strict=True):
            alignment = stage.attention.alignment
            matrix = alignment.scale * torch.eye(alignment.size, dtype=torch.float64)
            if alignment.weight is not None:
                # q . (W k), or (W q) . k = q . (W^T k).
                transforms_key = alignment.specification.transforms == "key"
                matrix = alignment.weight if transforms_key else alignment.weight.T
            folded.attention.word_projection.weight.copy_(matrix @ stage.attention.word_projection.weight)
            _change_context(folded, matrix)

    def outputs(self, unit: Any) -> Tensor:
        """The features of every stage, for two grids of 8 x 8 places and captions of five and four words."""
        features, words = _random((2, self.config.generator_size, 8, 8), (2, 5, self.config.hidden_size))
        mask = _lengths(2, 5)
        return torch.cat([stage(features, words, mask, False)[0].flatten() for stage in unit])


def _change_context(stage: Any, matrix: Tensor) -> None:
    """Let a stage work on [features, matrix @ context] as it did on [features, context]."""
    size = len(matrix)
    change = torch.eye(2 * size, dtype=torch.float64)
    change[size:, size:] = matrix
    undo = torch.linalg.pinv(change)  # a W that cannot be inverted shows in the difference

    def read(convolution: nn.Conv2d) -> None:
        convolution.weight.copy_(torch.einsum("oihw,ij->ojhw", convolution.weight, undo))

    for block in stage.residual_blocks:
        read(block.gated)
        # What is added to the grid comes in its new coordinates: the norm becomes part of the convolution.
        norm = block.plain_norm
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        offset = norm.bias - factor * norm.running_mean
        block.plain.weight.copy_(torch.einsum("on,nihw->oihw", change * factor, block.plain.weight))
        norm.running_mean.zero_()
        norm.running_var.fill_(1)
        norm.weight.fill_((1 + norm.eps) ** 0.5)
        norm.bias.copy_(change @ offset)
    read(stage.doubling.convolution)


def _query_map(alignment: AlignmentFunction) -> tuple[Tensor, Tensor]:
    """(A, a) with A x + a for the scaled map of the side that is transformed, or of either side where none is."""
    matrix = torch.eye(alignment.size, dtype=torch.float64) if alignment.weight is None else alignment.weight
    offset = torch.zeros(alignment.size, dtype=torch.float64) if alignment.bias is None else alignment.bias
    return alignment.scale * matrix, alignment.scale * offset


def _of_alignment(key: str) -> bool:
    return "alignment" in key.split(".")


def _largest_difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _random(*shapes: tuple[int, ...]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(SEED)
    return [torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in shapes]


def _lengths(rows: int, most: int) -> Tensor:
    """True for all places of the first row [rows, most], one less of the next, and so on."""
    return torch.arange(most) < (most - torch.arange(rows)).unsqueeze(1)


PROOFS: dict[str, type[Proof]] = {"scan": ScanProof, "mac": MacProof, "m4c": M4CProof, "attngan": AttnGanProof}
