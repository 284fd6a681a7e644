"""The certified static distances: log-entropy transport, annealed, then by an interior-point method."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.measures import Particles
from wfr_flows.numerics import concrete, inverse_alpha, known_infinite
from wfr_flows.static import dense, exact, multiscale, reduction
from wfr_flows.static.bounds import (
    DualPotentials,
    Penalised,
    couple,
    dual_rounding,
    dual_value,
    energy,
    euclidean,
    log_entropy,
    quadratic,
    shift,
)
from wfr_flows.static.derivatives import Kind, Optimum, envelope, response
from wfr_flows.static.diracs import Diracs, coupling_cost, spherical_from_plain
from wfr_flows.static.plans import SparsePlan, dealt_out, rounded
from wfr_flows.static.reduction import Reduced
from wfr_flows.static.result import StaticResult, outward
from wfr_flows.typing import Array, ArrayLike, Scalar

_MASS_TOLERANCE = 1e-4
_DENSE_PAIRS = 1 << 23
# What masses and units may take from the relative gap, in rounding errors.
_UNITS_ROUNDING = 256.0


def _travelling(plan: SparsePlan, source: Particles, target: Particles, alpha: Array) -> Scalar:
    return coupling_cost(couple(plan, source, target, alpha), alpha)


def _penalised(problem: Callable[[Array], Penalised]) -> Callable[..., Scalar]:
    return lambda plan, source, target, alpha: energy(plan, source, target, problem(alpha))


_CONE = Kind(log_entropy, _travelling)
_QUADRATIC = Kind(quadratic, _penalised(quadratic))
_EUCLIDEAN = Kind(euclidean, _penalised(euclidean))


def wfr(
    source: Particles,
    target: Particles,
    alpha: ArrayLike,
    *,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
) -> StaticResult:
    """``d²_WFR(source, target)`` between weighted point clouds of any mass, with a certificate.

    Log-entropy transport (Liero, Mielke and Savaré):
    ``min_γ ∫c dγ + 2alpha KL(γ₁|μ) + 2alpha KL(γ₂|ν)``, ``c = -4alpha log cos(min(|x-y|/2√alpha, π/2))``.
    Smoothed (Sinkhorn) transport comes first, at ever smaller smoothing. Where that would not do, or not
    soon, a primal-dual interior-point method goes on from there, in 5 to 20 Newton steps whatever the
    weights, the masses and alpha. Beyond 2²³ pairs both keep to pairs that a search selects, in memory linear
    in ``n + m``. The bounds are those of the semi-coupling of a sparse plan and of c-transformed potentials,
    computed afresh: they hold whether or not the iteration converged, rounding included. Units of length and
    mass are taken out first and coincident particles merged; masses that differ by rounding alone count as
    equal. Inputs in single precision are solved in double, and the bounds rounded outward.

    Meant to be called inside `jax.jit`; outside it is traced anew at every call. On the line a concrete
    ``alpha = inf`` (not a traced one) is solved by sorting. Devices that share the particles share the work
    where all pairs are used.

    The value, the potentials and the plan have derivatives of every order in positions, log-weights and alpha
    (see `derivatives`); where points coincide, or plans are not unique, to one side. They are as accurate as
    the plan: at the default tolerance single entries of a gradient may be some per cent off, second
    derivatives want a tolerance of 1e-9. Beyond 2²³ pairs potentials and plan have derivative zero, and
    second derivatives are refused. For derivatives in weights that are 0, build the measure with `particles`.

    Args:
      source, target: `Particles`, ``[n, d]`` and ``[m, d]``; zero weights are legal, wherever they are.
      alpha: length scale ``> 0``. ``inf`` is ``½W₂²`` and needs equal masses.
      tolerance: relative gap to reach. Between float64 inputs 1e-9 is possible, between float32 ones 1e-6.
      max_iterations: bound on the Newton steps; `StaticResult.converged` tells whether it sufficed.

    Returns:
      A `StaticResult`.

    Raises:
      ValueError: dimensions that differ, an ``alpha`` or ``tolerance`` that is not positive; outside of
        transformations also entries that are not finite, and measures without mass.
      NotImplementedError: second derivatives between so many particles that not all pairs are used.
    """
    return _certified(_CONE, source, target, alpha, tolerance, max_iterations)


def spherical_wfr(
    source: Particles,
    target: Particles,
    alpha: ArrayLike,
    *,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
) -> StaticResult:
    """``d²_SWFR = 2alpha Θ²`` between the normalisations of two weighted point clouds.

    ``Θ = arccos(1 - d²_WFR/(4alpha))`` is increasing in ``d²_WFR``, so both bounds carry over [LM].
    Arguments, errors and result as in `wfr`; potentials and plan are those between the normalised measures.
    """
    _check(source, target, alpha, tolerance)
    plain = wfr(
        source.normalise(),
        target.normalise(),
        alpha,
        tolerance=0.8 * tolerance,
        max_iterations=max_iterations,
    )
    value = spherical_from_plain(plain.value, alpha)
    lower = spherical_from_plain(plain.lower_bound, alpha)
    gap = jax.lax.stop_gradient(value) - lower
    converged = (gap <= tolerance * value) & jnp.isfinite(value) & (jnp.asarray(alpha) > 0)
    return plain._replace(value=value, lower_bound=lower, gap=gap, converged=converged)


def wasserstein(
    source: Particles, target: Particles, *, tolerance: float = 1e-4, max_iterations: int = 200
) -> StaticResult:
    """``½W₂²`` between measures of equal mass: `wfr` at ``alpha = inf``, by sorting on the line.

    Arguments, errors and result as in `wfr`; unequal masses are infinitely far apart.
    """
    return wfr(source, target, jnp.inf, tolerance=tolerance, max_iterations=max_iterations)


def wasserstein_1(
    source: Particles, target: Particles, *, tolerance: float = 1e-4, max_iterations: int = 200
) -> StaticResult:
    """``W₁``, the least mean distance ``∫|x-y| dγ``, between measures of equal mass.

    Arguments, errors and result as in `wfr`; unequal masses are infinitely far apart. Not halved.
    """
    return _certified(_EUCLIDEAN, source, target, jnp.inf, tolerance, max_iterations)


def gaussian_hellinger(
    source: Particles,
    target: Particles,
    alpha: ArrayLike,
    *,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
) -> StaticResult:
    """Gaussian-Hellinger-Kantorovich: ``min_γ ∫½|x-y|² dγ + 2alpha KL(γ₁|μ) + 2alpha KL(γ₂|ν)``.

    Quadratic cost where `wfr` has that of the cone: every pair is within reach, and the value is at most
    ``d²_WFR`` (Liero, Mielke and Savaré, section 7). `gaussian_hellinger_gaussians` is its closed form.
    Arguments, errors and result as in `wfr`.
    """
    return _certified(_QUADRATIC, source, target, alpha, tolerance, max_iterations)


def semi_coupling(result: StaticResult, source: Particles, target: Particles, alpha: ArrayLike) -> Diracs:
    """The optimal semi-coupling as travelling Diracs: what moves where, what dies and what is born.

    ``γ⁰ = γ dμ/dγ₁`` leaves, ``γ¹ = γ dν/dγ₂`` arrives; their marginals are exactly μ and ν. Mass without
    partner stays in place, and dies or is born.

    Args:
      result, source, target, alpha: as given to and returned by `wfr`; for `spherical_wfr` pass the
        normalised measures, between which its plan is.

    Returns:
      `Diracs`, ``11(n + m)`` of them where all pairs are used and ``35(n + m)`` beyond; entries without mass
      pad it.
    """
    return couple(result.plan, source, target, alpha)


def unmatched(result: StaticResult, source: Particles, target: Particles) -> tuple[Particles, Particles]:
    """Mass without partner within reach: what dies in place, as ``(1-t)²``, and what is born, as ``t²``.

    Args:
      result, source, target: as given to and returned by `wfr`; for `spherical_wfr` the normalised measures.

    Returns:
      The source and the target, every matched particle at weight 0.
    """
    alone = (jnp.isposinf(potential) for potential in result.potentials)
    dies, born = (
        m._replace(log_weight=jnp.where(lonely, m.log_weight, -jnp.inf))
        for m, lonely in zip((source, target), alone, strict=True)
    )
    return dies, born


def _check(source: Particles, target: Particles, alpha: ArrayLike, tolerance: float) -> None:
    for name, measure in (("source", source), ("target", target)):
        shape = measure.position.shape
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"{name} has positions of shape {shape}; give shapes [n, d] with n, d >= 1.")
        given = measure.log_weight.shape
        if given != shape[:1]:
            raise ValueError(f"{name} has log-weights of shape {given}; give one per point, {shape[:1]}.")
        if not concrete(measure):
            continue
        position, log_weight = np.asarray(measure.position), np.asarray(measure.log_weight)
        # Padding, which has no weight, may be anywhere and nowhere.
        if not np.isfinite(position[log_weight != -np.inf]).all() or not (log_weight < np.inf).all():
            raise ValueError(f"{name} has entries that are NaN or infinite; remove or repair them.")
        if not np.isfinite(log_weight).any():
            raise ValueError(f"{name} has no mass; give at least one particle of positive weight.")
    if source.position.shape[1] != target.position.shape[1]:
        raise ValueError(
            f"source has dimension {source.position.shape[1]} and target {target.position.shape[1]};"
            " give both in the same space."
        )
    if not concrete(tolerance):
        raise ValueError("tolerance is traced; give a Python number, as a static argument.")
    if np.ndim(alpha) > 0:
        raise ValueError(f"alpha has shape {np.shape(alpha)}; give one number, and `jax.vmap` over several.")
    inverse_alpha(alpha)
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}; give a positive relative gap.")


def _certified(
    kind: Kind, source: Particles, target: Particles, alpha: ArrayLike, tolerance: float, max_iterations: int
) -> StaticResult:
    """Reduce, solve, bound from both sides, and give the result its derivatives."""
    _check(source, target, alpha, tolerance)
    prescribed = known_infinite(alpha)
    dtype = jnp.result_type(*source, *target)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    source, target = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (source, target))
    source, target = (reduction.without_padding(measure) for measure in (source, target))
    alpha = jnp.asarray(alpha, dtype)
    fixed = jax.lax.stop_gradient((source, target, alpha))
    fixed_source, fixed_target, fixed_alpha = fixed
    with _double_precision():
        exact_source, exact_target, exact_alpha = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), fixed)
        precision = float(jnp.finfo(dtype).eps)
        reduced = reduction.reduce(exact_source, exact_target, exact_alpha, precision)
        # A cost that is a distance, not its square, scales with the length itself.
        unit = reduced.length if kind.problem(reduced.alpha).unsquared else reduced.length**2
        result = _solved(kind, reduced, prescribed, tolerance, max_iterations)
        result = _restored(result, reduced, exact_source, exact_target, exact_alpha, unit)
        log_a, log_b = reduced.log_mass
        unequal = jnp.abs(log_a - log_b) > _MASS_TOLERANCE
        result = outward(result, dtype)
    k = kind.problem(fixed_alpha).inverse_penalty
    optimum = Optimum(result.potentials, result.plan, result.value, result.gap)
    all_pairs = source.log_weight.size * target.log_weight.size <= _DENSE_PAIRS
    value = envelope(kind, all_pairs, optimum, source, target, alpha)
    potentials, plan = result.potentials, result.plan
    if all_pairs:
        potentials, plan = response(kind, optimum, source, target, alpha)
    unbalanced = (k == 0) & unequal
    value = jnp.where(unbalanced, jnp.inf, value)
    gap = jnp.where(unbalanced, jnp.inf, result.gap)
    # A traced alpha cannot be refused.
    proven = (gap <= tolerance * result.value) & (alpha > 0) & jnp.isfinite(value)
    proven &= jnp.isfinite(result.lower_bound) & (result.lower_bound <= result.value)
    return result._replace(value=value, gap=gap, potentials=potentials, plan=plan, converged=proven)


@contextmanager
def _double_precision() -> Iterator[None]:
    """Within the body arrays are double whatever the settings, and precisions and ranks may mix.

    Single precision cannot tell a gap of 1e-4 from rounding where weights or distances are uneven.
    """
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def _solved(
    kind: Kind, reduced: Reduced, prescribed: bool, tolerance: float, max_iterations: int
) -> StaticResult:
    """The certificate of the reduced problem, in its units."""
    source, target, growth = reduced.source, reduced.target, reduced.growth
    problem = kind.problem(reduced.alpha)._replace(growth=growth)
    k = problem.inverse_penalty
    least = jnp.maximum(growth - reduced.growth_error, 0.0)
    # What the change of units takes from a gap must not make a problem unfinished again.
    enough = max(0.5 * tolerance, tolerance - _UNITS_ROUNDING * float(jnp.finfo(growth.dtype).eps))

    def assess(source, target, potentials, plan, num_iterations) -> StaticResult:
        weights = source.weight, target.weight
        potentials = shift(potentials, *weights, k)
        rounding = dual_rounding(potentials, *weights, k)
        lower = jnp.maximum(dual_value(potentials, *weights, k) - rounding, 0.0) + least
        upper = partial(kind.upper, source=source, target=target, alpha=reduced.alpha)
        # Whatever an iteration came to, a plan is finite: only then is its cost a bound.
        plan = plan._replace(mass=jnp.where(jnp.isfinite(plan.mass), plan.mass, 0.0))
        plan, value = _cheapest(plan, potentials, *weights, k, upper)
        value = value + rounding + growth + reduced.growth_error
        gap = value - lower
        converged = (gap <= enough * value) & (gap >= 0)
        return StaticResult(value, lower, gap, potentials, plan, num_iterations, converged)

    num_pairs = source.log_weight.size * target.log_weight.size
    solve = dense.solve if num_pairs <= _DENSE_PAIRS else multiscale.solve
    if source.position.shape[1] == 1 and prescribed:
        solve = exact.on_the_line
    return solve(source, target, problem, assess, tolerance, max_iterations, reduced.equal)


def _restored(
    result: StaticResult, reduced: Reduced, source: Particles, target: Particles, alpha: Scalar, unit: Scalar
) -> StaticResult:
    """A result of the reduced problem, in the units, masses and particles that were given."""
    growth, error, (log_a, log_b) = reduced.growth, reduced.growth_error, reduced.log_mass
    # Equal measures stay where they are.
    n, size = source.log_weight.size, result.plan.mass.size
    still = SparsePlan(
        *(jnp.pad(part, (0, size - n)) for part in (jnp.arange(n), reduced.partner, reduced.source.weight))
    )
    same = partial(jax.tree.map, lambda one, other: jnp.where(reduced.equal, one, other))
    plan = dealt_out(
        same(still, result.plan),
        source.log_weight,
        target.log_weight,
        reduced.first_source,
        reduced.first_target,
    )
    potentials = same(jax.tree.map(jnp.zeros_like, result.potentials), result.potentials)
    mass = jnp.exp(0.5 * (log_a + log_b))
    level = jnp.where(jnp.isfinite(alpha), alpha * (log_a - log_b), 0.0)
    slip = reduced.mass_error + 4 * jnp.finfo(mass.dtype).eps
    value = unit * mass * (1 + slip) * same(growth + error, result.value)
    lower = unit * mass * (1 - slip) * same(jnp.maximum(growth - error, 0.0), result.lower_bound)
    return StaticResult(
        value=value,
        lower_bound=lower,
        gap=value - lower,
        potentials=DualPotentials(
            unit * potentials.source[reduced.first_source] + level,
            unit * potentials.target[reduced.first_target] - level,
        ),
        plan=plan._replace(mass=mass * plan.mass),
        num_iterations=result.num_iterations,
        converged=same(jnp.ones((), bool), result.converged),
    )


def _cheapest(
    plan: SparsePlan,
    potentials: DualPotentials,
    source: Array,
    target: Array,
    k: Scalar,
    upper: Callable[[SparsePlan], Scalar],
) -> tuple[SparsePlan, Scalar]:
    """The plan, or the plan rounded to the marginals its potentials ask for, whichever proves more, and what.

    Marginals that are prescribed (``k = 1/ρ = 0``) leave no choice.
    """

    def wanted(weight: Array, potential: Array) -> Array:
        present = jnp.isfinite(potential)
        return jnp.where(present | (k == 0), weight * jnp.exp(-k * jnp.where(present, potential, 0.0)), 0.0)

    neat = rounded(plan, wanted(source, potentials.source), wanted(target, potentials.target))
    plain = jnp.pad(plan.mass, (0, neat.mass.size - plan.mass.size))
    mass = jnp.stack([neat.mass, plain])
    # Both in one go: half the program to compile.
    value = jax.vmap(lambda some: upper(neat._replace(mass=some)))(mass)
    chosen = jnp.where((k == 0) | (value[0] < value[1]), 0, 1)
    return neat._replace(mass=mass[chosen]), value[chosen]
