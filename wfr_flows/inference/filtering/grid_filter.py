"""The exact reference on the line: the Fokker-Planck equation on a grid (Chang, Cooper, 1970)."""

import math
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
# The share of the distance of nodes that the precision may be off by: fluxes and likelihoods follow it.
_ROUNDED = 0.1


class GridState(NamedTuple):
    """Masses of the cells about the nodes, their time, and how coarse the nodes are for them."""

    time: Scalar
    particles: Particles
    coarseness: Scalar


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
      A `training.Method` for `assimilate`, deterministic; its particles are the nodes. Where ``coarseness``
      in the result is above 1, a law is too sharp for the nodes: give more of them, or a narrower interval.

    Raises:
      ValueError: a model of another dimension, an empty interval, fewer than 3 nodes or nodes that the
        precision cannot tell apart, an initial law without density, or one of whose mass more than a
        thousandth is seen to lie outside the interval.
    """
    if model.dim != 1:
        raise ValueError(f"the model has dimension {model.dim}; a grid needs 1.")
    if not low < high:
        raise ValueError(f"low is {low} and high {high}; give low < high.")
    if num_nodes < 3:
        raise ValueError(f"num_nodes is {num_nodes}; give at least 3.")
    check_counts(num_steps=num_steps)
    apart = (high - low) / (num_nodes - 1)
    _check_nodes(low, high, num_nodes, jnp.result_type(float))
    initial = _initial_density(model, low, high)

    def init(key: Key) -> GridState:
        del key
        x = jnp.asarray(np.linspace(low, high, num_nodes)[:, None], float)
        particles = Particles(x, jax.vmap(initial)(x)).normalise()
        return GridState(jnp.array(model.start, x.dtype), particles, _coarseness(particles))

    def step(key: Key, state: GridState, now: Observations) -> tuple[GridState, Filtered]:
        del key
        x = state.particles.position
        mass = _predicted(model, state, now.time, num_steps, apart)
        predicted = Particles(x, jnp.log(jnp.maximum(mass, jnp.finfo(mass.dtype).tiny))).normalise()
        particles, log_evidence = reweighted(predicted, log_likelihoods(model, x, now))
        coarseness = _coarseness(particles)
        return GridState(now.time, particles, coarseness), Filtered(
            time=now.time,
            particles=particles,
            log_density=particles.log_weight - math.log(apart),
            log_evidence=log_evidence,
            effective_sample_size=jnp.full_like(log_evidence, jnp.inf),
            resampled=jnp.zeros((), bool),
            predicted=predicted,
            coarseness=jnp.maximum(coarseness, state.coarseness),
        )

    return Method(init, step)


def _predicted(
    model: StateSpace, state: GridState, end: Scalar, num_steps: int, apart: float
) -> Float[Array, " n"]:
    """Masses of the cells after implicit steps to a later time."""
    x, size = state.particles.position[:, 0], (end - state.time) / num_steps

    def forward(mass: Array, index: Scalar) -> tuple[Array, None]:
        at = state.time + (index + 1) * size
        lower, middle, upper = _generator(model, at, x, apart)
        solved = jax.lax.linalg.tridiagonal_solve(
            -size * lower, 1 - size * middle, -size * upper, mass[:, None]
        )
        return solved[:, 0], None

    return jax.lax.scan(forward, state.particles.weight, jnp.arange(num_steps, dtype=x.dtype))[0]


def _check_nodes(low: float, high: float, num_nodes: int, dtype: jnp.dtype) -> None:
    apart, spacing = (high - low) / (num_nodes - 1), jnp.finfo(dtype).eps * max(abs(low), abs(high))
    if spacing > _ROUNDED * apart:
        raise ValueError(
            f"{num_nodes} nodes from {low:g} to {high:g} are {apart:.2g} apart, which {np.dtype(dtype)}"
            f" rounds by {spacing:.2g}; subtract an origin from the states, give fewer num_nodes, or set"
            " JAX_ENABLE_X64=1."
        )


def _coarseness(particles: Particles) -> Scalar:
    """``h/s = √(-8 log Σ √(p_i p_(i+1)))``: for a Gaussian exact, for several sharp modes that of a mode.

    The overlap of a law with itself, one node further, tells how wide it is where its mass lies.
    """
    log_weight = particles.log_weight
    return jnp.sqrt(jnp.maximum(-8 * jax.nn.logsumexp(0.5 * (log_weight[1:] + log_weight[:-1])), 0.0))


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
    model: StateSpace, t: Scalar, x: Float[Array, " n"], h: float
) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
    """The diagonals below, on and above of the operator ``p -> ∂(B p + C ∂p)``, for nodes ``h`` apart."""

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
