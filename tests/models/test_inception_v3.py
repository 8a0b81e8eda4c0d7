import pytest
import torch
import torch.nn.functional as F

from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.models.inception_v3 import InceptionBlock, InceptionV3


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return InceptionV3().eval()


def test_parameters_are_torchvisions(network):
    state = network.state_dict()
    # torchvision's count of 27,161,264 less the 3,326,696 of the auxiliary classifier
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_834_568
    assert len(state) == 94 * 6 + 2  # convolution, four of the normalisation and its count; the classifier
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5d.branch_pool.conv.weight": (64, 288, 1, 1),
        "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6e.branch7x7dbl_2.conv.weight": (192, 192, 7, 1),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch1x1.conv.weight": (320, 2048, 1, 1),
        "fc.weight": (1000, 2048),
    }.items():
        assert state[name].shape == shape, name
    assert network.Mixed_6b.branch7x7_2.bn.eps == 0.001


def test_shapes(network):
    with torch.no_grad():
        features = network(torch.rand(1, 3, 299, 299) * 2 - 1)
        smallest = network(torch.rand(1, 3, 75, 75) * 2 - 1)
    assert features.regions.shape == (1, 768, 17, 17) and features.pooled.shape == (1, 2048)
    assert features.logits.shape == (1, 1000) and smallest.regions.shape == (1, 768, 3, 3)


def test_only_poolings_differ_in_the_fid_variant(network):
    fid = InceptionV3("fid", num_classes=None).eval()
    fid.load_published(network.state_dict())
    with torch.no_grad():
        images = torch.rand(1, 3, 75, 75) * 2 - 1
        ours, other = network(images), fid(images)
    assert other.logits is None and not torch.allclose(ours.regions, other.regions)


@pytest.mark.parametrize(
    ("variant", "padding_counts", "last"), [("torchvision", True, "average"), ("fid", False, "maximum")]
)
def test_poolings(variant, padding_counts, last, network):
    blocks = dict((network if variant == "torchvision" else InceptionV3("fid")).named_children())
    grid = torch.rand(1, 2, 5, 5)
    pooled = blocks["Mixed_6b"]._pool(grid, "average")
    corner = grid[0, 0, :2, :2].sum() / (9 if padding_counts else 4)
    torch.testing.assert_close(pooled[0, 0, 0, 0], corner)
    assert blocks["Mixed_7b"].branches[-1][0] == "average" and blocks["Mixed_7c"].branches[-1][0] == last
    torch.testing.assert_close(blocks["Mixed_7c"]._pool(grid, "maximum"), F.max_pool2d(grid, 3, 1, 1))


def test_branches_are_joined_in_the_order_of_the_table():
    block = InceptionBlock(2, [[("a", 1, 1)], [[("b", 2, (1, 3)), ("c", 3, (3, 1))]]], True).eval()
    grid = torch.rand(1, 2, 4, 4)
    joined = torch.cat([block.a(grid), block.b(grid), block.c(grid)], dim=1)
    assert block.channels == 6 and torch.equal(block(grid), joined)


def test_published_files_load_without_what_is_not_used(network):
    published = dict(network.state_dict())
    published["AuxLogits.fc.weight"] = torch.ones(1000, 768)
    for name in [name for name in published if name.endswith("num_batches_tracked")]:
        del published[name]  # files of torch before 0.4.1
    other = InceptionV3().eval()
    other.load_published(published)
    assert torch.equal(other.Mixed_7c.branch1x1.conv.weight, network.Mixed_7c.branch1x1.conv.weight)
    broken = {
        "missing": lambda tensors: tensors.pop("fc.bias"),
        "unexpected": lambda tensors: tensors.update(extra=torch.ones(1)),
        "shape": lambda tensors: tensors.update({"fc.bias": torch.ones(1008)}),
        "finite": lambda tensors: tensors.update({"fc.bias": torch.full((1000,), torch.nan)}),
    }
    for edit in broken.values():
        edited = dict(published)
        edit(edited)
        with pytest.raises(CheckpointError, match="weights.pth: 1 tensor.*(fc.bias|extra)"):
            other.load_published(edited, path="weights.pth")


def test_refuses(network):
    with pytest.raises(ConfigurationError, match="'keras'"):
        InceptionV3("keras")
    for shape in [(1, 3, 74, 299), (1, 1, 299, 299), (3, 299, 299)]:
        with pytest.raises(DataError, match="at least 75 pixels"):
            network(torch.zeros(shape))
