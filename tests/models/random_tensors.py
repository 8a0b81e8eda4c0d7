"""Strategies of Hypothesis for tensors, and how often a property is tried.

Shapes, kinds of rows and layouts are Hypothesis' to choose and to make small; the numbers come from a seed that it
chooses, since a number of its own for every entry would take most of a test's time.
"""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

COMMON = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
FEW, MANY = settings(max_examples=25, **COMMON), settings(max_examples=1000, **COMMON)

ROWS = ("normal", "zero", "tiny", "huge", "repeated", "negative")
LAYOUTS = ("contiguous", "transposed", "every other", "reversed", "part of a wider one")


def properties(check, strategy):
    """A property as a function of how often it is tried."""

    def tried(how):
        how(given(strategy)(check))()

    tried.__name__ = check.__name__
    return tried


def fill(shape, rows, largest, seed, dtype):
    """Numbers [..., d] whose rows are of these kinds in turn, none larger than `largest` nor smaller than its inverse.

    Returns:
        A contiguous tensor of the type, rounded to it from float64.
    """
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(shape, generator=generator, dtype=torch.float64).clamp(-3, 3)
    flat = numbers.view(-1, shape[-1]) if numbers.numel() else numbers
    for number in range(len(flat) if numbers.numel() else 0):
        kind = rows[number % len(rows)]
        if kind == "zero":
            flat[number] = 0
        elif kind == "tiny":
            flat[number] /= 3 * largest
        elif kind == "huge":
            flat[number] *= largest / 3
        elif kind == "repeated":
            flat[number] = flat[0]
        elif kind == "negative":
            flat[number] = -flat[number].abs()
    return numbers.to(dtype)


def laid_out(tensor, layout):
    """The same numbers in memory that is not one piece in their order."""
    if layout == "transposed":
        return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "every other":
        wider = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), float("nan"))
        wider[..., ::2] = tensor
        return wider[..., ::2]
    if layout == "reversed":
        return tensor.flip(-2).contiguous().flip(-2)
    if layout == "part of a wider one":
        wider = tensor.new_full((*tensor.shape[:-2], tensor.shape[-2] + 2, tensor.shape[-1] + 3), float("nan"))
        wider[..., 1:-1, 2:-1] = tensor
        return wider[..., 1:-1, 2:-1]
    return tensor


seeds = st.integers(0, 2**31)
kinds_of_rows = st.lists(st.sampled_from(ROWS), min_size=1, max_size=4)
layouts = st.sampled_from(LAYOUTS)
