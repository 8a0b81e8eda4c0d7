"""M4C's multimodal transformer: question words, objects, OCR tokens and decoding steps in one sequence.

The entities never attend to the decoding steps. Training runs over the whole sequence at once; decoding computes the
entities once and keeps their keys and values, so that a step is a pass over one position.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .alignment import alignment_specification, build_alignment_function
from .configuration_m4c import M4CConfig

__all__ = ["M4CAttention", "M4CCache", "M4CLayer", "M4CTransformer", "key_mask", "prefix_mask"]


def key_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores, the same for every query: [B, n], true where there is a key -> [B, 1, 1, n]."""
    added = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return added.masked_fill_(~mask, -torch.inf)[:, None, None]


def prefix_mask(mask: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of E entities and T decoding steps.

    Everyone sees the entities that are there; steps alone see steps, their own and those before.

    Args:
        mask: Of the entities [B, E], true where there is one.
        steps: T.
        dtype: Of the scores.

    Returns:
        [B, 1, E + T, E + T]: 0 or minus infinity.
    """
    entities = mask.shape[1]
    added = key_mask(F.pad(mask, (0, steps), value=True), dtype).repeat(1, 1, entities + steps, 1)
    added[:, :, :entities, entities:] = -torch.inf
    later = torch.ones(steps, steps, dtype=torch.bool, device=mask.device).triu(1)
    added[:, :, entities:, entities:].masked_fill_(later, -torch.inf)
    return added


class M4CCache:
    """Keys and values of the entities and of the decoding steps so far, of every layer.

    The buffers have room for all steps, so that a step copies nothing that is there already.

    Args:
        mask: Of the entities [B, E], true where there is one.
        steps: Decoding steps at most.
        dtype: Of the scores.
    """

    def __init__(self, mask: Tensor, steps: int, dtype: torch.dtype) -> None:
        self.mask = key_mask(F.pad(mask, (0, steps), value=True), dtype)
        self.entities, self.length = mask.shape[1], 0
        self.buffers: list[tuple[Tensor, Tensor]] = []

    @property
    def steps(self) -> int:
        """Decoding steps that are stored."""
        return self.length - self.entities

    def mask_for(self, added: int) -> Tensor:
        """What is added to the scores of so many more positions, which see what is stored and one another."""
        return self.mask[..., : self.length + added]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values [B, heads, n, d / heads] of a layer; all of the layer so far."""
        if layer == len(self.buffers):
            shape = (*keys.shape[:2], self.mask.shape[-1], keys.shape[3])
            self.buffers.append((keys.new_empty(shape), values.new_empty(shape)))
        end = self.length + keys.shape[2]
        for buffer, new in zip(self.buffers[layer], (keys, values), strict=True):
            buffer[:, :, self.length : end] = new
        key_buffer, value_buffer = self.buffers[layer]
        return key_buffer[:, :, :end], value_buffer[:, :, :end]

    def repeat(self, times: int) -> None:
        """Give each question so many beams [B * times], side by side."""
        self.mask = self.mask.repeat_interleave(times, dim=0)
        self.buffers = [
            (keys.repeat_interleave(times, dim=0), values.repeat_interleave(times, dim=0))
            for keys, values in self.buffers
        ]

    def reorder(self, rows: Tensor) -> None:
        """Let beam i go on from beam rows[i] of the same question, whose entities are its own."""
        steps = slice(self.entities, self.length)
        for pair in self.buffers:
            for buffer in pair:
                buffer[:, :, steps] = buffer[rows, :, steps]


class M4CAttention(nn.Module):
    """Self-attention whose heads score by the alignment function; summed with its input, a norm before or after it.

        states --+-- query --> phi_q --+
                 +-- key ----> phi_k --+--> f --> + mask --> softmax over the keys --> weighted sum of the values
                 +-- value --------------------------------------------------------------------^

    Under `released_layout` a function that transforms the query is computed as released, s_ij = k_i . (W q_j + b): the
    query and the key projection exchange their places, and so do the sides of the function.
    """

    def __init__(self, config: M4CConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads, self.attention_dropout = config.num_attention_heads, config.attention_dropout
        self.dropout = config.hidden_dropout
        self.query, self.key, self.value = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)
        self.transposed = (
            config.released_layout and alignment_specification(config.alignment_function).transforms == "query"
        )
        self.alignment = build_alignment_function(
            config.alignment_function,
            size // self.heads,
            config.alignment_activation,
            config.alignment_initialization,
            exchange_sides=self.transposed,
        )
        self.output = nn.Linear(size, size)
        self.norm, self.norm_first = nn.LayerNorm(size, eps=config.layer_norm_eps), config.norm_first

    def keys_and_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, n, d] -> transformed keys and values, [B, heads, n, d / heads] each."""
        states = self.norm(states) if self.norm_first else states
        key = self._split((self.query if self.transposed else self.key)(states))
        return self.alignment.transform_key(key).transpose(1, 2), self._split(self.value(states)).transpose(1, 2)

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.heads, -1))  # [B, n, heads, d / heads]

    def forward(
        self, states: Tensor, keys: Tensor, values: Tensor, mask: Tensor, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            states: Of those who attend [B, n, d].
            keys: Of `keys_and_values` [B, heads, m, d / heads].
            values: The same.
            mask: What is added to the scores, in a shape that broadcasts to [B, heads, n, m].
            output_attentions: Whether to return the attention.

        Returns:
            The new states [B, n, d], and the attention [B, heads, n, m] on request.
        """
        attending = self.norm(states) if self.norm_first else states
        query = self._split((self.key if self.transposed else self.query)(attending))
        query = self.alignment.transform_query(query).transpose(1, 2)
        dropout = self.attention_dropout if self.training else 0.0
        mask, weights = mask.to(query.dtype), None
        # On the CPU there is no fused kernel with dropout; what takes its place is slower than explicit scores.
        has_kernel = not (dropout and states.device.type == "cpu")
        if self.alignment.is_bilinear and has_kernel and not output_attentions:
            # The keys have been transformed before they were stored: what `factors` would give.
            context = F.scaled_dot_product_attention(query, keys, values, mask, dropout, scale=self.alignment.scale)
        else:
            weights = (self.alignment.scores(query, keys) + mask).softmax(dim=-1)
            context = F.dropout(weights, dropout).to(values.dtype) @ values
        output = self.output(context.transpose(1, 2).flatten(2))
        states = F.dropout(output, self.dropout, self.training) + states
        return states if self.norm_first else self.norm(states), weights if output_attentions else None


