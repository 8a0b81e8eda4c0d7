"""MAC's cells question by question and step by step, as their equations stand: what the fast cell is compared with."""

import torch
import torch.nn.functional as F


def terms_by_hand(alignment, query, keys):
    """f(q, k) of each key [n, d], before it is summed; the sides exchanged where the specification says so."""
    return torch.stack([alignment.elementwise(query.unsqueeze(0), key.unsqueeze(0)).squeeze(0) for key in keys])


def control_by_hand(unit, step, words, question, control):
    released = unit.question_projection is not None
    control_input = unit.position_aware[step](torch.tanh(unit.question_projection(question)) if released else question)
    if unit.feedback is not None:
        control_input = unit.feedback(torch.cat([control, control_input]))
    attention = unit.score.weight(terms_by_hand(unit.score.alignment, control_input, words)).squeeze(1).softmax(0)
    return attention @ words, attention


def read_by_hand(unit, released, knowledge, memory, control):
    factor = unit.knowledge_projection(knowledge) if released else knowledge
    keys = unit.interaction(torch.cat([factor * unit.memory_projection(memory), factor], dim=1))
    if released:
        keys = unit.key_projection(F.elu(keys))
    terms = terms_by_hand(unit.score.alignment, control, keys)
    attention = unit.score.weight(F.elu(terms) if released else terms).squeeze(1).softmax(0)
    return attention @ knowledge, attention


def write_by_hand(unit, released, read, controls, memories):
    memory = unit.combine(torch.cat([memories[-1], read]))
    if unit.self_score is not None:
        control = unit.control_projection(controls[-1]) if released else controls[-1]
        scores = torch.stack([unit.self_score(control * previous).squeeze() for previous in controls[:-1]])
        seen = sum(weight * previous for weight, previous in zip(scores.softmax(0), memories, strict=True))
        memory = memory + unit.previous_memories(seen)
    if unit.gate is not None:
        gate = torch.sigmoid(unit.gate(controls[-1]))
        memory = gate * memory + (1 - gate) * memories[-1] if released else gate * memories[-1] + (1 - gate) * memory
    return memory


def reasoning_by_hand(cell, words, question, knowledge, mask, control_mask=None, memory_mask=None):
    """Last memories [B, d] and both attentions [B, T, .]; question b is about picture b // (B / I).

    The masks of variational dropout are [B, d], as `MacCell.draw_masks` gives them.
    """
    ones = torch.ones(len(words), words.shape[-1], dtype=words.dtype)
    control_mask, memory_mask = (ones if given is None else given for given in (control_mask, memory_mask))
    last, of_words, of_image = [], [], []
    for index in range(len(words)):
        picture = knowledge[index // (len(words) // len(knowledge))]
        length = int(mask[index].sum()) if cell.control_unit.mask_padding else words.shape[1]
        control = (question[index] if cell.released else cell.initial_control) * control_mask[index]
        memory = cell.initial_memory if cell.released else cell.initial_memory * memory_mask[index]
        controls, memories, word_maps, image_maps = [control], [memory], [], []
        for step in range(len(cell.control_unit.position_aware)):
            control, word_map = control_by_hand(
                cell.control_unit, step, words[index, :length], question[index], controls[-1]
            )
            controls.append(control * control_mask[index])
            visible = memories[-1] * memory_mask[index] if cell.released else memories[-1]
            read, image_map = read_by_hand(cell.read_unit, cell.released, picture, visible, controls[-1])
            memory = write_by_hand(cell.write_unit, cell.released, read, controls, memories)
            memories.append(memory if cell.released else memory * memory_mask[index])
            word_maps.append(F.pad(word_map, (0, words.shape[1] - length)))
            image_maps.append(image_map)
        last.append(memories[-1])
        of_words.append(torch.stack(word_maps))
        of_image.append(torch.stack(image_maps))
    return torch.stack(last), torch.stack(of_words), torch.stack(of_image)
