"""The exact reference on the line: the Fokker-Planck equation on a grid (Chang, Cooper, 1970)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.inference.filtering.filtered import Filtered, check_counts, log_likelihoods
from wfr_flows.inference.filtering.model import Observations, StateSpace
from wfr_flows.inference.importance import reweighted
from wfr_flows.measures import Particles
from wfr_flows.numerics import concrete
from wfr_flows.training import Method
from wfr_flows.typing import Array, Float, Key, Scalar

_FINE = 100_000


class GridState(NamedTuple):
    """Masses of the cells about the nodes, and their time."""

    time: Scalar
    particles: Particles


def grid_filter(
    model: StateSpace, low: float, high: float, *, num_nodes: int = 2000, num_steps: int = 500
) -> Method:
    """Solve the Fokker-Planck equation between observations, multiply by the likelihood at each.

    ``∂p/∂t = ∂(B p + C ∂p)`` with ``C = ½g²``, ``B = C' - f``, without flux through the ends. Fluxes
    ``(B (1-δ) + C/h) p_(i+1) - (C/h - B δ) p_i`` with ``δ = 1/w - 1/(e^w - 1)``, ``w = hB/C``, keep densities
    positive and the stationary law exact; time steps are implicit, of order 1.

    Args:
      model: of dimension 1.
      low, high: the outermost nodes; all of the mass should be well within.
      num_nodes: equidistant, at least 3.
      num_steps: time steps between observations.

    Returns:
      A `training.Method` for `assimilate`, deterministic; its particles are the nodes.

    Raises:
      ValueError: a model of another dimension, an empty interval, fewer than 3 nodes, an initial law without
        density, or one of whose mass more than a thousandth is seen to lie outside the interval.
    """
    if model.dim != 1:
        raise ValueError(f"the model has dimension {model.dim}; a grid needs 1.")
    if not low < high:
        raise ValueError(f"low is {low} and high {high}; give low < high.")
    if num_nodes < 3:
        raise ValueError(f"num_nodes is {num_nodes}; give at least 3.")
    check_counts(num_steps=num_steps)
    initial = _initial_density(model, low, high)

    def init(key: Key) -> GridState:
        del key
        x = jnp.linspace(low, high, num_nodes)[:, None]
        particles = Particles(x, jax.vmap(initial)(x)).normalise()
        return GridState(jnp.array(model.start, x.dtype), particles)

    def step(key: Key, state: GridState, now: Observations) -> tuple[GridState, Filtered]:
        del key
        x = state.particles.position
        size = (now.time - state.time) / num_steps

        def forward(mass: Array, index: Scalar) -> tuple[Array, None]:
            at = state.time + (index + 1) * size
            lower, middle, upper = _generator(model, at, x[:, 0])
            solved = jax.lax.linalg.tridiagonal_solve(
                -size * lower, 1 - size * middle, -size * upper, mass[:, None]
            )
            return solved[:, 0], None

        mass, _ = jax.lax.scan(forward, state.particles.weight, jnp.arange(num_steps, dtype=x.dtype))
        predicted = Particles(x, jnp.log(jnp.maximum(mass, jnp.finfo(mass.dtype).tiny))).normalise()
        particles, log_evidence = reweighted(predicted, log_likelihoods(model, x, now))
        log_density = particles.log_weight - jnp.log(x[1, 0] - x[0, 0])
        exact, never = jnp.full_like(log_evidence, jnp.inf), jnp.zeros((), bool)
        return GridState(now.time, particles), Filtered(
            now.time, particles, log_density, log_evidence, exact, never, predicted=predicted
        )

    return Method(init, step)


def _initial_density(model: StateSpace, low: float, high: float) -> Callable[[Float[Array, " d"]], Scalar]:
    """Its logarithm; where it is known already, a quadrature much finer than the nodes tells its mass."""
    log_density = model.initial.log_density
    if log_density is None:
        raise ValueError("the initial law has no density; give one that has, as measures.gaussian.")
    with jax.ensure_compile_time_eval():
        step = (high - low) / _FINE
        density = jnp.exp(jax.vmap(log_density)(low + step * (jnp.arange(_FINE)[:, None] + 0.5)))
    if not concrete(density):
        return log_density
    mass = step * float(np.sum(np.asarray(density, np.float64)))
    if not abs(mass - 1) < 1e-3:
        raise ValueError(
            f"the initial law has mass {mass:.4g} between {low:g} and {high:g}; give an interval that holds"
            " all of it, and a log-density with its constant."
        )
    return log_density


def _generator(
    model: StateSpace, t: Scalar, x: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
    """The diagonals below, on and above of the operator ``p -> ∂(B p + C ∂p)``."""
    h = x[1] - x[0]

    def diffusion(y: Scalar) -> Scalar:
        return 0.5 * jnp.sum(model.noise(t, y[None]) ** 2)

    middle = 0.5 * (x[1:] + x[:-1])
    spread, slope = jax.vmap(jax.value_and_grad(diffusion))(middle)
    push = slope - jax.vmap(lambda y: model.drift(t, y[None])[0])(middle)
    # C w/(1 - e^-w) and C w/(e^w - 1), which are C at 0: the factors of the node above and below.
    ratio = h * push / spread
    small = jnp.abs(ratio) < 1e-3
    safe = jnp.where(small, 1.0, ratio)
    below = spread * jnp.where(small, 1 - ratio / 2 + ratio**2 / 12, safe / jnp.expm1(safe))
    above = below + h * push
    below, above = below / h**2, above / h**2
    zero = jnp.zeros(1, x.dtype)
    return (
        jnp.concatenate([zero, below]),
        -jnp.concatenate([below, zero]) - jnp.concatenate([zero, above]),
        jnp.concatenate([above, zero]),
    )
