"""What the pipelines of the four tasks return, made ready to be shown."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from .markup import Chip, Line, Shown, framed, heat_uri, note, score_bar

__all__ = ["find_answers", "find_drawings", "find_matches", "find_read_answers"]

ANSWERS = 3
ABOUT_NUMBERS = "the number beside it is its largest share of the attention."


def find_matches(loaded: Any, picture: Image.Image, captions: list[str]) -> Shown:
    """Score captions against a picture, and show where each word looks."""
    matches = loaded(picture, captions, output_attentions=True)
    largest = max(1.0, *(abs(match["score"]) for match in matches))
    lines = []
    for match in matches:
        words, attention = _words(loaded, match["words"], np.asarray(match["attention"]).T)  # [R, W]
        chips = [
            Chip(word, (heat_uri(weights.reshape(match["grid"])),), f"{weights.max():.2f}")
            for word, weights in zip(words, attention.T, strict=True)
        ]
        bar = score_bar(f"{match['rank']}.", match["score"] / largest, f"{match['score']:+.3f}")
        lines.append(Line(chips, bar, match["text"]))
    hint = f"Choose a word to see which places it looks at; {ABOUT_NUMBERS}"
    return Shown([picture], lines, hint, warnings=_unknown(loaded, [word for m in matches for word in m["words"]]))


def find_answers(loaded: Any, picture: Image.Image, question: str) -> Shown:
    """Answer a question, and show where each step of reasoning looks: in the picture and in the question."""
    answers = loaded(picture, question, top_k=ANSWERS, output_attentions=True)
    found = answers[0]["attention"]
    words, attention = _words(loaded, found["words"], np.asarray(found["question"]))
    lines = []
    for step, (over_words, over_places) in enumerate(zip(attention, np.asarray(found["image"]), strict=True), start=1):
        look = Chip(f"step {step}", (heat_uri(over_places.reshape(found["grid"])),), f"{over_places.max():.2f}")
        chips = [look, *_shaded(words, over_words)]
        if (elsewhere := 1 - over_words.sum()) >= 0.005:
            chips.append(Chip(f"{elsewhere:.2f} on no word", kind="faint"))
        lines.append(Line(chips, key=f"step {step}"))
    hint = f"Choose a step to see where it looks; {ABOUT_NUMBERS} The words it reads are coloured."
    return Shown([picture], lines, hint, _bars(answers), _unknown(loaded, found["words"]))


def find_read_answers(
    loaded: Any,
    picture: Image.Image,
    question: str,
    words: list[str],
    boxes: list[list[float]],
    reader: Callable[[Image.Image], Any] | None = None,
) -> Shown:
    """Answer a question with the words in the picture, and say where each word of the answer is from.

    Without words the reader reads them, where there is one.
    """
    given = {"text_reader": reader} if reader and not words else {"ocr_tokens": words, "ocr_boxes": boxes or None}
    answers = loaded(picture, question, top_k=ANSWERS, output_attentions=True, **given)
    found, sources = answers[0]["attention"], answers[0]["sources"]
    printed = [token["word"] for token in found["ocr_tokens"]]
    asked, over_question = _words(loaded, found["words"], np.asarray(found["question"]))
    lines = []
    for row, source in enumerate(sources):
        copied = source["source"] == "ocr"
        places, over_printed = np.asarray(found["image"][row]), np.asarray(found["ocr"][row])
        shares = {"question": over_question[row].sum(), "picture": places.sum(), "printed words": over_printed.sum()}
        shares["the rest"] = max(0.0, 1 - sum(shares.values()))
        about = note("Attention: " + ", ".join(f"{name} {share:.2f}" for name, share in shares.items()))
        word = Chip(
            source["word"],
            (heat_uri(places.reshape(found["grid"])),),
            "copied" if copied else "known",
            kind="copied" if copied else "",
        )
        largest = max(over_question[row].max(), *over_printed, 1e-12)
        read = [Chip("asked:", kind="faint"), *_shaded(asked, over_question[row] / largest)]
        read += [Chip("printed:", kind="faint"), *_shaded(printed, over_printed / largest)]
        lines.append(Line([word, *read], about, f"word {row}"))
    framed_picture = framed(
        picture, [token["box"] for token in found["ocr_tokens"]], {source.get("token") for source in sources}
    )
    hint = (
        "Choose a word of the answer to see where in the picture it looks. What it reads is coloured: the question's "
    )
    hint += "words, then those in the picture." if printed else "words; in the picture there are none."
    return Shown([framed_picture], lines, hint, _bars(answers), _unknown(loaded, found["words"]))


def find_drawings(loaded: Any, caption: str, number: int, seed: int) -> Shown:
    """Draw pictures of a caption, and show at each stage which places attended to which word."""
    drawn = loaded(caption, num_images=number, seed=seed, output_attentions=True)
    lines = []
    for stage, attention in enumerate(drawn[0]["attention"]):
        side = len(attention)
        maps = [picture["attention"][stage].reshape(side * side, -1) for picture in drawn]
        words, weights = _words(loaded, drawn[0]["words"], np.concatenate(maps))  # [pictures * side * side, W]
        chips = [
            Chip(word, [heat_uri(one) for one in own.reshape(number, side, side)], f"{own.max():.2f}")
            for word, own in zip(words, weights.T, strict=True)
        ]
        lines.append(Line(chips, note(f"Stage {stage + 2}: {side} x {side} places"), f"stage {stage}"))
    hint = f"Choose a word to see which places attended to it; {ABOUT_NUMBERS}"
    unknown = _unknown(loaded, drawn[0]["words"])
    return Shown([picture["image"] for picture in drawn], lines, hint, warnings=unknown)


def _words(loaded: Any, tokens: Sequence[str], weights: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Leave out what marks the ends of a text, and put pieces of one word together: [n, L] -> [n, words]."""
    marks = {*loaded.tokenizer.all_special_tokens} - {loaded.tokenizer.unk_token}
    words: list[str] = []
    columns: list[np.ndarray] = []
    for token, column in zip(tokens, weights.T, strict=True):
        if words and token.startswith("##"):
            words[-1] += _printable(token[2:])
            columns[-1] = columns[-1] + column
        elif token not in marks:
            words.append(_printable(token))
            columns.append(column)
    return words, np.stack(columns, axis=1)


def _printable(token: str) -> str:
    return "".join(character for character in token if character.isprintable())


def _unknown(loaded: Any, tokens: Sequence[str]) -> list[str]:
    """Say that there are words which the model does not know, and which nothing spells for it."""
    unknown = loaded.tokenizer.unk_token
    if unknown not in tokens or getattr(loaded.processor, "question_spellings", False):
        return []
    return [f"Words that this model never learned stand as {unknown}."]


def _shaded(words: Sequence[str], weights: np.ndarray) -> list[Chip]:
    """Colour words by their weights in [0, 1]."""
    return [Chip(word, shade=float(np.clip(weight, 0, 1))) for word, weight in zip(words, weights, strict=True)]


def _bars(answers: Sequence[dict[str, Any]]) -> str:
    bars = (
        score_bar(answer["answer"] or "(no words)", answer["score"], f"{answer['score']:.1%}") for answer in answers
    )
    return f'<div class="answers">{"".join(bars)}</div>'
