"""Static word vectors as plug-ins: FastText's files, any table, a text encoder's own embeddings, or hashed n-grams.

A plug-in is what `models.hashed_word_vectors.WordVectors` says: a name, a size and `vectors(words)`. Those that do not
have a vector for every word count the words that got zeros, in `unknown_words`, and warn of the first.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vl_alignment.data.array_files import open_array
from vl_alignment.data.fasttext_binary import FastTextBinary
from vl_alignment.data.json_text import parse_json
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.models.hashed_word_vectors import HashedWordVectors, WordVectors

__all__ = [
    "FastTextVectors",
    "TableVectors",
    "TextEncoderVectors",
    "WordVectors",
    "build_word_vectors",
    "register_word_vectors",
    "word_vector_names",
]

logger = logging.getLogger(__name__)


class _IncompleteVectors:
    """What the plug-ins share that do not know every word.

    Attributes:
        name, size: See `WordVectors`.
        unknown_words: How often a word got zeros since the vectors were opened.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.unknown_words = 0

    def vectors(self, words: list[str]) -> Tensor:
        """[n, size] float32 of n words; zeros for the unknown ones, which are counted."""
        result = np.zeros((len(words), self.size), dtype=np.float32)
        unknown = []
        for row, word in enumerate(words):
            vector = self._vector(word)
            if vector is None:
                unknown.append(word)
            else:
                result[row] = vector
        if unknown and not self.unknown_words:
            logger.warning(
                "%s has no vector for %r: such words get zeros, and are counted in unknown_words", self.name, unknown[0]
            )
        self.unknown_words += len(unknown)
        return torch.from_numpy(result)

    def _vector(self, word: str) -> np.ndarray | None:
        """[size], or None for a word that is unknown."""
        raise NotImplementedError


class TableVectors(_IncompleteVectors):
    """A table of words and their vectors; a word that is not in it is looked up in lower case as well.

    Args:
        words: n words; of one that occurs twice the first counts.
        vectors: [n, size].
        name: Of the table, which a processor remembers.
        path: The file that it came from, for messages.

    Raises:
        DataError: If there are no words, not as many as vectors, or the vectors are not finite.
    """

    def __init__(self, words: Sequence[str], vectors: Any, name: str, *, path: str | Path | None = None) -> None:
        table = np.asarray(vectors)
        if table.ndim != 2 or 0 in table.shape or len(table) != len(words):
            raise DataError(
                f"{len(words)} words and vectors of shape {table.shape}: one row a word is needed", path=path
            )
        if table.dtype.kind not in "fiu":
            raise DataError(f"vectors of type {table.dtype}; numbers are needed", path=path)
        if not np.isfinite(table).all():
            row = int(np.argmin(np.isfinite(table).all(axis=1)))
            raise DataError("the vector is not finite", path=path, record=words[row])
        super().__init__(name, table.shape[1])
        self.table = table
        self.rows: dict[str, int] = {}
        for row, word in enumerate(words):
            self.rows.setdefault(word, row)

    @classmethod
    def from_dict(cls, vectors: Mapping[str, Any], name: str) -> "TableVectors":
        """Take a dictionary from words to vectors of one size."""
        sizes = {np.shape(vector) for vector in vectors.values()}
        if len(sizes) > 1:
            raise DataError(f"vectors of several shapes: {', '.join(map(str, sorted(sizes)))}")
        return cls(list(vectors), np.array([np.asarray(vector) for vector in vectors.values()]), name)

    @classmethod
    def from_files(cls, path: str | Path, words: str | Path, name: str | None = None) -> "TableVectors":
        """Read a `.npy` or `.safetensors` file with one matrix, and its words.

        Args:
            path: The vectors [n, size].
            words: The n words: a JSON list, or one a line.
            name: "table:" and the file's name by default.

        Raises:
            DataError: A file is missing, damaged, or of another form.
        """
        path = Path(path)
        return cls(_read_words(Path(words)), _read_matrix(path), name or f"table:{path.stem}", path=path)

    def _vector(self, word: str) -> np.ndarray | None:
        row = self.rows.get(word)
        row = self.rows.get(word.lower()) if row is None else row
        return None if row is None else self.table[row]


