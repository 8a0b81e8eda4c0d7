"""MAC's reasoning: control, read and write unit, and the cell that takes its steps.

What does not depend on the step is computed once, and once a picture. The concatenation [product, knowledge] is never
built: its linear layer is split in two. Where nothing but linear maps stands between the knowledge base and the score,
the control is carried back through them, and the score is an inner product with the knowledge base as it is.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .alignment import AlignmentFunction, build_alignment_function
from .configuration_mac import MacConfig

__all__ = ["MacCell", "MacControlUnit", "MacWriteUnit", "MemoryGate", "PytorchReadUnit", "ReleasedReadUnit"]


@dataclass
class Reasoning:
    """What a cell returns.

    Attributes:
        memory: The last memory [B, d].
        question_attentions: [B, T, L].
        image_attentions: [B, T, N].
        self_attentions: [B, T, T], of step t over the states before it, zero beyond; None without self-attention.
    """

    memory: Tensor
    question_attentions: Tensor
    image_attentions: Tensor
    self_attentions: Tensor | None


class ScoreLayer(nn.Linear):
    """The layer d -> 1 of a score.

    The published one has a bias, which adds the same to every key: the softmax cancels it, so it is left out.

    Args:
        size: d.
        gain: What its starting weights are multiplied by.
    """

    def __init__(self, size: int, gain: float) -> None:
        self.gain = gain
        super().__init__(size, 1, bias=False)


class WeightedAlignment(nn.Module):
    """Scores w . f(q, k) by the element-wise form of the alignment function (equation 10).

    Args:
        alignment: The alignment function.
        gain: Of the layer w.
    """

    def __init__(self, alignment: AlignmentFunction, gain: float = 1.0) -> None:
        super().__init__()
        self.alignment = alignment
        self.weight = ScoreLayer(alignment.size, gain)

    def prepare(self, keys: Tensor) -> Tensor:
        """What `forward` wants of keys [..., n, d] that serve several queries."""
        return keys if self.alignment.terms_are_linear else self.alignment.transform_key(keys)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Queries [B, t, d], prepared keys [B, n, d] -> scores [B, t, n]."""
        if self.alignment.terms_are_linear:
            vectors, constant = self.alignment.contract(queries, self.weight.weight[0])
            if queries.shape[1] == 1:  # a batch of matrices times vectors takes the CPU four times as long
                scores = (vectors * keys).sum(dim=-1).unsqueeze(1)
            else:
                scores = vectors @ keys.transpose(1, 2)
            return scores if constant is None else scores + constant.unsqueeze(-1)
        terms = self.alignment.products(self.alignment.transform_query(queries).unsqueeze(2), keys.unsqueeze(1))
        return self.weight(terms).squeeze(-1)


