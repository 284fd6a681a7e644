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
# # A posterior from weighted samples, and its updates
#
# Samples of a prior, weighed by a likelihood, are a weighted sample of the posterior. A generator learns it:
# it draws fresh weighted samples, and knows their density. When more data come, its own samples are weighed
# anew.
#
# The example is the Bernoulli equation v′ = v - v³ with an unknown start, observed with noise: a posterior
# with an edge at 0, beyond which v would tend to -1 instead of 1. It is known on a grid.
#
# Set `WFR_SMOKE=1` for tiny sizes that only check that everything runs.

# %%
import os
from functools import partial

import jax
import jax.numpy as jnp
from common import show

from wfr_flows import Geometry, geodesics, inference, plotting, potentials

SMOKE = bool(os.environ.get("WFR_SMOKE"))
NUM_SAMPLES, STAGES = (200, 1) if SMOKE else (2048, 4)
SIZES = {"num_pairs": 100, "matching_steps": 100, "refinement_steps": 5, "batch": 64} if SMOKE else {}

keys = iter(jax.random.split(jax.random.key(0), 16))

# %% [markdown]
# ## All observations at once
#
# The generator is three pure functions: `learn`, `sample`, `log_density`. Its `alpha` is in units of the data
# brought to mean 0 and covariance 1.

# %%
generator = geodesics.generator(potentials.resnet(1, width=32), Geometry(2.0), **SIZES)
sample = jax.jit(generator.sample, static_argnums=2)
log_density = jax.jit(generator.log_density)

data = inference.bernoulli(next(keys))
prior = data.prior.sample(next(keys), NUM_SAMPLES)
state = inference.posterior(next(keys), generator, prior, lambda x: data.log_likelihood(x, 0, 50))
print(f"effective sample size {state.effective_sample_size:.0f} of {NUM_SAMPLES}")

# %% [markdown]
# The evidence comes twice: as the mean likelihood over the prior samples, and by importance sampling from the
# learned posterior, which hardly varies. Beside them what a grid says.

# %%
grid = jnp.linspace(-6.0, 7.0, 4001)[:, None]
truth, log_evidence = data.log_posterior(grid, 50)


def log_joint(x):
    return jax.vmap(data.prior.log_density)(x) + data.log_likelihood(x, 0, 50)


estimate, error = inference.log_evidence(next(keys), generator, state.learned, log_joint)
print(f"log-evidence on the grid {log_evidence:.4f}, by prior samples {state.log_evidence:.4f}")
print(f"by the model {estimate:.4f} ± {error:.4f}")
learned = log_density(state.learned, grid)
apart = jnp.where(truth > -50, truth - learned, 0.0)
print(f"KL(posterior | learned) = {jnp.sum(jnp.exp(truth) * apart) * (grid[1, 0] - grid[0, 0]):.4f}")

generated = sample(next(keys), state.learned, 4 * NUM_SAMPLES)
figure = plotting.posterior(state.particles, generated, log_density=partial(log_density, state.learned))
show(figure, "posterior")

# %% [markdown]
# ## In turns
#
# Five observations at a time: the model's own samples get the likelihood of the new ones as weights, and
# learning goes on from the last parameters. Nothing older is looked at again.

# %%
data = inference.bernoulli(next(keys), step=0.1, num=5 * STAGES)
state = geodesics.begin(data.prior.sample(next(keys), NUM_SAMPLES))
for stage in range(STAGES):
    likelihood = partial(data.log_likelihood, first=5 * stage, last=5 * stage + 5)
    state = geodesics.update(next(keys), generator, state, likelihood)
    truth, log_evidence = data.log_posterior(grid, 5 * stage + 5)
    apart = jnp.where(truth > -50, truth - log_density(state.learned, grid), 0.0)
    divergence = jnp.sum(jnp.exp(truth) * apart) * (grid[1, 0] - grid[0, 0])
    print(
        f"{5 * stage + 5:3d} observations: KL {divergence:.4f}, effective sample size"
        f" {state.effective_sample_size:.0f}, log-evidence {state.log_evidence:.3f} (grid {log_evidence:.3f})"
    )
generated = sample(next(keys), state.learned, 4 * NUM_SAMPLES)
figure = plotting.posterior(state.particles, generated, log_density=partial(log_density, state.learned))
show(figure, "online")
