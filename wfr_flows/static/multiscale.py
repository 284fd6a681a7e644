"""Large problems in linear memory: a coarse solution proposes the pairs, the pairs solve the fine problem."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.numerics import in_blocks
from wfr_flows.static import dense
from wfr_flows.static.annealing import History, extrapolate, least_smoothing, settle, smoothed_plan
from wfr_flows.static.bounds import DualPotentials, Penalised, c_transform, half_transform
from wfr_flows.static.interior_point import Problem, begin, between, feasible, follow
from wfr_flows.static.pairs import ListedPairs
from wfr_flows.static.plans import SparsePlan, dealt_out, listed_twice
from wfr_flows.static.result import Assess, StaticResult, unknown
from wfr_flows.typing import Array, Bool, Float, Int, Scalar

_CELLS = 512
_COARSE_TOLERANCE = 1e-2
_PARTNERS = 16
_KEPT = 16
# Entries of the plan between cells that a particle lists itself; its partners list others.
_DEALT = 8
_MARGIN = 0.02
_ROUNDS = 12
_LEVELS = 2
_MOST_STEPS = 8000
_FIRST_SMOOTHING = 0.02
_PROGRESS = 0.7
_FIRST_TOLERANCE = 5e-3
_NEXT_TOLERANCE = 0.02
_LAST_TOLERANCE = 0.5
_GROUPS = 8
_HOPE = 1.5
_SINGLE_TOLERANCE = 1e-5


def coarsen(measure: Particles, num_cells: int) -> tuple[Particles, Int[Array, " n"]]:
    """At most ``num_cells`` particles, one at the mean of every cell of a balanced k-d tree; who is in which.

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
    cell = jnp.zeros(order.shape, jnp.int32).at[order].set(jnp.arange(order.size, dtype=jnp.int32) // size)
    return Particles(jnp.sum(share[..., None] * position[cells], axis=1), total), cell[:n]


class _Task(NamedTuple):
    """What stays from round to round: the problem, how to certify, the unit of cost, the limits."""

    source: Particles
    target: Particles
    problem: Penalised
    certify: Callable[[DualPotentials, SparsePlan, Array], StaticResult]
    unit: Scalar
    tolerance: float
    max_iterations: int


class _Round(NamedTuple):
    """Where a round begins.

    Attributes:
      potentials: feasible up to single precision.
      pairs: what plans may use.
      history: of the annealing.
      annealing: whether this is a round of smoothed transport; once more of them would not help, the rounds
        of the interior-point method begin.
      accuracy: the smoothing of the last annealed level; then the relative gap that the interior-point method
        is to reach.
      result: the best certificate so far.
      gap: what the last round of the kind seemed to leave, relative.
      number: rounds of the kind so far.
      stuck: whether more rounds would not help.
    """

    potentials: DualPotentials
    pairs: ListedPairs
    history: History
    annealing: Bool[Array, ""]
    accuracy: Scalar
    result: StaticResult
    gap: Scalar
    number: Int[Array, ""]
    stuck: Bool[Array, ""]


class _Proposal(NamedTuple):
    """What a round comes to, on its pairs.

    Attributes:
      potential: on the target, in units of cost.
      plan: between the normalised measures.
      num_iterations: Newton steps so far.
      history, accuracy: of the round after.
      ends: whether it cannot be followed by another of its kind.
    """

    potential: Float[Array, " m"]
    plan: Float[Array, " k"]
    num_iterations: Int[Array, ""]
    history: History
    accuracy: Scalar
    ends: Bool[Array, ""]


class _Draft(NamedTuple):
    """A certificate: first of potentials feasible up to single precision, then of exactly feasible ones.

    Attributes:
      potentials: to be drawn up next.
      result: what the potentials before proved.
      gap: that of the first, relative.
      exact: whether the second has been asked for.
      again: whether the potentials are still to be certified.
    """

    potentials: DualPotentials
    result: StaticResult
    gap: Scalar
    exact: Bool[Array, ""]
    again: Bool[Array, ""]


def solve(
    source: Particles,
    target: Particles,
    problem: Penalised,
    assess: Assess,
    tolerance: float,
    max_iterations: int,
    known: Bool[Array, ""],
) -> StaticResult:
    """Solve between the cells of two k-d trees, then in rounds between the particles, on listed pairs alone.

    Each round passes over all pairs twice, in blocks: that makes the potentials feasible, so that they prove
    a lower bound whatever the lists, and lists for every particle the partners of least slack beside those
    that its mass already goes to (column generation); at first, where the plan between cells sends it, dealt
    out to their particles. Between two passes smoothed transport on these pairs, at ever smaller smoothing,
    gives the plan and the potentials; where that gets stuck the interior-point method does.
    """
    size = min(_CELLS, 1 << (min(source.log_weight.size, target.log_weight.size).bit_length() - 1))
    cells, member = coarsen(source, size)
    cells_target, member_target = coarsen(target, size)
    coarse = dense.solve(cells, cells_target, problem, assess, _COARSE_TOLERANCE, max_iterations, known)
    unit = _unit(problem, coarse.value)
    certify = partial(assess, source, target)
    task = _Task(source, target, problem, certify, unit, tolerance, max_iterations)

    plan = dealt_out(coarse.plan, source.log_weight, target.log_weight, member, member_target)
    guess = half_transform(coarse.potentials.source, cells, target.position, problem)
    potentials, near = _nearest(
        jnp.where(jnp.isfinite(guess), guess, 0.0), source, target, problem, tolerance
    )
    # Partners of least slack alone might not be able to take all the mass of a heavy particle.
    pairs = _joined(_dealing(near, plan), near)
    result = unknown((source.log_weight.size, target.log_weight.size), pairs.row.size, unit.dtype)
    result = result._replace(num_iterations=coarse.num_iterations, converged=known)
    far, never = jnp.asarray(jnp.inf, unit.dtype), jnp.zeros((), bool)
    first, smoothing = jnp.zeros((), jnp.int32), jnp.asarray(_FIRST_SMOOTHING, unit.dtype)
    begun = _finite(potentials, unit)
    history = begun, begun, begun
    state = _Round(potentials, pairs, history, ~never, smoothing, result, far, first, never)

    def unfinished(state: _Round) -> Bool[Array, ""]:
        over = state.stuck | (state.result.num_iterations >= max_iterations) | (state.number == _ROUNDS)
        return ~state.result.converged & ~over

    def play(state: _Round) -> _Round:
        scaled = _restrict(task, state.pairs)
        kinds = partial(_smoothed, task, scaled), partial(_refined, task, scaled)
        return _look(task, state, jax.lax.cond(state.annealing, *kinds, state))

    return jax.lax.while_loop(unfinished, play, state).result


def _smoothed(task: _Task, scaled: Problem, state: _Round) -> _Proposal:
    """Two levels of smoothing on the pairs of the round."""

    def level(_, before: tuple[History, Scalar, Array]) -> tuple[History, Scalar, Array]:
        history, smoothing, most = before
        start, smoothing = extrapolate(history), 0.5 * smoothing
        potentials, num_steps = settle(scaled, state.pairs, start, smoothing, _MOST_STEPS)
        return (*history[1:], potentials), smoothing, jnp.maximum(most, num_steps)

    start = state.history, state.accuracy, jnp.zeros((), jnp.int32)
    history, smoothing, most = jax.lax.fori_loop(0, _LEVELS, level, start)
    ends = (most >= _MOST_STEPS) | (smoothing <= least_smoothing(task.tolerance))
    plan = smoothed_plan(scaled, state.pairs, history[-1], smoothing)
    return _Proposal(history[-1].target, plan, state.result.num_iterations, history, smoothing, ends)


def _refined(task: _Task, scaled: Problem, state: _Round) -> _Proposal:
    """The interior-point method on the pairs of the round."""
    margin = jnp.asarray(_MARGIN, task.unit.dtype)
    start = feasible(scaled, state.pairs, _finite(state.potentials, task.unit), margin)
    path = begin(scaled, state.pairs, start)._replace(num_iterations=state.result.num_iterations)
    path = follow(scaled, state.pairs, path, state.accuracy, task.max_iterations)
    inner = jnp.maximum(_NEXT_TOLERANCE * state.accuracy, _LAST_TOLERANCE * task.tolerance)
    never = jnp.zeros((), bool)
    return _Proposal(path.potentials.target, path.plan, path.num_iterations, state.history, inner, never)


def _look(task: _Task, state: _Round, found: _Proposal) -> _Round:
    """Feasible potentials, the next pairs and, where it may close or ends rounds of a kind, a certificate."""
    source, target, problem, certify, unit, tolerance, max_iterations = task
    potentials, near = _nearest(unit * found.potential, source, target, problem, tolerance)
    sparse = SparsePlan(state.pairs.row, state.pairs.column, found.plan)
    last = found.ends | (state.number + 1 == _ROUNDS) | (found.num_iterations >= max_iterations)

    def ends_with(gap: Scalar) -> Bool[Array, ""]:
        return last | ~(gap < _PROGRESS * state.gap)

    def draw_up(draft: _Draft) -> _Draft:
        result = certify(draft.potentials, sparse, found.num_iterations)
        gap = jnp.where(draft.exact, draft.gap, result.gap / result.value)
        again = (ends_with(gap) | (gap <= _HOPE * tolerance)) & ~draft.exact
        tight = jax.lax.cond(
            again,
            lambda: c_transform(draft.potentials.source, source, target, problem),
            lambda: draft.potentials,
        )
        return _Draft(tight, result, gap, draft.exact | again, again)

    never = jnp.zeros((), bool)
    draft = _Draft(potentials, state.result, state.gap, never, ~never)
    draft = jax.lax.while_loop(lambda draft: draft.again, draw_up, draft)
    stuck = ends_with(draft.gap)
    better = draft.exact & (jnp.abs(draft.result.gap) < state.result.gap)
    result = jax.tree.map(lambda new, old: jnp.where(better, new, old), draft.result, state.result)
    # Where annealing ends Newton's method begins.
    switch = lambda new, old: jnp.where(stuck & state.annealing, new, old)  # noqa: E731
    return _Round(
        potentials,
        _joined(state.pairs.heaviest(found.plan, _KEPT), near),
        found.history,
        state.annealing & ~stuck,
        switch(_FIRST_TOLERANCE, found.accuracy),
        result._replace(num_iterations=found.num_iterations),
        switch(jnp.inf, draft.gap),
        switch(0, state.number + 1),
        stuck & ~state.annealing,
    )


def _unit(problem: Penalised, value: Scalar) -> Scalar:
    """What a unit of mass pays for moving, by the value between cells: a unit of cost."""
    penalty = 1 / jnp.maximum(problem.inverse_penalty, jnp.finfo(value.dtype).tiny)
    # What growth alone cannot explain.
    moved = value - problem.growth
    return jnp.minimum(jnp.where(moved > 0, moved, 1.0), penalty)


def _finite(potentials: DualPotentials, unit: Scalar) -> DualPotentials:
    """In units of cost, and 0 for a particle without partner."""
    return jax.tree.map(lambda f: jnp.where(jnp.isfinite(f), f / unit, 0.0), potentials)


def _restrict(task: _Task, pairs: ListedPairs) -> Problem:
    """The problem between the normalised measures on listed pairs, in units of cost."""
    source, target, problem, unit = task.source, task.target, task.problem, task.unit
    row, column = pairs.row, pairs.column
    squared = jnp.sum((source.position[row] - target.position[column]) ** 2, axis=-1)
    cost, reachable = problem.cost_of(squared)
    legal = reachable & problem.worthwhile(cost) & (source.weight > 0)[row] & (target.weight > 0)[column]
    legal &= ~listed_twice(pairs.by_row, pairs.by_column)
    rows, columns = pairs.sums(legal.astype(cost.dtype))
    present, k = (rows > 0, columns > 0), unit * problem.inverse_penalty
    return between(source, target, cost / unit, legal, present, k, problem.growth / unit)


def _joined(kept: ListedPairs, near: ListedPairs) -> ListedPairs:
    """The first `_KEPT` of some partners, and no more of them than are near, beside those that are."""
    both = zip(kept, near, strict=True)
    return ListedPairs(
        *(jnp.concatenate([old[:, : min(_KEPT, new.shape[1])], new], axis=1) for old, new in both)
    )


def _dealing(near: ListedPairs, plan: SparsePlan) -> ListedPairs:
    """Lists in which the heaviest entries of a plan, of every row and of every column, come first.

    A particle with as much mass as many others has more partners than a list holds; the others list it.
    """
    number = jnp.arange(plan.mass.size)

    def place(rank: Array, state: tuple[Array, ListedPairs]) -> tuple[Array, ListedPairs]:
        mass, lists = state
        placed = []
        for partners, own, other in zip(lists, (plan.row, plan.column), (plan.column, plan.row), strict=True):
            size = partners.shape[0]
            heaviest = (mass > 0) & (mass == jax.ops.segment_max(mass, own, size)[own])
            entry = jax.ops.segment_max(jnp.where(heaviest, number, -1), own, size)
            found = entry >= 0
            partner = jnp.where(found, other[entry].astype(partners.dtype), partners[:, rank])
            placed.append(partners.at[:, rank].set(partner))
            mass = mass.at[jnp.where(found, entry, mass.size)].set(0.0, mode="drop")
        return mass, ListedPairs(*placed)

    ranks = min(_DEALT, near.by_row.shape[1], near.by_column.shape[1])
    return jax.lax.fori_loop(0, ranks, place, (plan.mass, near))[1]


def _nearest(
    potential: Float[Array, " m"],
    source: Particles,
    target: Particles,
    problem: Penalised,
    tolerance: float,
) -> tuple[DualPotentials, ListedPairs]:
    """c-transforms of a potential on the target, and for every particle its partners of least slack.

    The c-transforms are capped, see `Penalised.capped`. In single precision, which is several times as fast,
    where that can tell whether the tolerance is reached.
    """
    center = target.position.mean(axis=0)
    dtype = jnp.float32 if tolerance >= _SINGLE_TOLERANCE else potential.dtype
    problem = problem.astype(dtype)

    def partners(potential: Array, measure: Particles, points: Float[Array, "m d"]) -> tuple[Array, Array]:
        count = min(_PARTNERS, potential.size)
        members = -(-potential.size // (_GROUPS * count))
        present = measure.log_weight > -jnp.inf
        padding = (0, members * _GROUPS * count - potential.size)
        start = jnp.where(present, problem.capped(potential.astype(dtype)), -jnp.inf)
        start = jnp.pad(start, padding, constant_values=-jnp.inf)
        position = jnp.pad(measure.position - center, (padding, (0, 0))).astype(dtype)

        def block(some: Float[Array, "b d"]) -> tuple[Float[Array, " b"], Int[Array, "b p"]]:
            cost, reachable = problem.cost(some, position)
            slack = jnp.where(reachable, cost - start, jnp.inf)
            least = problem.capped(slack.min(axis=1))
            excess = slack - jnp.where(jnp.isfinite(least), least, 0.0)[:, None]
            return least, _smallest(excess.astype(jnp.float32), members, count)

        least, partner = in_blocks(block, (points - center).astype(dtype), start.size)
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
