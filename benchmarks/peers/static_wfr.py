"""Static WFR by this package, OTT-JAX and POT: seconds to the same certified gap.

Every solver gets the same clouds in one process, in float64, and is run until the same certificate closes:
an upper bound, the cost of the semi-coupling of its plan, and a lower bound, the dual value of its potentials
made feasible. Seconds are of the solvers' own calls. Compilation is not counted, nor, for the peers, are the
certificates; ours computes its own and pays for them. Each peer is told the moment it may stop:

- OTT-JAX: one call of ``Sinkhorn`` with its own scheduler of epsilon, potentials recentred (the
  translation-invariant step), over-relaxed, at the largest of the halved epsilons whose plan closes the gap;
  calls at larger ones are not counted. The fastest of ``--momenta`` is reported.
- OTT-JAX by hand: what the library does not do by itself. Epsilon is halved, each call warm-started from the
  last with its own ``tau``, until the gap closes; otherwise as above.
- POT: ``mm_unbalanced`` and ``lbfgsb_unbalanced`` without regularisation, resumed from their own plans in
  growing chunks; the latter starts from a plan of the former, without which it can stall. They give no
  potentials: ``f = -2alpha log(dγ₁/dμ)``.

A peer that does not close the gap within ``--limit`` seconds is reported with the gap it reached.
``reported_error`` is the relative error of the objective that the library itself returns. ``cores`` is
processor seconds over seconds: NumPy's elementwise work is on one thread, XLA and BLAS take all there are
(where other processes want them too ``lbfgsb_unbalanced`` suffers). ``taskset -c 0 python -m ...`` gives
everybody one.
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import parser, report, rounded
from wfr_flows import static
from wfr_flows.measures import Particles, particles

try:
    import ot
except ImportError:
    ot = None
try:
    from ott.geometry.epsilon_scheduler import Epsilon
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear import acceleration, sinkhorn
except ImportError:
    sinkhorn = None

FAR = 100.0
"""Cost, in units of alpha, of a pair out of reach: the peers want finite costs."""

FIRST_EPSILON = 0.1
"""Epsilon of the first OTT-JAX solve, in units of alpha."""

DECAY = 0.9
"""What OTT-JAX's scheduler multiplies epsilon by in every iteration, down from the first."""

FIRST_CHUNK = 100
"""Iterations of the first POT call; the later ones run a quarter of all iterations before."""

START = 1000
"""Iterations of ``mm_unbalanced`` that make the plan ``lbfgsb_unbalanced`` starts from."""


SHAPES = ("disks", "gaussians")
"""Of the clouds."""


class Problem(NamedTuple):
    """Two weighted clouds; the peers' arguments are NumPy arrays."""

    source: Particles
    target: Particles
    alpha: float
    source_weight: np.ndarray
    target_weight: np.ndarray
    cost: np.ndarray


class Step(NamedTuple):
    """Some more work of a solver: what it cost, what it certifies, what the solver calls its objective."""

    seconds: float
    cpu_seconds: float
    iterations: int
    lower: float
    upper: float
    reported: float


Solver = Callable[[Problem, float, float], Iterator[Step]]
"""``(problem, tolerance, limit)`` to steps, each of which continues the one before."""


class Run(NamedTuple):
    """The steps of a solver up to the tolerance or the limit; seconds are the median over ``repeats``."""

    seconds: float
    cores: float
    iterations: int
    lower: float
    upper: float
    reported: float
    repeats: int

    @property
    def gap(self) -> float:
        return (self.upper - self.lower) / self.upper if math.isfinite(self.upper) else math.inf


def clouds(size: int, alpha: float, shape: str = "disks", seed: int = 0) -> Problem:
    """A cloud and a smaller one beside it with half as much mass again: two disks, or two Gaussians.

    At alpha 1 every pair of the disks is in reach, and not every one of the Gaussians.
    """
    random = np.random.default_rng(seed)

    def cloud(center: float, radius: float, mass: float) -> Particles:
        position = random.normal(size=(size, 2))
        if shape == "disks":
            position /= np.linalg.norm(position, axis=1, keepdims=True)
            position *= np.sqrt(random.uniform(size=(size, 1)))
        weight = random.uniform(0.5, 1.5, size)
        return particles(radius * position + [center, 0.0], mass * weight / weight.sum())

    source, target = cloud(0.0, 1.0, 1.0), cloud(0.6, 0.7, 1.5)
    x, y = np.asarray(source.position), np.asarray(target.position)
    angle = np.linalg.norm(x[:, None] - y[None], axis=-1) / (2 * math.sqrt(alpha))
    near = angle < math.pi / 2
    cost = np.where(near, -4 * alpha * np.log(np.cos(np.where(near, angle, 0.0))), math.inf)
    weights = np.asarray(source.weight), np.asarray(target.weight)
    return Problem(source, target, alpha, *weights, np.minimum(cost, FAR * alpha))


@jax.jit
def certificate(plan, potential, source: Particles, target: Particles, alpha: float):
    """Lower and upper bound on d² from a plan and a source potential, neither of which need be optimal."""
    return static.dual_bound(potential, source, target, alpha), static.plan_cost(plan, source, target, alpha)


