"""Configuration of M4C (Multimodal Multi-Copy Mesh; Hu et al. 2020)."""

from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .configuration_base import VisionAlignmentConfig, checked_config
from .errors import ConfigurationError

__all__ = ["ANSWER_BEGIN", "ANSWER_END", "ANSWER_PADDING", "ANSWER_UNKNOWN", "SPECIAL_ANSWERS", "M4CConfig"]

SPECIAL_ANSWERS = ("<pad>", "<s>", "</s>", "<unk>")
ANSWER_PADDING, ANSWER_BEGIN, ANSWER_END, ANSWER_UNKNOWN = range(4)


@checked_config
class M4CConfig(VisionAlignmentConfig):
    """Configuration of M4C; the defaults are the paper's.

    Args:
        text_config: Configuration of a BERT-like transformers model, which encodes the question; BERT-base cut to its
            first three layers by default. `first_text_layers` makes one of a checkpoint.
        feature_size: Width of the objects' region features, or of the cells of a grid; taken from `vision_config`
            where there is one.
        ocr_feature_size: Width of the OCR tokens' own region features; `feature_size` by default, and where they are
            pooled from a grid.
        word_vector_size: Width of the OCR tokens' word vectors (FastText: 300); 0 leaves them out.
        phoc_size: Width of the OCR tokens' pyramidal histograms of characters; 0 leaves them out.
        ocr_padding_size: Zeros at the end of the OCR feature, whose weights old checkpoints have.
        question_spellings: Whether question words that the tokenizer does not know are told by their spelling, as OCR
            tokens are (`question_phoc`): a question can then name an unseen word in the picture. Published: no.
        fine_tuned_detector: Whether region features first pass a linear layer of the model's own and a ReLU, one for
            objects and one for OCR tokens: MMF's M4C trains the detector's last layer (fc7) so, and is given what
            comes before it (fc6). As published by the paper's authors: no.
        normalize_features: Whether each part of a feature is brought to unit L2 norm before the parts are joined.
        object_grid_size: Where no boxes are given, the grid of features is pooled to so many cells a side, which are
            the objects; OCR tokens are still pooled from the finer grid. By default each of its cells is an object.
        box_scale: How much the boxes are stretched about the picture's middle before they are embedded, so that places
            differ from the start. Published: 1.
        hidden_size: Width d of all entities and decoding steps.
        num_hidden_layers: Layers of the multimodal transformer.
        num_attention_heads: Its heads; the alignment function sits in each of them, of width d / heads. A layer's heads
            share its W.
        intermediate_size: Width of the feed-forward layers.
        pointer_size: Width of the pointer network's query and key.
        norm_first: Whether the transformer's layers normalise what they take in, and its last states, in place of what
            they give: a small one then learns from the start without forgetting its input. Published: no.
        pointer_gain: What the starting weights of the pointer network's query and key are multiplied by. Published: 1.
        pointer_bias: A learned number, added to every OCR token's score, starts from here; None has none, as published.
            As with `answer_bias`: any one token is rarely right.
        answer_bias: What is added to the starting bias of the vocabulary's scores. Published: 0. Any one answer is
            rarely right; a small model that has to learn that first makes all questions alike before it reads them.
        num_decoding_steps: Words of an answer at most, its end included.
        copy_words: Whether an answer can copy OCR tokens. Without it the pointer network is ablated: its scores are
            masked out, so that no token is ever chosen, and the loss is of the vocabulary alone.
        object_dropout: On the objects' embeddings.
        ocr_dropout: On the OCR tokens' embeddings.
        hidden_dropout: In the multimodal transformer and on the embeddings of decoding steps.
        attention_dropout: On its attention.
        layer_norm_eps: Of every layer normalisation outside the text encoder.
        initializer_range: Standard deviation of the transformer's starting weights.
        released_layout: Compute `*_query` functions as the authors' release does: the matrix of scores is transposed
            (keys are scored against queries, the softmax runs over the queries), and the bias cancels. The other
            functions are the same either way.
        id2label: The answer vocabulary by number, <pad>, <s>, </s> and <unk> first; by default these and so many
            unnamed words that there are `num_labels` (5,000).

    Example:
        >>> M4CConfig(num_labels=6).id2label[5]
        'LABEL_5'
    """

    model_type = "m4c"
    keys_to_ignore_at_inference = ["entity_states", "decoder_states"]

    text_config: dict | PreTrainedConfig | None = None
    ocr_feature_size: int | None = None
    word_vector_size: int = 300
    phoc_size: int = 604
    ocr_padding_size: int = 50
    question_spellings: bool = False
    fine_tuned_detector: bool = False
    normalize_features: bool = True
    object_grid_size: int | None = None
    box_scale: float | int = 1.0
    hidden_size: int = 768
    num_hidden_layers: int = 4
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    pointer_size: int = 768
    norm_first: bool = False
    pointer_gain: float | int = 1.0
    pointer_bias: float | int | None = None
    answer_bias: float | int = 0.0
    num_decoding_steps: int = 12
    copy_words: bool = True
    object_dropout: float | int = 0.1
    ocr_dropout: float | int = 0.1
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the nested text configuration and name the answers that are not named."""
        if self.text_config is None:
            self.text_config = {"model_type": "bert", "num_hidden_layers": 3}
        if isinstance(self.text_config, dict):
            settings = dict(self.text_config)
            model_type = settings.pop("model_type", None)
            if model_type not in CONFIG_MAPPING:
                raise ConfigurationError(
                    f"text_config has model_type {model_type!r}; give that of a BERT-like model of transformers"
                )
            self.text_config = AutoConfig.for_model(model_type, **settings)
        if self.id2label is None:
            names = [*SPECIAL_ANSWERS, *(f"LABEL_{n}" for n in range(4, kwargs.pop("num_labels", None) or 5000))]
            self.id2label = dict(enumerate(names))
        if self.label2id is None:
            self.label2id = {name: int(number) for number, name in self.id2label.items()}
        super().__post_init__(**kwargs)
        if self.ocr_feature_size is None:
            self.ocr_feature_size = self.feature_size

    def validate_sizes(self) -> None:
        """Check sizes, and that dropouts are probabilities."""
        positive = ("feature_size", "ocr_feature_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
        for name in (*positive, "intermediate_size", "pointer_size", "num_decoding_steps"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.object_grid_size is not None and self.object_grid_size < 1:
            raise ConfigurationError(f"object_grid_size is {self.object_grid_size}; it must be at least 1, or None")
        if self.question_spellings and not self.phoc_size:
            raise ConfigurationError("question_spellings need a phoc_size above 0")
        for name in ("box_scale", "pointer_gain"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("word_vector_size", "phoc_size", "ocr_padding_size"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigurationError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}"
            )
        for name in ("object_dropout", "ocr_dropout", "hidden_dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")

    def validate_text_encoder(self) -> None:
        """Check that the question's encoder states what the model has to know of it."""
        for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
            if not isinstance(getattr(self.text_config, name, None), int):
                kind = getattr(self.text_config, "model_type", None)
                raise ConfigurationError(f"text_config of type {kind!r} states no {name}; use a BERT-like model")

    def validate_answers(self) -> None:
        """Check that the answers are numbered from 0, the special ones first."""
        answers: dict[Any, str] = self.id2label or {}
        if sorted(answers) != [*range(len(answers))]:
            raise ConfigurationError("id2label must number the answers from 0 without gaps")
        first = tuple(answers.get(number) for number in range(4))
        if first != SPECIAL_ANSWERS:
            raise ConfigurationError(f"id2label begins with {first}; the first four answers must be {SPECIAL_ANSWERS}")
