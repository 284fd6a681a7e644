"""Unbalanced dynamics through snapshots in time: certified plans between neighbours, matching, pushing."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows import static
from wfr_flows.dynamics import Field, FlowState, Geometry, Rates, Trajectory, batched, field_motion, integrate
from wfr_flows.geodesics.matching import Loss, draw, evolution_error
from wfr_flows.measures import Particles, padded, thinned
from wfr_flows.metrics import energy_distance
from wfr_flows.numerics import running_total, simpson_weights
from wfr_flows.static import Diracs, DiracState
from wfr_flows.typing import Array, Float, Key, Params, Scalar

# Far above the derivatives of a loss by a particle that is not lost, which are about its share of the mass.
_LARGEST_DERIVATIVE = 1.0
# Logarithm of a ratio of masses beyond which the misfit grows in proportion to it.
_LARGEST_RATIO = 1.0

# Windows are left by this share of their length, so that no stage of a step looks into the next one.
_MARGIN = 1e-5


class Chain(NamedTuple):
    """Optimal semi-couplings between neighbouring snapshots.

    Attributes:
      time: ``[k]``, increasing.
      diracs: leaves ``[k - 1, p, ...]``; pairs without mass fill up the shorter lists.
      lower, upper: ``[k - 1]``, certified bounds on ``d²`` between neighbours.
      converged: ``[k - 1]``.
    """

    time: Float[Array, " k"]
    diracs: Diracs
    lower: Float[Array, " k-1"]
    upper: Float[Array, " k-1"]
    converged: Array


def chain(
    key: Key,
    time: Sequence[float],
    snapshots: Sequence[Particles],
    geometry: Geometry,
    *,
    num_particles: int = 2900,
    tolerance: float = 1e-4,
) -> Chain:
    """Certified plans between neighbouring snapshots; run on the host, one window after the other.

    Args:
      key: for the draws from snapshots of more than ``num_particles``.
      time: increasing.
      snapshots: weighted particles of any mass (at ``alpha = inf``, of one mass; a spherical geometry
        compares the probability measures).
      geometry: of the windows.
      num_particles: of a snapshot, at most; more are resampled to so many of the same total mass.
      tolerance: relative gap of each plan.

    Raises:
      ValueError: fewer than two snapshots, times that do not increase or that the precision cannot tell
        apart, dimensions or masses that do not fit.
    """
    _check(time, snapshots, geometry)
    keys = jax.random.split(key, len(snapshots))
    few = [thinned(k, s, num_particles) for k, s in zip(keys, snapshots, strict=True)]
    if geometry.spherical:
        few = [snapshot.normalise() for snapshot in few]
    # Particles without mass make all windows of one shape, so that one program serves them.
    largest = [max(measure.log_weight.size for measure in side) for side in (few[:-1], few[1:])]
    solve = static.spherical_wfr if geometry.spherical else static.wfr
    solve = partial(_window, solve, tolerance=tolerance)
    windows = [solve(*map(padded, ends, largest), geometry.alpha) for ends in zip(few, few[1:], strict=False)]
    results, diracs = zip(*windows, strict=True)
    return Chain(
        jnp.asarray(time, few[0].position.dtype),
        _stacked([_present(window) for window in diracs]),
        jnp.stack([result.lower_bound for result in results]),
        jnp.stack([result.value for result in results]),
        jnp.stack([result.converged for result in results]),
    )


def chain_matching(
    field: Field,
    geometry: Geometry,
    chain: Chain,
    *,
    num_times: int = 8,
    num_pairs: int = 64,
    blur: float = 0.0,
) -> Loss:
    """The loss whose minimiser moves and grows as the geodesics from snapshot to snapshot do.

    With ``v`` and ``g`` velocity and growth of travelling Diracs of a window, ``e = ½|v|² + ½alpha g²``, all
    in the window's own time from 0 to 1, and the field's in that time too, it is the mean by mass over
    windows of ``½|v_θ - v|² + ½alpha (g_θ - g)² + ½(∂ₜΦ - e)²/(e + d²/m)``, the last term for potentials.
    Mass that dies or is born out of reach stays in place. In a spherical geometry growth counts up to its
    mean.

    Args:
      field: on ``[chain.time[0], chain.time[-1]]``, see `dynamics.Field`.
      geometry: that of the chain.
      chain: from `chain`.
      num_times: random times of a window, stratified.
      num_pairs: Diracs at each, drawn with probability proportional to their mass.
      blur: standard deviation of Gaussian noise on where the field is compared. A hundredth of the spread of
        the data keeps particles that stray from few points from being lost, and costs hardly any accuracy.
    """
    length = jnp.diff(chain.time)
    share, total, mass, angle = _of_pairs(chain.diracs, geometry.alpha)
    rates_at = jax.vmap(batched(field), (None, 0, 0))
    travel = jax.vmap(_traveller(geometry), (0, 0, None))

    def window(params: Params, key: Key, index: Array) -> Scalar:
        *draw_keys, noise_key = jax.random.split(key, 3)
        time, pair = draw(jnp.stack(draw_keys), total[index], num_times, num_pairs)
        diracs = jax.tree.map(lambda leaf: leaf[index][pair], chain.diracs)
        state = travel(diracs, time, angle[index])
        span = length[index]
        place = state.position + blur * jax.random.normal(noise_key, state.position.shape, total.dtype)
        rates: Rates = rates_at(params, chain.time[index] + span * time, place)
        weight = state.mass * total[index, -1] / (share[index][pair] * mass)
        excess = span * rates.growth - state.growth
        if geometry.spherical:
            excess -= (jnp.sum(weight * excess, axis=1) / jnp.sum(weight, axis=1))[:, None]
        errors = 2 * geometry.energy(span * rates.velocity - state.velocity, excess)
        if rates.energy is not None:
            errors += evolution_error(geometry, span**2 * rates.energy, state, chain.upper[index] / mass)
        return 0.5 * jnp.mean(weight * errors)

    def loss(params: Params, key: Key) -> Scalar:
        indices = jnp.arange(length.size)
        return jnp.mean(jax.vmap(window, (None, 0, 0))(params, jax.random.split(key, length.size), indices))

    return loss


def push(
    field: Field,
    geometry: Geometry,
    params: Params,
    measure: Particles,
    time: Float[Array, " k"],
    *,
    num_steps: int = 16,
) -> Trajectory:
    """Carry weighted particles through the windows of a field, forward from ``time[0]``.

    Args:
      field, params: as `chain_matching` learns it.
      geometry: in a spherical one weights are normalised to the initial mass at every node.
      measure: particles at ``time[0]``.
      time: ``[k]``, the borders of the windows, increasing.
      num_steps: Runge-Kutta steps of a window.

    Returns:
      A `Trajectory` with ``num_steps + 1`` nodes for every window, so that borders stand in it twice; its
      log-determinants are 0.
    """
    motion = field_motion(field, geometry)
    fraction = _MARGIN + (1 - 2 * _MARGIN) * jnp.linspace(0.0, 1.0, num_steps + 1, dtype=time.dtype)

    def window(state: FlowState, ends: tuple[Scalar, Scalar]):
        grid = ends[0] + (ends[1] - ends[0]) * fraction
        states = integrate(motion, state, params, grid)
        return jax.tree.map(lambda leaf: leaf[-1], states), (grid, *states)

    start = FlowState(measure.position, measure.log_weight, jnp.zeros_like(measure.log_weight))
    _, nodes = jax.lax.scan(window, start, (time[:-1], time[1:]))
    grid, position, log_weight, log_det = (leaf.reshape(-1, *leaf.shape[2:]) for leaf in nodes)
    if geometry.spherical:
        log_weight = jax.nn.log_softmax(log_weight, axis=-1) + jax.nn.logsumexp(measure.log_weight)
    return Trajectory(grid, position, log_weight, log_det)


def push_misfit(
    field: Field,
    geometry: Geometry,
    time: Sequence[float] | Float[Array, " k"],
    snapshots: Sequence[Particles],
    *,
    num_particles: int = 1000,
    num_steps: int = 8,
) -> Loss:
    """The loss of simulation: how far the first snapshot, carried through time, is from the others.

    It is the mean over later snapshots of the energy distance at mass 1 plus, unless the geometry is
    spherical, the squared relative error of mass (beyond ``e`` times the mass its tangent in the logarithm).
    What matching cannot see, particles that stray and are carried on, it does. Some hundred steps on
    ``10 push_misfit + chain_matching`` from what matching learned bring strays back, and the matching loss
    keeps the action at its minimum. In reverse mode, the only one, derivatives by particles are clipped on
    the way back, so that chaotic paths of strays leave them finite.

    Args:
      field, geometry: as for `chain_matching`.
      time, snapshots: as for `chain`; positions of spread about 1.
      num_particles: of a snapshot, at most; from larger ones every step draws its own.
      num_steps: Runge-Kutta steps of a window.

    Raises:
      ValueError: as `chain`.
    """
    _check(time, snapshots, geometry)
    nodes = jnp.asarray(time, snapshots[0].position.dtype)
    tamed = Field(field.init, lambda params, t, x: field.rates(params, t, _tamed(x)))
    largest = min(num_particles, max(snapshot.log_weight.size for snapshot in snapshots))

    def misfit(there: Particles, here: Particles) -> Scalar:
        distance = energy_distance(there, here)
        return distance if geometry.spherical else distance + _mass_misfit(there, here)

    def loss(params: Params, key: Key) -> Scalar:
        keys = jax.random.split(key, len(snapshots))
        few = [padded(thinned(k, s, largest), largest) for k, s in zip(keys, snapshots, strict=True)]
        path = push(tamed, geometry, params, few[0], nodes, num_steps=num_steps)
        there = (leaf[num_steps :: num_steps + 1] for leaf in (path.position, path.log_weight))
        here = jax.tree.map(lambda *leaves: jnp.stack(leaves), *few[1:])
        # Not vmap, under which XLA sums pairs several times slower where there is one window.
        return jnp.mean(jax.lax.map(lambda pair: misfit(*pair), (Particles(*there), here)))

    return loss


def _mass_misfit(there: Particles, here: Particles) -> Scalar:
    """``(r - 1)²`` of the ratio ``r`` of two masses up to ``r = e``, beyond it its tangent in ``log r``.

    The square of a mass that strays have made grow overflows; the tangent is finite for every finite weight.
    """
    log_ratio = jax.nn.logsumexp(there.log_weight) - jax.nn.logsumexp(here.log_weight)
    excess = jnp.expm1(jnp.minimum(log_ratio, _LARGEST_RATIO))
    slope = 2 * (excess + 1) * excess
    return excess**2 + slope * jnp.maximum(log_ratio - _LARGEST_RATIO, 0.0)


@jax.custom_vjp
def _tamed(x: Float[Array, " d"]) -> Float[Array, " d"]:
    """The same point, whose derivatives are clipped."""
    return x


def _clipped(_, derivative: Float[Array, " d"]) -> tuple[Float[Array, " d"]]:
    return (jnp.clip(derivative, -_LARGEST_DERIVATIVE, _LARGEST_DERIVATIVE),)


_tamed.defvjp(lambda x: (x, None), _clipped)


def window_actions(
    field: Field, geometry: Geometry, params: Params, trajectory: Trajectory, num_windows: int
) -> Float[Array, " windows"]:
    """``∫∫ ½|v|² + ½alpha g² dμ ds`` of every window in its own time, beside which ``d²`` of its ends stands.

    Args:
      trajectory: from `push`, through ``num_windows`` windows.
    """
    rates: Rates = jax.vmap(batched(field), (None, 0, 0))(params, trajectory.time, trajectory.position)
    weight = jnp.exp(trajectory.log_weight)
    growth = rates.growth
    if geometry.spherical:
        growth -= (jnp.sum(weight * growth, axis=1) / jnp.sum(weight, axis=1))[:, None]
    energy = jnp.sum(weight * geometry.energy(rates.velocity, growth), axis=1)
    energy, time = (leaf.reshape(num_windows, -1) for leaf in (energy, trajectory.time))
    span = time[:, -1] - time[:, 0]
    nodes = jnp.linspace(0.0, 1.0, energy.shape[1], dtype=energy.dtype)
    return span**2 * (energy @ simpson_weights(nodes))


def _traveller(geometry: Geometry) -> Callable[[Diracs, Scalar, Scalar], DiracState]:
    """``(diracs, time, angle) -> DiracState`` along the geodesic of the geometry."""
    if geometry.spherical:
        return lambda diracs, time, angle: static.spherical_travel(diracs, time, geometry.alpha, angle)
    return lambda diracs, time, angle: static.travel(diracs, time, geometry.alpha)


@partial(jax.jit, static_argnames=("solve", "tolerance"))
def _window(solve, first: Particles, last: Particles, alpha: Scalar, *, tolerance: float):
    result = solve(first, last, alpha, tolerance=tolerance)
    return result, static.semi_coupling(result, first, last, alpha)


@jax.jit
def _of_pairs(diracs: Diracs, alpha: Scalar) -> tuple[Array, Array, Scalar, Array]:
    """How often to draw each pair of a window, its running total, mean mass and angles of the windows."""
    share = diracs.source_mass + diracs.target_mass
    total = jax.vmap(running_total)(share)
    angle = jax.vmap(static.cone_angle, (0, None))(diracs, alpha)
    return share, total, jnp.mean(total[:, -1]) / 2, angle


def _present(diracs: Diracs) -> Diracs:
    """Without pairs that carry nothing."""
    kept = np.asarray(diracs.source_mass) + np.asarray(diracs.target_mass) > 0
    return jax.tree.map(lambda leaf: np.asarray(leaf)[kept], diracs)


def _stacked(windows: Sequence[Diracs]) -> Diracs:
    longest = max(len(window.source_mass) for window in windows)

    def padded(leaf: np.ndarray) -> np.ndarray:
        return np.pad(leaf, [(0, longest - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))

    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack([padded(leaf) for leaf in leaves])), *windows)


def _check(time: Sequence[float] | Array, snapshots: Sequence[Particles], geometry: Geometry) -> None:
    if len(snapshots) < 2 or len(time) != len(snapshots):
        raise ValueError(f"{len(time)} times and {len(snapshots)} snapshots; give two or more of either.")
    if not np.all(np.diff(np.asarray(time)) > 0):
        raise ValueError(
            f"the times {np.asarray(time)} do not increase; sort the snapshots and join equal times."
        )
    exact = np.asarray(time, np.float64)
    kept = exact.astype(snapshots[0].position.dtype).astype(np.float64)
    if not np.allclose(np.diff(kept), np.diff(exact), rtol=1e-3, atol=0.0):
        raise ValueError(
            f"the times {exact.tolist()} lose digits in {snapshots[0].position.dtype}; subtract the first,"
            " and give them in units of what lies between neighbours."
        )
    dims = {snapshot.position.shape[1] for snapshot in snapshots}
    if len(dims) > 1:
        raise ValueError(f"the snapshots have {sorted(dims)} coordinates; give all the same.")
    masses = [float(np.exp(np.logaddexp.reduce(np.asarray(s.log_weight)))) for s in snapshots]
    if geometry.balanced and not geometry.spherical and not np.allclose(masses, masses[0], rtol=1e-4):
        raise ValueError(f"alpha = inf keeps mass and the snapshots have {masses}; give a finite alpha.")
