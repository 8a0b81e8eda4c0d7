"""M4C: answering questions about what is written in pictures (Hu et al. 2020), under any alignment function."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from .attention_m4c import M4CTransformer, prefix_mask
from .checked_inputs import check_regions, check_words, word_mask
from .configuration_m4c import ANSWER_BEGIN, M4CConfig
from .decoding_m4c import M4CAnswer, M4CAnswers, PointerNetwork, as_float, search, spell_answers
from .embedding_m4c import (
    M4CEntities,
    M4CPictures,
    OcrInputs,
    PictureEmbedding,
    PreviousAnswerEmbedding,
    QuestionEncoder,
    UniformLinear,
    check_shape,
    first_text_layers,
    load_text_encoder,
)
from .errors import DataError
from .modeling_base import AlignmentPreTrainedModel, VisionAlignmentModel

__all__ = ["M4CForQuestionAnswering", "M4CModel", "M4COutput", "M4CPreTrainedModel"]


@dataclass
class M4COutput(ModelOutput):
    """Output of M4C, of T decoding steps for B questions; E entities are L words, O objects and R OCR slots.

    Attributes:
        loss: Scalar, where labels are given: the binary cross-entropy summed over vocabulary and OCR slots, meaned over
            the steps that count.
        logits: Scores [B, T, V + R] of the vocabulary and of the OCR slots, -10,000 where no token is.
        entity_states: The entities' last states [B, E, d]; of `M4CModel` alone.
        decoder_states: The steps' last states [B, T, d].
        attentions: One [B, heads, E + T, E + T] a layer, over words, objects, OCR slots and steps; on request.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    entity_states: Tensor | None = None
    decoder_states: Tensor | None = None
    attentions: tuple[Tensor, ...] | None = None


class M4CPreTrainedModel(AlignmentPreTrainedModel):
    """Base of the M4C models."""

    config_class = M4CConfig
    main_input_name = "input_ids"

    def _init_weights(self, module: nn.Module) -> None:
        """The published code's starting values: BERT's in the transformer, torch's own around it."""
        if isinstance(module, UniformLinear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound * module.gain, bound * module.gain)
            init.uniform_(module.bias, module.offset - bound, module.offset + bound)
        else:
            super()._init_weights(module)
            if isinstance(module, PointerNetwork) and module.bias is not None:
                init.constant_(module.bias, self.config.pointer_bias)


