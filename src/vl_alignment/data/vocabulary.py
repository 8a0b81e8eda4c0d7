"""Tokenizers built from the captions or questions at hand: a tokenizer file instead of a pickled vocabulary."""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ..models.errors import DataError

__all__ = ["build_spelling_tokenizer", "build_word_tokenizer"]

SPECIAL_TOKENS = ["<pad>", "<start>", "<end>", "<unk>"]  # SCAN's, in its order
WORD_END = "\u0003"  # a control character, which no text has
CONTINUATION = "##"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def build_word_tokenizer(
    texts: Iterable[str], minimum_count: int = 4, *, marks: bool = True
) -> PreTrainedTokenizerFast:
    """Build a tokenizer whose types are the words of the texts.

    Text is lower-cased and split at white space and punctuation, which is dropped; each text is put between `<start>`
    and `<end>`, as SCAN does. Words are ordered by frequency, then alphabetically, so that equal texts give
    equal files.

    Args:
        texts: The training texts.
        minimum_count: Rarer words become `<unk>` (SCAN: 4).
        marks: Whether each text is put between `<start>` and `<end>`; DAMSM reads words alone.

    Returns:
        A tokenizer that pads on the right, with `save_pretrained` and everything else of transformers.

    Raises:
        DataError: If no word is left.
    """
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = _frequent_words(texts, normalizer, minimum_count)
    if not words:
        raise DataError(f"no word occurs {minimum_count} times in the texts; lower minimum_count or give more texts")
    vocabulary = {word: index for index, word in enumerate([*SPECIAL_TOKENS, *words])}
    return _finished(Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")), normalizer, marks)


def build_spelling_tokenizer(texts: Iterable[str], minimum_count: int = 100) -> PreTrainedTokenizerFast:
    """Build a tokenizer that knows the frequent words of the texts and spells all others, letter by letter.

    Questions quote words that no training question has ("the thing that says kasi"). A model can only find them in a
    picture if it reads how they are written; and it only learns to if training shows words spelled as well. So only
    frequent words, those of which sentences are made, are one piece. A word is never a known one with letters at its
    end: "thelan" is spelled out. Its last piece marks the word's end.

    Text is lower-cased and split as by `build_word_tokenizer`; letters are those of the texts, and a to z and digits.

    Args:
        texts: The training texts.
        minimum_count: Rarer words are spelled.

    Raises:
        DataError: If there are no words.
    """
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    texts = list(texts)
    every = _frequent_words(texts, normalizer, 1)
    if not every:
        raise DataError("the texts have no words; give texts with words")
    frequent = _frequent_words(texts, normalizer, minimum_count)
    letters = sorted({letter for word in every for letter in word} | set(LETTERS))
    pieces = [f"{word}{WORD_END}" for word in frequent]
    pieces += [*letters, *(f"{CONTINUATION}{letter}" for letter in letters), f"{CONTINUATION}{WORD_END}"]
    vocabulary = {piece: index for index, piece in enumerate([*SPECIAL_TOKENS, *pieces])}
    tokenizer = Tokenizer(
        models.WordPiece(
            vocabulary, unk_token="<unk>", continuing_subword_prefix=CONTINUATION, max_input_chars_per_word=64
        )
    )
    # The end of each word is marked before it is split, so that a known word matches as a whole or not at all.
    marked = normalizers.Sequence([normalizer, normalizers.Replace(Regex(r"(?<=\w)(?!\w)"), WORD_END)])
    return _finished(tokenizer, marked)


def _splitter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(behavior="removed")])


def _frequent_words(texts: Iterable[str], normalizer: normalizers.Normalizer, minimum_count: int) -> list[str]:
    """Return the words that occur so often, the most frequent first, then in alphabetical order."""
    splitter = _splitter()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    return sorted((word for word, count in counts.items() if count >= minimum_count), key=lambda w: (-counts[w], w))


def _finished(tokenizer: Tokenizer, normalizer: normalizers.Normalizer, marks: bool = True) -> PreTrainedTokenizerFast:
    """Add what is the same for all: how text is split, the marks of its begin and end, and the habits of padding."""
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = _splitter()
    if marks:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unk>",
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
    )
