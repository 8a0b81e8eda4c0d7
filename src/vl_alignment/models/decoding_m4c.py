"""How M4C finds an answer step by step, greedily or with beams, and what its words are and where they came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from .attention_m4c import M4CCache, key_mask
from .configuration_m4c import ANSWER_BEGIN, ANSWER_END, ANSWER_PADDING, M4CConfig
from .embedding_m4c import M4CEntities, UniformLinear
from .errors import ConfigurationError, DataError

__all__ = [
    "AnswerWord",
    "CachedDecoder",
    "M4CAnswer",
    "M4CAnswers",
    "PointerNetwork",
    "StepDecoder",
    "as_float",
    "beam_search",
    "greedy_search",
    "search",
    "spell_answers",
]


_MASKED = -10000.0  # as published; a finite number, so that the loss stays one


@dataclass(frozen=True)
class AnswerWord:
    """One word of an answer.

    Attributes:
        word: The word.
        source: Whether it was known ("vocabulary") or copied from the picture ("ocr").
        token: The number of the OCR token that was copied.
        box: Where it stands in the picture, [x0, y0, x1, y1] in [0, 1], if the boxes were given.
    """

    word: str
    source: Literal["vocabulary", "ocr"]
    token: int | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class M4CAnswer:
    """An answer in words.

    Attributes:
        words: Its words up to its end.
    """

    words: tuple[AnswerWord, ...]

    @property
    def text(self) -> str:
        """The words with spaces between them."""
        return " ".join(word.word for word in self.words)


@dataclass
class M4CAnswers(ModelOutput):
    """What `generate` returns, of T steps for B questions; V is the size of the vocabulary, R that of OCR slots.

    Where several answers of each question were asked for, B counts all of them, those of the first question first.

    Attributes:
        sequences: [B, T], 0 .. V - 1 for the vocabulary, V + r for OCR token r; padding after the answer's end.
        sequences_scores: [B], the sum of the words' log-probabilities (a softmax over vocabulary and OCR tokens); with
            beams divided by the number of words to the power of `length_penalty`.
        scores: [B, T, V + R], the model's scores at each step, on request.
        answers: The answers in words, each with its source, on request.
    """

    sequences: Tensor | None = None
    sequences_scores: Tensor | None = None
    scores: Tensor | None = None
    answers: list[M4CAnswer] | None = None


class StepDecoder(Protocol):
    """What the searches ask of a model."""

    def __call__(self, previous_ids: Tensor) -> Tensor:
        """Take one step: previous words [rows] -> scores [rows, V + R]."""

    def repeat(self, times: int) -> None:
        """Give each row so many beams, side by side."""

    def reorder(self, rows: Tensor) -> None:
        """Let row i go on from row rows[i]."""


class PointerNetwork(nn.Module):
    """Scores every OCR token as the next word: query(step) . key(token) / sqrt(size), and a bias if there is one."""

    def __init__(self, config: M4CConfig) -> None:
        super().__init__()
        self.scale, self.copies = config.pointer_size**-0.5, config.copy_words
        self.query = UniformLinear(config.hidden_size, config.pointer_size, config.pointer_gain)
        self.key = UniformLinear(config.hidden_size, config.pointer_size, config.pointer_gain)
        self.bias = None if config.pointer_bias is None else nn.Parameter(torch.tensor(float(config.pointer_bias)))

    def forward(self, steps: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Score.

        Args:
            steps: [B, T, d].
            keys: Of the tokens' last states, by `key`, [B, R, size].
            mask: [B, R], true where there is a token.

        Returns:
            [B, T, R].
        """
        if not self.copies:
            return as_float(steps.new_full((*steps.shape[:2], keys.shape[1]), _MASKED))
        scores = as_float(self.query(steps) @ keys.transpose(1, 2)) * self.scale
        scores = scores if self.bias is None else scores + self.bias
        return scores + (~mask).unsqueeze(1) * _MASKED


