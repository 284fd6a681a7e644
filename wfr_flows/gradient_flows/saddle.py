"""One JKO step as a saddle point over a map of space and a ratio of densities."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from wfr_flows.gradient_flows.duals import Internal, Reference, dual_value
from wfr_flows.gradient_flows.interaction import Kernel, interaction_energy
from wfr_flows.gradient_flows.ratios import LogRatio
from wfr_flows.measures import Particles, Whitening, equally_weighted, whitening
from wfr_flows.numerics import inverse_distribution, running_total
from wfr_flows.training import Method, gradient_method, minimax
from wfr_flows.typing import Array, Float, Key, Params, Scalar

MapFn = Callable[[Params, Float[Array, "n d"], Key | None], Float[Array, "n d"]]
"""``(params, x, key) -> T(x)``; with a key dropout is on."""


class FreeEnergy(NamedTuple):
    """``F(ρ) = U(ρ) + ∫Φ dρ + ½∬W(x - y) dρ dρ``; its flow is ``∂tρ = ∇·ρ∇(U' + Φ + W*ρ)``.

    Attributes:
      internal: ``U``, see `Internal`; None for none.
      potential: ``Φ(x: [d])``; None for none. With `entropy` and ``Φ = -log q`` this is ``KL(ρ|q)``.
      interaction: ``W``, an even function of ``x - y: [d]``; None for none.
    """

    internal: Internal | None = None
    potential: Callable[[Float[Array, " d"]], Scalar] | None = None
    interaction: Kernel | None = None

    def explicit(self, measure: Particles) -> Scalar:
        """``∫Φ dρ + ½∬W dρ dρ``, what needs no density."""
        value = jnp.zeros((), measure.position.dtype)
        if self.potential is not None:
            value += jnp.sum(measure.weight * jax.vmap(self.potential)(measure.position))
        if self.interaction is not None:
            value += interaction_energy(self.interaction, measure)
        return value


class Dual(NamedTuple):
    """An internal energy seen through the reference law of some particles.

    Attributes:
      internal: which energy.
      ratio: the functions ``h``, of whitened coordinates.
      reference: ``Γ``.
      whitening: of the particles.
    """

    internal: Internal
    ratio: LogRatio
    reference: Reference
    whitening: Whitening

    def sample(self, key: Key, n: int) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        """Samples of ``Γ`` and ``log γ`` at them."""
        position = self.reference.sample(key, n)
        return position, self.reference.log_density(position)

    def log_gamma(self, position: Float[Array, "n d"], inside: Float[Array, " m"]) -> Float[Array, " n"]:
        """``log γ``, continued beyond the support by its least value among those ``inside``."""
        value = self.reference.log_density(position)
        return jnp.where(value == -jnp.inf, jnp.min(inside), value)

    def log_ratio(self, params: Params, position: Float[Array, "n d"], key: Key | None = None) -> Array:
        """``log h``; with a key dropout is on."""
        value = self.ratio.log_value(params, self.whitening(position), key)
        if self.internal.base is None:
            return value
        return value + jax.vmap(self.internal.base)(position) - self.reference.log_density(position)


class Seen(NamedTuple):
    """What the ratio learns from: samples of ``T#ρ`` and of ``Γ``, and ``log γ`` at both."""

    measure: Particles
    log_gamma: Float[Array, " n"]
    reference: Float[Array, "m d"]
    reference_log_gamma: Float[Array, " m"]


def dual_of(internal: Internal, ratio: LogRatio, measure: Particles) -> Dual:
    """The dual problem of an internal energy, with the reference law of the particles."""
    return Dual(internal, ratio, internal.reference(measure), whitening(measure))


def look(dual: Dual, key: Key, measure: Particles, num: int | None = None) -> Seen:
    """Samples of the reference, as many as particles by default, beside them."""
    reference, reference_log_gamma = dual.sample(key, num or measure.log_weight.size)
    log_gamma = dual.log_gamma(measure.position, reference_log_gamma)
    return Seen(measure, log_gamma, reference, reference_log_gamma)


def value_of(dual: Dual, params: Params, seen: Seen, key: Key | None = None) -> Scalar:
    """The dual value of the internal energy for one ``h``, at most the energy in the mean over samples."""
    return dual_value(
        dual.internal,
        seen.measure,
        dual.log_ratio(params, seen.measure.position, key),
        seen.log_gamma,
        dual.log_ratio(params, seen.reference, key),
        seen.reference_log_gamma,
    )


def drawing(measure: Particles, size: int | None) -> Callable[[Key], Particles]:
    """``key -> batch``: ``size`` particles by weight, stratified along the cloud; None for all."""
    if size is None:
        return lambda key: measure
    total = running_total(measure.weight)

    def draw(key: Key) -> Particles:
        stratum = jnp.arange(size) + jax.random.uniform(key, (size,), total.dtype, minval=1e-6)
        return equally_weighted(measure.position[inverse_distribution(total, stratum / size)])

    return draw


def fit_ratio(
    key: Key,
    dual: Dual,
    measure: Particles,
    optimiser: optax.GradientTransformation,
    *,
    num_steps: int,
    batch: int | None = None,
    start: Params | None = None,
) -> tuple[Params, Float[Array, " k"]]:
    """The ``h`` that makes the dual value large, and the values on the way: estimates the internal energy of
    a measure from its particles.

    Args:
      dual: see `dual_of`.
      measure: particles of mass 1.
      optimiser: an optax transformation.
      num_steps: of ascent.
      batch: particles, and samples of the reference, for a step; None for all particles.
      start: parameters to begin with; ``h = 1`` by default.
    """
    start_key, key = jax.random.split(key)

    def loss(params: Params, key: Key, batch_: Particles) -> tuple[Scalar, tuple[()]]:
        look_key, value_key = jax.random.split(key)
        return -value_of(dual, params, look(dual, look_key, batch_), value_key), ()

    method, draw = gradient_method(loss, optimiser), drawing(measure, batch)

    def body(state: Any, key: Key):
        draw_key, step_key = jax.random.split(key)
        state, (value, _) = method.step(step_key, state, draw(draw_key))
        return state, -value

    state = method.init(dual.ratio.init(start_key) if start is None else start)
    state, values = jax.lax.scan(body, state, jax.random.split(key, num_steps))
    return state.params, values


def saddle(
    energy: FreeEnergy,
    dual: Dual | None,
    move: MapFn,
    step_size: Scalar,
    *,
    inner_optimiser: optax.GradientTransformation,
    outer_optimiser: optax.GradientTransformation,
    inner_steps: int,
    outer_steps: int,
    average_decay: float,
    project: Callable[[Params], Params],
) -> Method:
    """``min_T max_h E|T(x) - x|²/2a + E[A(h, T(x))] - E_Γ[B(h)] + ∫Φ + ½∬W`` ([VWGF] eq. 9).

    Args:
      energy, dual: explicit ``Φ`` and ``W``; ``A``, ``B`` and ``h`` of the internal energy, if there is one.
      move: ``T`` of the outer parameters.
      step_size: ``a > 0``.
      inner_optimiser, inner_steps: of the ascent in ``h``.
      outer_optimiser, outer_steps, average_decay, project: of the descent in ``T``, see `training.minimax`.

    Returns:
      A `training.Method`; batches are particles of mass 1 of the law that the step begins at.
    """

    def show(outer: Params, key: Key, batch: Particles) -> Seen | None:
        if dual is None:
            return None
        move_key, look_key = jax.random.split(key)
        return look(dual, look_key, batch._replace(position=move(outer, batch.position, move_key)))

    def ascent(inner: Params, key: Key, seen: Seen | None) -> Scalar:
        return jnp.zeros(()) if dual is None or seen is None else value_of(dual, inner, seen, key)

    def descent(outer: Params, inner: Params, key: Key, batch: Particles):
        move_key, ratio_key = jax.random.split(key)
        moved = batch._replace(position=move(outer, batch.position, move_key))
        cost = 0.5 * jnp.sum(moved.weight[:, None] * (moved.position - batch.position) ** 2) / step_size
        value = cost + energy.explicit(moved)
        if dual is not None:
            # The samples of the reference, and what they cost, do not depend on the map.
            weight, offset = dual.internal.local(dual.reference.log_density(moved.position))
            slope, _ = dual.internal.divergence.dual(dual.log_ratio(inner, moved.position, ratio_key))
            value += jnp.sum(moved.weight * (weight * slope + offset))
        return value, cost

    return minimax(
        ascent,
        descent,
        inner_optimiser,
        outer_optimiser,
        inner_steps=inner_steps,
        outer_steps=outer_steps,
        show=show,
        outer_project=project,
        average_decay=average_decay,
    )
