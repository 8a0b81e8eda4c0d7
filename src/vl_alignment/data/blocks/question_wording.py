"""Word a filled template: one of its sentences, with synonyms."""

import re

from vl_alignment.data.blocks.phrases import SYNONYMS, Draw, choose
from vl_alignment.data.blocks.question_sampler import Draft
from vl_alignment.data.blocks.question_templates import Piece

__all__ = ["RELATION_WORDS", "word_question"]

RELATION_WORDS = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "front": ("in front of",),
    "behind": ("behind",),
}
"""What a relation may be called."""

_THINGS = ("object", "thing")
_PLURALS = {"box": "boxes"}
_MADE_OF = 0.1  # share of materials that follow the noun; long chains of "made of" are hard to read
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")


def word_question(draft: Draft, draw: Draw) -> str:
    """A sentence that asks what the draft asks; it begins with a capital and ends with a question mark."""
    words = [_words(piece, draft.values, draw) for piece in choose(draft.template.sentences, draw)]
    sentence = _ARTICLE.sub(r"\1n ", "".join(words))
    return sentence[0].upper() + sentence[1:]


def _words(piece: Piece, values: dict[str, str | None], draw: Draw) -> str:
    if piece.kind == "text":
        return piece.value
    if piece.kind == "noun":
        return _noun_phrase({name: values[parameter] for name, parameter in piece.slots}, draw, plural=piece.plural)
    value = values[piece.value]
    if piece.kind == "relation":
        return choose(RELATION_WORDS.get(str(value), (str(value),)), draw)
    return _word(value, draw, plural=piece.plural) if value else ""


def _noun_phrase(told: dict[str, str | None], draw: Draw, *, plural: bool) -> str:
    """For instance "small shiny red balls"."""
    words = [_word(told["size"], draw)] if told.get("size") else []
    color, material = told.get("color"), told.get("material")
    stuff = made = ""
    if material:
        names = SYNONYMS.get(material, (material,))
        style = draw()
        if style < _MADE_OF:
            made = f"made of {names[0]}"
        elif style < 0.5 and len(names) > 1:
            words.append(names[1])
        else:
            stuff = names[0]
    words.extend(word for word in (color, stuff) if word)
    shape = told.get("shape")
    noun = _word(shape, draw, plural=plural) if shape else choose(_THINGS, draw) + ("s" if plural else "")
    words.append(noun)
    if made:
        words.append(made)
    return " ".join(words)


def _word(value: str | None, draw: Draw, *, plural: bool = False) -> str:
    word = choose(SYNONYMS.get(str(value), (str(value),)), draw)
    return _PLURALS.get(word, f"{word}s") if plural else word
