"""From pictures, or a split of a data set, to an index."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..models.errors import DataError
from ..training.evaluation import load_model, load_split
from .pictures import PictureFiles, SplitPictures
from .scan_index import ScanIndex

__all__ = ["IndexReport", "build_index"]


@dataclass
class IndexReport:
    """What was added to an index.

    Attributes:
        index: Ready to be searched.
        pictures, captions: How many were added.
        unreadable: Ids of pictures that were left out.
    """

    index: ScanIndex
    pictures: int = 0
    captions: int = 0
    unreadable: list[str] = field(default_factory=list)


def build_index(
    model: str | Path,
    output: str | Path,
    *,
    images: str | Path | None = None,
    preset: str | None = None,
    split: str | None = None,
    data_dir: str | Path | None = None,
    regions: str | Path | None = None,
    sizes: Mapping[str, int] | None = None,
    captions: str | Path | None = None,
    extractor: str | None = None,
    dtype: str = "float32",
    batch_size: int = 32,
) -> IndexReport:
    """Make an index, or add to it what it lacks; a killed program goes on when run again.

    Args:
        model: Folder of a trained SCAN.
        output: Folder of the index.
        images: Folder of pictures; or
        preset: Whose data set to take, with the captions of the split.
        split: By default the one that the preset's results are measured on.
        data_dir: Folder of the preset's data set.
        regions: Stored regions of the preset's pictures; without them the model sees pixels.
        sizes: Images a split, for a smaller trial.
        captions: File of captions, one a line.
        extractor: See `ScanIndex.create`.
        dtype: See `ScanIndex.create`.
        batch_size: Pictures embedded together.

    Raises:
        CheckpointError: The model cannot be loaded, or the index was made with another one.
        ConfigurationError: FAISS is missing, or options do not fit.
        DataError: Pictures or captions cannot be used, none can be read, or the index cannot be written.
    """
    texts = None if captions is None else _lines(Path(captions))
    files = None if images is None else PictureFiles(images)
    if preset is None:
        loaded = None
        network, processor = load_model(model, task="retrieval")
    else:
        loaded = load_split(model, preset, data_dir=data_dir, regions=regions, split=split, sizes=sizes)
        network, processor = loaded.model, loaded.processor
    index = ScanIndex.create(output, network, processor, dtype=dtype, extractor=extractor)
    report = IndexReport(index)
    if files is not None:
        report.pictures = index.add_pictures(files, batch_size=batch_size)
        report.unreadable = files.unreadable
        if not len(index):
            raise DataError("not one picture of this folder can be read", path=images)
    if loaded is not None:
        pictures = SplitPictures(loaded)
        report.pictures = index.add_pictures(pictures, batch_size=batch_size)
        report.captions = index.add_captions(*pictures.captions())
    if texts is not None:
        report.captions += index.add_captions(texts, texts)
    return report


def _lines(path: Path) -> list[str]:
    """Return the lines of a file that are not empty, each once."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the captions cannot be read ({error})", path=path) from error
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not texts:
        raise DataError("there is no caption in this file", path=path)
    return texts