class CachedDecoder:
    """Takes the decoding steps one by one; the entities' keys, values and pointer keys are computed once.

    Args:
        model: The `M4CForQuestionAnswering` whose steps they are.
        entities: Of `M4CModel.embed`.
        steps: At most.
    """

    def __init__(self, model: Any, entities: M4CEntities, steps: int) -> None:
        self.model, self.ocr_tokens, self.ocr_mask = model, entities.ocr_tokens, entities.ocr_mask
        dtype = entities.states.dtype
        self.cache = M4CCache(entities.mask, steps, dtype)
        mask = key_mask(entities.mask, dtype)
        tokens, _ = model.model.transformer(entities.states, mask, entities.first_ocr_token, self.cache)
        self.pointer_keys = model.pointer.key(tokens)

    def __call__(self, previous_ids: Tensor) -> Tensor:
        """Previous words [rows] -> scores [rows, V + R]."""
        model, answers = self.model, self.model.classifier.weight
        embedding = model.model.previous_embedding
        step = embedding(previous_ids.unsqueeze(1), answers, self.ocr_tokens, self.cache.steps)
        states, _ = model.model.transformer(step, self.cache.mask_for(1), cache=self.cache)
        return model.score(states, self.pointer_keys, self.ocr_mask).squeeze(1)

    def repeat(self, times: int) -> None:
        """Give each question so many beams, side by side."""
        self.cache.repeat(times)
        self.ocr_tokens = self.ocr_tokens.repeat_interleave(times, dim=0)
        self.ocr_mask = self.ocr_mask.repeat_interleave(times, dim=0)
        self.pointer_keys = self.pointer_keys.repeat_interleave(times, dim=0)

    def reorder(self, rows: Tensor) -> None:
        """Let beam i go on from beam rows[i] of the same question."""
        self.cache.reorder(rows)


def search(
    model: Any,
    entities: M4CEntities,
    num_beams: int,
    max_new_tokens: int | None,
    length_penalty: float,
    output_scores: bool,
    stop_at_end: bool,
    num_return_sequences: int,
) -> M4CAnswers:
    """Find the answers of an `M4CForQuestionAnswering`, greedily or with beams; see its `decode`."""
    most, words = model.config.num_decoding_steps, len(model.classifier.weight)
    steps = most if max_new_tokens is None else max_new_tokens
    if not 1 <= steps <= most:
        raise ConfigurationError(f"max_new_tokens is {steps}; this model decodes 1 to {most} words")
    if not 1 <= num_beams <= words:
        raise ConfigurationError(f"num_beams is {num_beams}; it must be 1 to the {words} words of the vocabulary")
    if not 1 <= num_return_sequences <= num_beams:
        raise ConfigurationError(
            f"num_return_sequences is {num_return_sequences}; it must be 1 to the {num_beams} beams"
        )
    decoder = CachedDecoder(model, entities, steps)
    begin = torch.full((len(entities.states),), ANSWER_BEGIN, device=entities.states.device)
    if num_beams == 1:
        return greedy_search(decoder, begin, steps, output_scores, stop_at_end)
    return beam_search(decoder, begin, steps, num_beams, length_penalty, output_scores, num_return_sequences)


def greedy_search(
    decoder: StepDecoder, begin: Tensor, steps: int, output_scores: bool = False, stop_at_end: bool = True
) -> M4CAnswers:
    """Take the best word at each step.

    Args:
        decoder: Before its first step.
        begin: The first words that are fed [B]: `ANSWER_BEGIN`.
        steps: At most.
        output_scores: Whether to return the scores of every step.
        stop_at_end: Whether an answer ends at </s>, as opposed to the published evaluation, which takes all steps.
    """
    previous, finished = begin, torch.zeros_like(begin, dtype=torch.bool)
    sequences, scores, total = [], [], torch.zeros(len(begin), device=begin.device)
    for _ in range(steps):
        logits = decoder(previous)
        best, previous = logits.max(dim=-1)
        gained = best - logits.logsumexp(dim=-1)
        total = total + gained.masked_fill(finished, 0)
        previous = previous.masked_fill(finished, ANSWER_PADDING)
        sequences.append(previous)
        if output_scores:
            scores.append(logits)
        if stop_at_end:
            finished = finished | (previous == ANSWER_END)
            if finished.all():
                break
    return M4CAnswers(torch.stack(sequences, 1), total, torch.stack(scores, 1) if output_scores else None)