class M4CModel(M4CPreTrainedModel, VisionAlignmentModel):
    """M4C up to the last states of its multimodal transformer.

        input_ids [B, L] -> BERT's first layers --------------> words -------+
        pixel_values -> backbone -> grid -+- its cells, or                   |
                                          +- pooled by region_boxes --+      |
        region_features, region_boxes ----|---------------------------+-> objects -+-> [words, objects, OCR, steps] ->
                                          +- pooled by ocr_boxes --+               |   prefix-masked transformer, f in
        ocr_word_vectors, ocr_phoc, ocr_features, ocr_boxes -------+-> OCR tokens -+   every head -> [B, E + T, d]
        previous_ids -> row of the classifier's weight, or OCR token ---> steps ---+

    B is a multiple of I: the q = B / I questions i * q to i * q + q - 1 are about picture i, which is embedded once.

    Args:
        config: An `M4CConfig`.
    """

    def __init__(self, config: M4CConfig) -> None:
        super().__init__(config)
        self.build_backbone()
        self.question_encoder = QuestionEncoder(config)
        self.picture_embedding = PictureEmbedding(config)
        self.previous_embedding = PreviousAnswerEmbedding(config)
        self.transformer = M4CTransformer(config)
        self.post_init()

    def encode_images(
        self,
        pixel_values: Tensor | None = None,
        grid_features: Tensor | None = None,
        region_features: Tensor | None = None,
        region_boxes: Tensor | None = None,
        region_mask: Tensor | None = None,
        ocr_boxes: Tensor | None = None,
        ocr_mask: Tensor | None = None,
        ocr_word_vectors: Tensor | None = None,
        ocr_phoc: Tensor | None = None,
        ocr_features: Tensor | None = None,
    ) -> M4CPictures:
        """Embed the objects and OCR tokens of pictures, once for any number of questions.

        Args:
            pixel_values: [I, 3, H, W], for a model with a backbone, whose square grid gives the features; or
            grid_features: [I, N, F], the cells of a square grid in reading order, as that backbone gives them; or
            region_features: [I, O, F], the objects' own features; without `region_boxes` they are such a grid as well.
            region_boxes: [I, O, 4], [x0, y0, x1, y1] in [0, 1]. With a grid they say where each object's features are
                pooled; without them every cell is an object.
            region_mask: [I, O], true where there is an object; by default everywhere.
            ocr_boxes: [I, R, 4] of the OCR tokens; without them the pictures have no text.
            ocr_mask: [I, R], true where there is a token; by default everywhere.
            ocr_word_vectors: [I, R, word_vector_size].
            ocr_phoc: [I, R, phoc_size].
            ocr_features: [I, R, F]; by default pooled from the grid by `ocr_boxes`.

        Raises:
            DataError: If the pictures are given in no form or several, an input has another shape or is missing, or
                boxes are not in [0, 1].
        """
        if sum(given is not None for given in (pixel_values, grid_features, region_features)) != 1:
            raise DataError("give one of pixel_values, grid_features and region_features")
        if pixel_values is not None:
            features = self.extract_regions(pixel_values)
        else:
            features = grid_features if region_features is None else region_features  # type: ignore[assignment]
            check_regions(None, features, self.config.feature_size)
        is_grid = region_features is None or region_boxes is None
        return self.picture_embedding(
            features,
            is_grid,
            region_boxes,
            region_mask,
            OcrInputs(ocr_boxes, ocr_mask, ocr_word_vectors, ocr_phoc, ocr_features),
        )

    def encode_texts(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, question_phoc: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode questions.

        Args:
            input_ids: [B, L], padded on the right.
            attention_mask: [B, L], true where there is a word piece; by default where the id is not the padding's.
            question_phoc: [B, L, phoc_size] where the config says `question_spellings`: the spelling of the word that a
                piece belongs to, zeros for words that the text encoder knows.

        Returns:
            Words [B, L, d] and the mask [B, L].

        Raises:
            DataError: If a question has no words, is padded on the left, is longer than the text encoder reads or has
                ids beyond its vocabulary, or the mask has another shape.
        """
        text_config = self.config.text_config
        mask = word_mask(input_ids, attention_mask, getattr(text_config, "pad_token_id", None))
        check_words(input_ids, mask, text_config.vocab_size, "question")
        longest = getattr(text_config, "max_position_embeddings", None)
        if longest is not None and input_ids.shape[1] > longest:
            raise DataError(
                f"questions of {input_ids.shape[1]} word pieces, the text encoder reads {longest}; truncate them"
            )
        return self.question_encoder(input_ids, mask, question_phoc), mask

    def embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        question_phoc: Tensor | None = None,
        **pictures: Tensor | None,
    ) -> M4CEntities:
        """Make the entities of questions and their pictures.

        Args:
            input_ids: [B, L], the questions about the first picture first.
            attention_mask: [B, L].
            question_phoc: [B, L, phoc_size]; see `encode_texts`.
            pictures: As `encode_images` takes them.

        Raises:
            DataError: As of `encode_images` and `encode_texts`, or if the questions are not as many a picture.
        """
        return self.join(*self.encode_texts(input_ids, attention_mask, question_phoc), self.encode_images(**pictures))

    def join(self, words: Tensor, mask: Tensor, pictures: M4CPictures) -> M4CEntities:
        """Put the words [B, L, d], their mask [B, L] and the pictures that they are about into one sequence each."""
        if len(words) % len(pictures.objects):
            raise DataError(f"{len(words)} questions about {len(pictures.objects)} pictures; give as many about each")
        times = len(words) // len(pictures.objects)
        states, masks = [words], [mask]
        for embedded, there in (
            (pictures.objects, pictures.object_mask),
            (pictures.ocr_tokens, pictures.ocr_mask),
        ):
            states.append(embedded.repeat_interleave(times, dim=0))
            masks.append(there.repeat_interleave(times, dim=0))
        return M4CEntities(torch.cat(states, dim=1), torch.cat(masks, dim=1), pictures.ocr_tokens.shape[1])

    def transform(
        self,
        entities: M4CEntities,
        previous_ids: Tensor,
        answers: Tensor,
        first: int = 0,
        output_attentions: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Run the transformer over entities and decoding steps at once.

        Args:
            entities: Of `embed`.
            previous_ids: [B, T], the word fed at each step.
            answers: The vectors of the vocabulary [V, d].
            first: The first position whose last state is wanted.
            output_attentions: Whether to return the attention of every layer.

        Returns:
            The last states [B, E + T - first, d], and the attention of every layer on request.

        Raises:
            DataError: If `previous_ids` has another shape or more steps than the model has, or is out of range.
        """
        size, most = len(answers) + entities.num_ocr_tokens, self.config.num_decoding_steps
        if (
            previous_ids.dim() != 2
            or len(previous_ids) != len(entities.states)
            or not 0 < previous_ids.shape[1] <= most
        ):
            raise DataError(
                f"previous_ids is {tuple(previous_ids.shape)}; it must be [questions, steps], for "
                f"{len(entities.states)} questions and at most {most} steps (config.num_decoding_steps)"
            )
        if int(previous_ids.min()) < 0 or int(previous_ids.max()) >= size:
            raise DataError(
                f"previous_ids reach from {int(previous_ids.min())} to {int(previous_ids.max())}; they must be below "
                f"{size}: {len(answers)} words and {entities.num_ocr_tokens} OCR slots"
            )
        steps = self.previous_embedding(previous_ids, answers, entities.ocr_tokens)
        mask = prefix_mask(entities.mask, steps.shape[1], steps.dtype)
        states = torch.cat([entities.states, steps], dim=1)
        return self.transformer(states, mask, first, output_attentions=output_attentions)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        previous_ids: Tensor | None = None,
        answers: Tensor | None = None,
        output_attentions: bool = False,
        **pictures: Tensor | None,
    ) -> M4COutput:
        """The last states of entities and decoding steps.

        Args:
            input_ids: [B, L], the questions about the first picture first.
            attention_mask: [B, L].
            previous_ids: [B, T], the word fed at each step.
            answers: The vectors of the vocabulary [V, d]: the weight of the classifier.
            output_attentions: Whether to return the attention of every layer.
            pictures: As `encode_images` takes them, and `question_phoc`.
        """
        if previous_ids is None or answers is None:
            raise DataError("give previous_ids and answers; M4CForQuestionAnswering brings the answers along")
        entities = self.embed(input_ids, attention_mask, **pictures)
        states, attentions = self.transform(entities, previous_ids, answers, 0, output_attentions)
        size = entities.states.shape[1]
        return M4COutput(entity_states=states[:, :size], decoder_states=states[:, size:], attentions=attentions)


