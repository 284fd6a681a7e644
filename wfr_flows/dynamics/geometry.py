"""Which metric a potential moves particles in."""

from typing import NamedTuple

from wfr_flows.numerics import inverse_alpha, known_infinite
from wfr_flows.typing import ArrayLike, Scalar


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
    def balanced(self) -> bool:
        """Whether alpha is known to be ``inf``, so that nothing grows; never while it is traced."""
        return known_infinite(self.alpha)
