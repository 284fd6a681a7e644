"""Derivatives of a certified distance: the envelope theorem, and how plan and potentials respond.

At the optimum the first derivatives of the value are those of what the plan costs at fixed plan, and the
saturated potentials for the weights. Second derivatives need those of the plan and of the potentials, which
solve the optimality conditions on the support of the plan, differentiated:

``c_ij - f_i - g_j = 0`` where ``γ_ij > 0``, ``Σ_j γ_ij = μ_i e^{-f_i/ρ}``, ``Σ_i γ_ij = ν_j e^{-g_j/ρ}``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.measures import Particles
from wfr_flows.numerics import saturate
from wfr_flows.static.bounds import DualPotentials, Penalised
from wfr_flows.static.pairs import AllPairs
from wfr_flows.static.plans import SparsePlan, ratio
from wfr_flows.typing import Array, Scalar

# A pair belongs to the support when its slack is a small part of the value of a unit of mass.
_SUPPORT = {32: 1e-4, 64: 1e-8}


class Kind(NamedTuple):
    """What sets one log-entropy problem apart: its cost, and what one of its plans proves from above."""

    problem: Callable[[Array], Penalised]
    upper: Callable[..., Scalar]


class Optimum(NamedTuple):
    """Potentials and plan of a solved problem, with the certificate that tells how good they are."""

    potentials: DualPotentials
    plan: SparsePlan
    value: Scalar
    gap: Scalar


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def envelope(
    kind: Kind, twice: bool, optimum: Optimum, source: Particles, target: Particles, alpha: Scalar
) -> Scalar:
    """The value of a solved problem, with its derivatives in positions, log-weights and alpha.

    Second derivatives are refused unless the problem may be differentiated ``twice``: they take `response`,
    and its memory.
    """
    del kind, twice, source, target, alpha
    return optimum.value


@envelope.defjvp
def _envelope_jvp(kind: Kind, twice: bool, primals: tuple, tangents: tuple) -> tuple[Scalar, Scalar]:
    optimum, *point = primals
    source, target, alpha = point if twice else _first_order_only(tuple(point))
    _, moved_source, moved_target, moved_alpha = tangents
    potentials, plan = response(kind, optimum, source, target, alpha)

    def cost(x: Array, y: Array, alpha: Scalar) -> Scalar:
        return kind.upper(plan, source._replace(position=x), target._replace(position=y), alpha)

    places = source.position, target.position, alpha
    moves = moved_source.position, moved_target.position, moved_alpha
    change = jax.jvp(cost, places, moves)[1]
    k = kind.problem(alpha).inverse_penalty
    for measure, moved, potential in zip(
        (source, target), (moved_source, moved_target), potentials, strict=True
    ):
        slope = saturate(potential, k)
        slope = jnp.where(jnp.isfinite(slope), slope, 0.0)
        change += jnp.sum(slope * _weight_change(measure, moved))
    return envelope(kind, twice, optimum, source, target, alpha), change


@jax.custom_jvp
def _first_order_only(tree: tuple) -> tuple:
    return tree


@_first_order_only.defjvp
def _refuse(primals: tuple, tangents: tuple) -> tuple:
    del primals, tangents
    raise NotImplementedError(
        "second derivatives of a distance between so many particles are not available;"
        " draw fewer of them (n·m <= 2²³), or take finite differences of gradients."
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def response(
    kind: Kind, optimum: Optimum, source: Particles, target: Particles, alpha: Scalar
) -> tuple[DualPotentials, SparsePlan]:
    """Potentials and plan of a solved problem, with their derivatives in positions, log-weights and alpha.

    Pairs that the plan does not use have none: where it is not unique, or a pair is about to be used, these
    are derivatives to one side. Memory is ``O(nm)``.
    """
    del kind, source, target, alpha
    return optimum.potentials, optimum.plan


@response.defjvp
def _response_jvp(kind: Kind, primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    optimum, source, target, alpha = primals
    _, *moved = tangents
    found = response(kind, *primals)
    (f, g), (row, column, mass) = found
    present = jnp.isfinite(f), jnp.isfinite(g)
    f, g = (jnp.where(here, potential, 0.0) for here, potential in zip(present, (f, g), strict=True))

    def cost_and_penalty(source: Particles, target: Particles, alpha: Scalar) -> tuple[Array, Scalar]:
        problem = kind.problem(alpha)
        squared = jnp.sum((source.position[row] - target.position[column]) ** 2, axis=-1)
        return problem.cost_of(squared)[0], problem.inverse_penalty

    (cost, k), (moved_cost, moved_k) = jax.jvp(cost_and_penalty, (source, target, alpha), tuple(moved))
    moved_k = jnp.where(k > 0, moved_k, 0.0)
    # The slack of pairs outside of the support keeps them from moving.
    total = jnp.maximum(mass.sum(), jnp.finfo(mass.dtype).tiny)
    least = (_SUPPORT[jnp.finfo(mass.dtype).bits] * optimum.value + jnp.abs(optimum.gap)) / total
    least = jnp.maximum(least, jnp.finfo(mass.dtype).tiny)
    stiffness = ratio(mass, jnp.maximum(jax.lax.stop_gradient(cost - f[row] - g[column]), least))
    pairs, n, m = AllPairs(), f.size, g.size
    stiff = jnp.zeros((n, m), mass.dtype).at[row, column].add(stiffness)
    pull = stiffness * moved_cost

    def side(measure: Particles, change: Particles, potential: Array, index: Array, size: int) -> tuple:
        wanted = measure.weight * jnp.exp(-k * potential)
        rest = jnp.exp(-k * potential) * _weight_change(measure, change) - potential * wanted * moved_k
        return k * wanted, rest, jax.ops.segment_sum(pull, index, size)

    own_source, rest_source, pull_source = side(source, moved[0], f, row, n)
    own_target, rest_target, pull_target = side(target, moved[1], g, column, m)
    # Prescribed marginals can only change together.
    excess = jnp.where(k > 0, 0.0, rest_source.sum() - rest_target.sum())
    rest_target = rest_target + excess * ratio(target.weight, target.weight.sum())
    rows, columns = pairs.sums(stiff)
    used = rows > 0, columns > 0
    solve = pairs.factorise(
        stiff,
        jnp.where(used[0], own_source + rows, 1.0),
        jnp.where(used[1], own_target + columns, 1.0),
    )
    moved_f, moved_g = solve(
        jnp.where(used[0], rest_source + pull_source, 0.0),
        jnp.where(used[1], rest_target + pull_target, 0.0),
    )
    moved_mass = stiffness * (moved_f[row] + moved_g[column]) - pull
    no_index: Any = np.zeros(row.shape, jax.dtypes.float0)
    return found, (DualPotentials(moved_f, moved_g), SparsePlan(no_index, no_index, moved_mass))


def _weight_change(measure: Particles, moved: Particles) -> Array:
    """The derivative of the weights along a change of the particles."""
    return jax.jvp(
        lambda log_weight: Particles(measure.position, log_weight).weight,
        (measure.log_weight,),
        (moved.log_weight,),
    )[1]
