"""Particle baselines: Langevin simulation, proximal recursions on point clouds, Stein variational descent."""

from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import lineax
import optax

from wfr_flows.gradient_flows.functionals import LogDensity
from wfr_flows.gradient_flows.icnn_jko import Sample
from wfr_flows.measures import Particles
from wfr_flows.numerics import in_blocks, squared_distance
from wfr_flows.training import Method, copied
from wfr_flows.typing import Array, ArrayLike, Float, Int, Key, PyTree, Scalar


def euler_maruyama(target_log_density: LogDensity, *, temperature: ArrayLike = 1.0) -> Method:
    """``x ← x + h β⁻¹∇log π(x) + √(2hβ⁻¹) ξ``: Langevin dynamics towards ``π``.

    Args:
      target_log_density: ``log π``, up to a constant.
      temperature: ``β⁻¹ >= 0``.

    Returns:
      A `training.Method`: ``init(particles) -> particles`` and ``step(key, particles, step_size)``, with the
      info ``()``. Weights stay as they are.
    """
    score = jax.vmap(jax.grad(target_log_density))

    def step(key: Key, state: Particles, step_size: ArrayLike) -> tuple[Particles, Any]:
        noise = jax.random.normal(key, state.position.shape, state.position.dtype)
        rate = step_size * jnp.asarray(temperature, noise.dtype)
        return state._replace(
            position=state.position + rate * score(state.position) + jnp.sqrt(2 * rate) * noise
        ), ()

    return Method(copied, step)


def langevin(
    target_log_density: LogDensity,
    *,
    temperature: ArrayLike = 1.0,
    num_steps: int = 16,
    solver: diffrax.AbstractSolver | None = None,
) -> Method:
    """``dx = β⁻¹∇log π(x) dt + √(2β⁻¹) dW`` by a stochastic solver of diffrax.

    Args:
      target_log_density, temperature: as in `euler_maruyama`.
      num_steps: solver steps within a step of the method.
      solver: stochastic Heun by default: order 1 for this additive noise, weakly 2.

    Returns:
      A `training.Method` as of `euler_maruyama`; its step solves over a time ``step_size``.
    """
    score = jax.vmap(jax.grad(target_log_density))
    solver = diffrax.EulerHeun() if solver is None else solver

    def step(key: Key, state: Particles, step_size: ArrayLike) -> tuple[Particles, Any]:
        dtype, shape = state.position.dtype, state.position.shape
        span = jnp.asarray(step_size, dtype)
        amplitude = jnp.sqrt(2 * jnp.asarray(temperature, dtype))
        path = diffrax.VirtualBrownianTree(
            0.0, span, span / (4 * num_steps), jax.ShapeDtypeStruct(shape, dtype), key
        )
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, x, args: temperature * score(x)),
            diffrax.ControlTerm(
                lambda t, x, args: lineax.DiagonalLinearOperator(jnp.full(shape, amplitude)), path
            ),
        )
        found = diffrax.diffeqsolve(
            terms, solver, 0.0, span, span / num_steps, state.position, throw=False, max_steps=num_steps + 2
        )
        return state._replace(position=found.ys[-1]), ()  # pyright: ignore[reportOptionalSubscript]

    return Method(copied, step)


class ProximalInfo(NamedTuple):
    """How a proximal recursion ended.

    Attributes:
      iterations: done.
      change: largest change of a log-scaling in the last one.
    """

    iterations: Int[Array, ""]
    change: Scalar


