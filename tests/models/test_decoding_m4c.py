import itertools

import pytest
import torch

from vl_alignment.models.alignment import alignment_function_names
from vl_alignment.models.configuration_m4c import ANSWER_BEGIN, ANSWER_END, SPECIAL_ANSWERS
from vl_alignment.models.decoding_m4c import AnswerWord, beam_search, greedy_search, spell_answers
from vl_alignment.models.errors import ConfigurationError, DataError

from .m4c_model import NO_DROPOUT, SLOTS, STEPS, VOCABULARY, WORDS, alone, lively_model, tiny_inputs, tiny_model


class TableDecoder:
    """Scores that depend on all words before, [rows, size]: a random table for each history."""

    def __init__(self, size, seed=0):
        self.size, self.seed, self.histories = size, seed, None

    def scores(self, history):
        generator = torch.Generator().manual_seed(hash((self.seed, *history)) % 2**31)
        return 2 * torch.randn(self.size, generator=generator)

    def __call__(self, previous):
        words = previous.tolist()
        if self.histories is None:
            self.histories = [(row,) for row in range(len(words))]
        self.histories = [(*history, word) for history, word in zip(self.histories, words, strict=True)]
        return torch.stack([self.scores(history) for history in self.histories])

    def repeat(self, times):
        self.histories = [history for history in self.histories for _ in range(times)]

    def reorder(self, rows):
        self.histories = [self.histories[row] for row in rows.tolist()]


def begin(questions):
    return torch.full((questions,), ANSWER_BEGIN)


def likelihood(decoder, question, words):
    """Log-probability of an answer, word by word."""
    history, total = (question, ANSWER_BEGIN), 0.0
    for word in words:
        total += decoder.scores(history).log_softmax(-1)[word].item()
        history = (*history, word)
    return total


def all_answers(size, steps):
    """Every answer: up to its end, or of so many words."""
    words = [word for word in range(size) if word != ANSWER_END]
    for length in range(steps):
        yield from ((*answer, ANSWER_END) for answer in itertools.product(words, repeat=length))
    yield from itertools.product(words, repeat=steps)


def without_padding(sequence):
    words = sequence.tolist()
    return tuple(words[: words.index(ANSWER_END) + 1] if ANSWER_END in words else words)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_enough_beams_find_the_best_of_all_answers(length_penalty):
    size, steps, questions = 4, 3, 5
    found = beam_search(TableDecoder(size), begin(questions), steps, 64, length_penalty, output_scores=True)
    for question in range(questions):
        decoder = TableDecoder(size)
        ranked = {
            answer: likelihood(decoder, question, answer) / len(answer) ** length_penalty
            for answer in all_answers(size, steps)
        }
        best = max(ranked, key=ranked.get)
        assert without_padding(found.sequences[question]) == best
        assert found.sequences_scores[question].item() == pytest.approx(ranked[best], abs=1e-4)
        history = (question, ANSWER_BEGIN)
        for step, word in enumerate(best):
            torch.testing.assert_close(found.scores[question, step], decoder.scores(history))
            history = (*history, word)


def test_beams_find_better_answers_than_the_greedy_search():
    greedy = greedy_search(TableDecoder(6), begin(20), 5)
    beams = beam_search(TableDecoder(6), begin(20), 5, 6, length_penalty=0.0)
    assert (beams.sequences_scores >= greedy.sequences_scores - 1e-5).float().mean() > 0.9
    assert (beams.sequences_scores > greedy.sequences_scores + 1e-3).float().mean() > 0.2
    for answers in (greedy, beams):
        for question, (sequence, score) in enumerate(zip(answers.sequences, answers.sequences_scores, strict=True)):
            expected = likelihood(TableDecoder(6), question, without_padding(sequence))
            assert score.item() == pytest.approx(expected, abs=1e-4)


def test_several_answers_are_the_best_of_all_answers():
    size, steps, questions, wanted = 4, 3, 5, 4
    settings = {"length_penalty": 0.0, "output_scores": True, "num_return_sequences": wanted}
    found = beam_search(TableDecoder(size), begin(questions), steps, 64, **settings)
    assert found.sequences.shape == (questions * wanted, steps)
    for question in range(questions):
        decoder = TableDecoder(size)
        ranked = {answer: likelihood(decoder, question, answer) for answer in all_answers(size, steps)}
        best = sorted(ranked, key=ranked.get, reverse=True)[:wanted]
        rows = range(question * wanted, (question + 1) * wanted)
        assert [without_padding(found.sequences[row]) for row in rows] == best
        assert found.sequences_scores[rows].tolist() == pytest.approx([ranked[answer] for answer in best], abs=1e-4)
        torch.testing.assert_close(found.scores[rows[0], 0], decoder.scores((question, ANSWER_BEGIN)))