class FastTextVectors(_IncompleteVectors):
    """FastText's vectors from a `.bin` file, with subwords for words that it never saw, or a `.vec` file, without.

    Words are looked up in lower case, as M4C does.

    Args:
        path: The file. A `.bin` file stays on disk, a `.vec` file (also GloVe's text form) is read into memory.
        name: "fasttext:" and the file's name by default, so that the two forms of one model have one name.

    Raises:
        DataError: The file is missing, damaged, or of another form.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        path = Path(path)
        name = name or f"fasttext:{path.stem}"
        self._source: FastTextBinary | TableVectors
        if path.suffix in (".bin", ".ftz"):
            self._source = FastTextBinary(path)
        else:
            self._source = TableVectors(*_read_text_vectors(path), name, path=path)
        super().__init__(name, self._source.size)

    def _vector(self, word: str) -> np.ndarray | None:
        word = word.lower()
        return self._source.vector(word) if isinstance(self._source, FastTextBinary) else self._source._vector(word)


class TextEncoderVectors(_IncompleteVectors):
    """A text encoder's own input embeddings: of a word the mean over its pieces.

    Args:
        tokenizer: Of transformers.
        embeddings: The encoder's input embeddings [pieces, size].
        name: Of the encoder, which a processor remembers.
    """

    def __init__(self, tokenizer: Any, embeddings: Tensor, name: str) -> None:
        super().__init__(name, embeddings.shape[1])
        self.tokenizer = tokenizer
        self.embeddings = embeddings.detach().float().cpu().numpy()

    @classmethod
    def from_pretrained(cls, text_encoder: str, name: str | None = None) -> "TextEncoderVectors":
        """Take the embeddings of a checkpoint.

        Args:
            text_encoder: A folder, or a Hub repository id.
            name: "text_encoder:" and `text_encoder` by default.

        Raises:
            CheckpointError: It cannot be read.
        """
        from transformers import AutoModel, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(text_encoder)
            embeddings = AutoModel.from_pretrained(text_encoder).get_input_embeddings().weight
        except Exception as error:  # what safetensors, torch and the Hub client raise has no common base
            raise CheckpointError(f"no text encoder can be read there: {error}", path=text_encoder) from error
        return cls(tokenizer, embeddings, name or f"text_encoder:{text_encoder}")

    def _vector(self, word: str) -> np.ndarray | None:
        pieces = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        known = [piece for piece in pieces if piece != self.tokenizer.unk_token_id]
        return self.embeddings[known].mean(axis=0) if known else None


def _fasttext(path: str | Path, name: str | None = None) -> WordVectors:
    return FastTextVectors(path, name)


def _table(path: str | Path, words: str | Path, name: str | None = None) -> WordVectors:
    return TableVectors.from_files(path, words, name)


def _text_encoder(path: str | Path, name: str | None = None) -> WordVectors:
    return TextEncoderVectors.from_pretrained(str(path), name)


_FACTORIES: dict[str, Callable[..., WordVectors]] = {
    "fasttext": _fasttext,
    HashedWordVectors.kind: HashedWordVectors,
    "table": _table,
    "text_encoder": _text_encoder,
}


def register_word_vectors(name: str, factory: Callable[..., WordVectors]) -> None:
    """Make word vectors known by name; `factory(**options)` builds them. A name that is taken is refused."""
    if name in _FACTORIES:
        raise ConfigurationError(f"word vectors {name!r} are already registered; choose another name")
    _FACTORIES[name] = factory


def word_vector_names() -> list[str]:
    """Return the names that `build_word_vectors` knows, sorted."""
    return sorted(_FACTORIES)


def build_word_vectors(kind: str, **options: Any) -> WordVectors:
    """Build registered word vectors.

    Args:
        kind: "fasttext" (path=), "hashed_ngrams" (size=), "table" (path=, words=), "text_encoder" (path=), or one that
            `register_word_vectors` made known.
        options: What that kind takes; `name` is the vectors' own, which a processor remembers.

    Raises:
        ConfigurationError: The name is unknown (the message lists the known ones), or an option does not fit or is
            missing.
        DataError, CheckpointError: A file cannot be read.
    """
    if kind not in _FACTORIES:
        raise ConfigurationError(f"unknown word vectors {kind!r}; the known ones are {', '.join(word_vector_names())}")
    try:
        return _FACTORIES[kind](**options)
    except TypeError as error:
        if "argument" in str(error) and (options or "required" in str(error)):
            raise ConfigurationError(f"word vectors {kind!r}: {error}") from error
        raise


def _read_text_vectors(path: Path) -> tuple[list[str], np.ndarray]:
    """Read lines of a word and its numbers, after a line with their counts where there is one.

    Returns:
        n words, and their vectors [n, size] float32.
    """
    words: list[str] = []
    numbers = bytearray()
    size, announced = 0, None
    try:
        with open(path, "rb") as file:
            for line_number, line in enumerate(file, start=1):
                word, *fields = line.rstrip().split(b" ")
                if line_number == 1 and len(fields) == 1:
                    announced, size = int(word), int(fields[0])
                    continue
                size = size or len(fields)
                if len(fields) != size or not size:
                    raise DataError(f"{len(fields)} numbers, not {size}", path=path, record=line_number)
                numbers += np.array(fields, dtype=np.float32).tobytes()
                words.append(word.decode(errors="replace"))
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", path=path) from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"no number where one is expected ({error})", path=path, record=line_number) from error
    if not words or (announced is not None and len(words) != announced):
        raise DataError(f"{len(words)} words, not the {announced or 'some'} expected; fetch the file again", path=path)
    return words, np.frombuffer(numbers, dtype=np.float32).reshape(len(words), size)


def _read_matrix(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                names = list(file.keys())
                if len(names) != 1:
                    raise DataError(f"holds {len(names)} arrays; one with the vectors is needed", path=path)
                return file.get_tensor(names[0])
        return open_array(path)
    except DataError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"no vectors can be read from it ({error})", path=path) from error


def _read_words(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
        words = parse_json(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"no words can be read from it ({error})", path=path) from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DataError("no list of words", path=path)
    return words
