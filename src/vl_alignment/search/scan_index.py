"""The index: a trained SCAN and the embeddings of a collection, searched in two steps.

query -> words or regions [L, d] --+-> mean vector -> FAISS -> shortlist of items
                                   +-> the model's similarity with each of them -> the best, with exact scores

{folder}/
  model/                     the model and its processor, so that the folder is all that a search needs
  pictures-*, captions-*     embeddings in shards, see `collection.py`
  pictures-lists-*.faiss     inverted lists of large collections
  index.json                 which files count; written last, atomically
"""

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..analysis.prediction import unknown_words
from ..data.atomic_files import remove_leftovers
from ..data.inner_paths import inner_path
from ..data.json_text import parse_json
from ..data.region_store import write_json
from ..models.errors import CheckpointError, ConfigurationError, DataError
from ..training.evaluation import load_model
from ..training.model_fingerprint import model_fingerprint
from ..training.runs import RunDirectory, one_program_at_a_time
from .collection import REMEDY, Collection, pooled
from .pictures import PictureEncoder
from .shortlist import build_lists, import_faiss, nearest, open_lists, wants_lists

__all__ = ["Match", "PictureSource", "ScanIndex"]

SCHEMA_VERSION = 1
INDEX_NAME = "index.json"
Kind = Literal["pictures", "captions"]
KINDS: tuple[Kind, ...] = ("pictures", "captions")
SHARD_ITEMS = 1024  # also what a killed program loses at most
SHORTLIST = 200
RERANKED_TOGETHER = 512
CHECKED_BYTES = 1 << 20


@dataclass(frozen=True)
class Match:
    """An item that was found.

    Attributes:
        id: Of the item.
        score: The model's similarity with the query.
        record: What is known of it: "source" of a picture, "text" of a caption.
    """

    id: str
    score: float
    record: dict[str, Any] = field(default_factory=dict)


class PictureSource(Protocol):
    """Pictures that can be indexed."""

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """What is known of each, "id" at least."""
        ...

    def encode(self, encoder: PictureEncoder, rows: Sequence[int]) -> tuple[list[int], Tensor]:
        """Return the rows that can be read, and their region embeddings [n, R, d]."""
        ...