def test_one_beam_is_the_greedy_search():
    greedy = greedy_search(TableDecoder(6), begin(20), 5, output_scores=True)
    one = beam_search(TableDecoder(6), begin(20), 5, 1, length_penalty=0.0, output_scores=True)
    assert torch.equal(one.sequences, greedy.sequences)
    torch.testing.assert_close(one.sequences_scores, greedy.sequences_scores)
    ended = greedy.sequences == 0  # padding, or the word of that number: there the scores do not matter
    torch.testing.assert_close(one.scores[~ended], greedy.scores[~ended])


class ScriptedDecoder(TableDecoder):
    """Is sure of one answer a question."""

    def __init__(self, answers, size):
        super().__init__(size)
        self.answers, self.steps = answers, 0

    def scores(self, history):
        answer, step = self.answers[history[0]], len(history) - 2
        return 20 * torch.nn.functional.one_hot(torch.tensor([*answer, *[5] * 9][step]), self.size).float()

    def __call__(self, previous):
        self.steps += 1
        return super().__call__(previous)


@pytest.mark.parametrize("beams", [1, 3])
def test_search_stops_when_all_answers_have_ended(beams):
    answers = [(4, ANSWER_END), (5, 6, ANSWER_END), (ANSWER_END,)]
    decoder = ScriptedDecoder(answers, 7)
    if beams == 1:
        found = greedy_search(decoder, begin(3), 8)
        assert decoder.steps == 3
    else:
        found = beam_search(decoder, begin(3), 8, beams)
    assert found.sequences.tolist() == [[4, 2, 0], [5, 6, 2], [2, 0, 0]]
    decoder = ScriptedDecoder(answers, 7)
    published = greedy_search(decoder, begin(3), 6, output_scores=True, stop_at_end=False)
    assert published.sequences.tolist() == [[4, 2, 5, 5, 5, 5], [5, 6, 2, 5, 5, 5], [2, 5, 5, 5, 5, 5]]
    assert published.scores.shape == (3, 6, 7) and decoder.steps == 6


# The model


def full_encoding(model, inputs, choose=lambda logits: logits.argmax(-1)):
    """All steps encoded anew at each step, as published: the words that are chosen, and the last scores."""
    previous = torch.zeros(len(inputs["input_ids"]), STEPS, dtype=torch.long)
    previous[:, 0] = ANSWER_BEGIN
    with torch.no_grad():
        for _ in range(STEPS):
            logits = model(**inputs, previous_ids=previous).logits
            chosen = choose(logits)
            previous[:, 1:] = chosen[:, :-1]
    return chosen, logits


@pytest.mark.parametrize(
    ("name", "released"),
    [*((name, False) for name in alignment_function_names()), ("general_query", True), ("biased_general_query", True)],
)
def test_cached_steps_are_full_encoding_at_every_step(name, released):
    model = lively_model(alignment_function=name, released_layout=released)
    inputs = tiny_inputs(6, 3)
    chosen, logits = full_encoding(model, inputs)
    assert len(chosen.unique()) > 2 and (chosen >= VOCABULARY).any() and (chosen < VOCABULARY).any()
    found = model.decode(model.model.embed(**inputs), output_scores=True, stop_at_end=False)
    assert torch.equal(found.sequences, chosen)
    torch.testing.assert_close(found.scores, logits)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, logits)  # fed its own words


@pytest.mark.parametrize("beams", [2, 5])
def test_beams_of_the_model_are_scored_as_full_encoding_scores_them(beams):
    model, inputs = lively_model(alignment_function="cosine"), tiny_inputs(6, 3)
    found = model.generate(**inputs, num_beams=beams, output_scores=True)
    steps = found.sequences.shape[1]
    previous = torch.cat([torch.full((6, 1), ANSWER_BEGIN), found.sequences[:, :-1]], dim=1)
    with torch.no_grad():
        logits = model(**inputs, previous_ids=previous).logits
    for row, sequence in enumerate(found.sequences):
        length = len(without_padding(sequence))
        torch.testing.assert_close(found.scores[row, :length], logits[row, :length])
        words = logits[row, :length].log_softmax(-1).gather(1, sequence[:length, None])
        assert found.sequences_scores[row].item() == pytest.approx(words.sum().item() / length)
    assert steps <= STEPS


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_do_not_depend_on_batch_or_padding(beams):
    model, inputs = lively_model(), tiny_inputs(3)
    together = model.generate(**inputs, num_beams=beams)
    for index in range(3):
        single = model.generate(**alone(inputs, index), num_beams=beams)
        assert without_padding(single.sequences[0]) == without_padding(together.sequences[index])
        torch.testing.assert_close(single.sequences_scores[0], together.sequences_scores[index])


