"""MAC's two published cells as one would first write them: everything at every step, the concatenation built.

This is the reference that `mac_cell.py` times and compares the package against. It takes the layers and the alignment
function of a cell from the package. Everything else is written out after the published code, and no step is shared with
`vl_alignment.models.reasoning_mac`. Like that code it has one question a picture.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vl_alignment.models.reasoning_mac import MacCell, MacControlUnit, PytorchReadUnit, ReleasedReadUnit


def straightforward_reasoning(
    cell: MacCell, words: Tensor, question: Tensor, knowledge: Tensor, mask: Tensor
) -> Tensor:
    """The last memory; differentiable, without gate and self-attention. A cell in training drops out as published.

    Args:
        cell: Whose layers are used.
        words: [B, L, d], padded on the right.
        question: [B, dq].
        knowledge: [B, N, d].
        mask: [B, L], true where there is a word.

    Returns:
        [B, d].
    """
    read = _released_read if cell.released else _pytorch_read
    memory = cell.initial_memory.expand(len(words), -1)
    control = question if cell.released else cell.initial_control.expand(len(words), -1)
    memory_mask = F.dropout(torch.ones_like(memory), cell.memory_dropout, cell.training)
    control_mask = F.dropout(torch.ones_like(memory), cell.control_dropout, cell.training)
    if not cell.released:
        memory, control = memory * memory_mask, control * control_mask
    for step in range(len(cell.control_unit.position_aware)):
        control = _control(cell.control_unit, step, words, question, control, mask) * control_mask
        seen = memory * memory_mask if cell.released else memory
        retrieved = read(cell.read_unit, knowledge, seen, control)
        memory = cell.write_unit.combine(torch.cat([memory, retrieved], dim=-1))
        if not cell.released:
            memory = memory * memory_mask
    return memory


def _control(unit: MacControlUnit, step: int, words: Tensor, question: Tensor, control: Tensor, mask: Tensor) -> Tensor:
    if unit.question_projection is not None:
        question = torch.tanh(unit.question_projection(question))
    control_input = unit.position_aware[step](question)
    if unit.feedback is not None:
        control_input = unit.feedback(torch.cat([control, control_input], dim=-1))
    terms = unit.score.alignment.elementwise(control_input.unsqueeze(1), words)  # [B, L, d]
    scores = unit.score.weight(terms)  # [B, L, 1]
    if unit.mask_padding:
        scores = scores.masked_fill(~mask.unsqueeze(-1), -1e30)
    return (scores.softmax(dim=1) * words).sum(dim=1)


def _released_read(unit: ReleasedReadUnit, knowledge: Tensor, memory: Tensor, control: Tensor) -> Tensor:
    projected = unit.knowledge_projection(F.dropout(knowledge, unit.dropout, unit.training))
    memory = unit.memory_projection(F.dropout(memory, unit.dropout, unit.training)).unsqueeze(1)
    joined = torch.cat([projected * memory, projected], dim=-1)  # [B, N, 2d]
    keys = unit.key_projection(F.elu(unit.interaction(joined)))
    terms = F.elu(unit.score.alignment.elementwise(control.unsqueeze(1), keys))
    scores = unit.score.weight(F.dropout(terms, unit.dropout, unit.training))  # [B, N, 1]
    return (scores.softmax(dim=1) * knowledge).sum(dim=1)


def _pytorch_read(unit: PytorchReadUnit, knowledge: Tensor, memory: Tensor, control: Tensor) -> Tensor:
    memory = unit.memory_projection(memory).unsqueeze(1)
    keys = unit.interaction(torch.cat([memory * knowledge, knowledge], dim=-1))
    scores = unit.score.weight(unit.score.alignment.elementwise(control.unsqueeze(1), keys))  # [B, N, 1]
    return (scores.softmax(dim=1) * knowledge).sum(dim=1)