class MacControlUnit(nn.Module):
    """Chooses the words that a step is about.

    question [B, dq] -> tanh(linear) (released) -> the step's linear layer -> [with the previous control] --+
    words [B, L, d] -----------------------------------------------------------------------------------------+-> f(q, K)
        -> softmax over the words -> control [B, d]

    Where the previous control is not fed back, all steps are taken at once.
    """

    def __init__(self, config: MacConfig, alignment: AlignmentFunction) -> None:
        super().__init__()
        size, question_size = config.hidden_size, config.question_size or 0
        released = config.cell == "released"
        self.mask_padding = config.mask_padding
        self.question_projection = nn.Linear(question_size, question_size) if released else None
        self.position_aware = nn.ModuleList(nn.Linear(question_size, size) for _ in range(config.num_steps))
        self.feedback: nn.Module | None = None
        if config.feed_previous_control:
            layers = [nn.Linear(2 * size, size)]
            self.feedback = nn.Sequential(*layers, nn.Tanh(), nn.Linear(size, size)) if released else layers[0]
        self.score = WeightedAlignment(alignment)

    def prepare(self, words: Tensor, question: Tensor) -> tuple[Tensor, Tensor]:
        """What the steps share: their control inputs [B, T, d], and the words as the score wants them [B, L, d]."""
        if self.question_projection is not None:
            question = torch.tanh(self.question_projection(question))
        inputs = torch.stack([projection(question) for projection in self.position_aware], dim=1)
        return inputs, self.score.prepare(words)

    def forward(
        self, control_inputs: Tensor, control: Tensor, words: Tensor, keys: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take t steps: all of them, or one where the previous control is fed back.

        Args:
            control_inputs: [B, t, d], of `prepare`.
            control: The previous one [B, d].
            words: [B, L, d].
            keys: [B, L, d], of `prepare`.
            mask: [B, L], true where there is a word.

        Returns:
            The new controls [B, t, d] and their attention [B, t, L].
        """
        if self.feedback is not None:
            control_inputs = self.feedback(torch.cat([control.unsqueeze(1), control_inputs], dim=-1))
        scores = self.score(control_inputs, keys)
        if self.mask_padding:
            scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
        attention = scores.softmax(dim=-1)
        if attention.shape[1] == 1:
            return (attention.transpose(1, 2) * words).sum(dim=1, keepdim=True), attention
        return _weighted_sum(attention, words), attention


@dataclass
class SharedBySteps:
    """What the steps share in the read unit.

    Attributes:
        knowledge: The knowledge base as it is [I, N, d].
        masks: Of dropout, [B, d] each, for the memory and for the terms of the score; None without one for all steps.
        factor: What the memory is multiplied with [I, N, d].
        constant: What the interaction makes of the factor alone [I, N, d].
        key_layer: The linear layer (W, b) that ends in transformed keys; None where no such layer does.
    """

    knowledge: Tensor
    masks: tuple[Tensor, Tensor] | None
    factor: Tensor | None = None
    constant: Tensor | None = None
    key_layer: tuple[Tensor, Tensor] | None = None


class MacReadUnit(nn.Module):
    """Looks into the knowledge base: the frame of both published units.

    factor F [I, N, d] --+-- linear, once for all steps ---+
                         +-- * linear(memory) -- linear --(+)--> keys -> f(control, keys) -> d -> 1 -> softmax over
                                                                 the cells -> weighted sum of the knowledge base
    """

    def __init__(self, config: MacConfig, alignment: AlignmentFunction) -> None:
        super().__init__()
        size = config.hidden_size
        self.dropout, self.dropout_per_step = config.read_dropout or 0.0, config.dropout_per_step
        self.memory_projection = nn.Linear(size, size)
        self.interaction = nn.Linear(2 * size, size)  # of [factor * memory, factor]
        gain = 1.0 / alignment.scale if config.score_gain == "inverse_scale" else float(config.score_gain)
        self.score = WeightedAlignment(alignment, gain)

    @property
    def drops_anew(self) -> bool:
        """Whether masks are drawn at every step."""
        return self.training and self.dropout > 0 and self.dropout_per_step

    def draw_masks(self, states: Tensor) -> tuple[Tensor, Tensor] | None:
        """Masks of dropout for states [B, d]: for the memory, and for the terms of the score in all cells."""
        if not self.training or self.dropout == 0:
            return None
        ones = torch.ones_like(states)
        return F.dropout(ones, self.dropout), F.dropout(ones, self.dropout)

    def prepare(self, knowledge: Tensor, states: Tensor) -> SharedBySteps:
        """Compute what the steps share, for knowledge [I, N, d] and states of the shape [B, d]."""
        raise NotImplementedError

    def scores(self, shared: SharedBySteps, memory: Tensor, control: Tensor, weights: Tensor) -> Tensor:
        """Projected memory [B, d], control [B, d], the terms' weights [d] or [B, d] -> scores [I, q, N]."""
        raise NotImplementedError

    def forward(self, shared: SharedBySteps, memory: Tensor, control: Tensor) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            shared: Of `prepare`.
            memory: [B, d].
            control: [B, d].

        Returns:
            What was read [B, d] and its attention [B, N].
        """
        weights = self.score.weight.weight[0]
        masks = self.draw_masks(memory) if self.drops_anew else shared.masks
        if masks is not None:
            memory, weights = memory * masks[0], weights * masks[1]
        attention = self.scores(shared, self.memory_projection(memory), control, weights).softmax(dim=-1)
        return _weighted_sum(attention, shared.knowledge).flatten(0, 1), attention.flatten(0, 1)


def _interact(factor: Tensor, constant: Tensor, memory: Tensor, weight: Tensor) -> Tensor:
    """The linear layer of [factor * memory, factor], whose second half is the constant: -> [I, q, N, d]."""
    pictures, _, size = factor.shape
    product = F.linear(factor.unsqueeze(1) * memory.view(pictures, -1, 1, size), weight[:, :size])
    return product.add_(constant.unsqueeze(1))


def _weigh(terms: Tensor, weights: Tensor) -> Tensor:
    """Terms [I, q, N, d] and their weights [d] or [B, d] -> scores [I, q, N]."""
    if weights.dim() == 1:
        return terms @ weights
    return (terms @ weights.view(*terms.shape[:2], -1, 1)).squeeze(-1)


class ReleasedReadUnit(MacReadUnit):
    """The paper's unit: the factor is a projection P of the knowledge base K, keys = linear(ELU(interaction)).

    An ELU follows the alignment function, so that [I, q, N, d] numbers have to be made at every step.
    """

    def __init__(self, config: MacConfig, alignment: AlignmentFunction) -> None:
        super().__init__(config, alignment)
        self.knowledge_projection = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_projection = nn.Linear(config.hidden_size, config.hidden_size)

    def prepare(self, knowledge: Tensor, states: Tensor) -> SharedBySteps:
        """Project the knowledge base, unless it is dropped out anew at every step, and join the layers of the key."""
        key_layer = self.score.alignment.compose_key(self.key_projection.weight, self.key_projection.bias)
        if self.drops_anew:
            return SharedBySteps(knowledge, None, key_layer=key_layer)
        return SharedBySteps(knowledge, self.draw_masks(states), *self._project(knowledge), key_layer)

    def _project(self, knowledge: Tensor) -> tuple[Tensor, Tensor]:
        """P and what the interaction makes of it alone, [I, N, d] each."""
        # The questions about a picture share the mask, as they share the projection.
        projected = self.knowledge_projection(F.dropout(knowledge, self.dropout, self.training))
        weight = self.interaction.weight[:, self.interaction.out_features :]
        return projected, F.linear(projected, weight, self.interaction.bias)

    def scores(self, shared: SharedBySteps, memory: Tensor, control: Tensor, weights: Tensor) -> Tensor:
        """See `MacReadUnit.scores`."""
        alignment, keys = self.score.alignment, self._keys(shared, memory)
        query = alignment.transform_query(control).view(len(keys), -1, 1, keys.shape[-1])
        # A plain product is nobody else's: its memory can be used again.
        terms = F.elu(alignment.products(query, keys), inplace=alignment.terms_are_linear)
        if self.drops_anew:  # as published, each cell on its own, instead of the weights that all cells share
            return _weigh(F.dropout(terms, self.dropout), self.score.weight.weight[0])
        return _weigh(terms, weights)

    def _keys(self, shared: SharedBySteps, memory: Tensor) -> Tensor:
        """Transformed keys [I, q, N, d]."""
        if shared.factor is None or shared.constant is None:
            factor, constant = self._project(shared.knowledge)
        else:
            factor, constant = shared.factor, shared.constant
        hidden = F.elu(_interact(factor, constant, memory, self.interaction.weight), inplace=True)
        if shared.key_layer is None:
            return self.score.alignment.transform_key(self.key_projection(hidden))
        return F.linear(hidden, *shared.key_layer)


class PytorchReadUnit(MacReadUnit):
    """The published PyTorch unit: the factor is the knowledge base K, the keys are the interaction.

    Under a function with linear terms everything up to the score is linear in K: the control is carried back to it, and
    nothing of size [I, q, N, d] is made.
    """

    def prepare(self, knowledge: Tensor, states: Tensor) -> SharedBySteps:
        """Apply the interaction to the knowledge base alone, where it is not carried back to it."""
        masks, alignment = None if self.drops_anew else self.draw_masks(states), self.score.alignment
        if alignment.terms_are_linear:
            return SharedBySteps(knowledge, masks)
        key_layer = alignment.compose_key(self.interaction.weight, self.interaction.bias)
        weight, bias = key_layer or (self.interaction.weight, self.interaction.bias)
        constant = F.linear(knowledge, weight[:, knowledge.shape[-1] :], bias)
        return SharedBySteps(knowledge, masks, knowledge, constant, key_layer)

    def scores(self, shared: SharedBySteps, memory: Tensor, control: Tensor, weights: Tensor) -> Tensor:
        """See `MacReadUnit.scores`."""
        alignment, knowledge = self.score.alignment, shared.knowledge
        if shared.constant is None:
            return self._carried_back(knowledge, memory, control, weights)
        weight = self.interaction.weight if shared.key_layer is None else shared.key_layer[0]
        keys = _interact(knowledge, shared.constant, memory, weight)
        if shared.key_layer is None:
            keys = alignment.transform_key(keys)
        query = alignment.transform_query(control).view(len(keys), -1, 1, keys.shape[-1])
        return _weigh(alignment.products(query, keys), weights)

    def _carried_back(self, knowledge: Tensor, memory: Tensor, control: Tensor, weights: Tensor) -> Tensor:
        vector, constant = self.score.alignment.contract(control, weights)  # [B, d]
        of_product, of_knowledge = (vector @ self.interaction.weight).chunk(2, dim=-1)
        back = (of_product * memory + of_knowledge).view(len(knowledge), -1, memory.shape[-1])
        scores = back @ knowledge.transpose(1, 2)  # [I, q, N]
        offset = vector @ self.interaction.bias  # the softmax cancels it: its bias has a gradient, which is zero
        return scores + (offset if constant is None else offset + constant).view(len(knowledge), -1, 1)


class MemoryGate(nn.Linear):
    """The linear layer of the write unit's gate, whose bias starts where the configuration says."""


class MacWriteUnit(nn.Module):
    """Makes the new memory of the previous one and what was read, on request also of all previous ones."""

    def __init__(self, config: MacConfig) -> None:
        super().__init__()
        size, self.released = config.hidden_size, config.cell == "released"
        self.control_projection = self.previous_memories = self.self_score = self.gate = None
        if config.self_attention:
            self.control_projection = nn.Linear(size, size) if self.released else None
            self.previous_memories = nn.Linear(size, size, bias=not self.released)
            self.self_score = nn.Linear(size, 1, bias=False)
        if config.memory_gate:
            self.gate = MemoryGate(size, size if self.released else 1)
        self.combine = nn.Linear(2 * size, size)  # of [previous memory, read]

    def forward(self, read: Tensor, controls: list[Tensor], memories: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """One step.

        Args:
            read: [B, d].
            controls: Of all steps [B, d], the first state and the step's own included.
            memories: The same without the step's own.

        Returns:
            The new memory [B, d], and the self-attention [B, t] over the memories.
        """
        attention = None
        memory = self.combine(torch.cat([memories[-1], read], dim=-1))
        if self.self_score is not None and self.previous_memories is not None:
            control = controls[-1] if self.control_projection is None else self.control_projection(controls[-1])
            likeness = torch.stack(controls[:-1], dim=1) * control.unsqueeze(1)  # [B, t, d]
            attention = self.self_score(likeness).squeeze(-1).softmax(dim=-1)
            seen = _weighted_sum(attention.unsqueeze(1), torch.stack(memories, dim=1)).squeeze(1)
            memory = memory + self.previous_memories(seen)
        if self.gate is not None:
            gate = torch.sigmoid(self.gate(controls[-1]))
            first, second = (memory, memories[-1]) if self.released else (memories[-1], memory)
            memory = gate * first + (1 - gate) * second
        return memory, attention


class MacCell(nn.Module):
    """Takes the steps of reasoning.

    Args:
        config: A `MacConfig`.
    """

    def __init__(self, config: MacConfig) -> None:
        super().__init__()
        self.released = config.cell == "released"
        self.memory_dropout, self.control_dropout = config.memory_dropout or 0.0, config.control_dropout or 0.0
        everywhere = config.alignment_units == "read_and_control"
        of_control = _alignment(config, config.alignment_function if everywhere else "dot", config.released_layout)
        of_read = _alignment(config, config.alignment_function, False)
        self.initial_memory = nn.Parameter(torch.empty(config.hidden_size))
        seen = config.feed_previous_control or config.self_attention  # or else nothing reads the first control
        learned = seen and not self.released
        self.initial_control = nn.Parameter(torch.empty(config.hidden_size)) if learned else None
        self.control_unit = MacControlUnit(config, of_control)
        self.read_unit: MacReadUnit = (ReleasedReadUnit if self.released else PytorchReadUnit)(config, of_read)
        self.write_unit = MacWriteUnit(config)

    def draw_masks(self, states: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Masks [B, d] of variational dropout for control and memory states [B, d], None where there is no dropout."""
        if not self.training:
            return None, None
        ones = torch.ones_like(states)
        control = F.dropout(ones, self.control_dropout) if self.control_dropout else None
        return control, F.dropout(ones, self.memory_dropout) if self.memory_dropout else None

    def forward(self, words: Tensor, question: Tensor, knowledge: Tensor, mask: Tensor) -> Reasoning:
        """Reason about questions i * q to i * q + q - 1 with picture i, where q = B / I.

        Args:
            words: [B, L, d].
            question: [B, dq].
            knowledge: [I, N, d].
            mask: [B, L], true where there is a word.
        """
        memory = self.initial_memory.expand(len(words), -1)
        if self.initial_control is not None:
            control = self.initial_control.expand(len(words), -1)
        else:
            control = question if self.released else torch.zeros_like(memory)
        control_mask, memory_mask = self.draw_masks(memory)
        control = _masked(control, control_mask)
        memory = memory if self.released else _masked(memory, memory_mask)
        controls, memories, maps = [control], [memory], []
        control_inputs, keys = self.control_unit.prepare(words, question)
        shared = self.read_unit.prepare(knowledge, memory)
        at_once = control_inputs.shape[1] if self.control_unit.feedback is None else 1
        for step in range(control_inputs.shape[1]):
            if step % at_once == 0:
                inputs = control_inputs[:, step : step + at_once]
                chosen, question_attentions = self.control_unit(inputs, controls[-1], words, keys, mask)
            controls.append(_masked(chosen[:, step % at_once], control_mask))
            visible = _masked(memories[-1], memory_mask) if self.released else memories[-1]
            read, image_attention = self.read_unit(shared, visible, controls[-1])
            memory, self_attention = self.write_unit(read, controls, memories)
            memories.append(memory if self.released else _masked(memory, memory_mask))
            maps.append((question_attentions[:, step % at_once], image_attention, self_attention))
        of_words, of_image, of_self = zip(*maps, strict=True)
        return Reasoning(
            memories[-1],
            torch.stack(of_words, dim=1),
            torch.stack(of_image, dim=1),
            None
            if of_self[0] is None
            else torch.stack([F.pad(row, (0, len(maps) - row.shape[1])) for row in of_self], 1),
        )


def _alignment(config: MacConfig, name: str, exchange_sides: bool) -> AlignmentFunction:
    return build_alignment_function(
        name,
        config.hidden_size,
        config.alignment_activation,
        config.alignment_initialization,
        exchange_sides=exchange_sides,
    )


def _weighted_sum(attention: Tensor, vectors: Tensor) -> Tensor:
    """[..., queries, n], [..., n, d] -> [..., queries, d]."""
    return attention.to(vectors.dtype) @ vectors


def _masked(states: Tensor, mask: Tensor | None) -> Tensor:
    return states if mask is None else states * mask
