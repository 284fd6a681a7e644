"""W₁⊕W₂ proximal training: a generator of least action against a critic of bounded slope."""

from functools import partial
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import optax

from wfr_flows.dynamics import Field, Geometry, time_grid
from wfr_flows.measures import Particles, resample
from wfr_flows.numerics import donsker_varadhan
from wfr_flows.potentials import Critic
from wfr_flows.proximal.bounds import Bound
from wfr_flows.proximal.carry import EULER, Carried, carry_with_costs
from wfr_flows.training import Method, minimax
from wfr_flows.typing import Array, Float, Key, Params, Scalar

# Interpolates reach this far beyond both ends, as a share of their distance; then they are cut off there.
_OVERSHOOT = 0.25


class Terms(NamedTuple):
    """Parts of the objective of the generator.

    Attributes:
      divergence: the bound, at the critic of this step.
      action: ``∫ Σ w (½|v|² + ½alpha g²) dt``.
      residual, bend: of the Hamilton-Jacobi equation and of the paths, see `Carried`.
    """

    divergence: Scalar
    action: Scalar
    residual: Scalar
    bend: Scalar


class _Game(NamedTuple):
    """The arguments of `proximal` that both players share."""

    field: Field
    geometry: Geometry
    critic: Critic
    kinetic_weight: float
    bound: Bound
    lipschitz: float
    penalty_weight: float
    residual_weight: float
    bend_weight: float
    num_steps: int
    solver: diffrax.AbstractSolver
    frozen: bool


def proximal(
    field: Field,
    geometry: Geometry,
    critic: Critic,
    flow_optimiser: optax.GradientTransformation,
    critic_optimiser: optax.GradientTransformation,
    *,
    kinetic_weight: float = 0.05,
    bound: Bound = donsker_varadhan,
    lipschitz: float = 1.0,
    penalty_weight: float = 30.0,
    residual_weight: float = 0.0,
    bend_weight: float = 0.0,
    num_steps: int = 5,
    solver: diffrax.AbstractSolver = EULER,
    frozen: bool = False,
    **alternation: Any,
) -> Method:
    """``inf_v sup_{φ ∈ Lip_L} E_ρ(1)[φ] - E_π[f*(φ)] + λ ∫ Σ w (½|v|² + ½alpha g²) dt`` ([W1W2]).

    ``ρ`` starts from the source, ``π`` is the target. At the optimum ``λΦ(1, ·) = φ`` up to a constant, ``Φ``
    solves the Hamilton-Jacobi equation and paths are straight. With a finite ``alpha`` (beyond [W1W2])
    particles change weight as well, at the cost of the Wasserstein-Fisher-Rao metric.

    Args:
      field: `dynamics.potential_field` (``Φ = U/λ`` in the notation of [W1W2]), or any other.
      geometry: spherical, or of ``alpha = inf``.
      critic: of bounded slope by itself, or kept so by the penalty.
      flow_optimiser, critic_optimiser: optax transformations.
      kinetic_weight: ``λ >= 0``. Farther than ``L/λ`` no particle is moved.
      bound: see `Bound`; Donsker and Varadhan's of KL by default, as published.
      lipschitz: ``L``.
      penalty_weight: of ``E max(|∇φ|² - L², 0)`` between samples of both; 0 without.
      residual_weight: of the Hamilton-Jacobi residual, in units of ``λ``.
      bend_weight: of the bend of the paths, of which the optimum at ``alpha = inf`` has none: samples then
        depend less on the number of steps.
      num_steps, solver: of the flow, from time 0 to 1, on a `random_grid` at every update.
      frozen: see `carry_with_costs`.
      alternation: of `training.minimax`; ``inner_steps`` updates of the critic (5) come before every one
        of the flow.

    Returns:
      A `training.Method`: ``init((flow_params, critic_params))``, batches ``(source, target)`` of weighted
      `Particles`; the `MinimaxInfo` holds `Terms`.

    Raises:
      ValueError: a number out of its range, or a geometry that grows and is not spherical.
    """
    game = _Game(
        field, geometry, critic, kinetic_weight, bound, lipschitz, penalty_weight, residual_weight,
        bend_weight, num_steps, solver, frozen,
    )  # fmt: skip
    _check(game)
    players = partial(_ascent, game), partial(_descent, game)
    alternation = {"inner_steps": 5, "show": partial(_show, game), **alternation}
    return minimax(*players, critic_optimiser, flow_optimiser, **alternation)


