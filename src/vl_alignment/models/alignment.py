"""The alignment functions: how a query and a key are scored against each other.

Every function of the study (equations 5 to 9) is one equation, `f(Q, K) = act(scale * <phi_q(Q), phi_k(K)>)`, and one
row of `ALIGNMENT_FUNCTIONS`. Masks, softmax and pooling stay with the model that asks for the scores.
"""

from .alignment_function import ACTIVATIONS, AdditiveAlignment, AlignmentFunction, AlignmentSpecification
from .errors import ConfigurationError

__all__ = [
    "ACTIVATIONS",
    "ALIGNMENT_FUNCTIONS",
    "BUILT_IN_FUNCTIONS",
    "AdditiveAlignment",
    "AlignmentFunction",
    "AlignmentSpecification",
    "alignment_function_names",
    "alignment_specification",
    "build_alignment_function",
    "register_alignment_function",
]

_Row = AlignmentSpecification
ALIGNMENT_FUNCTIONS: dict[str, AlignmentSpecification] = {
    "dot": _Row("Q K", published=True),  # equation 5
    "scaled_dot": _Row("Q K / sqrt(d)", scaled=True, published=True),  # equation 6
    "cosine": _Row("Q K / (|Q| |K|)", normalized=True, published=True),
    "general_key": _Row("Q (W K)", "key", published=True),  # equation 7
    "general_query": _Row("(W Q) K", "query", published=True),
    "biased_general_key": _Row("Q (W K + b)", "key", bias=True, published=True),  # equation 8
    "biased_general_query": _Row("(W Q + b) K", "query", bias=True, published=True),
    "activated_general_key": _Row("act(Q (W K + b))", "key", bias=True, activated=True, published=True),  # equation 9
    "activated_general_query": _Row("act((W Q + b) K)", "query", bias=True, activated=True),
    "additive": _Row("v tanh(W1 Q + W2 K)", module=AdditiveAlignment),
}
BUILT_IN_FUNCTIONS = frozenset(ALIGNMENT_FUNCTIONS)  # those registered later have to travel with the weights


def register_alignment_function(name: str, function: AlignmentSpecification | type[AlignmentFunction]) -> None:
    """Add a function of your own, which then works by name in every model's config.

    Args:
        name: The name, a Python identifier that the table does not have yet.
        function: A row for the table, or a subclass of `AlignmentFunction` where no row can say it; models call its
            `transform_query`, `transform_key`, `scores` and `products`, not only its `forward`.

    Raises:
        ConfigurationError: If the name is taken or no identifier, or the function is neither of the two.
    """
    if not name.isidentifier() or name in ALIGNMENT_FUNCTIONS:
        raise ConfigurationError(f"alignment function {name!r} is registered already or is no identifier; rename it")
    if isinstance(function, type) and issubclass(function, AlignmentFunction):
        function = AlignmentSpecification(equation=name, module=function)
    if not isinstance(function, AlignmentSpecification):
        raise ConfigurationError(f"{name!r}: give an AlignmentSpecification or a subclass of AlignmentFunction")
    ALIGNMENT_FUNCTIONS[name] = function


def alignment_function_names() -> list[str]:
    """The names that a config accepts, the paper's first."""
    return [*ALIGNMENT_FUNCTIONS]


def alignment_specification(name: str) -> AlignmentSpecification:
    """Look up a row of the table.

    Raises:
        ConfigurationError: If there is no such function; the message lists those there are.
    """
    if name not in ALIGNMENT_FUNCTIONS:
        known = ", ".join(ALIGNMENT_FUNCTIONS)
        raise ConfigurationError(
            f"alignment_function {name!r} is unknown; choose one of {known}, or register_alignment_function first"
        )
    return ALIGNMENT_FUNCTIONS[name]


def build_alignment_function(
    name: str,
    size: int,
    activation: str = "relu",
    initialization: str = "linear",
    scale: float | None = None,
    exchange_sides: bool = False,
) -> AlignmentFunction:
    """Build the module of a named function for queries and keys of width `size` (see `AlignmentFunction`).

    `exchange_sides` transforms the query where the row transforms the key, and the other way round.
    """
    specification = alignment_specification(name)
    if exchange_sides:
        specification = specification.exchanged()
    module = specification.module or AlignmentFunction
    return module(specification, size, activation, initialization, scale)