def certified(
    problem: Problem, clock: tuple[float, float], iterations: Any, plan, potential, reported
) -> Step:
    lower, upper = certificate(plan, potential, problem.source, problem.target, problem.alpha)
    return Step(*clock, int(iterations), float(lower), float(upper), float(reported))


def timed(function: Callable, *arguments: Any) -> tuple[tuple[float, float], Any]:
    """``(seconds, processor seconds)`` of one call, and its result."""
    start, cpu_start = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(function(*arguments))
    return (time.perf_counter() - start, time.process_time() - cpu_start), result


def ours(problem: Problem, tolerance: float, limit: float) -> Iterator[Step]:
    solve = jax.jit(partial(static.wfr, tolerance=tolerance))
    arguments = problem.source, problem.target, problem.alpha
    clock, result = timed(solve.lower(*arguments).compile(), *arguments)
    bounds = float(result.lower_bound), float(result.value)
    yield Step(*clock, int(result.num_iterations), *bounds, float(result.value))


@cache
def ott_solver(epsilon: float, first: float, rho: float, threshold: float, size: int) -> Callable:
    """One OTT-JAX solve, compiled, from initial potentials to plan, potentials, objective, iterations.

    Within it epsilon falls from ``first``.
    """
    tau = rho / (rho + epsilon)

    def solve(cost, source, target, potentials, momentum):
        solver = sinkhorn.Sinkhorn(
            threshold=threshold,
            max_iterations=10_000,
            recenter_potentials=True,
            momentum=acceleration.Momentum(value=momentum),
        )
        geometry = Geometry(cost, epsilon=Epsilon(epsilon, init=first / epsilon, decay=DECAY))
        found = solver(LinearProblem(geometry, source, target, tau_a=tau, tau_b=tau), init=potentials)
        return found.matrix, (found.f, found.g), found.reg_ot_cost, found.n_iters

    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.float64)
    vector = shape((size,))
    arguments = shape((size, size)), vector, vector, (vector, vector), shape(())
    return jax.jit(solve).lower(*arguments).compile()


def ott(
    problem: Problem, tolerance: float, limit: float, *, momentum: float, by_hand: bool
) -> Iterator[Step]:
    arrays = tuple(jnp.asarray(a) for a in (problem.cost, problem.source_weight, problem.target_weight))
    zero = (jnp.zeros_like(arrays[1]), jnp.zeros_like(arrays[2]))
    # The bounds are of second order in the marginals' error, and so is the last solve's share of the gap.
    threshold = math.sqrt(tolerance) * math.sqrt(problem.source_weight.sum() * problem.target_weight.sum())
    largest = epsilon = FIRST_EPSILON * problem.alpha
    potentials, spent = zero, 0.0
    while True:
        first = epsilon if by_hand else largest
        solve = ott_solver(epsilon, first, 2 * problem.alpha, threshold, len(problem.source_weight))
        start = potentials if by_hand else zero
        clock, (plan, potentials, reported, iterations) = timed(solve, *arrays, start, np.float64(momentum))
        if not np.isfinite(reported):
            return
        step = certified(problem, clock, iterations, plan, potentials[0], reported)
        spent += step.seconds
        if by_hand or spent >= limit or step.upper - step.lower <= tolerance * step.upper:
            yield step
        epsilon /= 2


