import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    ConvNextConfig,
    Dinov2WithRegistersConfig,
    EfficientNetConfig,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    SwinConfig,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from vl_alignment.data.features import build_extractor
from vl_alignment.data.grid_extractor import TransformersGridExtractor, grid_boxes
from vl_alignment.models.errors import ConfigurationError

TINY_CONVOLUTIONS = {"hidden_sizes": [4, 8, 12, 16], "depths": [1, 1, 1, 1]}
TINY_TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 64,
    "patch_size": 16,
}


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (50, 70, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.mark.parametrize(
    ("config", "options", "regions", "feature_size"),
    [
        (ResNetConfig(embedding_size=4, **TINY_CONVOLUTIONS), {"image_size": 64}, 4, 16),
        (ResNetConfig(embedding_size=4, **TINY_CONVOLUTIONS), {"image_size": 64, "stage": "stage3"}, 16, 12),
        (ConvNextConfig(**TINY_CONVOLUTIONS), {"image_size": 64}, 4, 16),
        (
            EfficientNetConfig(width_coefficient=0.125, depth_coefficient=0.1, hidden_dim=160, initializer_range=0.5),
            {"image_size": 64},
            4,
            160,
        ),
        (SwinConfig(embed_dim=4, depths=[1, 1], num_heads=[1, 1], image_size=32, window_size=4), {}, 16, 8),
        (ViTConfig(**TINY_TRANSFORMER), {}, 16, 16),
        (CLIPVisionConfig(**TINY_TRANSFORMER), {}, 16, 16),
        (Dinov2WithRegistersConfig(**TINY_TRANSFORMER), {}, 16, 16),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_any_backbone_gives_a_grid(config, options, regions, feature_size, images):
    extractor = TransformersGridExtractor(config, **options)
    assert (extractor.regions, extractor.feature_size) == (regions, feature_size)
    features, boxes = extractor(images)
    assert features.shape == (3, regions, feature_size) and features.dtype == np.float32
    assert boxes.shape == (3, regions, 4)
    assert np.isfinite(features).all() and features.std() > 0


def test_boxes_cover_the_picture_row_by_row():
    np.testing.assert_allclose(
        grid_boxes(2, 3),
        [
            [0, 0, 1 / 3, 0.5],
            [1 / 3, 0, 2 / 3, 0.5],
            [2 / 3, 0, 1, 0.5],
            [0, 0.5, 1 / 3, 1],
            [1 / 3, 0.5, 2 / 3, 1],
            [2 / 3, 0.5, 1, 1],
        ],
        rtol=1e-6,
    )


def test_class_and_register_tokens_are_dropped(images):
    model = ViTModel(ViTConfig(**TINY_TRANSFORMER)).eval()
    extractor = TransformersGridExtractor(model)
    features, _ = extractor(images)
    with torch.no_grad():
        states = model(pixel_values=extractor._pixel_values(images)).last_hidden_state  # [3, 1 + 16, 16]
    np.testing.assert_allclose(features, states[:, 1:].numpy(), atol=1e-5)


def test_features_and_boxes_agree_on_where_a_cell_is():
    """A grey picture with one white corner: the cell of that box is the odd one out."""
    extractor = TransformersGridExtractor(ViTConfig(**{**TINY_TRANSFORMER, "num_hidden_layers": 0}))
    picture = Image.new("RGB", (64, 64), (128, 128, 128))
    white = picture.copy()
    white.paste((255, 255, 255), (32, 16, 48, 32))  # third column, second row
    features, boxes = extractor([picture, white])
    changed = np.abs(features[1] - features[0]).sum(axis=-1)
    np.testing.assert_allclose(boxes[0, changed.argmax()], [0.5, 0.25, 0.75, 0.5])


def test_local_folder_with_its_own_scaling(images, tmp_path):
    ResNetModel(ResNetConfig(embedding_size=4, **TINY_CONVOLUTIONS)).save_pretrained(tmp_path)
    without = build_extractor("transformers", model=tmp_path)
    assert without.image_size == 224 and without.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    ViTImageProcessorPil(size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(
        tmp_path
    )
    extractor = build_extractor("transformers", model=str(tmp_path))
    assert extractor.image_size == 64 and extractor.mean.flatten().tolist() == [0.5] * 3
    white = extractor._pixel_values([Image.new("RGB", (30, 20), "white")])
    assert white.shape == (1, 3, 64, 64) and torch.allclose(white, torch.tensor(2.0))


def test_stage_of_a_published_classifier(images, tmp_path):
    """ResNets are published as classifiers; CLEVR's features are their third stage (conv4), 14 x 14 at 224 pixels."""
    classifier = ResNetForImageClassification(ResNetConfig(embedding_size=4, **TINY_CONVOLUTIONS)).eval()
    classifier.save_pretrained(tmp_path)
    extractor = build_extractor("transformers", model=str(tmp_path), stage="stage3", image_size=224)
    assert (extractor.rows, extractor.columns, extractor.feature_size) == (14, 14, 12)
    features, _ = extractor(images)
    with torch.no_grad():
        pixel_values = extractor._pixel_values(images)
        stages = classifier(pixel_values=pixel_values, output_hidden_states=True).hidden_states
    # [embedding, stage 1, stage 2, stage 3, stage 4]
    np.testing.assert_allclose(features, stages[3].flatten(2).transpose(1, 2).numpy(), atol=1e-5)


def test_version_names_the_weights(tmp_path):
    config = ResNetConfig(embedding_size=4, **TINY_CONVOLUTIONS)
    first, second = (TransformersGridExtractor(ResNetModel(config), image_size=32) for _ in range(2))
    assert first.version != second.version
    assert first.version == TransformersGridExtractor(first.network, image_size=32).version


def test_wrong_models_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match="'.*nowhere' cannot be loaded"):
        TransformersGridExtractor(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="no stage 'stage9'; its stages are stem, stage1, "):
        TransformersGridExtractor(ResNetConfig(**TINY_CONVOLUTIONS), stage="stage9")
    with pytest.raises(ConfigurationError, match="'clip_vision_model' has no stages to choose from"):
        TransformersGridExtractor(CLIPVisionConfig(**TINY_TRANSFORMER), stage="stage1")
    with pytest.raises(ConfigurationError, match="a stage can be chosen for"):
        TransformersGridExtractor(ViTModel(ViTConfig(**TINY_TRANSFORMER)), stage="stage1")
