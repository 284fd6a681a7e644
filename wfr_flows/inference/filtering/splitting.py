"""A diffusion as a gradient flow, and what is left of its drift."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.dynamics import integrate
from wfr_flows.gradient_flows import Functional, Sample, negative_entropy, potential_energy, total
from wfr_flows.inference.filtering.model import StateSpace
from wfr_flows.numerics import concrete
from wfr_flows.typing import Array, Float, Scalar

_PROBES = 8
_LATER = (0.0, 0.31, 1.7, 12.3)
_INSTEAD = "Use particle_filter, which is --method bootstrap."

Half = Callable[[Sample, Scalar, Scalar], Sample]
"""``(sample, from, to) -> Sample``; backward where ``to`` is the earlier."""


class Splitting(NamedTuple):
    """A step is ``into`` for half of it, a step of the gradient flow of ``energy``, ``out`` for the rest.

    Attributes:
      energy: a functional of the law in the coordinates of the gradient flow.
      into: along the drift, then to those coordinates.
      out: back from them, then along the drift.
    """

    energy: Functional
    into: Half
    out: Half


def splitting(model: StateSpace) -> Splitting:
    """How a flow predicts a model.

    With a potential all of the diffusion is a gradient flow, and the halves do nothing. Otherwise (Strang)
    the halves follow ``ẋ = f`` by one step of Runge-Kutta, with ``d log ρ = -∇·f dt``, and between them
    ``∂ρ = ½Δρ`` in coordinates in which the noise is I: the flow of ``½∫ρ log ρ``.

    Raises:
      ValueError: without a potential, noise that is not square, or that is seen to be singular or to change
        with time or state. Noise that depends on traced values is taken as it is at the start.
    """
    if model.potential is not None:
        assert model.temperature is not None
        energy = total(potential_energy(model.potential), negative_entropy(model.temperature))
        return Splitting(energy, _stay, _stay)
    matrix = _constant_noise(model)
    inverse, log_det = jnp.linalg.inv(matrix), jnp.linalg.slogdet(matrix)[1]

    def into(sample: Sample, start: Scalar, end: Scalar) -> Sample:
        return _changed(inverse, -log_det, _along(model, sample, start, end))

    def out(sample: Sample, start: Scalar, end: Scalar) -> Sample:
        return _along(model, _changed(matrix, log_det, sample), start, end)

    return Splitting(negative_entropy(0.5), into, out)


def _constant_noise(model: StateSpace) -> Float[Array, "d d"]:
    zero = jnp.zeros(model.dim)
    matrix = model.noise(jnp.asarray(model.start, zero.dtype), zero)
    if matrix.shape != (model.dim, model.dim):
        raise ValueError(
            f"the noise is {matrix.shape}; a flow needs a square matrix, or a potential. {_INSTEAD}"
        )
    with jax.ensure_compile_time_eval():
        x = model.initial.sample(jax.random.key(0), _PROBES).position
        x = jnp.concatenate([jnp.zeros((1, model.dim), x.dtype), x, 3 * x])
        time = jnp.asarray(model.start + np.array(_LATER), x.dtype)
        found = jax.vmap(lambda t: jax.vmap(partial(model.noise, t))(x))(time)
    if not concrete(found):
        return matrix
    found = np.asarray(found, np.float64).reshape(-1, *matrix.shape)
    first = found[0]
    if not np.allclose(found, first, rtol=0, atol=1e-5 * np.abs(first).max()):
        raise ValueError(
            f"the noise changes with the time or the state, which a flow cannot follow. {_INSTEAD}"
        )
    if not np.linalg.cond(first) < 1 / np.finfo(matrix.dtype).eps:
        raise ValueError(f"the noise is singular, and a flow divides by it. {_INSTEAD}")
    return matrix


def _stay(sample: Sample, start: Scalar, end: Scalar) -> Sample:
    del start, end
    return sample


def _changed(matrix: Float[Array, "d d"], log_det: Scalar, sample: Sample) -> Sample:
    particles, log_density = sample
    return Sample(particles._replace(position=particles.position @ matrix.T), log_density - log_det)


def _along(model: StateSpace, sample: Sample, start: Scalar, end: Scalar) -> Sample:
    def rates(t: Scalar, state: tuple[Array, Array], params: None) -> tuple[Array, Array]:
        del params

        def one(x: Float[Array, " d"]) -> tuple[Array, Scalar]:
            return model.drift(t, x), -jnp.trace(jax.jacfwd(partial(model.drift, t))(x))

        return jax.vmap(one)(state[0])

    particles, log_density = sample
    path = integrate(rates, (particles.position, log_density), None, jnp.stack([start, end]))
    x, log_density = (leaf[-1] for leaf in path)
    return Sample(particles._replace(position=x), log_density)
