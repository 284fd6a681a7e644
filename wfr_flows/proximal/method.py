"""W₁⊕W₂ proximal training: a generator of least action against a critic of bounded slope."""

from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import optax

from wfr_flows.dynamics import Field, Geometry, time_grid
from wfr_flows.measures import Particles, resample
from wfr_flows.numerics import donsker_varadhan
from wfr_flows.potentials import Critic
from wfr_flows.proximal.bounds import Bound
from wfr_flows.proximal.carry import EULER, carry
from wfr_flows.training import Method, minimax
from wfr_flows.typing import Array, Float, Key, Params, Scalar

# Interpolates reach this far beyond both ends, as a share of their distance; then they are cut off there.
_OVERSHOOT = 0.25


class Terms(NamedTuple):
    """Parts of the objective of the generator.

    Attributes:
      divergence: the bound, at the critic of this step.
      action: ``∫ Σ w (½|v|² + ½alpha g²) dt``.
      residual: of the Hamilton-Jacobi equation, see `Carried`.
    """

    divergence: Scalar
    action: Scalar
    residual: Scalar


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
    penalty_weight: float = 10.0,
    residual_weight: float = 0.0,
    num_steps: int = 5,
    solver: diffrax.AbstractSolver = EULER,
    jitter: bool = True,
    frozen: bool = False,
    inner_steps: int = 5,
    outer_steps: int = 1,
    average_decay: float = 0.0,
) -> Method:
    """``inf_v sup_{φ ∈ Lip_L} E_ρ(1)[φ] - E_π[f*(φ)] + λ ∫ Σ w (½|v|² + ½alpha g²) dt`` ([W1W2]).

    ``ρ`` starts from the source, ``π`` is the target. At the optimum ``λΦ(1, ·) = φ`` up to a constant, ``Φ``
    solves the Hamilton-Jacobi equation and paths are straight. The W₂ part keeps the flow unique, the W₁ part
    keeps the divergence finite where ``π`` lives on a manifold. With a finite ``alpha`` (beyond [W1W2])
    particles change weight as well, at the cost of the Wasserstein-Fisher-Rao metric.

    Args:
      field: how particles move and grow: `dynamics.potential_field`, where ``v = -∇Φ`` and ``Φ = U/λ`` in
        the notation of [W1W2], or any other.
      geometry: spherical, or of ``alpha = inf``.
      critic: of bounded slope by itself, or kept so by the penalty.
      flow_optimiser, critic_optimiser: optax transformations.
      kinetic_weight: ``λ >= 0``. Farther than ``L/λ`` no particle is moved.
      bound: see `Bound`; Donsker and Varadhan's of KL by default, as published.
      lipschitz: ``L``.
      penalty_weight: of ``E max(|∇φ|² - L², 0)`` between samples of both, 0 for critics that need none.
      residual_weight: of the Hamilton-Jacobi residual, in units of ``λ``.
      num_steps, solver: of the flow, from time 0 to 1.
      jitter: draw the times between the ends anew at every update, each uniform over the width of a step. On
        a fixed grid the field learns nothing at other times, and samples depend on the steps of sampling.
      frozen: see `carry`.
      inner_steps, outer_steps: updates of the critic, then of the flow.
      average_decay: of an average of the flow's parameters.

    Returns:
      A `training.Method`: ``init((flow_params, critic_params))``, batches ``(source, target)`` of weighted
      `Particles`; the `MinimaxInfo` holds `Terms`.

    Raises:
      ValueError: a number out of its range, or a geometry that grows and is not spherical.
    """
    _check(geometry, kinetic_weight, lipschitz, penalty_weight, residual_weight)
    values = jax.vmap(critic.value, (None, 0))

    def grid(key: Key) -> Float[Array, " k"]:
        return jittered_grid(key, num_steps) if jitter else time_grid(num_steps)

    def divergence(params: Params, moved: Particles, target: Particles) -> Scalar:
        weights = {"weight_p": moved.weight, "weight_q": target.normalise().weight}
        return bound(values(params, moved.position), values(params, target.position), **weights)

    def show(params: Params, key: Key, batch: tuple[Particles, Particles]):
        source, target = batch
        return carry(field, geometry, params, source, grid(key), solver=solver).trajectory.at(-1), target

    def ascent(params: Params, key: Key, shown: tuple[Particles, Particles]) -> Scalar:
        value = divergence(params, *shown)
        if penalty_weight == 0:
            return value
        steep = slopes(critic, params, between(key, *shown))
        return value - penalty_weight * jnp.mean(jnp.maximum(steep**2 - lipschitz**2, 0))

    def descent(params: Params, critic_params: Params, key: Key, batch: tuple[Particles, Particles]):
        source, target = batch
        carried = carry(field, geometry, params, source, grid(key), solver=solver, frozen=frozen)
        cost = divergence(critic_params, carried.trajectory.at(-1), target)
        terms = Terms(cost, carried.action, carried.residual)
        total = cost + kinetic_weight * carried.action
        if residual_weight:
            total += kinetic_weight * residual_weight * carried.residual
        return total, terms

    return minimax(
        ascent,
        descent,
        critic_optimiser,
        flow_optimiser,
        inner_steps=inner_steps,
        outer_steps=outer_steps,
        show=show,
        average_decay=average_decay,
    )


def jittered_grid(key: Key, num_steps: int) -> Float[Array, " k"]:
    """`dynamics.time_grid`, the nodes between its ends moved by up to half a step."""
    grid = time_grid(num_steps)
    move = jax.random.uniform(key, grid.shape, grid.dtype, -0.5, 0.5) / num_steps
    return grid + move.at[jnp.array([0, -1])].set(0)


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


def _check(geometry: Geometry, kinetic_weight, lipschitz, penalty_weight, residual_weight) -> None:
    numbers = {
        "kinetic_weight": kinetic_weight,
        "penalty_weight": penalty_weight,
        "residual_weight": residual_weight,
    }
    for name, value in numbers.items():
        if not value >= 0:
            raise ValueError(f"{name} is {value}; give a number >= 0.")
    if not lipschitz > 0:
        raise ValueError(f"lipschitz is {lipschitz}; give a number > 0.")
    if not geometry.spherical and not geometry.alpha == jnp.inf:
        raise ValueError("geometry grows and is not spherical; the divergence compares probability measures.")