def beam_search(
    decoder: StepDecoder,
    begin: Tensor,
    steps: int,
    num_beams: int,
    length_penalty: float = 1.0,
    output_scores: bool = False,
    num_return_sequences: int = 1,
) -> M4CAnswers:
    """Follow the `num_beams` most probable beginnings of each answer; an answer that has ended keeps its place.

    Args:
        decoder: Before its first step.
        begin: The first words that are fed [B]: `ANSWER_BEGIN`.
        steps: At most.
        num_beams: K.
        length_penalty: Of those found the ones are returned whose log-probability is highest after division by their
            number of words to this power.
        output_scores: Whether to return the scores of every step of these answers.
        num_return_sequences: How many answers of each question are returned, the best first, side by side.
    """
    questions, device = len(begin), begin.device
    sums = torch.full((questions, num_beams), -torch.inf, device=device)
    sums[:, 0] = 0  # the beams are equal before the first step: one of them counts
    offsets = torch.arange(questions, device=device).unsqueeze(1) * num_beams
    previous = begin.repeat_interleave(num_beams)
    finished = torch.zeros(questions * num_beams, dtype=torch.bool, device=device)
    sequences, scores = previous.new_empty(len(previous), 0), None
    for step in range(steps):
        logits = decoder(begin if step == 0 else previous)
        if step == 0:
            decoder.repeat(num_beams)
            logits = logits.repeat_interleave(num_beams, dim=0)
        gained = logits.log_softmax(dim=-1)
        gained[finished] = -torch.inf
        gained[finished, ANSWER_PADDING] = 0
        size = logits.shape[-1]
        sums, choice = (sums.unsqueeze(-1) + gained.view(questions, num_beams, size)).flatten(1).topk(num_beams)
        rows, previous = (offsets + choice // size).flatten(), (choice % size).flatten()
        sequences = torch.cat([sequences[rows], previous.unsqueeze(1)], dim=1)
        if output_scores:
            stepped = logits.unsqueeze(1)
            scores = (stepped if scores is None else torch.cat([scores, stepped], dim=1))[rows]
        finished = finished[rows] | (previous == ANSWER_END)
        if finished.all():
            break
        decoder.reorder(rows)
    words = _lengths(sequences).view(questions, num_beams)
    ranked, best = (sums / words.to(sums.dtype) ** length_penalty).topk(num_return_sequences)
    rows = (offsets + best).flatten()
    sequences = sequences[rows]
    longest = int(_lengths(sequences).max())  # a beam that was dropped may have been longer
    return M4CAnswers(sequences[:, :longest], ranked.flatten(), None if scores is None else scores[rows, :longest])


def _lengths(sequences: Tensor) -> Tensor:
    """The number of words up to the end, itself included: [rows, T] -> [rows]."""
    ended_before = (sequences == ANSWER_END).cumsum(dim=1) - (sequences == ANSWER_END).long()
    return (ended_before == 0).sum(dim=1)


def spell_answers(
    sequences: Tensor,
    answers: Mapping[int, str],
    ocr_tokens: Sequence[Sequence[str]],
    ocr_boxes: Any = None,
) -> list[M4CAnswer]:
    """Put answers into words.

    Args:
        sequences: [B, T], of `greedy_search` or `beam_search`.
        answers: The vocabulary by number.
        ocr_tokens: The OCR tokens of each of the I pictures; the questions about the first picture come first.
        ocr_boxes: Their boxes [I, R, 4], if the words shall have them.

    Returns:
        One answer a question: its words up to </s>, without padding and begin.

    Raises:
        DataError: If the questions are no multiple of the pictures, or a word was copied from a slot without a token.
    """
    if not ocr_tokens or len(sequences) % len(ocr_tokens):
        raise DataError(f"{len(sequences)} answers about {len(ocr_tokens)} pictures' OCR tokens; give those of each")
    boxes = None if ocr_boxes is None else torch.as_tensor(ocr_boxes).tolist()
    spelled = []
    for question, numbers in enumerate(sequences.tolist()):
        picture = question * len(ocr_tokens) // len(sequences)
        words = []
        for number in numbers:
            if number == ANSWER_END:
                break
            token = number - len(answers)
            if token >= len(ocr_tokens[picture]):
                count = len(ocr_tokens[picture])
                raise DataError(f"copies OCR token {token} of {count}; give all tokens of the picture", record=question)
            if token >= 0:
                box = None if boxes is None else tuple(boxes[picture][token])
                words.append(AnswerWord(ocr_tokens[picture][token], "ocr", token, box))
            elif number not in (ANSWER_PADDING, ANSWER_BEGIN):
                words.append(AnswerWord(answers[number], "vocabulary"))
        spelled.append(M4CAnswer(tuple(words)))
    return spelled


def as_float(tensor: Tensor) -> Tensor:
    """In float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
