"""Principal components: the few directions in which wide tables vary."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.measures.particles import Particles
from wfr_flows.numerics import concrete
from wfr_flows.typing import Array, Float


class Components(NamedTuple):
    """Orthonormal directions through a centre.

    Attributes:
      center: ``[d]``.
      basis: ``[d, k]``, of decreasing variance.
    """

    center: Float[Array, " d"]
    basis: Float[Array, "d k"]

    def scores(self, position: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """Coordinates along the directions."""
        return jnp.dot(position - self.center[None], self.basis, precision="highest")

    def moved(self, position: Float[Array, "n d"], scores: Float[Array, "*s n k"]) -> Float[Array, "*s n d"]:
        """The points with these scores instead of theirs; what is orthogonal to the directions stays."""
        change = scores - jnp.broadcast_to(self.scores(position), scores.shape)
        moved = jnp.dot(change, self.basis.T, precision="highest")
        return jnp.broadcast_to(position, moved.shape) + moved


def principal_components(measure: Particles, num: int | None = None) -> Components:
    """The leading principal components of a weighted sample, by its singular values.

    Runs on the host in double precision, and in the sample's own precision where it is traced.

    Args:
      measure: particles of any mass.
      num: how many; has to be given for traced particles. ``None`` keeps those that stand out of noise:
        their singular values are above ``w(n/d) median``, ``w(r) = .56r³ - .95r² + 1.82r + 1.43`` with
        ``r <= 1`` the ratio of the sides (Gavish and Donoho, 2014), and always one.

    Raises:
      ValueError: ``num`` is not between 1 and ``d``, or not given while the particles are traced.

    >>> line = jnp.linspace(-1, 1, 50)
    >>> found = principal_components(Particles(jnp.stack([line, 2 * line], axis=1), jnp.zeros(50)), 1)
    >>> (found.basis[:, 0] ** 2).round(3).tolist()
    [0.20000000298023224, 0.800000011920929]
    """
    size, dim = measure.position.shape
    if num is not None and not 1 <= num <= dim:
        raise ValueError(f"num is {num}; give a number of components from 1 to {dim}.")
    if not concrete(measure):
        return _traced_components(measure, num)
    position, log_weight = (np.asarray(leaf, np.float64) for leaf in measure)
    weight = np.exp(log_weight - np.logaddexp.reduce(log_weight))
    center = weight @ position
    _, singular, directions = np.linalg.svd(
        np.sqrt(weight)[:, None] * (position - center), full_matrices=num is not None and num > size
    )
    if num is None:
        ratio = min(size, dim) / max(size, dim)
        threshold = (0.56 * ratio**3 - 0.95 * ratio**2 + 1.82 * ratio + 1.43) * np.median(singular)
        num = max(1, int(np.sum(singular > threshold)))
    dtype = jnp.result_type(float)
    return Components(jnp.asarray(center, dtype), jnp.asarray(directions[:num].T, dtype))


def _traced_components(measure: Particles, num: int | None) -> Components:
    if num is None:
        raise ValueError("num is not given and the particles are traced; give a number of components.")
    weight = jax.nn.softmax(measure.log_weight)
    center = jnp.dot(weight, measure.position, precision="highest")
    size = measure.position.shape[0]
    scaled = jnp.sqrt(weight)[:, None] * (measure.position - center[None])
    directions = jnp.linalg.svd(scaled, full_matrices=num > size)[2]
    return Components(center, directions[:num].T)
