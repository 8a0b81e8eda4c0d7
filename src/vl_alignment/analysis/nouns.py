"""The nouns of captions: taggers by name, one for English, one for the grammar of blocks, and those of users."""

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

from ..data.blocks.phrases import OBJECT_NOUNS
from ..models.errors import ConfigurationError

__all__ = [
    "BlocksNouns",
    "EnglishNouns",
    "NounTagger",
    "build_noun_tagger",
    "noun_tagger_names",
    "register_noun_tagger",
]

_TOKEN = re.compile(r"[^\W_]+(?:-[^\W_]+)*|'s?\b|[^\w\s]")


class NounTagger(Protocol):
    """Finds nouns.

    Attributes:
        description: What it takes for a noun, as figures say it after "Nouns: ".
    """

    description: str

    def __call__(self, captions: Sequence[str]) -> list[list[str]]:
        """Return the nouns of each caption, in their order, repeated ones too."""
        ...


class BlocksNouns:
    """Finds the words that the grammar of blocks has for objects."""

    description = "the words of the caption grammar for an object, such as cube, box or thing"

    def __call__(self, captions: Sequence[str]) -> list[list[str]]:
        """Return the nouns of each caption."""
        return [[word for word in _words(caption) if word in OBJECT_NOUNS] for caption in captions]


class EnglishNouns:
    """Finds nouns in English captions by lists of the other words that captions use, and by endings.

    What is in no list is a noun, unless it ends as adverbs and participles do. A word that is a verb too ("run",
    "swing") is a noun after a determiner, an adjective or a preposition.
    """

    description = (
        "found by lists of the other words of English captions and by endings; each word of a compound counts, and "
        "some are taken wrongly"
    )

    def __call__(self, captions: Sequence[str]) -> list[list[str]]:
        """Return the nouns of each caption."""
        return [_english_nouns(_words(caption)) for caption in captions]


_FACTORIES: dict[str, Callable[..., NounTagger]] = {"blocks": BlocksNouns, "english": EnglishNouns}


def register_noun_tagger(name: str, factory: Callable[..., NounTagger]) -> None:
    """Make a tagger known by name; `factory(**options)` builds it. A name that is taken is refused."""
    if name in _FACTORIES:
        raise ConfigurationError(f"a noun tagger {name!r} is already registered; choose another name")
    _FACTORIES[name] = factory


def noun_tagger_names() -> list[str]:
    """Return the names that `build_noun_tagger` knows, sorted."""
    return sorted(_FACTORIES)


def build_noun_tagger(name: str, **options: Any) -> NounTagger:
    """Build a registered tagger.

    Raises:
        ConfigurationError: The name is unknown; the message lists the known ones.
    """
    if name not in _FACTORIES:
        raise ConfigurationError(f"unknown noun tagger {name!r}; the known ones are {', '.join(noun_tagger_names())}")
    return _FACTORIES[name](**options)


def _words(caption: str) -> list[str]:
    return _TOKEN.findall(caption.lower().replace("’", "'"))


@cache
def _lists() -> dict[str, frozenset[str]]:
    content = json.loads(files(__package__).joinpath("noun_words.json").read_text(encoding="utf-8"))
    lists = {name: frozenset(words.split()) for name, words in content.items()}
    endings = ("", "s", "es")
    forms = {verb + ending for verb in lists["verbs"] for ending in endings}
    forms |= {f"{verb[:-1]}ies" for verb in lists["verbs"] if verb.endswith("y")}
    return {**lists, "verbs": frozenset(forms)}


def _english_nouns(words: Sequence[str]) -> list[str]:
    lists = _lists()
    nouns: list[str] = []
    inviting = False  # whether the word before lets one expect a noun, even one that is a verb elsewhere
    for word in words:
        noun = False
        if word in ("'s", "'") or word in lists["determiners"] or word in lists["prepositions"] or word.isdigit():
            inviting = True
        elif not word[0].isalpha() or word in lists["others"] or word in lists["past"]:
            inviting = False
        elif word in lists["adjectives"]:
            inviting = True
        elif word in lists["nouns"]:
            noun = True
        elif word.endswith("ly"):
            pass  # what it qualifies is still to come
        elif word.endswith(("ing", "ed")):
            inviting = False
        elif word in lists["verbs"]:
            noun = inviting
        else:
            noun = True
        if noun:
            nouns.append(word)
        inviting = inviting and not noun
    return nouns