def proximal_recursion(
    target_log_density: LogDensity,
    *,
    regularisation: float = 0.05,
    tolerance: float = 1e-5,
    max_iterations: int = 300,
) -> Method:
    """`euler_maruyama` for the points and an entropic JKO step for the density at them (EM-PR).

    With ``G_ij = exp(-|x_i - x'_j|²/2ε)`` between old and new points, ``y = ρ/(Gz)`` and
    ``z = (e^{-1} π/(Gᵀy))^{h/(h+ε)}`` are iterated; the new density is ``z ⊙ Gᵀy`` (Caluya, Halder, 2020,
    algorithm 1, ``π`` at the new points; in logarithms). It is known up to a constant. Pairs are taken in
    blocks.

    Args:
      target_log_density: ``log π``, up to a constant.
      regularisation: ``ε > 0``.
      tolerance: of the change of log-scalings, at which to stop.
      max_iterations: at most.

    Returns:
      A `training.Method`: ``init(sample) -> sample``, ``step(key, sample, step_size)`` with a `ProximalInfo`.
    """
    points = euler_maruyama(target_log_density)

    def step(key: Key, state: Sample, step_size: ArrayLike) -> tuple[Sample, ProximalInfo]:
        before, (after, _) = state.particles, points.step(key, state.particles, step_size)
        log_target = jax.vmap(target_log_density)(after.position) - 1
        step_size = jnp.asarray(step_size, log_target.dtype)
        power = step_size / (step_size + regularisation)

        def sums(to: Array, of: Array, log_scaling: Array) -> Array:
            def block(some: Array) -> Array:
                exponent = -squared_distance(some, of) / (2 * regularisation) + log_scaling
                return jax.nn.logsumexp(exponent, axis=1)

            return in_blocks(block, to, of.shape[0])

        def improve(carry):
            z, y, _, count = carry
            new_z = power * (log_target - sums(after.position, before.position, y))
            new_y = state.log_density - sums(before.position, after.position, new_z)
            change = jnp.maximum(jnp.max(jnp.abs(new_z - z)), jnp.max(jnp.abs(new_y - y)))
            return new_z, new_y, change, count + 1

        def unfinished(carry) -> Array:
            return (carry[2] > tolerance) & (carry[3] < max_iterations)

        z = jnp.zeros_like(state.log_density)
        y = state.log_density - sums(before.position, after.position, z)
        start = z, y, jnp.asarray(jnp.inf, z.dtype), jnp.zeros((), jnp.int32)
        z, y, change, count = jax.lax.while_loop(unfinished, improve, start)
        log_density = z + sums(after.position, before.position, y)
        return Sample(after, log_density), ProximalInfo(count, change)

    return Method(copied, step)


class SteinState(NamedTuple):
    """Particles and the state of the optimiser that moves them."""

    particles: Particles
    optimiser: PyTree


def svgd(
    target_log_density: LogDensity,
    optimiser: optax.GradientTransformation | None = None,
    *,
    bandwidth: ArrayLike | None = None,
) -> Method:
    """Stein variational gradient descent (Liu, Wang, 2016).

    ``φ(x) = Σ_j w_j [k(x_j, x) ∇log π(x_j) + ∇_{x_j} k(x_j, x)]`` with ``k = exp(-|x - y|²/2b²)``.

    Args:
      target_log_density: ``log π``, up to a constant.
      optimiser: an optax transformation; by default the published AdaGrad with a moving average of .9 and
        rate .05.
      bandwidth: ``b``. By default ``b² = ½ median |x_i - x_j|² / log(n + 1)``, anew in every step.

    Returns:
      A `training.Method`: ``init(particles) -> SteinState`` and ``step(key, state, batch)``, which uses
      neither key nor batch; the info is the root mean square of ``φ``.
    """
    optimiser = optax.rmsprop(0.05, decay=0.9, eps=1e-6) if optimiser is None else optimiser
    score = jax.vmap(jax.grad(target_log_density))

    def direction(particles: Particles) -> Float[Array, "n d"]:
        x, weight = particles.position, particles.normalise().weight
        squared = squared_distance(x, x)
        if bandwidth is None:
            scale = 0.5 * jnp.median(squared) / jnp.log(x.shape[0] + 1)
            scale = jnp.where(scale > 0, scale, 1.0)
        else:
            scale = jnp.asarray(bandwidth, x.dtype) ** 2
        kernel = weight * jnp.exp(-squared / (2 * scale))
        apart = jnp.sum(kernel, axis=1)[:, None] * x - kernel @ x
        return kernel @ score(x) + apart / scale

    def init(particles: Particles) -> SteinState:
        return copied(SteinState(particles, optimiser.init(particles.position)))

    def step(key: Key, state: SteinState, batch: Any) -> tuple[SteinState, Scalar]:
        del key, batch
        ascent = direction(state.particles)
        change, optimiser_state = optimiser.update(-ascent, state.optimiser, state.particles.position)
        moved = state.particles._replace(position=optax.apply_updates(state.particles.position, change))  # pyright: ignore
        return SteinState(moved, optimiser_state), jnp.sqrt(jnp.mean(jnp.sum(ascent**2, axis=1)))

    return Method(init, step)
