"""The words that an answer can be spelled with: M4C's answer vocabulary, one word a line in a text file."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from vl_alignment.data.atomic_files import cannot_write, whole_file
from vl_alignment.models.errors import ConfigurationError, DataError

__all__ = [
    "SPECIAL_WORDS",
    "build_answer_vocabulary",
    "read_answer_vocabulary",
    "word_tokenize",
    "write_answer_vocabulary",
]

SPECIAL_WORDS = ("<pad>", "<s>", "</s>", "<unk>")
"""The first entries of every vocabulary, in M4C's order: padding 0, begin 1, end 2, unknown 3."""


def word_tokenize(text: str) -> str:
    """Return the text as M4C writes answers and OCR tokens before it compares their words.

    Lower case, without commas and question marks, a space before every "'s", no white space around it. Nothing else is
    split: the words are what `str.split` then gives, so "e-mail!" is one word and an OCR token "John's" two of them.

    Source: the `simple_word` processor of M4C, called `word_tokenize` there.
    """
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def build_answer_vocabulary(answers: Iterable[str], size: int) -> list[str]:
    """Return the special words and the most frequent words of the training answers.

    Every answer counts, so that a word that all ten people wrote counts ten times. Equally frequent words come in
    alphabetical order: equal answers give an equal vocabulary, whatever their order.

    Args:
        answers: All answers to all training questions.
        size: Entries at most, the four special words included: the width of the model's classifier.

    Returns:
        Up to `size` words; the position of a word is its class.

    Raises:
        ConfigurationError: `size` leaves no room for a word.
        DataError: The answers have no words.
    """
    if size <= len(SPECIAL_WORDS):
        raise ConfigurationError(
            f"size={size} leaves no room for a word after {' '.join(SPECIAL_WORDS)}; give {len(SPECIAL_WORDS) + 1} or "
            "more (M4C: about 5000)"
        )
    counts: Counter[str] = Counter()
    for answer, number in Counter(answers).items():
        for word in word_tokenize(answer).split():
            counts[word] += number
    for word in SPECIAL_WORDS:
        counts.pop(word, None)
    if not counts:
        raise DataError("the answers have no words; build the vocabulary from a split with answers")
    words = sorted(counts, key=lambda word: (-counts[word], word))
    return [*SPECIAL_WORDS, *words[: size - len(SPECIAL_WORDS)]]


def write_answer_vocabulary(words: Sequence[str], path: str | Path) -> None:
    """Write a vocabulary as a text file, one word a line, as M4C publishes its own.

    Raises:
        DataError: The words are no vocabulary (see `read_answer_vocabulary`), or the file cannot be written.
    """
    _check(words, path)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error, DataError) from error
    with whole_file(path, DataError) as file:
        file.write("".join(f"{word}\n" for word in words).encode())


def read_answer_vocabulary(path: str | Path) -> list[str]:
    """Read a vocabulary file, one of `write_answer_vocabulary` or of M4C.

    Raises:
        DataError: The file cannot be read, does not begin with the special words, has none after them, or a line is
            empty or repeats an earlier one (each line is a class of the model).
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"the answer vocabulary cannot be read ({error.strerror or error}); make it with build-vocabulary",
            path=path,
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text ({error}); build or fetch the vocabulary again", path=path) from error
    # Not splitlines: it would also cut at characters such as U+2028, which an answer may hold.
    words = [line.strip() for line in text.removesuffix("\n").split("\n")]
    _check(words, path)
    return words


def _check(words: Sequence[str], path: str | Path) -> None:
    if tuple(words[: len(SPECIAL_WORDS)]) != SPECIAL_WORDS:
        raise DataError(f"an answer vocabulary begins with the lines {' '.join(SPECIAL_WORDS)}", path=path)
    if len(words) == len(SPECIAL_WORDS):
        raise DataError("the answer vocabulary has no words after the special ones", path=path)
    lines: dict[str, int] = {}
    for line, word in enumerate(words, start=1):
        if not word or "\n" in word or word != word.strip():
            raise DataError(f"{word!r} is no word: one word a line, none empty", path=path, record=f"line {line}")
        if lines.setdefault(word, line) != line:
            raise DataError(
                f"{word!r} is already on line {lines[word]}; each line is a class of its own",
                path=path,
                record=f"line {line}",
            )
