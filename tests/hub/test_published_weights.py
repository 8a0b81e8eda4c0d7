import pytest
import torch

from vl_alignment.hub.published_weights import read_published_checkpoint, tensor_size
from vl_alignment.models.errors import CheckpointError


def test_a_size_is_that_of_the_numbers_in_the_file(tmp_path):
    """A file of a kilobyte may say that it holds a table of words of terabytes."""
    torch.save({"words": torch.zeros(1).expand(10**9, 300), "whole": torch.zeros(2, 3)}, tmp_path / "a.pth")
    checkpoint = read_published_checkpoint(tmp_path / "a.pth")
    assert tensor_size(checkpoint, "whole", 1) == 3
    with pytest.raises(CheckpointError, match=r"a\.pth: tensor words is said to be \(1000000000, 300\)"):
        tensor_size(checkpoint, "words", 0)


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "meta"])
def test_tensors_without_their_numbers_are_refused(tmp_path, tensor):
    torch.save({"words": tensor}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: tensor words does not hold"):
        read_published_checkpoint(tmp_path / "a.pth")
