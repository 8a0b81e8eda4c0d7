"""Word tokenizers built from the captions or questions at hand: a tokenizer file instead of a pickled vocabulary."""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ..models.errors import DataError

__all__ = ["build_word_tokenizer"]

SPECIAL_TOKENS = ["<pad>", "<start>", "<end>", "<unk>"]  # SCAN's, in its order


def build_word_tokenizer(texts: Iterable[str], minimum_count: int = 4) -> PreTrainedTokenizerFast:
    """Build a tokenizer whose types are the words of the texts.

    Text is lower-cased and split at white space and punctuation, which is dropped; each text is put between `<start>`
    and `<end>`, as SCAN does. Words are ordered by frequency, then alphabetically, so that equal texts give
    equal files.

    Args:
        texts: The training texts.
        minimum_count: Rarer words become `<unk>` (SCAN: 4).

    Returns:
        A tokenizer that pads on the right, with `save_pretrained` and everything else of transformers.

    Raises:
        DataError: If no word is left.
    """
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(behavior="removed")]
    )
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    words = sorted((word for word, count in counts.items() if count >= minimum_count), key=lambda w: (-counts[w], w))
    if not words:
        raise DataError(f"no word occurs {minimum_count} times in the texts; lower minimum_count or give more texts")
    vocabulary = {word: index for index, word in enumerate([*SPECIAL_TOKENS, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
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
