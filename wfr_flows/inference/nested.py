"""Laplace's approximation nested in a grid over one coordinate on which the scale of the others depends."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.gradient_flows.functionals import LogDensity
from wfr_flows.inference.importance import Laplace, laplace
from wfr_flows.measures import Distribution, mixture
from wfr_flows.typing import Array, Bool, Float, Scalar

_REACH = 4.0  # of the grid, in standard deviations
_FIRST_DEVIATION = 4.0
_STAGES = 3


class NestedLaplace(NamedTuple):
    """A mixture of Gaussians along the last coordinate.

    Attributes:
      weight: ``[k]``, of the components.
      mean: ``[k, d]``.
      covariance: ``[k, d, d]``.
      log_evidence: by the rectangle rule over the grid.
      converged: every component with more than a thousandth of the weight is.
    """

    weight: Float[Array, " k"]
    mean: Float[Array, "k d"]
    covariance: Float[Array, "k d d"]
    log_evidence: Scalar
    converged: Bool[Array, ""]

    @property
    def distribution(self) -> Distribution:
        """The mixture."""
        return mixture(self.weight, self.mean, self.covariance)


def _settled(found: Laplace, drift: Array) -> Array:
    """Components that were found; all finite ones where none was: evidence of the others is their own."""
    finite = jnp.isfinite(found.log_evidence) & jnp.all(jnp.isfinite(drift), axis=1)
    settled = finite & found.converged
    return jnp.where(settled.any(), settled, finite)


def nested_laplace(
    log_density: LogDensity, start: Float[Array, " d"], *, num_nodes: int = 17, max_steps: int = 200
) -> NestedLaplace:
    """Laplace's approximation of ``(x_1 .. x_(d-1))`` for each of some ``t = x_d`` (Rue et al., 2009).

    For a log-precision ``t``, whose posterior with the weights that it scales is a funnel: no Gaussian in all
    of ``x`` is near to it, and one for each ``t`` is. With ``m(t)`` and ``Σ(t)`` of those and the marginal
    ``p(t)`` that they give, the mixture is ``Σ_k p(t_k) N(m(t_k) + m'(t_k)(t - t_k), Σ(t_k)) N(t; t_k, δ²)``,
    ``δ`` the distance of the nodes ``t_k``: half the standard deviation of ``t``. It is wider than the law by
    an eighth along ``t``, as is good in importance sampling.

    Args:
      log_density: ``log p``, concave in all coordinates but the last; with all constants for the evidence.
      start: ``[d]``, ``d >= 2``, near the mode; its last coordinate within 16 of where the mass is.
      num_nodes: ``k``.
      max_steps: of BFGS for each node.

    Raises:
      ValueError: a start of less than two coordinates, or fewer than 3 nodes.
    """
    if start.ndim != 1 or start.shape[0] < 2 or num_nodes < 3:
        raise ValueError(
            f"start has shape {start.shape} and num_nodes is {num_nodes}; give [d], d >= 2, and at least 3."
        )
    grid = jnp.linspace(-_REACH, _REACH, num_nodes, dtype=start.dtype)
    spacing = 2 * _REACH / (num_nodes - 1)

    def at(t: Scalar):
        def slope(x: Float[Array, " d-1"], t: Scalar) -> Array:
            return jax.grad(lambda x: log_density(jnp.append(x, t)))(x)

        found = laplace(lambda x: log_density(jnp.append(x, t)), start[:-1], max_steps=max_steps)
        drift = found.covariance @ jax.jacfwd(slope, argnums=1)(found.mode, t)
        return found, drift

    def stage(carry: tuple[Scalar, Scalar], _: None):
        centre, deviation = carry
        t = centre + deviation * grid
        found, drift = jax.vmap(at)(t)
        usable = _settled(found, drift)
        marginal = jnp.where(usable, found.log_evidence, -jnp.inf)
        share = jax.nn.softmax(marginal)
        mean = share @ t
        spread = jnp.sqrt(share @ (t - mean) ** 2)
        # Mass between two nodes is seen at one of them: its spread is not known below half their distance.
        narrower = jnp.maximum(spread, 0.5 * spacing * deviation)
        return (mean, narrower), (t, found, drift, marginal, usable)

    begin = start[-1], jnp.full((), _FIRST_DEVIATION, start.dtype)
    _, stages = jax.lax.scan(stage, begin, None, length=_STAGES)
    t, found, drift, marginal, usable = jax.tree.map(lambda leaf: leaf[-1], stages)
    distance = t[1] - t[0]
    weight = jax.nn.softmax(marginal)
    mean = jnp.concatenate([jnp.where(usable[:, None], found.mode, start[:-1]), t[:, None]], axis=1)
    inner = jnp.where(usable[:, None, None], found.covariance, jnp.eye(start.shape[0] - 1, dtype=t.dtype))
    along = jnp.concatenate([jnp.where(usable[:, None], drift, 0.0), jnp.ones_like(t)[:, None]], axis=1)
    covariance = jnp.pad(inner, ((0, 0), (0, 1), (0, 1)))
    covariance += distance**2 * along[:, :, None] * along[:, None, :]
    converged = jnp.all(found.converged | (weight < 1e-3))
    return NestedLaplace(weight, mean, covariance, jax.nn.logsumexp(marginal) + jnp.log(distance), converged)
