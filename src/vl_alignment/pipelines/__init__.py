"""Pipelines of transformers, one file a task, each of which travels to the Hub beside the weights and stands alone.

Importing the package registers them: `pipeline("image-text-matching", model=folder)`.
"""

from pathlib import Path

from transformers import AutoModel, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .image_text_matching import ImageTextMatchingPipeline
from .text_to_image import AttnGanTextToImagePipeline
from .visual_question_answering import VisualQuestionAnsweringPipeline

__all__ = [
    "PIPELINES",
    "AttnGanTextToImagePipeline",
    "ImageTextMatchingPipeline",
    "VisualQuestionAnsweringPipeline",
]

_FOLDER = Path(__file__).parent

# By the name of the task: the class, and the file that travels.
PIPELINES: dict[str, tuple[type[Pipeline], Path]] = {
    "image-text-matching": (ImageTextMatchingPipeline, _FOLDER / "image_text_matching.py"),
    "clevr-question-answering": (VisualQuestionAnsweringPipeline, _FOLDER / "visual_question_answering.py"),
    "text-visual-question-answering": (VisualQuestionAnsweringPipeline, _FOLDER / "visual_question_answering.py"),
    "text-to-image-attngan": (AttnGanTextToImagePipeline, _FOLDER / "text_to_image.py"),
}

for _task, (_class, _) in PIPELINES.items():
    if _task not in PIPELINE_REGISTRY.supported_tasks:  # the registry warns of what it overwrites
        PIPELINE_REGISTRY.register_pipeline(_task, pipeline_class=_class, pt_model=AutoModel)
