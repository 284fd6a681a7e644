"""Functionals of a measure that samples and their density tell: energies, entropies, and sums of them."""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.typing import Array, ArrayLike, Float, Scalar

LogDensity = Callable[[Float[Array, " d"]], Scalar]
"""``x: [d] -> scalar``."""


class Functional(Protocol):
    """``(particles, log_density: [n]) -> scalar``, an estimate of ``F(ρ)``.

    ``log_density`` is that of ``ρ`` at the particles, up to a constant where that of the source is not known.
    Any differentiable function of both can be minimised, for instance ``lambda particles, log_density:
    jnp.var(particles.position)``.
    """

    def __call__(self, particles: Particles, log_density: Float[Array, " n"], /) -> Scalar: ...


def potential_energy(potential: LogDensity) -> Functional:
    """``∫Φ dρ``.

    Args:
      potential: ``x: [d] -> Φ(x)``.
    """

    def functional(particles: Particles, log_density: Float[Array, " n"]) -> Scalar:
        del log_density
        return jnp.vdot(particles.weight, jax.vmap(potential)(particles.position))

    return functional


def negative_entropy(temperature: ArrayLike = 1.0) -> Functional:
    """``β⁻¹ ∫ρ log ρ``, with ``β⁻¹`` the temperature."""

    def functional(particles: Particles, log_density: Float[Array, " n"]) -> Scalar:
        return jnp.asarray(temperature, log_density.dtype) * jnp.vdot(particles.weight, log_density)

    return functional


def porous_energy(power: float) -> Functional:
    """``(m-1)⁻¹ ∫ρᵐ`` with ``m`` the power, above 1: its flow is the porous medium equation.

    Raises:
      ValueError: a power of 1 or less.
    """
    if not power > 1:
        raise ValueError(f"power is {power}; give a number above 1.")

    def functional(particles: Particles, log_density: Float[Array, " n"]) -> Scalar:
        return jnp.vdot(particles.weight, jnp.exp((power - 1) * log_density)) / (power - 1)

    return functional


def free_energy(target_log_density: LogDensity, temperature: ArrayLike = 1.0) -> Functional:
    """``∫Φ dρ + β⁻¹∫ρ log ρ`` with ``Φ = -β⁻¹ log π``: ``β⁻¹ KL(ρ|π)``, and its flow the Langevin diffusion.

    ``∂ρ/∂t = ∇·(ρ∇Φ) + β⁻¹Δρ`` ([JKO] eq. 1) has ``π`` as its stationary law.

    Args:
      target_log_density: ``log π``, up to a constant, which the value then lacks.
      temperature: ``β⁻¹ > 0``.
    """

    def potential(x: Float[Array, " d"]) -> Scalar:
        return -jnp.asarray(temperature, x.dtype) * target_log_density(x)

    return total(potential_energy(potential), negative_entropy(temperature))


def total(*functionals: Functional) -> Functional:
    """The sum of functionals."""

    def functional(particles: Particles, log_density: Float[Array, " n"]) -> Scalar:
        return sum((one(particles, log_density) for one in functionals), jnp.zeros((), log_density.dtype))

    return functional
