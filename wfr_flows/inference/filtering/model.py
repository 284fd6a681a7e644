"""State-space models: a diffusion seen through noise at some times."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.measures import Distribution, gaussian
from wfr_flows.numerics import concrete
from wfr_flows.typing import Array, ArrayLike, Bool, Float, Key, Scalar

_ROUNDED = 0.05
"""The share of the time between neighbours that may be lost to the precision."""

Drift = Callable[[Scalar, Float[Array, " d"]], Float[Array, " d"]]
"""``(t, x: [d]) -> [d]``."""


class Sensor(NamedTuple):
    """How the state is seen.

    Attributes:
      log_likelihood: ``(t, x: [d], y: [m]) -> log p(y|x)``, with all constants.
      draw: ``(key, t, x: [d]) -> y: [m]``.
    """

    log_likelihood: Callable[[Scalar, Float[Array, " d"], Float[Array, " m"]], Scalar]
    draw: Callable[[Key, Scalar, Float[Array, " d"]], Float[Array, " m"]]


class StateSpace(NamedTuple):
    """``dX = f(t, X) dt + g(t, X) dW`` (Itô), seen at discrete times.

    Attributes:
      initial: law of ``X`` at time ``start``.
      drift: ``f``.
      noise: ``(t, x: [d]) -> g: [d, r]``.
      sensor: see `Sensor`.
      potential: ``Φ(x)`` where ``f = -∇Φ`` and ``g = √(2β⁻¹) I``, else None.
      temperature: ``β⁻¹``, with a potential.
      start: time of the initial law.
    """

    initial: Distribution
    drift: Drift
    noise: Callable[[Scalar, Float[Array, " d"]], Float[Array, "d r"]]
    sensor: Sensor
    potential: Callable[[Float[Array, " d"]], Scalar] | None = None
    temperature: Scalar | None = None
    start: float = 0.0

    @property
    def dim(self) -> int:
        """Dimension of the state."""
        return self.initial.dim


class Observations(NamedTuple):
    """What was seen, and when.

    Attributes:
      time: ``[K]``, increasing.
      value: ``[K, m]``; a row of NaN is a time at which nothing was seen, to predict for.
    """

    time: Float[Array, " K"]
    value: Float[Array, "K m"]

    @property
    def seen(self) -> Bool[Array, " K"]:
        """Where there is a value."""
        return ~jnp.all(jnp.isnan(self.value), axis=-1)


def state_space(
    initial: Distribution,
    sensor: Sensor,
    *,
    drift: Drift | None = None,
    noise: ArrayLike | Callable[[Scalar, Float[Array, " d"]], Float[Array, "d r"]] | None = None,
    potential: Callable[[Float[Array, " d"]], Scalar] | None = None,
    temperature: ArrayLike = 1.0,
    start: float = 0.0,
) -> StateSpace:
    """A model from its drift and noise, or from a potential: ``dX = -∇Φ dt + √(2β⁻¹) dW``.

    Args:
      initial: law at time ``start``.
      sensor: for instance `gaussian_sensor`.
      drift: ``(t, x: [d]) -> [d]``.
      noise: with a drift: ``g`` as a number (times I), ``[d]`` (its diagonal), ``[d, r]``, or a function
        ``(t, x: [d]) -> [d, r]``.
      potential: ``x: [d] -> Φ(x)``, instead of a drift and noise.
      temperature: ``β⁻¹ > 0``, with a potential.

    Raises:
      ValueError: a drift and a potential, or neither; a drift without noise, or noise that does not fit; a
        temperature that is known not to be positive and finite.
    """
    if (drift is None) == (potential is None):
        raise ValueError("give either a drift with noise, or a potential.")
    if (noise is None) == (drift is not None):
        raise ValueError("noise belongs to a drift; a potential has a temperature instead.")
    if potential is not None:
        if concrete(temperature) and not 0 < float(np.asarray(temperature)) < np.inf:
            raise ValueError(f"temperature is {temperature}; give a finite number > 0.")
        slope, warmth = jax.grad(potential), jnp.asarray(temperature, jnp.result_type(float))
        amplitude = jnp.sqrt(2 * warmth)
        return StateSpace(
            initial,
            lambda t, x: -slope(x),
            lambda t, x: amplitude.astype(x.dtype) * jnp.eye(x.size, dtype=x.dtype),
            sensor,
            potential,
            warmth,
            start,
        )
    assert drift is not None
    assert noise is not None
    return StateSpace(initial, drift, _noise(noise, initial.dim), sensor, start=start)


def _noise(noise, dim: int):
    if callable(noise):
        return noise
    matrix = jnp.asarray(noise, jnp.result_type(float))
    if matrix.ndim < 2:
        matrix = jnp.diag(jnp.broadcast_to(matrix, (dim,)))
    if matrix.ndim != 2 or matrix.shape[0] != dim:
        raise ValueError(f"noise has shape {matrix.shape}; give a number, [{dim}] or [{dim}, r].")
    return lambda t, x: matrix.astype(x.dtype)


def gaussian_sensor(
    deviation: ArrayLike, function: Callable[[Float[Array, " d"]], Float[Array, " m"]] = lambda x: x
) -> Sensor:
    """``y = h(x) + noise`` with independent Gaussian noise.

    Args:
      deviation: its standard deviation, a number or ``[m]``, positive.
      function: ``h: [d] -> [m]``; all of the state by default.

    Raises:
      ValueError: a deviation that is known not to be positive and finite; when the sensor is traced, shapes
        that do not fit.
    """
    if np.ndim(deviation) > 1:
        raise ValueError(f"deviation has shape {np.shape(deviation)}; give a number, or [m].")
    if concrete(deviation) and not ((np.asarray(deviation) > 0) & np.isfinite(deviation)).all():
        raise ValueError(f"deviation is {deviation}; give finite numbers > 0.")
    deviation = jnp.asarray(deviation, jnp.result_type(float))

    def clean_value(x: Float[Array, " d"]) -> Float[Array, " m"]:
        clean = jnp.asarray(function(x))
        if clean.ndim != 1:
            raise ValueError(f"the sensor's function gives shape {clean.shape}; give a vector [m].")
        if deviation.shape not in ((), clean.shape):
            raise ValueError(
                f"the deviation is {deviation.shape}, what is seen {clean.shape}; give the same."
            )
        return clean

    def log_likelihood(t: Scalar, x: Float[Array, " d"], y: Float[Array, " m"]) -> Scalar:
        del t
        clean = clean_value(x)
        if y.shape != clean.shape:
            raise ValueError(f"an observation is {y.shape}, the sensor gives {clean.shape}; make them fit.")
        scale = deviation.astype(x.dtype)
        # The quotient is squared, not its parts: the square of a small deviation would be 0.
        apart = (y - clean) / scale
        return jnp.sum(-0.5 * apart**2 - jnp.log(scale) - 0.5 * math.log(2 * math.pi))

    def draw(key: Key, t: Scalar, x: Float[Array, " d"]) -> Float[Array, " m"]:
        del t
        clean = clean_value(x)
        return clean + deviation.astype(x.dtype) * jax.random.normal(key, clean.shape, clean.dtype)

    return Sensor(log_likelihood, draw)


def observations(time: ArrayLike, value: ArrayLike, *, start: float = 0.0) -> Observations:
    """`Observations` from arrays, refusing what no filter can use; of traced arrays, wrong shapes only.

    Args:
      time: ``[K]``, increasing and after ``start``.
      value: ``[K, m]``, or ``[K]`` for one number each; a row of NaN where there is none.

    Raises:
      ValueError: empty or wrongly shaped arrays, times that do not increase or that the precision cannot tell
        apart, infinite or partly missing rows.
    """
    known = concrete(time, value, start)
    time, value = (np.asarray(a) if concrete(a) else jnp.asarray(a) for a in (time, value))
    if time.dtype.kind not in "fiu" or value.dtype.kind not in "fiu":
        raise ValueError(f"time is {time.dtype} and value {value.dtype}; give real numbers.")
    value = value[:, None] if value.ndim == 1 else value
    if time.ndim != 1 or value.ndim != 2 or value.shape[0] != time.size or value.shape[1] == 0:
        raise ValueError(f"time {time.shape} and value {value.shape} do not fit; give [K] and [K, m].")
    if time.size == 0:
        raise ValueError("there are no observations; give at least one.")
    dtype = jnp.result_type(float)
    if known:
        _check_times(np.asarray(time, np.float64), start, dtype)
        missing = np.isnan(value)
        if np.isinf(value).any() or (missing.any(axis=1) != missing.all(axis=1)).any():
            raise ValueError("some observations are infinite or missing in part; make such rows NaN.")
    return Observations(jnp.asarray(time, dtype), jnp.asarray(value, dtype))


def _check_times(time: np.ndarray, start: float, dtype: jnp.dtype) -> None:
    if not np.isfinite(time).all():
        raise ValueError(f"time {time[~np.isfinite(time)][0]:g} is not finite; repair it.")
    if not time[0] > start:
        raise ValueError(
            f"time {time[0]:.10g} is not after the start of the model, {start:.10g}; sort the times, or give"
            " the model an earlier start."
        )
    apart = np.diff(time, prepend=start)
    wrong = apart <= 0
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"times must increase, and {time[first]:.10g} comes after {time[first - 1]:.10g}; sort them, and"
            " leave out repetitions."
        )
    rounded = np.concatenate([[start], time]).astype(dtype).astype(np.float64)
    lost = np.abs(np.diff(rounded) - apart) > _ROUNDED * apart
    if lost.any():
        raise ValueError(
            f"time {time[int(lost.argmax())]:.10g} is too close to the one before it for {np.dtype(dtype)};"
            " subtract an origin from all times and the start, or set JAX_ENABLE_X64=1."
        )


def simulate(
    key: Key, model: StateSpace, time: Float[Array, " K"], *, num_steps: int = 100
) -> tuple[Float[Array, "K d"], Observations]:
    """A path of the model at given times, and observations of it.

    Args:
      time: ``[K]``, increasing and after ``model.start``.
      num_steps: solver steps between neighbours, see `advance`.
    """
    start_key, path_key, draw_key = jax.random.split(key, 3)
    x = model.initial.sample(start_key, 1).position
    time = jnp.asarray(time, x.dtype)

    def body(now: tuple[Array, Array], at: tuple[Key, Scalar]):
        x, before = now
        x = advance(at[0], model, x, before, at[1], num_steps=num_steps)
        return (x, at[1]), x[0]

    first = (x, jnp.asarray(model.start, x.dtype))
    _, state = jax.lax.scan(body, first, (jax.random.split(path_key, time.size), time))
    value = jax.vmap(model.sensor.draw)(jax.random.split(draw_key, time.size), time, state)
    return state, Observations(time, value)


def advance(
    key: Key, model: StateSpace, x: Float[Array, "n d"], start: Scalar, end: Scalar, *, num_steps: int
) -> Float[Array, "n d"]:
    """Independent paths of the diffusion from ``start`` to ``end``.

    The drift is that of Heun's method, the noise that of the middle time of a step at the state of its
    beginning: weakly of order 2 where the noise does not depend on the state, of order 1 otherwise (Kloeden,
    Platen, 1992, section 15.1). Steps add up about the first of the points: around 1e6 small ones would
    be lost between two floats.
    """
    step = (end - start) / num_steps
    origin = jax.lax.stop_gradient(x[0])

    def body(apart: Array, now: tuple[Key, Scalar]) -> tuple[Array, None]:
        t, x = start + now[1] * step, origin + apart
        drift = partial(jax.vmap(model.drift, (None, 0)), t)
        matrix = jax.vmap(model.noise, (None, 0))(t + 0.5 * step, x)
        kick = jax.random.normal(now[0], (x.shape[0], matrix.shape[-1]), x.dtype)
        kick = jnp.sqrt(step) * jnp.einsum("nij,nj->ni", matrix, kick)
        first = drift(x)
        second = jax.vmap(model.drift, (None, 0))(t + step, x + step * first + kick)
        return apart + (0.5 * step * (first + second) + kick), None

    keys = jax.random.split(key, num_steps), jnp.arange(num_steps, dtype=x.dtype)
    return origin + jax.lax.scan(body, x - origin, keys)[0]


def _nearly(first: np.ndarray, second: np.ndarray) -> bool:
    """Equal up to rounding, on the scale of the first."""
    rounding = 100 * np.finfo(np.result_type(first, np.float32)).eps
    return bool(np.abs(first - second).max() <= rounding * np.abs(first).max())


def _check_positive(name: str, matrix: Float[Array, "d d"], what: str) -> None:
    """Refuse a covariance that is known to have no Cholesky factor."""
    if not concrete(matrix):
        return
    known = np.asarray(matrix)
    try:
        factor = np.linalg.cholesky(0.5 * (known + known.T))
    except np.linalg.LinAlgError:
        factor = np.zeros_like(known)
    if not np.isfinite(factor).all() or not (np.diagonal(factor) > 0).all():
        least = float(np.linalg.eigvalsh(known.astype(np.float64)).min())
        raise ValueError(
            f"{name}, the covariance of {what}, has the least eigenvalue {least:.3g}; give a positive"
            " definite matrix, with small variances in place of none."
        )


class LinearGaussian(NamedTuple):
    """``dX = (A X + b) dt + L dW``, ``Y = H X + N(0, R)``, ``X ~ N(m, P)`` at the start.

    Attributes:
      drift: ``A``, ``[d, d]``.
      offset: ``b``, ``[d]``.
      noise: ``L``, ``[d, r]``.
      observe: ``H``, ``[m, d]``.
      error: ``R``, ``[m, m]``, positive definite: no filter takes a sensor without noise.
      mean, covariance: ``m`` ``[d]`` and ``P`` ``[d, d]``, positive definite.
      start: time of the initial law.
    """

    drift: Float[Array, "d d"]
    offset: Float[Array, " d"]
    noise: Float[Array, "d r"]
    observe: Float[Array, "m d"]
    error: Float[Array, "m m"]
    mean: Float[Array, " d"]
    covariance: Float[Array, "d d"]
    start: float = 0.0

    def check(self) -> None:
        """Refuse what is no array, or not of the shapes above.

        Raises:
          ValueError: naming what does not fit, or a covariance that is known not to be positive definite.
        """
        for name, value in self._asdict().items():
            if name != "start" and not hasattr(value, "shape"):
                raise ValueError(f"{name} is a {type(value).__name__}; give an array.")
        dim, num = self.mean.size, self.error.shape[0] if self.error.ndim else 0
        width = self.noise.shape[-1] if self.noise.ndim else 0
        expected = (dim, dim), (dim,), (dim, width), (num, dim), (num, num), (dim,), (dim, dim)
        for name, shape in zip(self._fields, expected, strict=False):
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name} has shape {found}; give {shape}, to fit the mean and the error.")
        for name, what in (("error", "the sensor's noise"), ("covariance", "the initial law")):
            _check_positive(name, getattr(self, name), what)

    def state_space(self) -> StateSpace:
        """The same model for every filter; with a potential where ``A`` is symmetric and ``L Lᵀ ∝ I``.

        Whether they are is not known of traced matrices, which become a drift and noise.

        Raises:
          ValueError: see `check`.
        """
        self.check()
        factor = jnp.linalg.cholesky(self.error)
        zero = jnp.zeros(self.error.shape[0], self.error.dtype)

        def log_likelihood(t: Scalar, x: Array, y: Array) -> Scalar:
            found = jax.scipy.stats.multivariate_normal.logpdf(y - self.observe @ x, zero, self.error)
            return jnp.asarray(found)

        def draw(key: Key, t: Scalar, x: Array) -> Array:
            return self.observe @ x + factor @ jax.random.normal(key, zero.shape, zero.dtype)

        initial, sensor = gaussian(self.mean, self.covariance), Sensor(log_likelihood, draw)
        temperature = self._temperature()
        if temperature is not None:
            return state_space(
                initial,
                sensor,
                potential=lambda x: -0.5 * x @ self.drift @ x - self.offset @ x,
                temperature=temperature,
                start=self.start,
            )
        return state_space(
            initial,
            sensor,
            drift=lambda t, x: self.drift @ x + self.offset,
            noise=self.noise,
            start=self.start,
        )

    def _temperature(self) -> float | None:
        """``β⁻¹`` where the model is known to be a gradient flow, else None."""
        if not concrete(self.drift, self.noise):
            return None
        matrix, noise = np.asarray(self.drift), np.asarray(self.noise)
        spread = noise @ noise.T
        even = spread[0, 0] * np.eye(len(spread))
        if spread[0, 0] > 0 and _nearly(matrix, matrix.T) and _nearly(spread, even):
            return 0.5 * spread[0, 0]
        return None