class ScanIndex:
    """Pictures and captions that are searched by text or by picture.

    Made by `create` or `open`; see the head of this file for what happens in a search.

    Example:
        >>> index = ScanIndex.open("photos.index")  # doctest: +SKIP
        >>> index.search("a dog on a beach", top=5)  # doctest: +SKIP
    """

    def __init__(self, folder: Path, model: Any, processor: Any, manifest: dict[str, Any]) -> None:
        self.folder, self.model, self.processor = folder, model, processor
        self._manifest = manifest
        self._collections = {
            kind: Collection(folder, kind, manifest["width"], manifest["dtype"], manifest[kind]["shards"])
            for kind in KINDS
        }
        self._lists = {kind: self._open_lists(kind) for kind in KINDS}

    @classmethod
    def create(
        cls,
        folder: str | Path,
        model: Any,
        processor: Any,
        *,
        dtype: str = "float32",
        extractor: str | None = None,
        extractor_options: dict[str, Any] | None = None,
    ) -> "ScanIndex":
        """Open the index in a folder to add to it, made if it is not there.

        Args:
            folder: Of the index.
            model: A trained `ScanForImageTextRetrieval`, of which the folder keeps a copy.
            processor: Its processor.
            dtype: How embeddings are stored: "float32" gives the model's scores, "float16" takes half the space and
                rounds them (unit vectors: by about 1e-4).
            extractor: Makes the regions for a model without a backbone; by default the one its config records.
            extractor_options: Of that extractor.

        Raises:
            ConfigurationError: FAISS is missing, or the dtype is another.
            DataError: The folder cannot be written, or its index is damaged.
            CheckpointError: Its index was made with another model or in another way.
        """
        import_faiss()
        folder = Path(folder)
        if dtype not in ("float16", "float32"):
            raise ConfigurationError(f"embeddings are stored as float16 or float32, not {dtype!r}")
        settings = {
            "model": model_fingerprint(model),
            "width": model.config.hidden_size,
            "dtype": dtype,
            "extractor": extractor or (model.config.region_extractor if model.config.vision_config is None else None),
            "extractor_options": extractor_options or {},
        }
        if (folder / INDEX_NAME).exists():
            manifest = _read_manifest(folder)
            differing = [name for name, value in settings.items() if manifest[name] != value]
            if differing:
                raise CheckpointError(
                    f"the index was made with another {' and '.join(differing)}; give another folder", path=folder
                )
        else:
            _make_folder(folder)
            RunDirectory(folder).save_model(model, processor)
            empty: dict[str, Any] = {kind: {"shards": [], "lists": None} for kind in KINDS}
            manifest = {"schema_version": SCHEMA_VERSION, **settings, **empty}
            write_json(folder / INDEX_NAME, manifest)
        return cls(folder, model.eval(), processor, manifest)

    @classmethod
    def open(cls, folder: str | Path) -> "ScanIndex":
        """Open an index with the model that it was made with.

        Raises:
            ConfigurationError: FAISS is missing.
            DataError: There is no index, a file is missing or damaged, or a newer version wrote it.
            CheckpointError: The model in it is damaged or another one.
        """
        import_faiss()
        folder = Path(folder)
        manifest = _read_manifest(folder)
        model, processor = load_model(folder / RunDirectory(folder).model.name, task="retrieval")
        if model_fingerprint(model) != manifest["model"]:
            raise CheckpointError(f"not the model that the index was made with; {REMEDY}", path=folder / "model")
        return cls(folder, model, processor, manifest)

    def __len__(self) -> int:
        return len(self._collections["pictures"])

    @property
    def captions(self) -> int:
        """How many captions can be found."""
        return len(self._collections["captions"])

    @functools.cached_property
    def encoder(self) -> PictureEncoder:
        """Makes region embeddings of pictures, as those of the index were made."""
        return PictureEncoder(
            self.model, self.processor, self._manifest["extractor"], self._manifest["extractor_options"]
        )

    @torch.no_grad()
    def add_pictures(self, source: PictureSource, *, batch_size: int = 32, progress: bool = True) -> int:
        """Add the pictures of a source that are not there yet; a killed program goes on when run again.

        Args:
            source: Of pictures; those that cannot be read are left out.
            batch_size: Pictures embedded together.
            progress: Whether to show a progress bar.

        Returns:
            How many were added.

        Raises:
            DataError: An id occurs twice, or the index cannot be written.
        """

        def encode(rows: Sequence[int]) -> tuple[list[int], list[Tensor]]:
            readable, regions = source.encode(self.encoder, rows)
            return readable, list(regions)

        return self._add("pictures", source.records, encode, batch_size, progress)

    @torch.no_grad()
    def add_captions(
        self, ids: Sequence[str], texts: Sequence[str], *, batch_size: int = 256, progress: bool = True
    ) -> int:
        """Add captions that are not there yet, to be found by picture; see `add_pictures`.

        Raises:
            DataError: A caption has no words, an id occurs twice, or the index cannot be written.
        """

        def encode(rows: Sequence[int]) -> tuple[list[int], list[Tensor]]:
            words, mask = self._words([texts[row] for row in rows])
            lengths = mask.sum(dim=1).tolist()
            return list(rows), [vectors[:length] for vectors, length in zip(words, lengths, strict=True)]

        records = [{"id": name, "text": text} for name, text in zip(ids, texts, strict=True)]
        return self._add("captions", records, encode, batch_size, progress)

    @torch.no_grad()
    def search(
        self, query: str | Image.Image, *, among: Kind = "pictures", top: int = 10, shortlist: int = SHORTLIST
    ) -> list[Match]:
        """Find what is most similar to a text or a picture.

        A picture finds pictures by its regions in the place of words.

        Args:
            query: A text or a picture.
            among: "pictures" or "captions".
            top: How many to return.
            shortlist: How many are scored exactly; of items that it misses nothing is known.

        Returns:
            The best, best first; fewer where there are fewer.

        Raises:
            ConfigurationError: A text is to find captions, which SCAN does not score; or a number is below 1.
            DataError: The text has no words, or there is nothing to search.
        """
        if top < 1 or shortlist < 1:
            raise ConfigurationError(f"top={top} and shortlist={shortlist} must be at least 1")
        if isinstance(query, str) and among == "captions":
            raise ConfigurationError("a text finds pictures; captions are found by picture")
        collection = self._collections[among]
        if not len(collection):
            raise DataError(f"the index holds no {among}; add some with `vl-alignment index`", path=self.folder)
        vectors = self._words([query])[0][0] if isinstance(query, str) else self.encoder([query])[0]
        rows = nearest(collection, self._lists[among], pooled(vectors.float()).numpy(), max(top, shortlist))
        scores = torch.cat(
            [
                self._score(vectors, among, *collection.gather(rows[start : start + RERANKED_TOGETHER]))
                for start in range(0, len(rows), RERANKED_TOGETHER)
            ]
        )
        best = scores.argsort(descending=True, stable=True)[:top].tolist()
        found = [(collection.record(int(rows[place])), float(scores[place])) for place in best]
        return [Match(record["id"], score, record) for record, score in found]

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that the model does not know."""
        return unknown_words(self.processor.tokenizer, text)

    def _score(self, query: Tensor, among: Kind, vectors: Tensor, mask: Tensor) -> Tensor:
        """The model's similarity [n] of a query [L, d] with items [n, M, d]."""
        if among == "captions":
            return self.model.similarity(query[None], vectors, word_mask=mask)[0]
        return self.model.similarity(vectors, query[None], region_mask=None if mask.all() else mask)[:, 0]

    def _words(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        inputs = self.processor(text=texts)
        return self.model.encode_texts(**inputs), inputs["attention_mask"]

    def _add(
        self,
        kind: Kind,
        records: Sequence[Mapping[str, Any]],
        encode: Callable[[Sequence[int]], tuple[list[int], list[Tensor]]],
        batch_size: int,
        progress: bool,
    ) -> int:
        """Add what `encode` makes of the rows of records that are not there yet, shard by shard."""
        with self._writing():
            collection = self._collections[kind]
            before = len(collection)
            new = _new_rows(records, collection.ids())
            with tqdm(total=len(new), desc=kind, unit=kind[:-1], disable=not (progress and new)) as bar:
                for start in range(0, len(new), SHARD_ITEMS):
                    shard = new[start : start + SHARD_ITEMS]
                    encoded: list[int] = []
                    vectors: list[Tensor] = []
                    for first in range(0, len(shard), batch_size):
                        rows, items = encode(shard[first : first + batch_size])
                        encoded += rows
                        vectors += items
                        bar.update(len(shard[first : first + batch_size]))
                    if encoded:
                        collection.append(vectors, [records[row] for row in encoded])
                        self._manifest[kind]["shards"] = collection.shards
                        write_json(self.folder / INDEX_NAME, self._manifest)
            self._build_lists(kind)
            return len(collection) - before

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the index for this program; what another one wrote in between is not overwritten."""
        with one_program_at_a_time(self.folder / INDEX_NAME):
            remove_leftovers(self.folder)
            if _read_manifest(self.folder) != self._manifest:
                raise DataError("another program has added to the index; open it again", path=self.folder)
            yield

    def _build_lists(self, kind: Kind) -> None:
        collection, there = self._collections[kind], self._manifest[kind]["lists"]
        if not wants_lists(len(collection), 0 if there is None else there["items"]):
            return
        path = self.folder / f"{kind}-lists-{len(collection):09d}.faiss"
        build_lists(collection, path)
        self._manifest[kind]["lists"] = {"items": len(collection), "file": path.name, "check": _check(path)}
        write_json(self.folder / INDEX_NAME, self._manifest)
        self._lists[kind] = self._open_lists(kind)
        for old in self.folder.glob(f"{kind}-lists-*.faiss"):
            if old != path:
                old.unlink(missing_ok=True)

    def _open_lists(self, kind: Kind) -> Any:
        lists = self._manifest[kind]["lists"]
        if lists is None:
            return None
        path = Path(inner_path(self.folder, lists["file"]))
        if path.exists() and _check(path) != lists["check"]:
            raise DataError(f"this file of the index is damaged; {REMEDY}", path=path)
        return open_lists(path, self._manifest["width"], lists["items"])


def _new_rows(records: Sequence[Mapping[str, Any]], there: set[str]) -> list[int]:
    """Return the rows of the records whose id is not there yet."""
    seen: set[str] = set()
    for record in records:
        if record["id"] in seen:
            raise DataError("this id occurs twice in what is to be added", record=record["id"])
        seen.add(record["id"])
    return [row for row, record in enumerate(records) if record["id"] not in there]


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check index.json."""
    path = folder / INDEX_NAME
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError("there is no index here; make one with `vl-alignment index`", path=folder) from None
    except (OSError, ValueError) as error:
        raise DataError(f"not readable ({error}); {REMEDY}", path=path) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema_version"), int):
        raise DataError("not that of an index of vl-alignment", path=path)
    if manifest["schema_version"] > SCHEMA_VERSION:
        raise DataError(
            f"the index has schema version {manifest['schema_version']}, this vl-alignment reads up to "
            f"{SCHEMA_VERSION}; upgrade vl-alignment",
            path=folder,
        )
    _check_fields(manifest, path)
    return manifest


def _check_fields(manifest: dict[str, Any], path: Path) -> None:
    kinds: dict[str, type] = {
        "model": str,
        "width": int,
        "dtype": str,
        "extractor_options": dict,
        **dict.fromkeys(KINDS, dict),
    }
    wrong = [name for name, kind in kinds.items() if not isinstance(manifest.get(name), kind)]
    for kind in KINDS:
        if kind in wrong:
            continue
        if not (_are_shards(manifest[kind].get("shards")) and _are_lists(manifest[kind].get("lists", 0), path.parent)):
            wrong.append(kind)
    if not isinstance(manifest.get("extractor", 0), str | None):
        wrong.append("extractor")
    if not wrong and manifest["dtype"] not in ("float16", "float32"):
        wrong.append("dtype")
    if wrong:
        raise DataError(f"damaged ({', '.join(wrong)}); {REMEDY}", path=path)


def _are_shards(value: Any) -> bool:
    """Whether it is a list of shards' items and vectors."""
    pairs = isinstance(value, list) and all(isinstance(shard, list) and len(shard) == 2 for shard in value)
    return pairs and all(type(number) is int and number > 0 for shard in value for number in shard)


def _are_lists(value: Any, folder: Path) -> bool:
    """Whether it is the record of inverted lists that lie in the folder, or None, that of none."""
    if value is None:
        return True
    if not isinstance(value, dict) or type(value.get("items")) is not int or "check" not in value:
        return False
    try:
        inner_path(folder, value["file"])
    except (KeyError, ValueError, AttributeError):
        return False
    return True


def _check(path: Path) -> list[int]:
    """Size, and a checksum of beginning and end, which is what can be read of gigabytes at every start."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = zlib.crc32(file.read(CHECKED_BYTES))
            file.seek(max(0, size - CHECKED_BYTES))
            return [size, head, zlib.crc32(file.read())]
    except OSError as error:
        raise DataError(f"this file of the index is not readable ({error}); {REMEDY}", path=path) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot be made ({error.strerror or error}); give another folder", path=folder) from error
