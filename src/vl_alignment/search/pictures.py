"""Where the pictures of an index come from: files of a folder, or a split of a data set."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..analysis.prediction import read_picture
from ..data.features import build_extractor
from ..models.errors import ConfigurationError, DataError
from ..training.evaluation import LoadedSplit
from ..training.retrieval_inputs import image_inputs

__all__ = ["PictureEncoder", "PictureFiles", "SplitPictures"]

logger = logging.getLogger(__name__)


class PictureEncoder:
    """Pictures -> region embeddings [n, R, d], through the model's backbone or the extractor of its regions.

    Args:
        model: A trained SCAN.
        processor: Its processor.
        extractor: Makes the regions for a model without a backbone.
        options: Of that extractor.

    Raises:
        ConfigurationError: The extractor is missing or not wanted, or cannot be built.
    """

    def __init__(self, model: Any, processor: Any, extractor: str | None, options: Mapping[str, Any]) -> None:
        self.model = model
        self._image_processor, self._extractor = processor.image_processor, None
        if model.config.vision_config is not None:
            if extractor is not None or options:
                raise ConfigurationError("the model sees pictures through its own backbone; leave the extractor out")
        elif extractor is None:
            raise ConfigurationError("the model does not record what made its regions; name it (--extractor)")
        else:
            self._extractor = build_extractor(extractor, **options)

    @torch.no_grad()
    def __call__(self, pictures: list[Image.Image]) -> Tensor:
        """Embed pictures in RGB."""
        if self._extractor is None:
            return self.model.encode_images(**self._image_processor(pictures, return_tensors="pt"))
        features, _ = self._extractor(pictures)
        return self.model.encode_images(region_features=torch.from_numpy(features))


class PictureFiles:
    """All picture files of a folder and the folders in it; an id is the folder's name and the path in it.

    Raises:
        DataError: There is no such folder, or no picture in it.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError("there is no such folder of pictures", path=folder)
        known = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
        root = folder.resolve()
        paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in known and path.is_file())
        if not paths:
            raise DataError("there is no picture in this folder", path=folder)
        self.records = [
            {"id": f"{root.name}/{path.relative_to(root).as_posix()}", "source": str(path)} for path in paths
        ]
        self.unreadable: list[str] = []

    def encode(self, encoder: PictureEncoder, rows: Sequence[int]) -> tuple[list[int], Tensor]:
        """Return the rows whose file can be read, and their region embeddings; the others are warned of."""
        readable, pictures = [], []
        for row in rows:
            try:
                pictures.append(read_picture(Path(self.records[row]["source"])))
                readable.append(row)
            except DataError as error:
                logger.warning("left out: %s", error)
                self.unreadable.append(self.records[row]["id"])
        return readable, encoder(pictures) if pictures else torch.empty(0)


class SplitPictures:
    """The pictures of a split, from its regions where they are stored.

    Args:
        loaded: The split and the model.
    """

    def __init__(self, loaded: LoadedSplit) -> None:
        self._loaded = loaded
        self._inputs = image_inputs(loaded.part, loaded.store, loaded.processor.image_processor)
        self._inputs.check(loaded.model)
        prefix = f"{loaded.name}/{loaded.split}"
        self.records = [{"id": f"{prefix}/{image_id}"} for image_id in loaded.part[loaded.split]["image_id"]]

    def encode(self, encoder: PictureEncoder, rows: Sequence[int]) -> tuple[list[int], Tensor]:
        """Return all rows and their region embeddings."""
        inputs = self._inputs.batch(self._loaded.split, list(rows))
        return list(rows), encoder.model.encode_images(**inputs)

    def captions(self) -> tuple[list[str], list[str]]:
        """Return ids and texts of the captions of all pictures."""
        ids, texts = [], []
        for record, captions in zip(self.records, self._loaded.part[self._loaded.split]["captions"], strict=True):
            ids += [f"{record['id']}#{number}" for number in range(len(captions))]
            texts += captions
        return ids, texts
