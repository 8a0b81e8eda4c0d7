import torch
from torch import nn

from vl_alignment.metrics.image_features import FeatureNetwork


class TinyNetwork(FeatureNetwork):
    """Looks at pictures of any size through a few random filters; a stand-in for Inception-v3 that is fast."""

    score_name = "class_score"

    def __init__(self):
        super().__init__("tiny network of the test", "abc", 5, "none")
        generator = torch.Generator().manual_seed(0)
        self.filters = nn.Parameter(torch.randn(5, 3, 3, 3, generator=generator))
        self.classes = nn.Parameter(torch.randn(4, 5, generator=generator))

    def features(self, images):
        return nn.functional.conv2d(images, self.filters).relu().mean(dim=(2, 3))

    def classify(self, features):
        return features @ self.classes.T
