"""Published vocabularies as tokenizers that number and split words as the published code did."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ..data.json_text import parse_json
from ..data.restricted_pickle import load_restricted
from ..models.errors import DataError

__all__ = ["attngan_tokenizer", "mac_vocabulary", "scan_tokenizer"]

# NLTK's `word_tokenize` as one pattern, as far as captions and questions need it: punctuation marks and the second
# halves of contractions are words of their own, hyphens and slashes stay inside. The order counts.
_CONTRACTION = r"(?:'(?:s|m|d|ll|re|ve)|n't)"
_NLTK_WORD = "|".join(
    [
        r"``|''|\.\.\.|--",
        r"(?<!\w)(?:\w\.){2,}(?=\s*\S)",  # abbreviations; at the end the last point is the sentence's
        rf"{_CONTRACTION}(?![\w'])",
        r"(?<![\w'])(?:can(?=not\b)|gon(?=na\b)|wan(?=na\b)|got(?=ta\b)|gim(?=me\b)|lem(?=me\b))",
        r"\d+(?:[.,:]\d+)+",
        rf"\w+(?:[-./'*+_]+\w+)*?(?={_CONTRACTION}(?![\w']))",
        r"\w+(?:[-./'*+_]+\w+)*",
        r"[^\w\s]",
    ]
)


def scan_tokenizer(path: str | Path, vocab_size: int) -> PreTrainedTokenizerFast:
    """SCAN's vocabulary, `{f30k,coco}_precomp_vocab.json`; captions are put between `<start>` and `<end>`.

    Args:
        path: JSON with "word2idx".
        vocab_size: Rows of the checkpoint's word embedding.

    Raises:
        DataError: If the file is damaged, no such vocabulary, or of another size.
    """
    try:
        content = parse_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"the vocabulary cannot be read ({error.strerror or error})", path=path) from error
    except ValueError as error:
        raise DataError(f"the vocabulary is no JSON ({error})", path=path) from error
    numbers = _numbers(content.get("word2idx") if isinstance(content, dict) else None, path, "word2idx")
    missing = [word for word in ("<pad>", "<start>", "<end>", "<unk>") if word not in numbers]
    if missing:
        raise DataError(f"the vocabulary lacks {missing[0]}; SCAN's begins with it", path=path)
    _check_size(len(numbers), vocab_size, path)
    tokenizer = _nltk_tokenizer(numbers, "<unk>", lowercase=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[("<start>", numbers["<start>"]), ("<end>", numbers["<end>"])],
    )
    return _finished(tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>")


def mac_vocabulary(path: str | Path, vocab_size: int, num_labels: int) -> tuple[PreTrainedTokenizerFast, list[str]]:
    """The PyTorch MAC's vocabularies, `dic.pkl`: words are numbered from 1, answers from 0.

    A word that it lacks has no number: the processor refuses it.

    Args:
        path: A pickle with "word_dic" and "answer_dic".
        vocab_size: Rows of the checkpoint's word embedding.
        num_labels: Answers of its classifier.

    Returns:
        The tokenizer, and the answers by number.

    Raises:
        DataError: If the file is damaged or hostile, no such vocabulary, or of another size.
    """
    content = load_restricted(path)
    content = content if isinstance(content, dict) else {}
    words = _numbers(content.get("word_dic"), path, "word_dic", first=1)
    answers = _numbers(content.get("answer_dic"), path, "answer_dic")
    _check_size(len(words) + 1, vocab_size, path)
    if len(answers) != num_labels:
        raise DataError(
            f"the vocabulary has {len(answers)} answers, the checkpoint's classifier {num_labels}; give the file that "
            "it was trained with",
            path=path,
        )
    tokenizer = _nltk_tokenizer({"<pad>": 0, **words}, "<pad>", lowercase=False)
    return _finished(tokenizer, pad_token="<pad>", unk_token="<pad>"), [*answers]


def attngan_tokenizer(path: str | Path, vocab_size: int) -> PreTrainedTokenizerFast:
    """AttnGAN's vocabulary, from `captions.pickle`; number 0, `<end>`, is padding.

    A word that it lacks has no number: the processor leaves it out, as the published code does.

    Args:
        path: A pickle of [train captions, test captions, words by number, numbers by word].
        vocab_size: Rows of the checkpoint's word embedding.

    Raises:
        DataError: If the file is damaged or hostile, no such vocabulary, or of another size.
    """
    content = load_restricted(path)
    given = content[3] if isinstance(content, list | tuple) and len(content) == 4 else None
    numbers = _numbers(given, path, "the numbers by word, its fourth part,")
    padding = next(iter(numbers))
    _check_size(len(numbers), vocab_size, path)
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=padding))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\W+"), " "),
            normalizers.Replace(Regex(r"[^\x00-\x7f]"), ""),  # letters beyond ASCII are dropped within words
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _finished(tokenizer, pad_token=padding, unk_token=padding)


def _numbers(given: Any, path: str | Path, name: str, first: int = 0) -> dict[str, int]:
    """The numbers by word in the order of the numbers, which must run from `first` without gaps."""
    if not isinstance(given, Mapping) or not given:
        raise DataError(f"{name} is missing; it is no vocabulary of this model", path=path)
    numbers = {word: number for word, number in given.items() if isinstance(word, str) and isinstance(number, int)}
    ordered = dict(sorted(numbers.items(), key=lambda item: item[1]))
    if len(ordered) != len(given) or [*ordered.values()] != [*range(first, first + len(ordered))]:
        raise DataError(f"{name} does not number words from {first} without gaps", path=path)
    return ordered


def _check_size(words: int, vocab_size: int, path: str | Path) -> None:
    if words != vocab_size:
        raise DataError(
            f"the vocabulary has {words} entries, the checkpoint's word embedding {vocab_size}; give the file that it "
            "was trained with",
            path=path,
        )


def _nltk_tokenizer(numbers: dict[str, int], unknown: str, *, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=unknown))
    # As NLTK does, quotation marks that open become `` and all others ''.
    quotes = [
        normalizers.Replace(Regex(r'(?<![^\s(\[{<])"'), " `` "),
        normalizers.Replace('"', " '' "),
    ]
    tokenizer.normalizer = normalizers.Sequence([*([normalizers.Lowercase()] if lowercase else []), *quotes])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_NLTK_WORD), behavior="removed", invert=True)
    return tokenizer


def _finished(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )
