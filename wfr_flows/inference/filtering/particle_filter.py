"""Sequential Monte Carlo: simulated particles, reweighted by what is seen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.inference.filtering.filtered import Filtered, check_counts, log_likelihoods, too_few
from wfr_flows.inference.filtering.model import Observations, StateSpace, advance
from wfr_flows.inference.importance import reweighted
from wfr_flows.measures import Particles, resample
from wfr_flows.training import Method
from wfr_flows.typing import Key, Scalar


class ParticleState(NamedTuple):
    """Particles to go on from, and their time."""

    time: Scalar
    particles: Particles


def particle_filter(
    model: StateSpace, num_particles: int = 10_000, *, num_steps: int = 50, threshold: float = 0.5
) -> Method:
    """Simulate, reweight, and resample where weights are uneven (Gordon, Salmond, Smith, 1993).

    Args:
      model: the diffusion and its sensor.
      num_particles: how many.
      num_steps: solver steps between observations, see `advance`.
      threshold: resample, systematically, where the effective sample size is below this share of the
        particles; above 1 after every observation, which is the bootstrap filter.

    Returns:
      A `training.Method` for `assimilate`. Particles are reported before they are resampled.
    """
    check_counts(num_particles=num_particles, num_steps=num_steps)

    def init(key: Key) -> ParticleState:
        particles = model.initial.sample(key, num_particles)
        return ParticleState(jnp.array(model.start, particles.position.dtype), particles)

    def step(key: Key, state: ParticleState, now: Observations) -> tuple[ParticleState, Filtered]:
        move_key, resample_key = jax.random.split(key)
        x = advance(move_key, model, state.particles.position, state.time, now.time, num_steps=num_steps)
        particles, log_evidence = reweighted(
            state.particles._replace(position=x), log_likelihoods(model, x, now)
        )
        few = too_few(particles, threshold) & now.seen
        onward = jax.lax.cond(few, lambda p: resample(resample_key, p, num_particles), lambda p: p, particles)
        unknown = jnp.full_like(particles.log_weight, jnp.nan)
        size = particles.effective_sample_size
        return ParticleState(now.time, onward), Filtered(
            now.time, particles, unknown, log_evidence, size, few
        )

    return Method(init, step)
