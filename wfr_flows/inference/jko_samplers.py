"""Samplers by JKO steps whose maps are gradients of convex functions, so that they know their density."""

import jax
import jax.numpy as jnp

from wfr_flows import gradient_flows, potentials
from wfr_flows.gradient_flows import ConvexMap, FreeEnergy, LogRatio, carry
from wfr_flows.gradient_flows.functionals import LogDensity
from wfr_flows.gradient_flows.variational_jko import Optimiser
from wfr_flows.inference.frame import check_target, frame_of, start_sample
from wfr_flows.inference.importance import Weighted, at_all, smoothed, usable, weigh
from wfr_flows.measures import Distribution, Whitening
from wfr_flows.potentials import ConvexPotential
from wfr_flows.training import Method, cosine_adam, cosine_muon, run
from wfr_flows.typing import Key, PyTree


def sample_by_icnn_jko(
    key: Key,
    log_density: LogDensity,
    start: Distribution,
    num_samples: int,
    /,
    *,
    potential: ConvexPotential | None = None,
    step_size: float = 1.0,
    num_steps: int = 3,
    num_iterations: int = 150,
    batch: int = 256,
    pool: int = 4096,
    learning_rate: float = 1e-2,
) -> Weighted:
    """The flow of ``KL(·|p)`` by `gradient_flows.icnn_jko` ([JKO]), then fresh samples through its maps.

    Args:
      potential: `potentials.icnn` of the dimension; by default of width 32 and strong convexity .9, so
        that maps stay near the identity, as the start is near the target, and cut no tails.
      step_size, num_steps: of the flow, in units of the whitened start.
      num_iterations, batch, learning_rate: of a step.
      pool: particles that it is learned from.

    Raises:
      NonFiniteError: as `training.run`.
    """
    check_target(log_density, start, num_samples)
    potential = _near_identity(start.dim) if potential is None else potential
    frame_key, init_key, start_key, run_key, draw_key = jax.random.split(key, 5)
    frame = frame_of(frame_key, start)
    target = frame.log_density_of(log_density)
    method = gradient_flows.icnn_jko(
        potential,
        gradient_flows.free_energy(target),
        cosine_muon(num_iterations, learning_rate),
        num_iterations=num_iterations,
        batch=batch,
    )
    state = method.init((init_key, start_sample(start_key, start, frame, pool)))
    maps = _infos(method, run_key, state, step_size, num_steps).map
    return _through(potential, maps, draw_key, start, frame, num_samples, target)


def sample_by_variational_jko(
    key: Key,
    log_density: LogDensity,
    start: Distribution,
    num_samples: int,
    /,
    *,
    potential: ConvexPotential | None = None,
    ratio: LogRatio | None = None,
    step_size: float = 1.0,
    num_steps: int = 3,
    num_iterations: int = 300,
    inner_steps: int = 3,
    batch: int = 1024,
    pool: int = 4096,
    map_optimiser: Optimiser = cosine_adam,
    ratio_optimiser: Optimiser = cosine_adam,
) -> Weighted:
    """The flow of ``KL(·|p)`` by `gradient_flows.variational_jko` ([VWGF]), its maps gradients of ``ψ``.

    They are learned without their density, which is known nevertheless, as the maps are those of ICNN-JKO.

    Args:
      potential: ``ψ``, as in `sample_by_icnn_jko`.
      ratio: `gradient_flows.log_ratio` of the dimension; of width 32 by default.
      step_size, num_steps: of the flow, in units of the whitened start.
      num_iterations, inner_steps, batch, map_optimiser, ratio_optimiser: of a step.
      pool: particles that it is learned from.

    Raises:
      NonFiniteError: as `training.run`.
    """
    check_target(log_density, start, num_samples)
    potential = _near_identity(start.dim) if potential is None else potential
    ratio = gradient_flows.log_ratio(start.dim, width=32) if ratio is None else ratio
    frame_key, init_key, start_key, run_key, draw_key = jax.random.split(key, 5)
    frame = frame_of(frame_key, start)
    target = frame.log_density_of(log_density)
    method = gradient_flows.variational_jko(
        FreeEnergy(gradient_flows.entropy(), lambda z: -target(z)),
        gradient_flows.gradient_of(potential),
        ratio,
        num_iterations=num_iterations,
        inner_steps=inner_steps,
        batch=batch,
        map_optimiser=map_optimiser,
        ratio_optimiser=ratio_optimiser,
    )
    state = method.init((init_key, start_sample(start_key, start, frame, pool).particles))
    maps = gradient_flows.convex_maps(_infos(method, run_key, state, step_size, num_steps).move)
    return _through(potential, maps, draw_key, start, frame, num_samples, target)


def _near_identity(dim: int) -> ConvexPotential:
    return potentials.icnn(dim, width=32, rank=0, strong_convexity=0.9)


def _infos(method: Method, key: Key, state: PyTree, step_size: float, num_steps: int):
    """The stacked infos of all steps of a flow."""
    chunks = []
    run(
        method, key, state, lambda _: jnp.asarray(step_size), num_steps,
        chunk_size=num_steps, on_chunk=chunks.append,
    )  # fmt: skip
    return chunks[0].info


def _through(
    potential: ConvexPotential,
    maps: ConvexMap,
    key: Key,
    start: Distribution,
    frame: Whitening,
    num_samples: int,
    target: LogDensity,
) -> Weighted:
    """Fresh samples of the start through the maps, weighted."""

    @jax.jit
    def draw(key: Key, maps: ConvexMap) -> Weighted:
        moved = carry(potential, maps, start_sample(key, start, frame, num_samples))
        ratio = at_all(target, moved.particles.position) - moved.log_density
        found = smoothed(weigh(moved.particles, ratio))
        position = frame.back(found.particles.position)
        return found._replace(particles=found.particles._replace(position=position))

    return usable(draw(key, maps))
