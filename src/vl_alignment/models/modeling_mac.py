"""MAC: visual question answering by composition (Hudson and Manning 2018), under any alignment function."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from .bidirectional_lstm import BidirectionalLstm
from .checked_inputs import check_regions, check_words, word_mask
from .configuration_mac import MacConfig
from .errors import DataError
from .modeling_base import AlignmentPreTrainedModel, VisionAlignmentModel
from .reasoning_mac import MacCell, MemoryGate, ScoreLayer

__all__ = ["MacForQuestionAnswering", "MacModel", "MacOutput", "MacPreTrainedModel"]


@dataclass
class MacOutput(ModelOutput):
    """Output of MAC, of T steps for B questions of L words about pictures of N cells.

    Attributes:
        loss: Scalar, the mean cross-entropy of the answers, where labels are given.
        logits: Scores of the answers [B, A].
        memory: The last memory [B, d].
        question: The question vector [B, d] ("released") or [B, 2 d] ("pytorch").
        question_attentions: [B, T, L], over the words; on request.
        image_attentions: [B, T, N], over the cells in reading order; on request.
        self_attentions: [B, T, T], of each step over the states before it, zero beyond; on request, with
            `self_attention`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    memory: Tensor | None = None
    question: Tensor | None = None
    question_attentions: Tensor | None = None
    image_attentions: Tensor | None = None
    self_attentions: Tensor | None = None

    @property
    def attentions(self) -> tuple[Tensor, Tensor] | None:
        """(question_attentions, image_attentions), where they were asked for."""
        if self.question_attentions is None or self.image_attentions is None:
            return None
        return self.question_attentions, self.image_attentions


class MacStem(nn.Module):
    """Features [I, N, feature_size] -> knowledge base [I, N, d]: convolutions over the grid, dropout before each."""

    def __init__(self, config: MacConfig) -> None:
        super().__init__()
        self.grid_size = config.grid_size
        self.coordinate_scale = config.coordinate_scale if config.stem_coordinates else None
        self.dropout = config.stem_dropout or 0.0
        sizes = [config.feature_size + 2 * config.stem_coordinates] + [config.hidden_size] * config.stem_layers
        kernel = config.stem_kernel_size
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel, padding=kernel // 2)
            for before, after in zip(sizes, sizes[1:], strict=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Convolve; the features lie in memory as the channels-last layout wants them, and so do the results."""
        if self.coordinate_scale is not None:
            line = torch.linspace(-1, 1, self.grid_size, dtype=features.dtype, device=features.device)
            line = line * self.coordinate_scale
            places = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).flatten(0, 1)  # [N, (x, y)]
            features = torch.cat([features, places.expand(len(features), -1, -1)], dim=-1)
        grid = features.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))
        for convolution in self.convolutions:
            grid = F.elu(convolution(F.dropout(grid, self.dropout, self.training)))
        return grid.flatten(2).transpose(1, 2)


class WordProjection(nn.Linear):
    """The linear layer of the PyTorch cell's words; its bias, which padding becomes, does not start at zero.

    A function that divides by the length of a word has no gradient there.
    """


class MacQuestionEncoder(nn.Module):
    """Token ids [B, L] -> words [B, L, d] and question vector: a biLSTM and the last states of its two directions."""

    def __init__(self, config: MacConfig) -> None:
        super().__init__()
        self.word_dropout, self.question_dropout = config.word_dropout or 0.0, config.question_dropout or 0.0
        self.embedding = nn.Embedding(config.vocab_size, config.word_embedding_size)
        size, released = config.question_size or 0, config.cell == "released"
        self.lstm = BidirectionalLstm(config.word_embedding_size, size // 2)
        self.projection = None if released else WordProjection(size, config.hidden_size)

    def forward(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode questions that are padded on the right; words at padding are zero, or the projection's bias."""
        words, last = self.lstm(F.dropout(self.embedding(input_ids), self.word_dropout, self.training), mask)
        question = F.dropout(last, self.question_dropout, self.training)
        return (words if self.projection is None else self.projection(words)), question


class MacClassifier(nn.Module):
    """Memory [B, d] and question vector -> scores of the answers [B, A]."""

    def __init__(self, config: MacConfig) -> None:
        super().__init__()
        size, question_size = config.hidden_size, config.question_size or 0
        self.dropout = config.output_dropout or 0.0
        self.question_projection = nn.Linear(question_size, size) if config.cell == "released" else None
        self.hidden = nn.Linear(size + question_size, size)
        self.output = nn.Linear(size, config.num_labels or 0)

    def forward(self, memory: Tensor, question: Tensor) -> Tensor:
        """Score, in float32 at least."""
        if self.question_projection is not None:
            question = self.question_projection(question)
        joined = F.dropout(torch.cat([memory, question], dim=-1), self.dropout, self.training)
        logits = self.output(F.dropout(F.elu(self.hidden(joined)), self.dropout, self.training))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class MacPreTrainedModel(AlignmentPreTrainedModel):
    """Base of the MAC models."""

    config_class = MacConfig
    main_input_name = "input_ids"

    def _init_weights(self, module: nn.Module) -> None:
        """The published code's starting values."""
        if isinstance(module, nn.Linear | nn.Conv2d):
            init.xavier_uniform_(module.weight, gain=module.gain if isinstance(module, ScoreLayer) else 1.0)
            if isinstance(module, MemoryGate):
                init.constant_(module.bias, float(self.config.memory_gate_bias))
            elif isinstance(module, WordProjection):
                bound = module.in_features**-0.5
                init.uniform_(module.bias, -bound, bound)
            elif module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -1.0, 1.0)
        elif isinstance(module, MacCell):
            if module.released:
                init.normal_(module.initial_memory)
            else:
                init.zeros_(module.initial_memory)
            if module.initial_control is not None:
                init.zeros_(module.initial_control)
        else:
            super()._init_weights(module)


