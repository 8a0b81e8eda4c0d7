"""A bidirectional LSTM over texts of several lengths whose steps are few and large operations on the CPU.

torch's own runs packed sequences one direction and one small operation at a time, and its backward pass adds to the
weights' gradients at every step. Here the two directions take their steps together, the input is projected before the
first step, and the gradients of the weights are one product after the last.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

__all__ = ["BidirectionalLstm"]


class BidirectionalLstm(nn.LSTM):
    """One layer of LSTM in both directions: words [B, L, n] -> states [B, L, 2 h] and the last of each direction.

    Parameters, their names and the numbers are `nn.LSTM`'s. A text's states do not depend on the texts beside it.

    Args:
        input_size: n.
        hidden_size: h, of each direction.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True, bidirectional=True)

    def forward(self, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Encode texts that are padded on the right.

        Args:
            words: [B, L, n].
            mask: [B, L], true where there is a word; at least one a text.

        Returns:
            States [B, L, 2 h], zero at padding, and the last state of either direction [B, 2 h].
        """
        lengths = mask.sum(dim=1).cpu()  # where they are wanted
        if words.is_cuda:  # one kernel there
            packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
            packed_states, (last, _) = super().forward(packed)
            states, _ = pad_packed_sequence(packed_states, batch_first=True, total_length=words.shape[1])
            return states, torch.cat([last[0], last[1]], dim=-1)
        steps = _Steps(lengths, words.shape[1])
        flat = words.flatten(0, 1)
        directions = (("", steps.forwards), ("_reverse", steps.backwards))
        projected = torch.stack(
            [
                F.linear(
                    flat[places],
                    getattr(self, f"weight_ih_l0{name}"),
                    getattr(self, f"bias_ih_l0{name}") + getattr(self, f"bias_hh_l0{name}"),
                )
                for name, places in directions
            ]
        )  # [2, words of all texts, 4 h]
        recurrent = torch.stack([getattr(self, f"weight_hh_l0{name}") for name, _ in directions]).to(projected.dtype)
        states = _Recurrence.apply(projected, recurrent, steps.sizes)  # [2, words of all texts, h]
        grid = states.new_zeros(len(flat), self.hidden_size)
        both = [grid.index_copy(0, places, own) for own, (_, places) in zip(states, directions, strict=True)]
        last = states[:, steps.last].transpose(0, 1).flatten(1)
        return torch.cat(both, dim=-1).view(*words.shape[:2], -1), last


class _Steps:
    """Which word each text, the longest first, hands to each step.

    Args:
        lengths: [B].
        longest: L.

    Attributes:
        sizes: How many texts take each step.
        forwards: For the words of all texts, step by step, their places in the flattened [B, L]; from the first on.
        backwards: The same from the last on.
        last: Where among those the last step of each text is [B].
    """

    def __init__(self, lengths: Tensor, longest: int) -> None:
        lengths, order = lengths.sort(descending=True, stable=True)
        present = torch.arange(int(lengths[0])).unsqueeze(1) < lengths  # [steps, B]
        step, text = present.nonzero(as_tuple=True)  # step by step
        row = order[text] * longest
        self.sizes: list[int] = present.sum(dim=1).tolist()
        self.forwards = row + step
        self.backwards = row + lengths[text] - 1 - step
        ends = (step == lengths[text] - 1).nonzero().squeeze(1)
        self.last = torch.empty_like(order)
        self.last[order[text[ends]]] = ends


class _Recurrence(torch.autograd.Function):
    """The steps of both directions: projected input [2, S, 4 h] -> states [2, S, h]; gates in torch's order i, f, g, o.

    S counts the words of all texts, step by step; the texts that take a step are the first of those before.
    """

    @staticmethod
    def forward(context: Any, projected: Tensor, recurrent: Tensor, sizes: list[int]) -> Tensor:
        size = recurrent.shape[2]
        state = cell = projected.new_zeros(2, sizes[0], size)
        gates, (cells, states) = torch.empty_like(projected), projected.new_empty(2, *projected.shape[:2], size)
        transposed = recurrent.transpose(1, 2)
        start = 0
        for count in sizes:
            rows, start = slice(start, start + count), start + count
            gate = gates[:, rows]
            torch.baddbmm(projected[:, rows], state[:, :count], transposed, out=gate)
            gate[..., : 2 * size].sigmoid_()
            gate[..., 2 * size : 3 * size].tanh_()
            gate[..., 3 * size :].sigmoid_()
            entering, kept, candidate, shown = gate.chunk(4, dim=-1)
            cell = torch.addcmul(kept * cell[:, :count], entering, candidate, out=cells[:, rows])
            state = torch.mul(shown, cell.tanh(), out=states[:, rows])
        context.save_for_backward(gates, cells, states, recurrent)
        context.sizes = sizes
        return states

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        gates, cells, states, recurrent = context.saved_tensors
        sizes = context.sizes
        before = _shifted(cells, sizes)
        entering, kept, candidate, shown = gates.chunk(4, dim=-1)
        bent = cells.tanh()
        # What the cell's gradient is multiplied by on its way to the first three gates, the state's to the last.
        slopes = torch.stack(
            [
                candidate * entering * (1 - entering),
                before * kept * (1 - kept),
                entering * (1 - candidate.square()),
                bent * shown * (1 - shown),
            ],
            dim=2,
        )  # [2, S, 4, h]
        to_cell = shown * (1 - bent.square())
        result = torch.empty_like(slopes)
        carried_state = carried_cell = gradient.new_zeros(2, 0, gradient.shape[2])
        end = gradient.shape[1]
        for count in reversed(sizes):
            rows, end = slice(end - count, end), end - count
            of_state = gradient[:, rows].clone()
            of_state[:, : carried_state.shape[1]] += carried_state
            of_cell = of_state * to_cell[:, rows]
            of_cell[:, : carried_cell.shape[1]] += carried_cell
            own = result[:, rows]
            torch.mul(of_cell.unsqueeze(2), slopes[:, rows, :3], out=own[:, :, :3])
            torch.mul(of_state, slopes[:, rows, 3], out=own[:, :, 3])
            carried_state = own.flatten(2) @ recurrent
            carried_cell = of_cell * kept[:, rows]
        result = result.flatten(2)
        return result, result.transpose(1, 2) @ _shifted(states, sizes), None


def _shifted(values: Tensor, sizes: list[int]) -> Tensor:
    """What each text had one step before, zero before its first: [2, S, h] -> [2, S, h]."""
    steps = values.split(sizes, dim=1)
    earlier = [step[:, :count] for step, count in zip(steps, sizes[1:], strict=False)]
    return torch.cat([torch.zeros_like(steps[0]), *earlier], dim=1)