def test_number_of_words_and_beams_is_limited():
    model, inputs = tiny_model(), tiny_inputs()
    assert model.generate(**inputs, max_new_tokens=2).sequences.shape == (3, 2)
    for words in (0, STEPS + 1):
        with pytest.raises(ConfigurationError, match=f"max_new_tokens is {words}; this model decodes 1 to {STEPS}"):
            model.generate(**inputs, max_new_tokens=words)
    for beams in (0, VOCABULARY + 1):
        with pytest.raises(ConfigurationError, match=f"num_beams is {beams}"):
            model.generate(**inputs, num_beams=beams)
    entities = model.model.embed(**inputs)
    assert len(model.decode(entities, num_beams=3, num_return_sequences=2).sequences) == 6
    for answers in (0, 4):
        with pytest.raises(ConfigurationError, match=f"num_return_sequences is {answers}; it must be 1 to the 3 beams"):
            model.decode(entities, num_beams=3, num_return_sequences=answers)


def test_own_words_are_fed_in_training_as_well():
    model, inputs = tiny_model(**NO_DROPOUT).train(), tiny_inputs()
    output = model(**inputs, labels=torch.rand(3, STEPS, VOCABULARY + SLOTS))
    output.loss.backward()
    assert model.classifier.weight.grad.abs().sum() > 0 and model.pointer.key.weight.grad.abs().sum() > 0


# Words and their sources

VOCABULARY_WORDS = dict(enumerate((*SPECIAL_ANSWERS, *WORDS)))


def test_words_have_sources():
    sequences = torch.tensor([[4, 9, 2, 0], [8, 3, 8, 6], [2, 0, 0, 0], [1, 0, 7, 2]])
    boxes = torch.arange(16).view(2, 2, 4) / 16
    tokens = [["STOP", "ahead"], ["exit"]]
    answers = spell_answers(sequences, VOCABULARY_WORDS, tokens, boxes)
    assert [answer.text for answer in answers] == ["one ahead", "STOP <unk> STOP red", "", "blue"]
    known, copied = answers[0].words
    assert known == AnswerWord("one", "vocabulary", None, None)
    assert copied == AnswerWord("ahead", "ocr", 1, (0.25, 0.3125, 0.375, 0.4375))
    without = spell_answers(sequences, VOCABULARY_WORDS, tokens)
    assert without[0].words[1] == AnswerWord("ahead", "ocr", 1)
    with pytest.raises(DataError, match="record 3: copies OCR token 1 of 1"):
        spell_answers(torch.tensor([[4], [4], [4], [9]]), VOCABULARY_WORDS, tokens)
    for given in ([], [["a"]] * 3):
        with pytest.raises(DataError, match="4 answers about"):
            spell_answers(sequences, VOCABULARY_WORDS, given)


def test_generate_returns_words_on_request():
    model, inputs = lively_model(), tiny_inputs(6, 3)
    tokens = [[f"token{slot}" for slot in range(int(mask.sum()))] for mask in inputs["ocr_mask"]]
    assert model.generate(**inputs).answers is None
    found = model.generate(**inputs, ocr_tokens=tokens)
    copied = 0
    for question, (answer, sequence) in enumerate(zip(found.answers, found.sequences, strict=True)):
        numbers = [number for number in without_padding(sequence) if number > ANSWER_END]
        assert len(answer.words) == len(numbers)
        for word, number in zip(answer.words, numbers, strict=True):
            if number < VOCABULARY:
                assert word == AnswerWord(VOCABULARY_WORDS[number], "vocabulary")
            else:
                slot = number - VOCABULARY
                box = tuple(inputs["ocr_boxes"][question // 2, slot].tolist())
                assert word == AnswerWord(f"token{slot}", "ocr", slot, box)
                copied += 1
    assert copied
