"""Large problems in linear memory: a coarse solution proposes the pairs, the pairs solve the fine problem."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.numerics import transport_cost
from wfr_flows.static import dense
from wfr_flows.static.bounds import DualPotentials, Penalised, c_transform, half_transform, in_blocks
from wfr_flows.static.dense import accept_rounding
from wfr_flows.static.interior_point import Problem, begin, between, feasible, follow
from wfr_flows.static.pairs import ListedPairs
from wfr_flows.static.plans import SparsePlan, listed_twice
from wfr_flows.static.result import Assess, StaticResult, unknown
from wfr_flows.typing import Array, Float, Int, Scalar

_CELLS = 512
_COARSE_TOLERANCE = 1e-2
_PARTNERS = 16
_KEPT = 16
_MARGIN = 0.02
_ROUNDS = 12
_FIRST_TOLERANCE = 5e-3
_NEXT_TOLERANCE = 0.02
_LAST_TOLERANCE = 0.5
_GROUPS = 8
_HOPE = 1.5
_LEAST_HOPE = 1e-5


def coarsen(measure: Particles, num_cells: int) -> Particles:
    """At most ``num_cells`` particles, one at the mean of every cell of a balanced k-d tree.

    Cells are halved along their widest coordinate until there are ``num_cells`` (a power of two).
    """
    n, dim = measure.position.shape
    levels = int(math.log2(num_cells))
    size = -(-n // 2**levels)
    padding = size * 2**levels - n
    position = jnp.pad(measure.position, ((0, padding), (0, 0)), mode="edge")
    log_weight = jnp.pad(measure.log_weight, (0, padding), constant_values=-jnp.inf)
    order = jnp.arange(position.shape[0])
    for level in range(levels):
        cells = order.reshape(2**level, -1)
        points = position[cells]
        widest = jnp.argmax(points.max(axis=1) - points.min(axis=1), axis=-1)
        along = jnp.take_along_axis(points, widest[:, None, None], axis=2)[..., 0]
        order = jnp.take_along_axis(cells, jnp.argsort(along, axis=1), axis=1).ravel()
    cells = order.reshape(2**levels, size)
    total = jax.nn.logsumexp(log_weight[cells], axis=1)
    share = jnp.where(total[:, None] > -jnp.inf, jnp.exp(log_weight[cells] - total[:, None]), 1 / size)
    return Particles(jnp.sum(share[..., None] * position[cells], axis=1), total)


def solve(
    source: Particles,
    target: Particles,
    problem: Penalised,
    assess: Assess,
    tolerance: float,
    max_iterations: int,
) -> StaticResult:
    """Solve between the cells of two k-d trees, then in rounds between the particles, on listed pairs alone.

    Each round passes over all pairs twice, in blocks: that makes the potentials feasible, so that they prove
    a lower bound whatever the lists, and lists for every particle the partners of least slack beside those
    that its mass already goes to (column generation). The interior-point method on these pairs gives the plan
    and the potentials of the next round.
    """
    size = min(_CELLS, 1 << (min(source.log_weight.size, target.log_weight.size).bit_length() - 1))
    cells = coarsen(source, size), coarsen(target, size)
    coarse = dense.solve(*cells, problem, assess, _COARSE_TOLERANCE, max_iterations)
    mass = jnp.sqrt(source.mass * target.mass)
    penalty = 1 / jnp.maximum(problem.inverse_penalty, jnp.finfo(mass.dtype).tiny)
    # What growth alone cannot explain, for each unit of mass.
    growth = jnp.where(problem.inverse_penalty > 0, penalty, 0.0)
    growth *= (jnp.sqrt(source.mass) - jnp.sqrt(target.mass)) ** 2
    moved = (coarse.value - growth) / mass
    unit = jnp.minimum(jnp.where(moved > 0, moved, 1.0), penalty)

    certify = partial(assess, source, target)

    def unfinished(state: _Round) -> Array:
        wide = ~state.result.converged & (state.result.num_iterations < max_iterations)
        return wide & (state.number < _ROUNDS)

    def refine(state: _Round) -> _Round:
        scaled = _restrict(source, target, problem, state.pairs, unit)
        guess = jax.tree.map(lambda f: jnp.where(jnp.isfinite(f), f / unit, 0.0), state.potentials)
        start = feasible(scaled, state.pairs, guess, jnp.asarray(_MARGIN, unit.dtype))
        path = begin(scaled, state.pairs, start)._replace(num_iterations=state.result.num_iterations)
        path = follow(scaled, state.pairs, path, state.tolerance, max_iterations)
        plan = SparsePlan(state.pairs.row, state.pairs.column, mass * path.plan)
        potentials, near = _nearest(unit * path.potentials.target, source, target, problem)
        pairs = _joined(state.pairs.heaviest(path.plan, _KEPT), near)
        rough = certify(potentials, plan, path.num_iterations)
        last = (state.number + 1 == _ROUNDS) | (path.num_iterations >= max_iterations)
        result = jax.lax.cond(
            last | (rough.gap <= jnp.maximum(_HOPE * tolerance, _LEAST_HOPE) * rough.value),
            lambda: accept_rounding(
                certify(c_transform(potentials.source, source, target, problem), plan, path.num_iterations),
                unit * mass,
            ),
            lambda: state.result,
        )
        better = result.gap < state.result.gap
        result = jax.tree.map(lambda new, old: jnp.where(better, new, old), result, state.result)
        result = result._replace(num_iterations=path.num_iterations)
        inner = jnp.maximum(_NEXT_TOLERANCE * state.tolerance, _LAST_TOLERANCE * tolerance)
        return _Round(potentials, pairs, result, inner, state.number + 1)

    guess = half_transform(coarse.potentials.source, cells[0], target.position, problem)
    potentials, near = _nearest(jnp.where(jnp.isfinite(guess), guess, 0.0), source, target, problem)
    pairs = _joined(ListedPairs(near.by_row[:, :_KEPT], near.by_column[:, :_KEPT]), near)
    empty = SparsePlan(pairs.row, pairs.column, jnp.zeros(pairs.row.shape, unit.dtype))
    result = unknown(certify, potentials, empty, coarse.num_iterations)
    result = result._replace(num_iterations=coarse.num_iterations)
    first = jnp.asarray(_FIRST_TOLERANCE, unit.dtype)
    number = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(unfinished, refine, _Round(potentials, pairs, result, first, number)).result


class _Round(NamedTuple):
    potentials: DualPotentials
    pairs: ListedPairs
    result: StaticResult
    tolerance: Scalar
    number: Array


def _restrict(
    source: Particles, target: Particles, problem: Penalised, pairs: ListedPairs, unit: Scalar
) -> Problem:
    """The problem between the normalised measures on listed pairs, in the unit of cost given."""
    row, column = pairs.row, pairs.column
    squared = jnp.sum((source.position[row] - target.position[column]) ** 2, axis=-1)
    cost, reachable = transport_cost(squared, problem.curvature)
    legal = reachable & (source.weight > 0)[row] & (target.weight > 0)[column]
    legal &= ~listed_twice(pairs.by_row, pairs.by_column)
    present = tuple(count > 0 for count in pairs.sums(legal.astype(cost.dtype)))
    return between(source, target, cost / unit, legal, present, unit * problem.inverse_penalty)


def _joined(kept: ListedPairs, near: ListedPairs) -> ListedPairs:
    return ListedPairs(*(jnp.concatenate(both, axis=1) for both in zip(kept, near, strict=True)))


def _nearest(
    potential: Float[Array, " m"], source: Particles, target: Particles, problem: Penalised
) -> tuple[DualPotentials, ListedPairs]:
    """c-transforms of a potential on the target, and for every particle its partners of least slack.

    In single precision, which is several times as fast and enough to choose by.
    """
    center = target.position.mean(axis=0)
    problem = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), problem)

    def partners(potential: Array, measure: Particles, points: Float[Array, "m d"]) -> tuple[Array, Array]:
        count = min(_PARTNERS, potential.size)
        members = -(-potential.size // (_GROUPS * count))
        present = measure.log_weight > -jnp.inf
        padding = (0, members * _GROUPS * count - potential.size)
        potential = jnp.pad(jnp.where(present, potential, -jnp.inf), padding, constant_values=-jnp.inf)
        position = jnp.pad(measure.position - center, (padding, (0, 0))).astype(jnp.float32)

        def block(some: Float[Array, "b d"]) -> tuple[Float[Array, " b"], Int[Array, "b p"]]:
            cost, reachable = problem.cost(some, position)
            slack = jnp.where(reachable, cost - potential.astype(jnp.float32), jnp.inf)
            least = slack.min(axis=1)
            excess = slack - jnp.where(jnp.isfinite(least), least, 0.0)[:, None]
            return least, _smallest(excess, members, count)

        least, partner = in_blocks(block, (points - center).astype(jnp.float32), potential.size)
        return least.astype(potential.dtype), jnp.minimum(partner, measure.log_weight.size - 1)

    rows, by_row = partners(potential, target, source.position)
    columns, by_column = partners(rows, source, target.position)
    return DualPotentials(rows, columns), ListedPairs(by_row, by_column)


def _smallest(value: Float[Array, "b m"], members: int, count: int) -> Int[Array, "b p"]:
    """Where small entries of each row are: the ``count`` smallest among the least of every group.

    Groups are interleaved, ``members`` strong. Values are non-negative and single, so that they compare as
    integers do and their last bits can carry the place in the group: a minimum finds both.
    """
    grouped = value.reshape(value.shape[0], members, -1)
    place = (1 << (members - 1).bit_length()) - 1
    packed = jax.lax.bitcast_convert_type(grouped, jnp.int32) & ~place
    least = jnp.min(packed | jnp.arange(members, dtype=jnp.int32)[:, None], axis=1)
    chosen = jax.lax.top_k(-jax.lax.bitcast_convert_type(least & ~place, jnp.float32), count)[1]
    return (jnp.take_along_axis(least, chosen, axis=1) & place) * grouped.shape[2] + chosen
