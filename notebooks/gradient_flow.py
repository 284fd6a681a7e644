# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A gradient flow that knows its density
#
# The law of a Langevin diffusion descends the Kullback-Leibler divergence from its stationary law, in the
# geometry of optimal transport. A JKO step is one implicit step of this descent. Here every step is the
# gradient of an input-convex network: particles move, and the logarithm of their density changes by a
# log-determinant.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
from common import show
from matplotlib.figure import Figure

from wfr_flows import gradient_flows, measures, metrics, potentials
from wfr_flows.gradient_flows import Sample
from wfr_flows.training import cosine_muon

SMOKE = bool(os.environ.get("WFR_SMOKE"))
STEPS, ITERATIONS, POOL, WIDTH = (4, 10, 512, 4) if SMOKE else (20, 200, 16384, 64)
keys = iter(jax.random.split(jax.random.key(0), 16))

# %% [markdown]
# ## Where it starts, where it goes

# %%
centre = jnp.array([[-2.0, -2.0], [2.0, -1.0], [0.0, 2.5]])
target = measures.mixture(jnp.ones(3), centre, jnp.tile(0.5 * jnp.eye(2), (3, 1, 1)))
source = measures.gaussian(jnp.zeros(2), 4 * jnp.eye(2))


def sample(particles):
    return Sample(particles, jax.vmap(source.log_density)(particles.position))


# %% [markdown]
# ## The flow
#
# All steps are one scan over the same compiled step. `F` is a sum of functionals; any function of particles
# and their log-density will do.

# %%
potential = potentials.icnn(2, width=WIDTH)
energy = gradient_flows.free_energy(target.log_density)
method = gradient_flows.icnn_jko(
    potential, energy, cosine_muon(ITERATIONS, 1e-2), num_iterations=ITERATIONS, batch=512
)
state = method.init((next(keys), sample(source.spread(next(keys), POOL))))
step_sizes = jnp.full(STEPS, 0.1)
evolve = jax.jit(lambda key, state: gradient_flows.evolve(method, key, state, step_sizes))
end, info = evolve(next(keys), state)
time = jnp.concatenate([jnp.zeros(1), jnp.cumsum(step_sizes)])
print("free energy:", np.round(np.asarray(info.energy), 3))

# %% [markdown]
# ## Fresh samples, their density, and how far they are
#
# What was learned carries any particles. The density at points of one's own comes from the inverse maps.

# %%
fresh = source.sample(next(keys), 4096)
path = jax.jit(lambda maps: gradient_flows.trajectory(potential, maps, fresh, time))(info.map)
exact = target.sample(next(keys), 4096)


@jax.jit
def log_density(x):
    return gradient_flows.flow_log_density(potential, info.map, source.log_density, x)


def log_ratio(x):
    return log_density(x) - jax.vmap(target.log_density)(x)


print("symmetric KL to the target:", float(metrics.sampled_symmetric_kl(path.at(-1), exact, log_ratio)))

# %% [markdown]
# ## Beside particles
#
# Euler-Maruyama simulates the same diffusion, but tells no density; a kernel estimate must.

# %%
langevin = gradient_flows.euler_maruyama(target.log_density)
few = jnp.full(4 * STEPS, 0.025)
simulated, _ = jax.jit(lambda key: gradient_flows.evolve(langevin, key, fresh, few))(next(keys))
smoothed = metrics.kernel_density(simulated)


def smoothed_ratio(x):
    return jax.lax.map(lambda y: smoothed(y) - target.log_density(y), x, batch_size=256)


print("by simulation:", float(metrics.sampled_symmetric_kl(simulated, exact, smoothed_ratio)))

# %%
figure = Figure(figsize=(11, 3.6), layout="constrained")
shown = [0, STEPS // 4, STEPS // 2, STEPS]
for panel, index in zip(figure.subplots(1, 4, sharex=True, sharey=True), shown, strict=True):
    density = sample(fresh).log_density - path.log_det[index]
    position = path.position[index]
    panel.scatter(*position.T, s=2, c=density, cmap="viridis")
    panel.set_title(f"t = {float(time[index]):.1f}")
    panel.set_aspect("equal")
show(figure, "gradient_flow")