class M4CLayer(nn.Module):
    """Attention, then a feed-forward network, each with a residual connection and a norm before or after it."""

    def __init__(self, config: M4CConfig) -> None:
        super().__init__()
        self.dropout = config.hidden_dropout
        self.attention = M4CAttention(config)
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.norm, self.norm_first = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps), config.norm_first

    def forward(
        self, states: Tensor, keys: Tensor, values: Tensor, mask: Tensor, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See `M4CAttention.forward`."""
        states, weights = self.attention(states, keys, values, mask, output_attentions)
        hidden = self.output(F.gelu(self.intermediate(self.norm(states) if self.norm_first else states)))
        states = F.dropout(hidden, self.dropout, self.training) + states
        return states if self.norm_first else self.norm(states), weights


class M4CTransformer(nn.Module):
    """The layers, and a last norm where each begins with its own.

    Args:
        config: An `M4CConfig`.
    """

    def __init__(self, config: M4CConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(M4CLayer(config) for _ in range(config.num_hidden_layers))
        size = config.hidden_size
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps) if config.norm_first else nn.Identity()

    def forward(
        self,
        states: Tensor,
        mask: Tensor,
        first: int = 0,
        cache: M4CCache | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Run the layers.

        Args:
            states: [B, n, d].
            mask: What is added to the scores, in a shape that broadcasts to [B, heads, n, m].
            first: The first position whose last state is wanted; the last layer leaves those before it out, unless
                attention is asked for.
            cache: Where the keys and values of these states are stored and those of positions before them are.
            output_attentions: Whether to return the attention of every layer.

        Returns:
            The last states [B, n - first, d], and the attention of every layer [B, heads, n, m] on request.
        """
        maps: list[Tensor] = []
        for index, module in enumerate(self.layers):
            layer: Any = module
            keys, values = layer.attention.keys_and_values(states)
            if cache is not None:
                keys, values = cache.update(index, keys, values)
            if first and index == len(self.layers) - 1 and not output_attentions:
                states, first = states[:, first:], 0
                mask = mask[:, :, -states.shape[1] :]
            states, weights = layer(states, keys, values, mask, output_attentions)
            if weights is not None:
                maps.append(weights)
        if cache is not None:
            cache.length = keys.shape[2]
        return self.norm(states[:, first:]), tuple(maps) if output_attentions else None
