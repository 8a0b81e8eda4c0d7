"""What this project's pipelines share: which models they take, pictures of any form, and saving that is whole.

The file travels to the Hub beside the weights and needs nothing of the package.
"""

import io
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from transformers import AutoModel, Pipeline
from transformers.image_utils import load_image

__all__ = ["PackagedPipeline", "grid_shape", "opened_picture"]


class PackagedPipeline(Pipeline):
    """A pipeline over a model and its whole processor, from a folder that holds code of its own.

    Args:
        args: As of `transformers.pipeline`.
        kwargs: As of `transformers.pipeline`: `device` says where the model runs.

    Attributes:
        tasks: The name of the pipeline by the type of model that it takes.
        sees_pictures: Whether the model needs a vision backbone.

    Raises:
        ValueError: If the model is of another type, or sees given features alone where pictures are to be seen.
    """

    tasks: ClassVar[dict[str, str]]
    sees_pictures: ClassVar[bool] = True
    model: Any
    processor: Any
    _load_processor: Any = True
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.model.config
        if config.model_type not in self.tasks:
            raise ValueError(
                f"this pipeline needs a model of type {' or '.join(self.tasks)}; this one is of type "
                f"{config.model_type!r}"
            )
        if self.sees_pictures and config.vision_config is None:
            raise ValueError(
                "this model has no vision backbone: it reads region features made by "
                f"{config.region_extractor or 'an extractor of your own'}. Give it those: "
                "processor(text=texts, region_features=features); the vl_alignment package makes them "
                "(vl-alignment predict)"
            )
        self.tokenizer = self.processor.tokenizer  # batches ask for it
        # What is written as `custom_pipelines`, wherever this class was loaded from.
        self._registered_impl = {self.tasks[config.model_type]: {"impl": type(self), "pt": (AutoModel,)}}

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save model, processor and the pipeline's files; see `Pipeline.save_pretrained`."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


def opened_picture(image: Any) -> Image.Image:
    """A picture in RGB, turned as its camera says, from any of the forms that a call takes.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        if isinstance(image, (bytes, bytearray)):
            image = Image.open(io.BytesIO(image))
        return load_image(str(image) if isinstance(image, Path) else image)
    # What Pillow's decoders raise for damaged files; a decompression bomb's error has no narrower base.
    except Exception as error:
        raise ValueError(f"the picture cannot be read ({error!s:.200}); give a complete image file") from error


def grid_shape(regions: int) -> list[int]:
    """(rows, columns) of the regions: the backbones see squares."""
    rows = round(regions**0.5)
    return [rows, regions // rows]