class MacModel(MacPreTrainedModel, VisionAlignmentModel):
    """MAC up to its last memory.

        pixel_values [I, 3, H, W] -> backbone -> cells --+
                                                         v
        region_features [I, N, feature_size] -> convolutions -> knowledge base [I, N, d] ------------+
                                                                                                     v
        input_ids [B, L] -> embedding -> biLSTM -> words [B, L, d] -----> T x (control -> read -> write) -> memory
                                              +--> question vector [B, dq] --^                             [B, d]

    B is a multiple of I: the q = B / I questions i * q to i * q + q - 1 are about picture i, which is seen once.

    Args:
        config: A `MacConfig`.
    """

    def __init__(self, config: MacConfig) -> None:
        super().__init__(config)
        self.build_backbone()
        self.stem = MacStem(config)
        self.question_encoder = MacQuestionEncoder(config)
        self.cell = MacCell(config)
        self.post_init()

    def encode_images(self, pixel_values: Tensor | None = None, region_features: Tensor | None = None) -> Tensor:
        """Make the knowledge base of pictures, once for any number of questions.

        Args:
            pixel_values: [I, 3, H, W], for a model with a backbone; or
            region_features: [I, N, feature_size], the cells of a square grid in reading order.

        Returns:
            Knowledge base [I, N, d].

        Raises:
            DataError: If neither or both inputs are given, or the features have another width or grid.
        """
        check_regions(pixel_values, region_features, self.config.feature_size)
        if region_features is None:
            region_features = self.extract_regions(pixel_values)  # type: ignore[arg-type]
        cells, side = region_features.shape[1], self.config.grid_size
        if cells != side * side:
            raise DataError(
                f"{cells} cells a picture, this model was made for a grid of {side} x {side} (config.grid_size); "
                "extract the features on that grid, or resize the pictures"
            )
        return self.stem(region_features.to(self.dtype))

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode questions.

        Args:
            input_ids: [B, L], padded on the right.
            attention_mask: [B, L], true where there is a word; by default where the id is not the padding's.

        Returns:
            Words [B, L, d], question vectors [B, d] ("released") or [B, 2 d] ("pytorch"), and the mask [B, L].

        Raises:
            DataError: If a question has no words, is padded on the left, or has ids beyond the vocabulary, or the mask
                has another shape.
        """
        mask = word_mask(input_ids, attention_mask, self.config.pad_token_id)
        check_words(input_ids, mask, self.config.vocab_size, "question")
        return *self.question_encoder(input_ids, mask), mask

    def reason(
        self,
        knowledge: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> MacOutput:
        """Reason about pictures that `encode_images` has seen; shapes as in `forward`.

        Raises:
            DataError: If the questions are not as many a picture, or as `encode_texts`.
        """
        words, question, mask = self.encode_texts(input_ids, attention_mask)
        if len(words) % len(knowledge):
            raise DataError(f"{len(words)} questions about {len(knowledge)} pictures; give as many about each")
        reasoning = self.cell(words, question, knowledge, mask)
        output = MacOutput(memory=reasoning.memory, question=question)
        if output_attentions:
            output.question_attentions = reasoning.question_attentions
            output.image_attentions = reasoning.image_attentions
            output.self_attentions = reasoning.self_attentions
        return output

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        region_features: Tensor | None = None,
        output_attentions: bool = False,
    ) -> MacOutput:
        """Reason about questions.

        Args:
            input_ids: [B, L], the questions about the first picture first.
            attention_mask: [B, L].
            pixel_values: [I, 3, H, W]; or
            region_features: [I, N, feature_size].
            output_attentions: Whether to return the attention of every step.
        """
        knowledge = self.encode_images(pixel_values, region_features)
        return self.reason(knowledge, input_ids, attention_mask, output_attentions)


class MacForQuestionAnswering(MacPreTrainedModel):
    """MAC with the scores of the answers (see `MacModel` for the flow of data).

    Args:
        config: A `MacConfig`, whose `id2label` names the answers.
    """

    def __init__(self, config: MacConfig) -> None:
        super().__init__(config)
        self.model = MacModel(config)
        self.classifier = MacClassifier(config)
        self.post_init()

    def encode_images(self, **inputs: Any) -> Tensor:
        """See `MacModel.encode_images`."""
        return self.model.encode_images(**inputs)

    def answer(
        self,
        knowledge: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> MacOutput:
        """Answer questions about pictures that `encode_images` has seen; shapes as in `forward`."""
        output = self.model.reason(knowledge, input_ids, attention_mask, output_attentions)
        output.logits = self.classifier(output.memory, output.question)
        return output

    def answer_words(self, logits: Tensor) -> list[str]:
        """The best answer of each row of logits [B, A], in words."""
        names: Any = self.config.id2label
        return [names[index] for index in logits.argmax(dim=-1).tolist()]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        region_features: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool = False,
    ) -> MacOutput:
        """Answer questions.

        Args:
            input_ids: [B, L], the questions about the first picture first.
            attention_mask: [B, L].
            pixel_values: [I, 3, H, W]; or
            region_features: [I, N, feature_size].
            labels: The answers' numbers [B]; -100 where the answer does not count.
            output_attentions: Whether to return the attention of every step.

        Returns:
            A `MacOutput`.

        Raises:
            DataError: As of `MacModel`, or if a label is no answer's number.
        """
        knowledge = self.model.encode_images(pixel_values, region_features)
        output = self.answer(knowledge, input_ids, attention_mask, output_attentions)
        if labels is not None:
            output.loss = self._loss(output.logits, labels)  # type: ignore[arg-type]
        return output

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the answers that count; zero where none does."""
        counted = labels != -100
        if labels.shape != logits.shape[:1] or ((labels < 0) & counted).any() or (labels >= logits.shape[1]).any():
            raise DataError(
                f"labels must be {len(logits)} numbers of the {logits.shape[1]} answers of config.id2label, or -100"
            )
        return F.cross_entropy(logits, labels, reduction="sum") / counted.sum().clamp_min(1)
