"""How particles move and grow: rates at a time and a place, from a potential or from free networks."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from wfr_flows.dynamics.geometry import Geometry
from wfr_flows.numerics import built_each, entry
from wfr_flows.potentials import InitFn, Potential, SiluNetwork, initialised
from wfr_flows.typing import Array, Float, Key, Params, Scalar


class Rates(NamedTuple):
    """What happens to a particle at ``(t, x)``.

    Attributes:
      velocity: ``dx/dt``, ``[d]``.
      growth: ``d log w/dt``; in a spherical geometry up to a function of time.
      energy: ``∂ₜΦ`` of a potential, which on a geodesic is ``½|v|² + ½alpha g²``; None of other fields.
    """

    velocity: Float[Array, " d"]
    growth: Scalar
    energy: Scalar | None = None


class RatesFn(Protocol):
    """``(params, t, x: [d]) -> Rates`` for one particle."""

    def __call__(self, params: Params, t: Scalar, x: Float[Array, " d"], /) -> Rates: ...


class Field(NamedTuple):
    """Motion and growth as two pure functions.

    Attributes:
      init: ``key -> params``.
      rates: see `RatesFn`.
    """

    init: InitFn
    rates: RatesFn


def potential_field(potential: Potential, geometry: Geometry) -> Field:
    """``v = -∇Φ`` and ``g = -Φ/alpha``: motion and growth of one potential, as on a geodesic."""
    inverse_alpha = geometry.inverse_alpha

    def rates(params: Params, t: Scalar, x: Float[Array, " d"]) -> Rates:
        jet = potential.jet(params, t, x)
        growth = -jet.value * inverse_alpha.astype(jet.value.dtype)
        return Rates(-jet.gradient, growth, jet.time_derivative)

    return Field(potential.init, rates)


def free_field(dim: int, *, width: int = 64) -> Field:
    """Velocity and growth from networks of their own, three layers each, which begin at rest.

    Args:
      dim: dimension ``d >= 1`` of space.
      width: units of a layer.
    """
    for name, size in (("dim", dim), ("width", width)):
        if size < 1:
            raise ValueError(f"{name} is {size}; give at least 1.")
    velocity, growth = SiluNetwork((width,) * 3, dim), SiluNetwork((width,) * 3, 1)

    def init(key: Key) -> Params:
        velocity_key, growth_key = jax.random.split(key)
        return {
            "velocity": initialised(velocity, dim + 1, velocity_key),
            "growth": initialised(growth, dim + 1, growth_key),
        }

    def rates(params: Params, t: Scalar, x: Float[Array, " d"]) -> Rates:
        inputs = jnp.append(x, t)
        speed = velocity.apply({"params": params["velocity"]}, inputs)
        rate = growth.apply({"params": params["growth"]}, inputs)
        return Rates(speed, rate[0])  # pyright: ignore[reportArgumentType, reportIndexIssue]

    return Field(init, rates)


def windowed(field: Field, time: Float[Array, " k"]) -> Field:
    """One field for every window between neighbouring times, each in the window's own time from 0 to 1.

    Geodesics from snapshot to snapshot turn at every snapshot, which no field that is smooth in time can do.
    A time that two windows share counts to the later one.

    Args:
      field: of one window.
      time: ``[k]``, increasing, ``k >= 2``.
    """
    time = jnp.asarray(time)
    length = jnp.diff(time)

    def init(key: Key) -> Params:
        return built_each(field.init, jax.random.split(key, length.size))

    def rates(params: Params, t: Scalar, x: Float[Array, " d"]) -> Rates:
        index = jnp.clip(jnp.searchsorted(time, t, side="right") - 1, 0, length.size - 1)
        own = entry(params, index)
        pace = 1 / length[index]
        inside = field.rates(own, (t - time[index]) * pace, x)
        energy = None if inside.energy is None else pace**2 * inside.energy
        return Rates(pace * inside.velocity, pace * inside.growth, energy)

    return Field(init, rates)


def batched(field: Field) -> Callable[[Params, Scalar, Float[Array, "n d"]], Rates]:
    """The rates of many particles at one time."""
    return jax.vmap(field.rates, (None, None, 0))
