"""Configuration of MAC (Memory, Attention and Composition; Hudson and Manning 2018)."""

from typing import Any, Literal

from .configuration_base import VisionAlignmentConfig, checked_config
from .errors import ConfigurationError

__all__ = ["MacConfig"]

# What the two published cells do where a field is None.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "released": {
        **{"feed_previous_control": False, "memory_gate_bias": 1.0, "mask_padding": True},
        **{"stem_dropout": 0.18, "word_dropout": 0.15, "question_dropout": 0.08, "read_dropout": 0.15},
        **{"memory_dropout": 0.15, "control_dropout": 0.0, "output_dropout": 0.15},
    },
    "pytorch": {
        **{"feed_previous_control": True, "memory_gate_bias": 0.0, "mask_padding": False},
        **{"stem_dropout": 0.0, "word_dropout": 0.0, "question_dropout": 0.0, "read_dropout": 0.0},
        **{"memory_dropout": 0.15, "control_dropout": 0.15, "output_dropout": 0.0},
    },
}
_DROPOUTS = tuple(name for name in _PUBLISHED["released"] if name.endswith("_dropout"))


@checked_config
class MacConfig(VisionAlignmentConfig):
    """Configuration of MAC; the defaults are the paper's.

    Fields whose default is None take the value of the published code of their cell, given here as (released, pytorch).

    Args:
        alignment_units: Where the alignment function sits: "read" (the paper's text; the control unit keeps the plain
            product) or "read_and_control" (the authors' runs).
        cell: "released" (the paper's TensorFlow cell: the knowledge base is projected before it meets the memory, ELU
            within the read unit, the control starts as the question) or "pytorch" (the published PyTorch cell: the
            knowledge base enters as it is, no activation up to the score, the control starts as a learned vector).
        vocab_size: Number of word types.
        pad_token_id: The id of padding.
        feature_size: Width of the given cell features; taken from `vision_config` where there is one.
        grid_size: Cells along each side of the square grid.
        hidden_size: Width d of words, control, knowledge base and memory.
        word_embedding_size: Width of the word embeddings.
        question_size: Width of the question vector, both directions of the LSTM together, (d, 2 d). Only the PyTorch
            cell, which projects the words, can have another one.
        num_steps: Reasoning steps; each has its own projection of the question.
        stem_layers: Convolutions, each followed by an ELU, that turn the features into the knowledge base.
        stem_kernel_size: Their odd width.
        stem_coordinates: Whether the cells' x and y are appended to the features.
        coordinate_scale: They lie between plus and minus this. Beside features of a large norm ones are hardly seen.
        memory_gate: Whether a gate chooses between the previous memory and the new one: one number a feature
            ("released") or one in all ("pytorch").
        memory_gate_bias: Starting bias of that gate, (1, 0); positive favours the new memory in the released cell, the
            previous memory in the other.
        self_attention: Whether the new memory also sees the previous memories, weighted by the likeness of controls.
        feed_previous_control: Whether a step's control input sees the previous control, (False, True).
        mask_padding: Whether the control unit leaves padding out, (True, False). The PyTorch cell attends to it: its
            answers depend on how far a batch is padded. The released cell cannot.
        stem_dropout: On the input of each convolution, (0.18, 0).
        word_dropout: On the word embeddings, (0.15, 0).
        question_dropout: On the question vector, (0.08, 0).
        score_gain: What the starting weights of the read unit's last layer, d -> 1, are multiplied by. Published: 1,
            with which a function that divides by sqrt(d) starts with scores that much flatter, and on a large grid
            whose cells are mostly empty looks at all of them evenly for very long. "inverse_scale" takes the division
            back, so that all functions start with scores as spread as the dot product's.
        read_dropout: On the read unit's projected inputs and on what it scores, (0.15, 0).
        memory_dropout: On the memory, one mask for all steps, (0.15, 0.15). In the released cell on what the read unit
            sees of it, in the other on the memory itself.
        control_dropout: On the control, one mask for all steps, (0, 0.15).
        output_dropout: On the input of each layer of the classifier, (0.15, 0).
        dropout_per_step: Whether `read_dropout` draws its masks anew at each step, for each cell of what it scores, as
            in the authors' code. By default one mask serves all steps, so that the knowledge base is projected once.
        released_layout: Exchange the side that the control unit transforms, as the authors' release does: where its
            read unit transforms the key, its control unit transforms the query. Needs "read_and_control".
        id2label: The answers by their number; 28 unnamed ones by default.

    Example:
        >>> MacConfig(cell="pytorch").feed_previous_control
        True
    """

    model_type = "mac"
    released_beyond_the_paper = ("activated_general_query",)
    keys_to_ignore_at_inference = ["memory", "question"]

    alignment_units: Literal["read", "read_and_control"] = "read"
    cell: Literal["released", "pytorch"] = "released"
    vocab_size: int = 100
    pad_token_id: int | None = 0
    feature_size: int = 1024
    grid_size: int = 14
    hidden_size: int = 512
    word_embedding_size: int = 300
    question_size: int | None = None
    num_steps: int = 4
    stem_layers: int = 2
    stem_kernel_size: int = 3
    stem_coordinates: bool = False
    coordinate_scale: float | int = 1.0
    score_gain: float | int | Literal["inverse_scale"] = 1.0
    memory_gate: bool = False
    memory_gate_bias: float | int | None = None
    self_attention: bool = False
    feed_previous_control: bool | None = None
    mask_padding: bool | None = None
    stem_dropout: float | int | None = None
    word_dropout: float | int | None = None
    question_dropout: float | int | None = None
    read_dropout: float | int | None = None
    memory_dropout: float | int | None = None
    control_dropout: float | int | None = None
    output_dropout: float | int | None = None
    dropout_per_step: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what the cell's published code does, and CLEVR's number of answers."""
        for name, value in _PUBLISHED.get(self.cell, {}).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.question_size is None:
            self.question_size = self.hidden_size if self.cell == "released" else 2 * self.hidden_size
        if self.id2label is None:
            kwargs.setdefault("num_labels", 28)
        super().__post_init__(**kwargs)

    def validate_sizes(self) -> None:
        """Check sizes, and that dropouts are probabilities."""
        sizes = ("vocab_size", "feature_size", "grid_size", "hidden_size", "word_embedding_size", "num_steps")
        for name in (*sizes, "stem_layers"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.stem_kernel_size < 1 or self.stem_kernel_size % 2 == 0:
            raise ConfigurationError(f"stem_kernel_size is {self.stem_kernel_size}; it must be odd")
        if not self.question_size or self.question_size % 2:
            raise ConfigurationError(f"question_size is {self.question_size}; two directions need an even number")
        if self.cell == "released" and self.question_size != self.hidden_size:
            raise ConfigurationError(
                f"question_size is {self.question_size}, hidden_size {self.hidden_size}; the released cell has one"
            )
        for name in ("coordinate_scale", "score_gain"):
            value = getattr(self, name)
            if not isinstance(value, str) and not value > 0:
                raise ConfigurationError(f"{name} is {value}; it must be above 0")
        for name in _DROPOUTS:
            if not 0 <= getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")

    def validate_cell(self) -> None:
        """Refuse what a cell or the authors' release does not have."""
        if self.cell == "released" and not self.mask_padding:
            raise ConfigurationError("mask_padding=False exists only in the published PyTorch cell; set cell='pytorch'")
        if self.released_layout and (self.cell, self.alignment_units) != ("released", "read_and_control"):
            raise ConfigurationError(
                "released_layout exchanges the sides of the released cell's control unit; "
                "set cell='released' and alignment_units='read_and_control', or switch it off"
            )
