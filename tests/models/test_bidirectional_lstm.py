import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vl_alignment.models.bidirectional_lstm import BidirectionalLstm

LENGTHS = torch.tensor([3, 6, 1, 6, 2])


def words_and_mask(longest=7, dtype=torch.float64):
    words = torch.randn(len(LENGTHS), longest, 4, dtype=dtype)
    return words, torch.arange(longest) < LENGTHS.unsqueeze(1)


def torchs_own(lstm, words):
    reference = nn.LSTM(4, 3, batch_first=True, bidirectional=True).to(words.dtype)
    reference.load_state_dict(lstm.state_dict())
    packed = pack_padded_sequence(words, LENGTHS, batch_first=True, enforce_sorted=False)
    states, (last, _) = reference(packed)
    states, _ = pad_packed_sequence(states, batch_first=True, total_length=words.shape[1])
    return reference, states, torch.cat([last[0], last[1]], dim=-1)


def test_states_and_gradients_are_those_of_torch():
    lstm = BidirectionalLstm(4, 3).double()
    words, mask = words_and_mask()
    own_words, their_words = words.clone().requires_grad_(), words.clone().requires_grad_()
    states, last = lstm(own_words, mask)
    reference, their_states, their_last = torchs_own(lstm, their_words)
    torch.testing.assert_close(states, their_states)
    torch.testing.assert_close(last, their_last)
    for own, other in ((states, last), (their_states, their_last)):
        (own.sin().sum() + other.square().sum()).backward()
    torch.testing.assert_close(own_words.grad, their_words.grad)
    for (name, parameter), other in zip(lstm.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=name)


def test_finite_differences_agree():
    lstm = BidirectionalLstm(4, 3).double()
    words, mask = words_and_mask(6)
    parameters = tuple(parameter.detach().clone().requires_grad_() for parameter in lstm.parameters())

    def states(words, *values):
        named = dict(zip([name for name, _ in lstm.named_parameters()], values, strict=True))
        return torch.func.functional_call(lstm, named, (words, mask))

    assert torch.autograd.gradcheck(states, (words.requires_grad_(), *parameters))


def test_padding_is_zero_and_texts_do_not_depend_on_those_beside_them():
    lstm = BidirectionalLstm(4, 3).double()
    words, mask = words_and_mask()
    states, last = lstm(words, mask)
    assert not states[~mask].any()
    for row, length in enumerate(LENGTHS.tolist()):
        alone, own_last = lstm(words[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(states[row, :length], alone[0])
        torch.testing.assert_close(last[row], own_last[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeps_the_type_of_its_weights(dtype):
    lstm = BidirectionalLstm(4, 3).to(dtype)
    words, mask = words_and_mask(dtype=dtype)
    states, last = lstm(words, mask)
    assert states.dtype == last.dtype == dtype and states.isfinite().all()


def test_autocast_runs_forward_and_backward():
    lstm = BidirectionalLstm(4, 3)
    words, mask = words_and_mask(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        states, last = lstm(words, mask)
    (states.float().sum() + last.float().sum()).backward()
    exact, _ = lstm(words, mask)
    torch.testing.assert_close(states.float(), exact, atol=3e-2, rtol=0)
    assert all(parameter.grad.isfinite().all() for parameter in lstm.parameters())


@pytest.mark.cuda
def test_equal_on_cuda():
    lstm = BidirectionalLstm(4, 3)
    words, mask = words_and_mask(dtype=torch.float32)
    here, there = lstm(words, mask), lstm.cuda()(words.cuda(), mask.cuda())
    for own, other in zip(here, there, strict=True):
        torch.testing.assert_close(own, other.cpu(), atol=1e-5, rtol=1e-4)