class M4CForQuestionAnswering(M4CPreTrainedModel):
    """M4C with the scores of the vocabulary and of the OCR tokens (see `M4CModel` for the flow of data).

        last states of the steps -+-> classifier -----------------------------> scores of the vocabulary [B, T, V]
                                  +-> query -+
        last states of the OCR tokens -> key +-> scaled products, padding masked -> scores of the tokens [B, T, R]

    Args:
        config: An `M4CConfig`, whose `id2label` is the vocabulary.
    """

    def __init__(self, config: M4CConfig) -> None:
        super().__init__(config)
        self.model = M4CModel(config)
        self.classifier = UniformLinear(config.hidden_size, config.num_labels or 0, offset=config.answer_bias)
        self.pointer = PointerNetwork(config)
        self.post_init()

    @classmethod
    def from_text_encoder(
        cls, text_encoder: str = "google-bert/bert-base-uncased", num_text_layers: int = 3, **fields: Any
    ) -> "M4CForQuestionAnswering":
        """A model with fresh weights whose question encoder is the first layers of a BERT-like checkpoint.

        Args:
            text_encoder: A folder, or a Hub repository id.
            num_text_layers: How many of its layers are kept.
            fields: Of the configuration.

        Raises:
            CheckpointError: If there is no such checkpoint, or it lacks weights.
            ConfigurationError: If it has fewer layers, or a field is wrong.
        """
        text_config = first_text_layers(text_encoder, num_text_layers)
        model = cls(cls.config_class(text_config=text_config, **fields))
        loaded = load_text_encoder(text_encoder, text_config)
        model.model.question_encoder.text_model.load_state_dict(loaded.state_dict())
        return model

    def encode_images(self, **inputs: Any) -> M4CPictures:
        """See `M4CModel.encode_images`."""
        return self.model.encode_images(**inputs)

    def score(self, steps: Tensor, pointer_keys: Tensor, ocr_mask: Tensor) -> Tensor:
        """Last states [B, T, d], pointer keys [B, R, size], mask [B, R] -> scores [B, T, V + R], float32 at least."""
        return torch.cat([as_float(self.classifier(steps)), self.pointer(steps, pointer_keys, ocr_mask)], dim=-1)

    @torch.no_grad()
    def decode(
        self,
        entities: M4CEntities,
        num_beams: int = 1,
        max_new_tokens: int | None = None,
        length_penalty: float = 1.0,
        output_scores: bool = False,
        stop_at_end: bool = True,
        num_return_sequences: int = 1,
    ) -> M4CAnswers:
        """Find the answers to entities that `M4CModel.embed` has made; see `generate`.

        Args:
            entities: Of `M4CModel.embed`.
            num_beams: See `generate`.
            max_new_tokens: See `generate`.
            length_penalty: See `generate`.
            output_scores: See `generate`.
            stop_at_end: Whether a greedy answer ends at </s>; the published evaluation takes all steps.
            num_return_sequences: How many of the beams are returned for each question, the best first.

        Raises:
            ConfigurationError: As of `generate`.
        """
        settings = (num_beams, max_new_tokens, length_penalty, output_scores, stop_at_end, num_return_sequences)
        return search(self, entities, *settings)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        num_beams: int = 1,
        max_new_tokens: int | None = None,
        length_penalty: float = 1.0,
        output_scores: bool = False,
        ocr_tokens: Sequence[Sequence[str]] | None = None,
        **pictures: Tensor | None,
    ) -> M4CAnswers:
        """Answer questions; stops when all answers have ended.

        Args:
            input_ids: [B, L], the questions about the first picture first.
            attention_mask: [B, L].
            num_beams: How many beginnings are followed; 1 takes the best word at each step.
            max_new_tokens: Words of an answer at most; by default `config.num_decoding_steps`.
            length_penalty: With beams: the answer's log-probability is divided by its number of words to this power.
            output_scores: Whether to return the scores of every step.
            ocr_tokens: The OCR tokens of each picture, if the answers shall be returned in words.
            pictures: As `M4CModel.encode_images` takes them, and `question_phoc`.

        Raises:
            ConfigurationError: If there are fewer than one beam or step, or more than the model has.
            DataError: As of `M4CModel.embed` and `spell_answers`.
        """
        entities = self.model.embed(input_ids, attention_mask, **pictures)
        found = self.decode(entities, num_beams, max_new_tokens, length_penalty, output_scores)
        if ocr_tokens is not None and found.sequences is not None:
            found.answers = self.answer_words(found.sequences, ocr_tokens, pictures.get("ocr_boxes"))
        return found

    def answer_words(
        self, sequences: Tensor, ocr_tokens: Sequence[Sequence[str]], ocr_boxes: Tensor | None = None
    ) -> list[M4CAnswer]:
        """The answers [B, T] in words, each with its source; see `spell_answers`."""
        names: Any = self.config.id2label
        return spell_answers(sequences, names, ocr_tokens, ocr_boxes)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        grid_features: Tensor | None = None,
        region_features: Tensor | None = None,
        region_boxes: Tensor | None = None,
        region_mask: Tensor | None = None,
        ocr_boxes: Tensor | None = None,
        ocr_mask: Tensor | None = None,
        ocr_word_vectors: Tensor | None = None,
        ocr_phoc: Tensor | None = None,
        ocr_features: Tensor | None = None,
        question_phoc: Tensor | None = None,
        previous_ids: Tensor | None = None,
        labels: Tensor | None = None,
        label_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> M4COutput:
        """Score the words of answers.

        Args:
            input_ids: [B, L], the questions about the first picture first.
            attention_mask: [B, L].
            pixel_values: [I, 3, H, W]; or
            grid_features: [I, N, F]; or
            region_features: [I, O, F]; see `M4CModel.encode_images` for these and the next.
            region_boxes: [I, O, 4].
            region_mask: [I, O].
            ocr_boxes: [I, R, 4].
            ocr_mask: [I, R].
            ocr_word_vectors: [I, R, word_vector_size].
            ocr_phoc: [I, R, phoc_size].
            ocr_features: [I, R, F].
            question_phoc: [B, L, phoc_size]; see `M4CModel.encode_texts`.
            previous_ids: [B, T], the word fed at each step, `ANSWER_BEGIN` first. Without them each step is fed the
                model's own best word, all `config.num_decoding_steps` of them, as in the published evaluation.
            labels: [B, T, V + R], 1 where a word or token is right.
            label_mask: [B, T], 1 where a step counts; by default all do.
            output_attentions: Whether to return the attention of every layer.

        Returns:
            An `M4COutput`.

        Raises:
            DataError: As of `M4CModel`, or if labels or their mask have another shape.
        """
        entities = self.model.embed(
            input_ids,
            attention_mask,
            question_phoc,
            pixel_values=pixel_values,
            grid_features=grid_features,
            region_features=region_features,
            region_boxes=region_boxes,
            region_mask=region_mask,
            ocr_boxes=ocr_boxes,
            ocr_mask=ocr_mask,
            ocr_word_vectors=ocr_word_vectors,
            ocr_phoc=ocr_phoc,
            ocr_features=ocr_features,
        )
        if previous_ids is None:
            answers: Any = self.decode(entities, stop_at_end=False).sequences
            previous_ids = F.pad(answers[:, :-1], (1, 0), value=ANSWER_BEGIN)
        output = self.answer(entities, previous_ids, output_attentions)
        if labels is not None:
            output.loss = self._loss(output.logits, labels, label_mask)  # type: ignore[arg-type]
        return output

    def answer(self, entities: M4CEntities, previous_ids: Tensor, output_attentions: bool = False) -> M4COutput:
        """Score the words of answers to entities that `M4CModel.embed` has made; shapes as in `forward`."""
        states, attentions = self.model.transform(
            entities, previous_ids, self.classifier.weight, entities.first_ocr_token, output_attentions
        )
        tokens, steps = states.split([entities.num_ocr_tokens, previous_ids.shape[1]], dim=1)
        logits = self.score(steps, self.pointer.key(tokens), entities.ocr_mask)
        return M4COutput(logits=logits, decoder_states=steps, attentions=attentions)

    def _loss(self, logits: Tensor, labels: Tensor, label_mask: Tensor | None) -> Tensor:
        """Binary cross-entropy summed over the answers, meaned over the steps that count; zero where none does."""
        check_shape("labels", labels, tuple(logits.shape), "[questions, steps, words + OCR slots]")
        if label_mask is None:
            label_mask = labels.new_ones(labels.shape[:2])
        check_shape("label_mask", label_mask, tuple(logits.shape[:2]), "[questions, steps]")
        if not self.config.copy_words:
            logits, labels = logits[..., : self.config.num_labels], labels[..., : self.config.num_labels]
        of_steps = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").sum(dim=-1)
        counted = label_mask.to(logits.dtype)
        return (of_steps * counted).sum() / counted.sum().clamp_min(1)
