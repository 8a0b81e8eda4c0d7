"""Alignment functions and random sides for them, in float64."""

import torch

from vl_alignment.models.alignment import build_alignment_function

D = 6


def function(name, size=D, **options):
    return build_alignment_function(name, size, **options).double()


def sides(*shape, size=D):
    query, key = torch.randn(*shape, 4, size).double(), torch.randn(*shape, 5, size).double()
    return query.requires_grad_(), key.requires_grad_()