def _carried(game: _Game, params: Params, key: Key, source: Particles) -> Carried:
    grid = random_grid(key, game.num_steps)
    how = {"solver": game.solver, "frozen": game.frozen}
    return carry_with_costs(game.field, game.geometry, params, source, grid, **how)


def _divergence(game: _Game, params: Params, moved: Particles, target: Particles) -> Scalar:
    values = jax.vmap(game.critic.value, (None, 0))
    weights = {"weight_p": moved.weight, "weight_q": target.normalise().weight}
    return game.bound(values(params, moved.position), values(params, target.position), **weights)


def _show(game: _Game, params: Params, key: Key, batch: tuple[Particles, Particles]):
    source, target = batch
    return _carried(game, params, key, source).trajectory.at(-1), target


def _ascent(game: _Game, params: Params, key: Key, shown: tuple[Particles, Particles]) -> Scalar:
    value = _divergence(game, params, *shown)
    if game.penalty_weight == 0:
        return value
    steep = slopes(game.critic, params, between(key, *shown))
    return value - game.penalty_weight * jnp.mean(jnp.maximum(steep**2 - game.lipschitz**2, 0))


def _descent(
    game: _Game, params: Params, critic_params: Params, key: Key, batch: tuple[Particles, Particles]
) -> tuple[Scalar, Terms]:
    source, target = batch
    carried = _carried(game, params, key, source)
    cost = _divergence(game, critic_params, carried.trajectory.at(-1), target)
    total = cost + game.kinetic_weight * carried.action
    if game.bend_weight:
        total += game.bend_weight * carried.bend
    if game.residual_weight:
        total += game.kinetic_weight * game.residual_weight * carried.residual
    return total, Terms(cost, *carried[1:])


def random_grid(key: Key, num_steps: int) -> Float[Array, " k"]:
    """At most ``num_steps`` steps, their number drawn at random; those left over have no length.

    Each node between is moved at random by up to half a step. On one fixed grid a field learns nothing at
    other times, and samples depend on the steps of sampling.
    """
    number_key, place_key = jax.random.split(key)
    node = time_grid(num_steps) * num_steps
    number = jax.random.randint(number_key, (), 1, num_steps + 1).astype(node.dtype)
    move = jax.random.uniform(place_key, node.shape, node.dtype, -0.5, 0.5)
    return jnp.minimum(node + jnp.where((node > 0) & (node < number), move, 0), number) / number


def between(key: Key, a: Particles, b: Particles) -> Float[Array, "n d"]:
    """Points on the lines between samples of two measures, ends included, as many as the smaller has."""
    one, two, share = jax.random.split(key, 3)
    size = min(a.log_weight.size, b.log_weight.size)
    first, second = resample(one, a, size).position, resample(two, b, size).position
    place = jax.random.uniform(share, (size, 1), first.dtype, -_OVERSHOOT, 1 + _OVERSHOOT)
    return first + jnp.clip(place, 0, 1) * (second - first)


def slopes(critic: Critic, params: Params, position: Float[Array, "n d"]) -> Float[Array, " n"]:
    """``|∇φ|`` at points; where it vanishes its derivative is 0."""
    gradient = jax.vmap(jax.grad(critic.value, argnums=1), (None, 0))(params, position)
    squared = jnp.sum(gradient**2, axis=-1)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)


def _check(game: _Game) -> None:
    for name in ("kinetic_weight", "penalty_weight", "residual_weight", "bend_weight"):
        if not getattr(game, name) >= 0:
            raise ValueError(f"{name} is {getattr(game, name)}; give a number >= 0.")
    if not game.lipschitz > 0:
        raise ValueError(f"lipschitz is {game.lipschitz}; give a number > 0.")
    if not game.geometry.spherical and not game.geometry.balanced:
        raise ValueError("geometry grows and is not spherical; the divergence compares probability measures.")
