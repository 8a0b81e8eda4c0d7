"""M4C's multimodal transformer as one would first write it: every position encoded again at each decoding step.

This is the reference that `m4c.py` times and compares the package against. It takes the layers and the alignment
function of a model from the package. Everything else is written out after the published code: one mask for all
positions, explicit scores and softmax, twelve passes over the whole sequence to answer.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vl_alignment.models.attention_m4c import M4CAttention, M4CLayer
from vl_alignment.models.configuration_m4c import ANSWER_BEGIN
from vl_alignment.models.embedding_m4c import M4CEntities
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering


def straightforward_logits(model: M4CForQuestionAnswering, entities: M4CEntities, previous_ids: Tensor) -> Tensor:
    """The scores of every step; differentiable, with the model's dropout in training.

    Args:
        model: Whose layers are used.
        entities: E of them.
        previous_ids: [B, T].

    Returns:
        [B, T, V + R].
    """
    steps = _embed_steps(model, entities.ocr_tokens, previous_ids)
    states = torch.cat([entities.states, steps], dim=1)
    mask = _mask(entities.mask, previous_ids.shape[1])
    for layer in model.model.transformer.layers:
        states = _layer(layer, states, mask)
    size = entities.states.shape[1]
    tokens, decoded = states[:, entities.first_ocr_token : size], states[:, size:]
    query, key = model.pointer.query(decoded), model.pointer.key(tokens)
    copied = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
    copied = copied + (1 - entities.ocr_mask.float()).unsqueeze(1) * -10000.0
    return torch.cat([model.classifier(decoded), copied], dim=-1)


def straightforward_answers(model: M4CForQuestionAnswering, entities: M4CEntities, steps: int) -> Tensor:
    """The best word of each step [B, T], by as many passes over everything as there are steps."""
    previous_ids = torch.zeros(len(entities.states), steps, dtype=torch.long, device=entities.states.device)
    previous_ids[:, 0] = ANSWER_BEGIN
    for _ in range(steps):
        chosen = straightforward_logits(model, entities, previous_ids).argmax(dim=-1)
        previous_ids[:, 1:] = chosen[:, :-1]
    return chosen


def _embed_steps(model: M4CForQuestionAnswering, tokens: Tensor, previous_ids: Tensor) -> Tensor:
    embedding = model.model.previous_embedding
    answers = embedding.answer_norm(model.classifier.weight).expand(len(tokens), -1, -1)
    table = torch.cat([answers, embedding.ocr_norm(tokens)], dim=1)  # [B, V + R, d]
    words = table.gather(1, previous_ids.unsqueeze(-1).expand(-1, -1, table.shape[-1]))
    numbers = torch.arange(previous_ids.shape[1], device=previous_ids.device)
    types = (previous_ids >= answers.shape[1]).long()
    places = embedding.position_norm(embedding.positions(numbers) + embedding.types(types))
    return words + F.dropout(places, embedding.dropout, model.training)


def _mask(entities: Tensor, steps: int) -> Tensor:
    """[B, 1, N, N] as published: entities that are there are seen by all, steps by themselves and later steps."""
    size = entities.shape[1] + steps
    seen = F.pad(entities.float(), (0, steps))[:, None, None].repeat(1, 1, size, 1)
    seen[:, :, -steps:, -steps:] = torch.tril(torch.ones(steps, steps, device=entities.device))
    return (1.0 - seen) * -10000.0


def _layer(layer: M4CLayer, states: Tensor, mask: Tensor) -> Tensor:
    states = _attend(layer.attention, states, mask)
    hidden = layer.output(F.gelu(layer.intermediate(states)))
    return layer.norm(F.dropout(hidden, layer.dropout, layer.training) + states)


def _attend(attention: M4CAttention, states: Tensor, mask: Tensor) -> Tensor:
    query, key, value = (
        projection(states).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for projection in (attention.query, attention.key, attention.value)
    )
    scores = attention.alignment(query, key) + mask  # [B, heads, N, N]
    weights = F.dropout(scores.softmax(dim=-1), attention.attention_dropout, attention.training)
    context = (weights @ value).transpose(1, 2).flatten(2)
    output = F.dropout(attention.output(context), attention.dropout, attention.training)
    return attention.norm(output + states)
