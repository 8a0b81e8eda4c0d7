"""Ten answers to a question as ten people might give them: most of them right, no two sets alike.

People write the same answer in several ways (capitals, an article, a full stop, a number as a word), which the answer
normalisation of the metric undoes, and some of them err: a typing mistake, half of the text, another word of the
picture, "unanswerable". About one question in ten is one that people disagree on; that is what keeps the best possible
soft accuracy below 100 %.
"""

from collections.abc import Sequence

from vl_alignment.data.blocks.phrases import SYNONYMS, Draw, choose
from vl_alignment.data.blocks.scene import COLORS, SHAPES
from vl_alignment.data.blocks.text_questions import TextQuestion
from vl_alignment.data.blocks.text_scene import TextScene

__all__ = ["HUMAN_ANSWERS", "human_answers"]

HUMAN_ANSWERS = 10
"""How many people answer a question."""

DISPUTED_SHARE = 0.1
"""Share of the questions that people disagree on."""

_ERROR_RATE = 0.1
_DISPUTED_ERROR_RATE = 0.62
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def human_answers(question: TextQuestion, text_scene: TextScene, draw: Draw) -> list[str]:
    """Answers of ten people.

    Args:
        question: With its true answer.
        text_scene: What it is about; words of the same picture are what people mistake an answer for.
        draw: Draws numbers in [0, 1).

    Returns:
        Ten strings in no order; at least one of them is right.
    """
    rate = _DISPUTED_ERROR_RATE if draw() < DISPUTED_SHARE else _ERROR_RATE
    written = [label.text.lower() for label in text_scene.labels if label.text.lower() != question.answer]
    certain = int(draw() * HUMAN_ANSWERS)  # somebody is right
    return [
        _mistaken(question, written, draw)
        if draw() < rate and person != certain
        else _styled(question.answer, question.copied, draw)
        for person in range(HUMAN_ANSWERS)
    ]


def _styled(answer: str, copied: bool, draw: Draw) -> str:
    """The answer in one of the spellings that count as the same."""
    if answer.isdigit():
        return answer if draw() < 0.7 else _NUMBERS[int(answer)]
    style = draw()
    if style < 0.7:
        return answer
    if style < 0.8:
        return answer.upper() if copied else answer.capitalize()
    if style < 0.9:
        return answer.capitalize()
    if style < 0.95 or answer in ("yes", "no", *COLORS):
        return f"{answer}."
    return f"the {answer}" if copied else f"a {answer}"


def _mistaken(question: TextQuestion, written: Sequence[str], draw: Draw) -> str:
    """An answer that does not count as the same."""
    if draw() < 0.2:
        return "unanswerable"
    answer = question.answer
    if answer in ("yes", "no"):
        return "no" if answer == "yes" else "yes"
    if answer.isdigit():
        return str(max(int(answer) + choose((-1, 1), draw), 0))
    if not question.copied:
        others = [name for name in SYNONYMS.get(answer, ()) if name != answer]
        others += [value for value in (COLORS if answer in COLORS else SHAPES) if value != answer]
        return choose(others, draw) if answer != "gray" or draw() < 0.5 else "grey"
    kind, words = draw(), answer.split()
    if kind < 0.3 and len(words) > 1:
        return choose(words, draw)
    if kind < 0.45 and written:
        return choose(written, draw)
    if kind < 0.6:
        return f"{answer}s"
    return _mistyped(answer, draw)


def _mistyped(answer: str, draw: Draw) -> str:
    """One letter left out, doubled, exchanged with the next one, or another one in its place."""
    places = [place for place, letter in enumerate(answer[:-1]) if " " not in answer[place : place + 2]]
    place = choose(places, draw)
    letter, following = answer[place], answer[place + 1]
    middle = choose(("", letter + letter, following + letter, choose(_LETTERS, draw)), draw)
    rest = answer[place + (2 if middle == following + letter else 1) :]
    typed = answer[:place] + middle + rest
    return typed if typed != answer else answer[:place] + rest
