"""SCAN: image-text matching by stacked cross attention (Lee et al. 2018), under any alignment function."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import initialization as init
from transformers.utils import ModelOutput

from .checked_inputs import check_regions, check_words, word_mask
from .configuration_scan import ScanConfig
from .errors import ConfigurationError, DataError
from .modeling_base import AlignmentPreTrainedModel, VisionAlignmentModel
from .similarity_scan import StackedCrossAttention

__all__ = ["ScanForImageTextRetrieval", "ScanModel", "ScanOutput", "ScanPreTrainedModel"]


@dataclass
class ScanOutput(ModelOutput):
    """Output of SCAN.

    Attributes:
        loss: Scalar, the triplet loss summed over the batch; on request.
        logits_per_image: Similarities [I, C].
        logits_per_text: Their transpose [C, I].
        region_embeddings: [I, R, d].
        word_embeddings: [C, L, d], zero at padding.
        attentions: For picture b with caption b, [B, L, R] ("t2i") or [B, R, L] ("i2t"); on request.
    """

    loss: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    region_embeddings: Tensor | None = None
    word_embeddings: Tensor | None = None
    attentions: Tensor | None = None


class ScanRegionEncoder(nn.Module):
    """Region features [I, R, feature_size] -> embeddings [I, R, d], of unit length by default."""

    def __init__(self, config: ScanConfig) -> None:
        super().__init__()
        self.normalize = config.normalize_regions
        self.projection = nn.Linear(config.feature_size, config.hidden_size)

    def forward(self, region_features: Tensor) -> Tensor:
        """Project and normalise."""
        embeddings = self.projection(region_features)
        return _l2norm(embeddings) if self.normalize else embeddings


class ScanTextEncoder(nn.Module):
    """Token ids [C, L] -> word embeddings [C, L, d]: a GRU whose two directions are averaged; zero at padding."""

    def __init__(self, config: ScanConfig) -> None:
        super().__init__()
        self.normalize = config.normalize_words
        self.embedding = nn.Embedding(config.vocab_size, config.word_embedding_size)
        self.gru = nn.GRU(
            config.word_embedding_size,
            config.hidden_size,
            config.num_hidden_layers,
            batch_first=True,
            bidirectional=config.bidirectional,
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode captions that are padded on the right."""
        lengths = attention_mask.sum(dim=1).cpu()  # pack_padded_sequence wants them there
        packed = pack_padded_sequence(self.embedding(input_ids), lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=input_ids.shape[1])
        if self.gru.bidirectional:
            forward, backward = states.chunk(2, dim=-1)
            states = (forward + backward) / 2
        return _l2norm(states) if self.normalize else states


class ScanPreTrainedModel(AlignmentPreTrainedModel):
    """Base of the SCAN models."""

    config_class = ScanConfig
    main_input_name = "input_ids"

    def _init_weights(self, module: nn.Module) -> None:
        """The published code's starting values for the projection and the word embeddings."""
        if isinstance(module, nn.Linear):
            bound = (6.0 / (module.in_features + module.out_features)) ** 0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -0.1, 0.1)
        else:
            super()._init_weights(module)


