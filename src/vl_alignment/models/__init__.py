"""What travels with the weights: flat files that import torch, transformers, huggingface_hub and siblings."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForVisualQuestionAnswering,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
)

# From its own module: without torchvision, which it does not need, transformers 5.17 hides the name in its root.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from .alignment import (
    ALIGNMENT_FUNCTIONS,
    AdditiveAlignment,
    AlignmentFunction,
    AlignmentSpecification,
    alignment_function_names,
    alignment_specification,
    build_alignment_function,
    register_alignment_function,
)
from .configuration_attngan import AttnGanConfig
from .configuration_damsm import DamsmConfig
from .configuration_m4c import M4CConfig
from .configuration_mac import MacConfig
from .configuration_scan import ScanConfig
from .decoding_m4c import M4CAnswer, M4CAnswers
from .errors import CheckpointError, ConfigurationError, DataError, HubError, ResultsError, VlAlignmentError
from .hashed_word_vectors import HashedWordVectors
from .inception_v3 import InceptionFeatures, InceptionV3
from .modeling_attngan import (
    AttnGanDiscriminators,
    AttnGanForTextToImageGeneration,
    AttnGanImages,
    AttnGanJudgements,
    AttnGanOutput,
)
from .modeling_damsm import DamsmImages, DamsmModel, DamsmOutput, DamsmTexts
from .modeling_m4c import M4CForQuestionAnswering, M4CModel, M4COutput
from .modeling_mac import MacForQuestionAnswering, MacModel, MacOutput
from .modeling_scan import ScanForImageTextRetrieval, ScanModel, ScanOutput
from .phoc import phoc
from .processing_attngan import AttnGanProcessor
from .processing_base import SquareImageProcessorPil
from .processing_m4c import M4CProcessor
from .processing_mac import MacProcessor
from .processing_scan import ScanProcessor

__all__ = [
    "ALIGNMENT_FUNCTIONS",
    "AdditiveAlignment",
    "AlignmentFunction",
    "AlignmentSpecification",
    "AttnGanConfig",
    "AttnGanDiscriminators",
    "AttnGanForTextToImageGeneration",
    "AttnGanImages",
    "AttnGanJudgements",
    "AttnGanOutput",
    "AttnGanProcessor",
    "CheckpointError",
    "ConfigurationError",
    "DamsmConfig",
    "DamsmImages",
    "DamsmModel",
    "DamsmOutput",
    "DamsmTexts",
    "DataError",
    "HashedWordVectors",
    "HubError",
    "InceptionFeatures",
    "InceptionV3",
    "M4CAnswer",
    "M4CAnswers",
    "M4CConfig",
    "M4CForQuestionAnswering",
    "M4CModel",
    "M4COutput",
    "M4CProcessor",
    "MacConfig",
    "MacForQuestionAnswering",
    "MacModel",
    "MacOutput",
    "MacProcessor",
    "ResultsError",
    "ScanConfig",
    "ScanForImageTextRetrieval",
    "ScanModel",
    "ScanOutput",
    "ScanProcessor",
    "SquareImageProcessorPil",
    "VlAlignmentError",
    "alignment_function_names",
    "alignment_specification",
    "build_alignment_function",
    "phoc",
    "register_alignment_function",
]

AutoConfig.register(ScanConfig.model_type, ScanConfig, exist_ok=True)
AutoModel.register(ScanConfig, ScanForImageTextRetrieval, exist_ok=True)
AutoModelForZeroShotImageClassification.register(ScanConfig, ScanForImageTextRetrieval, exist_ok=True)
AutoConfig.register(MacConfig.model_type, MacConfig, exist_ok=True)
AutoModel.register(MacConfig, MacForQuestionAnswering, exist_ok=True)
AutoModelForVisualQuestionAnswering.register(MacConfig, MacForQuestionAnswering, exist_ok=True)
AutoConfig.register(M4CConfig.model_type, M4CConfig, exist_ok=True)
AutoModel.register(M4CConfig, M4CForQuestionAnswering, exist_ok=True)
AutoModelForVisualQuestionAnswering.register(M4CConfig, M4CForQuestionAnswering, exist_ok=True)
AutoConfig.register(DamsmConfig.model_type, DamsmConfig, exist_ok=True)
AutoModel.register(DamsmConfig, DamsmModel, exist_ok=True)
AutoConfig.register(AttnGanConfig.model_type, AttnGanConfig, exist_ok=True)
AutoModel.register(AttnGanConfig, AttnGanForTextToImageGeneration, exist_ok=True)
AutoProcessor.register(AttnGanConfig, AttnGanProcessor, exist_ok=True)
AutoProcessor.register(DamsmConfig, AttnGanProcessor, exist_ok=True)
AutoProcessor.register(M4CConfig, M4CProcessor, exist_ok=True)
AutoProcessor.register(MacConfig, MacProcessor, exist_ok=True)
AutoProcessor.register(ScanConfig, ScanProcessor, exist_ok=True)
for _config in (AttnGanConfig, DamsmConfig, M4CConfig, MacConfig, ScanConfig):
    AutoImageProcessor.register(_config, image_processor_classes={"pil": SquareImageProcessorPil}, exist_ok=True)
