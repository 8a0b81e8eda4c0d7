"""DAMSM: how well a picture fits a caption, as a whole and word by word (Xu et al. 2018); AttnGAN trains against it."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from .checked_inputs import check_regions, check_words, word_mask
from .configuration_damsm import DamsmConfig
from .errors import DataError
from .inception_v3 import InceptionV3
from .matching_damsm import MatchingLosses, WordRegionMatching, matching_losses, sentence_similarity
from .modeling_base import VisionAlignmentModel
from .text_encoder_damsm import DamsmTextEncoder
from .vision import grid_regions

__all__ = ["DamsmImages", "DamsmModel", "DamsmOutput", "DamsmTexts"]


class DamsmImages(NamedTuple):
    """What DAMSM makes of pictures.

    Attributes:
        regions: [I, R, d], in reading order.
        codes: Of the whole pictures [I, d].
    """

    regions: Tensor
    codes: Tensor


class DamsmTexts(NamedTuple):
    """What DAMSM makes of captions.

    Attributes:
        words: [C, L, d], zero at padding.
        sentences: [C, d].
        mask: [C, L], true where there is a word.
    """

    words: Tensor
    sentences: Tensor
    mask: Tensor


@dataclass
class DamsmOutput(ModelOutput):
    """Output of DAMSM, for I pictures and C captions.

    Attributes:
        loss: Scalar, `word_loss` + `sentence_loss`; where asked for.
        word_loss: Cross-entropy of the right caption and of the right picture, by words and regions.
        sentence_loss: The same by sentences and whole pictures.
        logits_per_image: [I, C], `word_logits` + `sentence_logits`.
        logits_per_text: [C, I].
        word_logits: gamma3 times the similarity of words and regions [I, C].
        sentence_logits: gamma3 times the cosine of sentences and pictures [I, C].
        words: [C, L, d].
        sentences: [C, d].
        regions: [I, R, d].
        image_codes: [I, d].
        attentions: Of each caption in its own picture [B, L, R], over the regions; on request.
    """

    loss: Tensor | None = None
    word_loss: Tensor | None = None
    sentence_loss: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    word_logits: Tensor | None = None
    sentence_logits: Tensor | None = None
    words: Tensor | None = None
    sentences: Tensor | None = None
    regions: Tensor | None = None
    image_codes: Tensor | None = None
    attentions: Tensor | None = None


class UniformProjection(nn.Linear):
    """A layer after the vision network; its starting weights are uniform within 0.1, as published."""


class DamsmModel(VisionAlignmentModel):
    """DAMSM.

        pixel_values [I, 3, H, W] -> resize -> Inception-v3 or backbone -+-> linear -> regions [I, R, d] -+
                                                                         +-> linear -> codes [I, d] ------|--+
        input_ids [C, L] -> embedding -> biLSTM -+-> words [C, L, d] -> f(Q, K) with the regions ---------+  |
                                                 |                      -> word logits [I, C]                |
                                                 +-> sentences [C, d] -> cosine with the codes --------------+
                                                                        -> sentence logits [I, C]

    Args:
        config: A `DamsmConfig`.
    """

    config_class = DamsmConfig
    main_input_name = "input_ids"

    def __init__(self, config: DamsmConfig) -> None:
        super().__init__(config)
        self.build_backbone()
        if self.vision_model is None:
            self.vision_model = InceptionV3(num_classes=None).requires_grad_(not config.freeze_vision)
        self.region_projection = UniformProjection(config.feature_size, config.hidden_size, bias=False)
        self.code_projection = UniformProjection(config.pooled_size or 0, config.hidden_size)
        self.text_encoder = DamsmTextEncoder(config)
        self.matching = WordRegionMatching(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The published code's starting values."""
        if isinstance(module, UniformProjection):
            init.uniform_(module.weight, -0.1, 0.1)
            if module.bias is not None:
                bound = module.in_features**-0.5  # as torch's own
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -0.1, 0.1)
        else:
            super()._init_weights(module)

    def extract_features(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures in [-1, 1] [I, 3, H, W] -> the vision network's regions [I, R, F] and pictures [I, P].

        They can be kept and given again where the network is frozen. Gradients reach pictures that want them, since a
        generator is trained through the frozen network.
        """
        size = self.config.vision_image_size
        if size is not None and pixel_values.shape[2:] != (size, size):
            pixel_values = F.interpolate(pixel_values, size=(size, size), mode="bilinear", align_corners=False)
        if self.config.vision_mean is not None:
            mean, std = (
                pixel_values.new_tensor(numbers).view(3, 1, 1)
                for numbers in (self.config.vision_mean, self.config.vision_std)
            )
            pixel_values = ((pixel_values + 1) / 2 - mean) / std
        wanted = pixel_values.requires_grad or not self.config.freeze_vision
        with torch.set_grad_enabled(torch.is_grad_enabled() and wanted):
            if self.config.vision_config is None:
                regions, pooled, _ = self.vision_model(pixel_values)  # type: ignore[misc]
                return grid_regions(regions), pooled
            regions = grid_regions(self.vision_model(pixel_values).last_hidden_state)  # type: ignore[misc]
            return regions, regions.mean(dim=1)

    def encode_images(
        self,
        pixel_values: Tensor | None = None,
        region_features: Tensor | None = None,
        pooled_features: Tensor | None = None,
    ) -> DamsmImages:
        """Embed pictures.

        Args:
            pixel_values: [I, 3, H, W] in [-1, 1]; or
            region_features: [I, R, feature_size], of `extract_features`.
            pooled_features: [I, pooled_size], beside `region_features`.

        Raises:
            DataError: If neither or both are given, or features have another width.
        """
        check_regions(pixel_values, region_features, self.config.feature_size)
        if pixel_values is not None:
            region_features, pooled_features = self.extract_features(pixel_values.to(self.dtype))
        expected = (len(region_features), self.config.pooled_size)  # type: ignore[arg-type]
        if pooled_features is None or pooled_features.shape != expected:
            shape = None if pooled_features is None else tuple(pooled_features.shape)
            raise DataError(f"pooled_features is {shape}; beside region_features it must be {expected}")
        regions = self.region_projection(region_features.to(self.dtype))  # type: ignore[union-attr]
        return DamsmImages(regions, self.code_projection(pooled_features.to(self.dtype)))

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> DamsmTexts:
        """Embed captions.

        Args:
            input_ids: [C, L], padded on the right.
            attention_mask: [C, L], true where there is a word; by default where the id is not the padding's.

        Raises:
            DataError: If a caption has no words, is padded on the left, or has ids beyond the vocabulary, or the mask
                has another shape.
        """
        mask = word_mask(input_ids, attention_mask, self.config.pad_token_id)
        check_words(input_ids, mask, self.config.vocab_size, "caption")
        words, sentences = self.text_encoder(input_ids, mask)
        return DamsmTexts(words, sentences, mask)

    def similarity(self, images: DamsmImages, texts: DamsmTexts) -> tuple[Tensor, Tensor]:
        """Word logits and sentence logits of every picture with every caption, [I, C] each."""
        words = self.matching(images.regions, texts.words, texts.mask)
        sentences = sentence_similarity(images.codes, texts.sentences)
        return self.config.gamma3 * words, self.config.gamma3 * sentences

    def matching_losses(
        self, images: DamsmImages, texts: DamsmTexts, class_ids: Tensor | None = None
    ) -> tuple[MatchingLosses, MatchingLosses]:
        """Losses by words and by sentences of a batch whose caption b describes picture b; see `matching_losses`."""
        words, sentences = self.similarity(images, texts)
        return matching_losses(words, class_ids), matching_losses(sentences, class_ids)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        region_features: Tensor | None = None,
        pooled_features: Tensor | None = None,
        class_ids: Tensor | None = None,
        return_loss: bool | None = None,
        output_attentions: bool = False,
    ) -> DamsmOutput:
        """Score pictures with captions.

        Args:
            input_ids: [C, L].
            attention_mask: [C, L].
            pixel_values: [I, 3, H, W] in [-1, 1]; or
            region_features: [I, R, feature_size], with
            pooled_features: [I, pooled_size].
            class_ids: [B]; pictures of one class are not held against each other's captions.
            return_loss: Whether to compute the losses, for which caption b describes picture b; in training by default.
            output_attentions: Whether to return the attention of each caption in its own picture.

        Returns:
            A `DamsmOutput`.

        Raises:
            DataError: As of `encode_images` and `encode_texts`, or if pairs are wanted and the captions are not as many
                as the pictures.
        """
        images = self.encode_images(pixel_values, region_features, pooled_features)
        texts = self.encode_texts(input_ids, attention_mask)
        words, sentences = self.similarity(images, texts)
        output = DamsmOutput(
            logits_per_image=words + sentences,
            logits_per_text=(words + sentences).T,
            word_logits=words,
            sentence_logits=sentences,
            words=texts.words,
            sentences=texts.sentences,
            regions=images.regions,
            image_codes=images.codes,
        )
        if self.training if return_loss is None else return_loss:
            output.word_loss = sum(matching_losses(words, class_ids))  # type: ignore[assignment]
            output.sentence_loss = sum(matching_losses(sentences, class_ids))  # type: ignore[assignment]
            output.loss = output.word_loss + output.sentence_loss  # type: ignore[operator]
        if output_attentions:
            if len(words) != words.shape[1]:
                raise DataError(f"attention maps need pairs: {len(words)} pictures, {words.shape[1]} captions given")
            output.attentions = self.matching.attention(images.regions, texts.words, texts.mask)
        return output