class ScanModel(ScanPreTrainedModel, VisionAlignmentModel):
    """SCAN's encoders and its all-pairs similarity.

        pixel_values [I, 3, H, W] -> backbone -> cells --+
                                                         v
        region_features [I, R, feature_size] -> linear -> regions [I, R, d] --+
                                                                              +--> f(Q, K) -> attention
        input_ids [C, L] -> embedding -> GRU -> words [C, L, d] --------------+    -> similarity [I, C]

    Args:
        config: A `ScanConfig`.
    """

    def __init__(self, config: ScanConfig) -> None:
        super().__init__(config)
        self.build_backbone()
        self.region_encoder = ScanRegionEncoder(config)
        self.text_encoder = ScanTextEncoder(config)
        self.cross_attention = StackedCrossAttention(config)
        self.post_init()

    def encode_images(
        self,
        pixel_values: Tensor | None = None,
        region_features: Tensor | None = None,
        region_mask: Tensor | None = None,
    ) -> Tensor:
        """Embed the regions of pictures, once for any number of searches.

        Args:
            pixel_values: [I, 3, H, W], for a model with a backbone; or
            region_features: [I, R, feature_size].
            region_mask: [I, R], true where there is a region.

        Returns:
            Region embeddings [I, R, d]; zero where the mask is false.

        Raises:
            DataError: If neither or both inputs are given, the features have another width or none at all, or the mask
                another shape.
        """
        check_regions(pixel_values, region_features, self.config.feature_size)
        if region_features is None:
            region_features = self.extract_regions(pixel_values)  # type: ignore[arg-type]
        if region_mask is not None and region_mask.shape != region_features.shape[:2]:
            raise DataError(f"region_mask is {tuple(region_mask.shape)}, the regions {tuple(region_features.shape)}")
        embeddings = self.region_encoder(region_features.to(self.dtype))
        return embeddings if region_mask is None else embeddings * region_mask.unsqueeze(-1).to(embeddings.dtype)

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embed the words of captions.

        Args:
            input_ids: [C, L], padded on the right.
            attention_mask: [C, L], true where there is a word; by default where the id is not the padding's.

        Returns:
            Word embeddings [C, L, d], zero at padding.

        Raises:
            DataError: If a caption has no words, is padded on the left, or has ids beyond the vocabulary, or the mask
                has another shape.
        """
        mask = self._word_mask(input_ids, attention_mask)
        check_words(input_ids, mask, self.config.vocab_size, "caption")
        return self.text_encoder(input_ids, mask)

    def _word_mask(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        return word_mask(input_ids, attention_mask, self.config.pad_token_id)

    def similarity(
        self,
        region_embeddings: Tensor,
        word_embeddings: Tensor,
        region_mask: Tensor | None = None,
        word_mask: Tensor | None = None,
    ) -> Tensor:
        """Score every picture against every caption: [I, R, d], [C, L, d] -> [I, C]; see `StackedCrossAttention`."""
        return self.cross_attention(region_embeddings, word_embeddings, region_mask, word_mask)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        region_features: Tensor | None = None,
        region_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> ScanOutput:
        """Embed pictures and captions and score all pairs; shapes as in `encode_images` and `encode_texts`."""
        regions = self.encode_images(pixel_values, region_features, region_mask)
        words = self.encode_texts(input_ids, attention_mask)
        word_mask = self._word_mask(input_ids, attention_mask)
        similarity = self.similarity(regions, words, region_mask, word_mask)
        attentions = None
        if output_attentions:
            if len(regions) != len(words):
                raise DataError(f"attention maps need pairs: {len(regions)} pictures, {len(words)} captions given")
            attentions = self.cross_attention.attention(regions, words, region_mask, word_mask)
        return ScanOutput(
            logits_per_image=similarity,
            logits_per_text=similarity.T,
            region_embeddings=regions,
            word_embeddings=words,
            attentions=attentions,
        )


class ScanForImageTextRetrieval(ScanPreTrainedModel):
    """SCAN with the triplet loss of image-text retrieval (see `ScanModel` for the flow of data).

    Args:
        config: A `ScanConfig`.
    """

    def __init__(self, config: ScanConfig) -> None:
        super().__init__(config)
        self.model = ScanModel(config)
        self.post_init()

    def encode_images(self, **inputs: Any) -> Tensor:
        """See `ScanModel.encode_images`."""
        return self.model.encode_images(**inputs)

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """See `ScanModel.encode_texts`."""
        return self.model.encode_texts(input_ids, attention_mask)

    def similarity(self, *embeddings: Tensor, **masks: Tensor | None) -> Tensor:
        """See `ScanModel.similarity`."""
        return self.model.similarity(*embeddings, **masks)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        region_features: Tensor | None = None,
        region_mask: Tensor | None = None,
        return_loss: bool | None = None,
        negatives: str | None = None,
        gather_negatives: bool = True,
        output_attentions: bool = False,
    ) -> ScanOutput:
        """Score pictures against captions.

        Args:
            input_ids: [C, L].
            attention_mask: [C, L].
            pixel_values: [I, 3, H, W]; or
            region_features: [I, R, feature_size].
            region_mask: [I, R].
            return_loss: Whether to compute the loss, for which caption b describes picture b; in training by default.
            negatives: "hardest" or "all", over the config's.
            gather_negatives: Whether the loss takes its negatives from the pairs of all processes of a distributed
                group, of which each has as many, or from these alone.
            output_attentions: Whether to return the attention maps of the pairs.

        Returns:
            A `ScanOutput`.
        """
        output = self.model(
            input_ids, attention_mask, pixel_values, region_features, region_mask, output_attentions=output_attentions
        )
        if self.training if return_loss is None else return_loss:
            similarity = output.logits_per_image
            if gather_negatives and torch.distributed.is_available() and torch.distributed.is_initialized():
                word_mask = self.model._word_mask(input_ids, attention_mask)
                similarity = self._similarity_of_all_processes(output, region_mask, word_mask)
            output.loss = triplet_loss(similarity, self.config.margin, negatives or self.config.negatives)
        return output

    def _similarity_of_all_processes(self, output: Any, region_mask: Tensor | None, word_mask: Tensor) -> Tensor:
        """Similarities [I, C] of the global batch, so that its negatives do not depend on the number of processes.

        Each process scores its own pictures against all captions. Gradients flow through the gathers, so that their
        mean over processes is the gradient of the global loss.
        """
        words = _gather_with_gradient(_pad_to_longest(output.word_embeddings))
        word_mask = _gather_with_gradient(_pad_to_longest(word_mask.to(words.dtype))) > 0.5
        rows = self.model.similarity(output.region_embeddings, words, region_mask, word_mask)
        return _gather_with_gradient(rows)


def triplet_loss(similarity: Tensor, margin: float, negatives: str) -> Tensor:
    """Hinge loss over both directions, summed over the batch (Lee et al. 2018, equations 13 and 14).

    Args:
        similarity: [B, B], the diagonal holds the pairs that belong together.
        margin: By how much a pair must beat its negatives.
        negatives: "hardest" takes the most violating negative of each row and column, "all" adds them all.

    Raises:
        DataError: If the matrix is not square.
        ConfigurationError: If `negatives` is neither of the two.
    """
    if similarity.shape[0] != similarity.shape[1]:
        raise DataError(f"the loss needs as many captions as pictures, not {tuple(similarity.shape)}")
    if negatives not in ("hardest", "all"):
        raise ConfigurationError(f"negatives is {negatives!r}; choose 'hardest' or 'all'")
    positive = similarity.diagonal()
    same = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    of_captions = (margin + similarity - positive[:, None]).clamp_min(0).masked_fill(same, 0)  # each picture's row
    of_images = (margin + similarity - positive[None, :]).clamp_min(0).masked_fill(same, 0)  # each caption's column
    if negatives == "hardest":
        return of_captions.amax(dim=1).sum() + of_images.amax(dim=0).sum()
    return of_captions.sum() + of_images.sum()


def _l2norm(vectors: Tensor) -> Tensor:
    return vectors / (torch.linalg.vector_norm(vectors, dim=-1, keepdim=True) + 1e-8)


def _pad_to_longest(batch: Tensor) -> Tensor:
    """Pad dimension 1 of [B, L, ...] with zeros to the longest of all processes."""
    longest = torch.tensor(batch.shape[1], device=batch.device)
    torch.distributed.all_reduce(longest, op=torch.distributed.ReduceOp.MAX)
    return F.pad(batch, [0, 0] * (batch.dim() - 2) + [0, int(longest) - batch.shape[1]])


def _gather_with_gradient(batch: Tensor) -> Tensor:
    """Concatenate the equally shaped batches of all processes; the gradients of all of them flow back."""
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(batch.contiguous()))
