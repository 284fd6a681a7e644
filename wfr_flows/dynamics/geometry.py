"""Which metric a potential moves particles in."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.numerics import inverse_alpha, known_infinite
from wfr_flows.typing import Array, ArrayLike, Float, Scalar


class Geometry(NamedTuple):
    """How a potential moves mass: the length scale and whether total mass is kept.

    As an argument of a transformed function it is a tree with one leaf, ``alpha``, which `jax.vmap` maps and
    `jax.grad` differentiates; ``spherical`` is part of its structure. Floating-point numbers from Python,
    NumPy and JAX enter as arrays of one type, so that they share a compiled program.

    Attributes:
      alpha: ``> 0``, the squared length at which growing is as cheap as moving; may be traced.
        ``inf`` is the Wasserstein geometry: particles keep their weights.
      spherical: True for probability measures, with ``g = -(Φ - Φ̄)/alpha``; False for plain WFR, with
        ``g = -Φ/alpha``.
    """

    alpha: ArrayLike
    spherical: bool = True

    @property
    def inverse_alpha(self) -> Scalar:
        """``1/alpha``, exactly 0 in the Wasserstein case."""
        return inverse_alpha(self.alpha)

    @property
    def growth_weight(self) -> Scalar:
        """``alpha``, and 0 in the Wasserstein case, where nothing grows."""
        return jnp.where(self.inverse_alpha == 0, 0.0, self.alpha)

    def energy(self, velocity: Float[Array, "*s d"], growth: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """``½|v|² + ½alpha g²``, what it costs to move and grow a unit of mass for a unit of time.

        Growth is what counts: in a spherical geometry that less its mean. At ``alpha = inf`` it is ignored.
        """
        kinetic = 0.5 * jnp.sum(velocity**2, axis=-1)
        if self.balanced:
            return kinetic
        return kinetic + 0.5 * self.growth_weight.astype(kinetic.dtype) * growth**2

    @property
    def balanced(self) -> bool:
        """Whether alpha is known to be ``inf``, so that nothing grows; never while it is traced."""
        return known_infinite(self.alpha)


def _canonical(alpha: Any) -> Any:
    """Floating-point numbers as arrays without weak type; whatever else stands in a tree is left as it is.

    A number from Python gets JAX's default precision, what has a type keeps it (as far as JAX has it). Whole
    numbers stay, as they are axes where a geometry is an ``in_axes`` of `jax.vmap`.
    """
    if isinstance(alpha, float) and not isinstance(alpha, np.floating):
        return np.asarray(alpha, jnp.result_type(float))
    if isinstance(alpha, np.floating | np.ndarray) and np.issubdtype(alpha.dtype, np.floating):
        return np.asarray(alpha, jax.dtypes.canonicalize_dtype(alpha.dtype))
    if isinstance(alpha, jax.Array) and alpha.weak_type and jnp.issubdtype(alpha.dtype, jnp.floating):
        return jax.lax.convert_element_type(alpha, alpha.dtype)
    return alpha


def _flatten(geometry: Geometry) -> tuple[tuple[tuple[Any, Any]], bool]:
    key = jax.tree_util.GetAttrKey("alpha")
    return ((key, _canonical(geometry.alpha)),), bool(geometry.spherical)


jax.tree_util.register_pytree_with_keys(
    Geometry, _flatten, lambda spherical, leaves: Geometry(next(iter(leaves)), spherical)
)
