"""Which metric a potential moves particles in."""

from typing import NamedTuple

import jax.numpy as jnp

from wfr_flows.numerics import inverse_alpha, known_infinite
from wfr_flows.typing import Array, ArrayLike, Float, Scalar


class Geometry(NamedTuple):
    """How a potential moves mass: the length scale and whether total mass is kept.

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
