"""A filter whose law is a learned density at every observation: UOT-gen's online update, with dynamics."""

from functools import partial

import jax
import jax.numpy as jnp

from wfr_flows import geodesics
from wfr_flows.geodesics import Generator, Learned
from wfr_flows.inference.filtering.filtered import Filtered, check_counts, log_likelihoods
from wfr_flows.inference.filtering.model import Observations, StateSpace, advance
from wfr_flows.typing import Key


def generative_filter(
    key: Key,
    model: StateSpace,
    data: Observations,
    generator: Generator,
    *,
    num_particles: int = 2048,
    num_steps: int = 50,
) -> tuple[Filtered, list[Learned]]:
    """Sample the last model, simulate, reweight, learn: [WFR] algorithm 3 with a diffusion between its turns.

    In place of resampling, every turn draws fresh weighted samples of a smooth density, whose training begins
    where the last one ended. It outlives the filter: ``generator.sample(learned[k], n)`` gives as many
    particles of ``p(x_k | y_1, ..., y_k)`` as wanted, ``generator.log_density(learned[k], x)`` their density.

    Args:
      model, data: the diffusion and what was seen of it.
      generator: from `geodesics.generator`, of the dimension of the state.
      num_particles, num_steps: as in `particle_filter`.

    Returns:
      What every filter does, and the learned laws, one for each time. Trains for each; not to be jitted.

    Raises:
      ValueError: as `geodesics.update`, where no particle could have been seen as it was.
    """
    check_counts(num_particles=num_particles, num_steps=num_steps)
    move = jax.jit(partial(advance, model=model, num_steps=num_steps))
    weigh, density = jax.jit(partial(log_likelihoods, model)), jax.jit(generator.log_density)
    sample = jax.jit(generator.sample, static_argnums=2)
    start_key, key = jax.random.split(key)
    state = geodesics.begin(model.initial.sample(start_key, num_particles))
    now, laws, learned = jnp.asarray(model.start, data.time.dtype), [], []
    for index, turn_key in enumerate(jax.random.split(key, data.time.size)):
        draw_key, move_key, learn_key = jax.random.split(turn_key, 3)
        seen = jax.tree.map(lambda leaf, k=index: leaf[k], data)
        particles = state.particles
        if state.learned is not None:
            particles = sample(draw_key, state.learned, num_particles)
        x = move(move_key, x=particles.position, start=now, end=seen.time)
        before = state._replace(particles=particles._replace(position=x))
        state = geodesics.update(learn_key, generator, before, weigh(x, seen))
        assert state.learned is not None
        gain, size = state.log_evidence - before.log_evidence, state.effective_sample_size
        at = density(state.learned, state.particles.position)
        laws.append(Filtered(seen.time, state.particles, at, gain, size, jnp.ones((), bool)))
        learned.append(state.learned)
        now = seen.time
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *laws), learned
