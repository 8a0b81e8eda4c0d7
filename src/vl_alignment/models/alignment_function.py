"""What computes the score of a query and a key: one module for every row of the table in `alignment.py`."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import ConfigurationError

__all__ = ["ACTIVATIONS", "AdditiveAlignment", "AlignmentFunction", "AlignmentSpecification"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True)
class AlignmentSpecification:
    """One row of the table.

    Attributes:
        equation: The function as the paper writes it.
        transforms: The side that W is applied to, if any.
        bias: Whether that side also receives b.
        scaled: Whether the inner product is multiplied by 1/sqrt(d).
        normalized: Whether both sides are brought to unit L2 norm.
        activated: Whether an activation follows the inner product.
        published: Whether the paper's tables have this row; only those have a `released_layout`.
        module: The class that computes it; `AlignmentFunction` where None.
    """

    equation: str
    transforms: Literal["query", "key"] | None = None
    bias: bool = False
    scaled: bool = False
    normalized: bool = False
    activated: bool = False
    published: bool = False
    module: "type[AlignmentFunction] | None" = None

    def __post_init__(self) -> None:
        if self.bias and self.transforms is None:
            raise ConfigurationError(f"{self.equation}: a bias belongs to a transformed side; set `transforms`")

    def exchanged(self) -> "AlignmentSpecification":
        """The row that does to the query what this one does to the key, and the other way round."""
        if self.transforms is None:
            return self
        other: Literal["query", "key"] = "query" if self.transforms == "key" else "key"
        return replace(self, equation=f"{self.equation} with the sides exchanged", transforms=other)


class AlignmentFunction(nn.Module):
    """The score f(Q, K) of one row of the table.

    Q [..., nQ, d] -> phi_q -> [..., nQ, d] --+
                                              +--> scale * <., .> --> activation --> scores [..., nQ, nK]
    K [..., nK, d] -> phi_k -> [..., nK, d] --+

    Args:
        specification: The row of the table.
        size: The width d of queries and keys.
        activation: "relu", "leaky_relu" (slope 0.01), "tanh" or "sigmoid"; used by the rows that are activated.
        initialization: "linear" starts W and b as `nn.Linear` does (uniform, +-1/sqrt(d)); "identity" starts W at the
            identity and b at zero, so that a learned function starts as the dot product. Either way the numbers come
            from a generator of their own: the weights that all functions share do not depend on the function.
        scale: What a scaled row multiplies by; 1/sqrt(d) by default.

    Raises:
        ConfigurationError: If the activation or the initialization is unknown.
    """

    scratch_per_score = 1  # numbers held in memory for one score, by which callers size their blocks

    def __init__(
        self,
        specification: AlignmentSpecification,
        size: int,
        activation: str = "relu",
        initialization: str = "linear",
        scale: float | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigurationError(f"alignment_activation {activation!r} is unknown; choose one of {[*ACTIVATIONS]}")
        if initialization not in ("linear", "identity"):
            raise ConfigurationError(f"alignment_initialization {initialization!r} is neither 'linear' nor 'identity'")
        self.specification = specification
        self.size = size
        self.initialization = initialization
        self.scale = (scale or 1.0 / math.sqrt(size)) if specification.scaled else 1.0
        self.activation = ACTIVATIONS[activation] if specification.activated else None
        self.create_parameters()
        self.reset_parameters()

    def create_parameters(self) -> None:
        """Declare W [d, d] and b [d], where the row has them."""
        learned = self.specification.transforms is not None
        self.weight = nn.Parameter(torch.empty(self.size, self.size)) if learned else None
        self.bias = nn.Parameter(torch.empty(self.size)) if learned and self.specification.bias else None

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the parameters anew, without moving the global random number generator."""
        parameters = [parameter for parameter in self.parameters(recurse=False) if not parameter.is_meta]
        generator = _generator_of_its_own(parameters[0].device) if parameters else None
        bound = 1.0 / math.sqrt(self.size)
        for parameter in parameters:
            if self.initialization == "linear":
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
            elif parameter.dim() == 2:
                nn.init.eye_(parameter)
            else:
                nn.init.zeros_(parameter)

    def transform_query(self, query: Tensor) -> Tensor:
        """phi_q: [..., nQ, d] -> [..., nQ, d]."""
        return self._transform(query, "query")

    def transform_key(self, key: Tensor) -> Tensor:
        """phi_k: [..., nK, d] -> [..., nK, d]."""
        return self._transform(key, "key")

    def _transform(self, side: Tensor, name: str) -> Tensor:
        if self.specification.transforms == name:
            side = _linear(side, self.weight, self.bias)  # type: ignore[arg-type]
        if not self.specification.normalized:
            return side
        # Half precision rounds torch's 1e-12 to zero, and zeros, as padding has them, would become NaN.
        return F.normalize(side, dim=-1, eps=max(1e-12, torch.finfo(side.dtype).tiny))

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Score sides that are already transformed: [..., nQ, d], [..., nK, d] -> [..., nQ, nK]."""
        return self._activate(query @ key.transpose(-1, -2))

    def products(self, query: Tensor, key: Tensor) -> Tensor:
        """The element-wise counterpart of `scores`, for transformed sides that broadcast to [..., nK, d]."""
        return self._activate(query * key)

    def _activate(self, products: Tensor) -> Tensor:
        if self.scale != 1.0:
            products = products * self.scale
        return products if self.activation is None else self.activation(products)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Matrix form (equations 5 to 9): [..., nQ, d], [..., nK, d] -> scores [..., nQ, nK]."""
        return self.scores(self.transform_query(query), self.transform_key(key))

    def elementwise(self, query: Tensor, key: Tensor) -> Tensor:
        """Element-wise form (equation 10): [..., 1, d], [..., nK, d] -> [..., nK, d], not yet summed over d."""
        return self.products(self.transform_query(query), self.transform_key(key))

    @property
    def key_map(self) -> tuple[Tensor | None, Tensor | None] | None:
        """(W, b) of phi_k(k) = W k + b, each None where the row has none; None if phi_k is no such map."""
        if self.specification.normalized or type(self).transform_key is not AlignmentFunction.transform_key:
            return None
        return (self.weight, self.bias) if self.specification.transforms == "key" else (None, None)

    def compose_key(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor] | None:
        """One linear layer for two: (A, a) with phi_k(weight x + bias) = A x + a; None if phi_k is no linear map.

        Args:
            weight: [d, n], of the layer that makes the keys.
            bias: [d].
        """
        if self.key_map is None:
            return None
        matrix, offset = self.key_map
        if matrix is not None:
            weight, bias = matrix @ weight, matrix @ bias
        return weight, bias if offset is None else bias + offset

    @property
    def terms_are_linear(self) -> bool:
        """Whether the terms of the element-wise form are linear in the key, so that their sums `contract`."""
        products = type(self).products is AlignmentFunction.products and self.activation is None
        return products and self.key_map is not None

    def contract(self, query: Tensor, weights: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weigh and sum the terms before there are keys, for a function whose `terms_are_linear`.

        Args:
            query: [..., d], not yet transformed.
            weights: What each of the d terms is multiplied by, in a shape that broadcasts to the query's.

        Returns:
            A vector [..., d] and a constant [...] (None: zero) with
            `(elementwise(query, key) * weights).sum(-1) == (vector * key).sum(-1) + constant`.

        Raises:
            ConfigurationError: If the terms are not linear in the key.
        """
        if not self.terms_are_linear or self.key_map is None:
            raise ConfigurationError("terms that are not linear in the key cannot be contracted; use `elementwise`")
        matrix, offset = self.key_map
        vector = self.transform_query(query) * weights * self.scale
        constant = None if offset is None else vector @ offset.to(vector.dtype)
        return (vector if matrix is None else vector @ matrix.to(vector.dtype)), constant

    @property
    def scores_give_inner_products(self) -> bool:
        """Whether q . k of the untransformed sides follows from the scores, without a matrix product of its own."""
        untouched = type(self) is AlignmentFunction and self.specification.transforms is None
        return untouched and self.is_bilinear  # a subclass may transform or score in any way

    def inner_products(self, scores: Tensor, query_norm: Tensor, key_norm: Tensor) -> Tensor:
        """The plain q . k of the untransformed sides, from the scores of a function that `scores_give_inner_products`.

        Args:
            scores: [..., nQ, nK], of this function.
            query_norm: |q|, in a shape that broadcasts to the scores.
            key_norm: |k|, likewise.
        """
        if self.specification.normalized:
            return scores * query_norm * key_norm
        return scores if self.scale == 1.0 else scores / self.scale

    @property
    def is_bilinear(self) -> bool:
        """Whether the score is a plain scaled inner product of the transformed sides."""
        return self.activation is None and type(self).scores is AlignmentFunction.scores

    def factors(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, float]:
        """The transformed (q, k, scale) with `scores == scale * q k^T`, for fused attention kernels.

        Returns:
            q [..., nQ, d], k [..., nK, d] and the scale: the arguments of
            `scaled_dot_product_attention(q, k, value, scale=scale)`.

        Raises:
            ConfigurationError: If an activation stands between the inner product and the score.
        """
        if not self.is_bilinear:
            raise ConfigurationError("an activated or additive score has no factors; test `is_bilinear` first")
        return self.transform_query(query), self.transform_key(key), self.scale

    def extra_repr(self) -> str:
        """Show the equation in `print(model)`."""
        return f"{self.specification.equation}, size={self.size}"


class AdditiveAlignment(AlignmentFunction):
    """The additive score of Bahdanau et al. (2015): v . tanh(W1 q + W2 k).

    The matrix form holds [..., nQ, nK, d] numbers; callers size their blocks by `scratch_per_score`.
    """

    def create_parameters(self) -> None:
        """Declare W1 and W2 [d, d] and v [d]."""
        self.query_weight = nn.Parameter(torch.empty(self.size, self.size))
        self.key_weight = nn.Parameter(torch.empty(self.size, self.size))
        self.vector = nn.Parameter(torch.empty(self.size))
        self.scratch_per_score = self.size

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the parameters anew; v is never zero, or W1 and W2 would receive no gradient."""
        super().reset_parameters()
        if self.initialization == "identity" and not self.vector.is_meta:
            nn.init.constant_(self.vector, 1.0 / math.sqrt(self.size))

    def transform_query(self, query: Tensor) -> Tensor:
        """W1 q: [..., nQ, d] -> [..., nQ, d]."""
        return _linear(query, self.query_weight)

    def transform_key(self, key: Tensor) -> Tensor:
        """W2 k: [..., nK, d] -> [..., nK, d]."""
        return _linear(key, self.key_weight)

    @property
    def key_map(self) -> tuple[Tensor | None, Tensor | None] | None:
        """W2, without a bias."""
        return self.key_weight, None

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Score transformed sides: [..., nQ, d], [..., nK, d] -> [..., nQ, nK]."""
        return torch.tanh(query.unsqueeze(-2) + key.unsqueeze(-3)) @ self.vector.to(query.dtype)

    def products(self, query: Tensor, key: Tensor) -> Tensor:
        """The terms v * tanh(q + k), [..., nK, d], whose sum over d is the score."""
        return torch.tanh(query + key) * self.vector.to(query.dtype)


def _linear(vectors: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` in the precision of the vectors, which a caller may have raised above that of the weights."""
    dtype = vectors.dtype
    return F.linear(vectors, weight.to(dtype), None if bias is None else bias.to(dtype))


def _generator_of_its_own(device: torch.device) -> torch.Generator:
    """A generator that follows from the global seed but leaves the global stream where it is."""
    with torch.random.fork_rng(devices=[]):
        seed = int(torch.randint(2**62, (), device="cpu").item())
    return torch.Generator(device).manual_seed(seed)