def pot(problem: Problem, tolerance: float, limit: float, *, advance: Callable) -> Iterator[Step]:
    plan, spent, total, chunk = None, 0.0, 0, FIRST_CHUNK
    while chunk > 1:
        clock, (plan, iterations, reported) = timed(advance, problem, plan, chunk)
        if iterations == 0:
            return
        spent, total = spent + clock[0], total + iterations
        share = np.maximum(plan.sum(axis=1) / problem.source_weight, 1e-12)
        yield certified(problem, clock, iterations, plan, -2 * problem.alpha * np.log(share), reported)
        chunk = min(max(FIRST_CHUNK, total // 4), int((limit - spent) * total / spent))


def majorise(problem: Problem, plan: np.ndarray | None, iterations: int) -> tuple[np.ndarray, int, float]:
    solve = partial(
        ot.unbalanced.mm_unbalanced,
        problem.source_weight,
        problem.target_weight,
        problem.cost,
        reg_m=2 * problem.alpha,
        stopThr=0.0,
    )
    # With log=True it keeps the plan of every iteration; without, it does not return its objective.
    plan = solve(G0=plan, numItermax=iterations - 1)
    plan, log = solve(G0=plan, numItermax=1, log=True)
    return plan, iterations, log["total_cost"]


def quasi_newton(problem: Problem, plan: np.ndarray | None, iterations: int) -> tuple[np.ndarray, int, float]:
    if plan is None:
        plan, _, _ = majorise(problem, None, START)
    plan, log = ot.unbalanced.lbfgsb_unbalanced(
        problem.source_weight,
        problem.target_weight,
        problem.cost,
        reg=0.0,
        reg_m=2 * problem.alpha,
        G0=plan,
        numItermax=iterations,
        stopThr=0.0,
        log=True,
    )
    return plan, log["res"].nit, log["total_cost"]


def once(solver: Solver, problem: Problem, tolerance: float, limit: float) -> Run:
    """Until the tolerance, the limit or the solver's own end. Bounds of different steps go together."""
    steps, lower, upper = [], 0.0, math.inf
    for step in solver(problem, tolerance, limit):
        steps.append(step)
        lower, upper = max(lower, step.lower), min(upper, step.upper)
        if upper - lower <= tolerance * upper or sum(s.seconds for s in steps) >= limit:
            break
    if not steps:
        return Run(0.0, 0.0, 0, lower, upper, math.inf, 1)
    seconds = sum(step.seconds for step in steps)
    cores = sum(step.cpu_seconds for step in steps) / seconds
    return Run(
        seconds, cores, sum(step.iterations for step in steps), lower, upper, steps[-1].reported, repeats=1
    )


def race(solver: Solver, problem: Problem, tolerance: float, limit: float, repeats: int) -> Run:
    """`once`, and again for the median as long as ``limit`` seconds suffice."""
    runs = [once(solver, problem, tolerance, limit)]
    while (
        len(runs) < repeats
        and runs[0].gap <= tolerance
        and sum(run.seconds for run in runs) + runs[0].seconds <= limit
    ):
        runs.append(once(solver, problem, tolerance, limit))
    return runs[0]._replace(
        seconds=statistics.median(run.seconds for run in runs),
        cores=statistics.median(run.cores for run in runs),
        repeats=len(runs),
    )


def contestants(momenta: list[float]) -> dict[str, list[tuple[dict[str, Any], Solver]] | None]:
    """By name, the settings of each solver to try; ``None`` where the library is missing."""

    def ott_by(hand: bool) -> list[tuple[dict[str, Any], Solver]] | None:
        if sinkhorn is None:
            return None
        return [
            ({"momentum": momentum}, partial(ott, momentum=momentum, by_hand=hand)) for momentum in momenta
        ]

    return {
        "wfr_flows": [({}, ours)],
        "ott-jax": ott_by(False),
        "ott-jax by hand": ott_by(True),
        "POT mm": None if ot is None else [({}, partial(pot, advance=majorise))],
        "POT lbfgsb": None if ot is None else [({"mm_start": START}, partial(pot, advance=quasi_newton))],
    }


def arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--json", dest="out", type=Path, help="the same as --out")
    options.add_argument("--sizes", type=int, nargs="+", default=[1000])
    options.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    options.add_argument("--alpha", type=float, default=1.0)
    options.add_argument("--tolerance", type=float, default=1e-4, help="certified relative gap to reach")
    options.add_argument("--truth", type=float, default=1e-6, help="relative gap of the reference value")
    options.add_argument("--limit", type=float, default=300.0, help="seconds per solver and setting")
    options.add_argument("--momenta", type=float, nargs="+", default=[1.7, 1.8, 1.9], help="for OTT-JAX")
    options.add_argument("--repeats", type=int, default=3)
    return options.parse_args()


def main() -> None:
    options = arguments()
    jax.config.update("jax_enable_x64", True)
    sizes, tolerance, repeats = options.sizes, options.tolerance, options.repeats
    if options.smoke:
        sizes, tolerance, repeats = [60], 1e-2, 1
    with report("peers/static_wfr", options) as emit:
        for size, shape in itertools.product(sizes, options.shapes):
            problem = clouds(size, options.alpha, shape)
            reference = once(ours, problem, options.truth, math.inf)
            truth = 0.5 * (reference.lower + reference.upper)
            exact = rounded({"seconds": reference.seconds, "relative_gap": reference.gap}, 3)
            emit(solver="truth", shape=shape, size=size, alpha=options.alpha, value=truth, **exact)
            our_seconds = math.nan
            for name, settings in contestants(options.momenta).items():
                if settings is None:
                    emit(solver=name, size=size, skipped="not installed; pip install 'wfr-flows[peers]'")
                    continue
                tried = [
                    (race(solver, problem, tolerance, options.limit, repeats), setting)
                    for setting, solver in settings
                ]
                run, setting = min(tried, key=lambda t: (max(t[0].gap, tolerance), t[0].seconds))
                our_seconds = run.seconds if name == "wfr_flows" else our_seconds
                record = {
                    "seconds": run.seconds,
                    "times_ours": run.seconds / our_seconds,
                    "cores": run.cores,
                    "relative_gap": run.gap if math.isfinite(run.gap) else None,
                    "reported_error": run.reported / truth - 1 if math.isfinite(run.reported) else None,
                }
                bounds = {"lower_bound": run.lower, "upper_bound": run.upper, "reported": run.reported}
                emit(
                    solver=name,
                    shape=shape,
                    size=size,
                    alpha=options.alpha,
                    tolerance=tolerance,
                    reached=run.gap <= tolerance,
                    **rounded(record, 3),
                    **rounded({k: v if math.isfinite(v) else None for k, v in bounds.items()}, 8),
                    num_iterations=run.iterations,
                    repeats=run.repeats,
                    **setting,
                )


if __name__ == "__main__":
    main()
