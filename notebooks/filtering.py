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
# # Filtering: transport between observations, growth at them
#
# A diffusion is seen through noise at some times. Between observations its law follows a Fokker-Planck
# equation, a gradient flow in the Wasserstein geometry; an observation multiplies it by the likelihood, a
# jump in the Fisher-Rao geometry. The WFR filter does just that with weighted particles. It simulates no
# noise and knows the density of its particles.
#
# `wfr-flows filter` does this on a file of observations.

# %%
import os

import jax
import jax.numpy as jnp
from common import show
from matplotlib.figure import Figure

from wfr_flows import measures, plotting, potentials
from wfr_flows.inference import filtering

SMOKE = bool(os.environ.get("WFR_SMOKE"))
keys = iter(jax.random.split(jax.random.key(3), 16))

# %% [markdown]
# ## The published example
#
# A potential with many wells, an observation with noise of variance 1 every half unit of time, and the law
# half a unit after the last one.


# %%
def potential(x):
    return jnp.sum(jnp.sin(2 * jnp.pi * x) / jnp.pi + x**2 / 4)


model = filtering.state_space(
    measures.standard_normal(1), filtering.gaussian_sensor(1.0), potential=potential
)
times = 0.5 * jnp.arange(1.0, 11.0)
states, data = jax.jit(lambda key: filtering.simulate(key, model, times, num_steps=200))(next(keys))
data = data._replace(value=data.value.at[-1].set(jnp.nan))

# %%
sizes = {"num_iterations": 5, "num_steps": 1, "batch": 64} if SMOKE else {}
prediction = filtering.flow_prediction(model, potentials.icnn(1, width=4) if SMOKE else None, **sizes)
few = {"num_particles": 256} if SMOKE else {}
methods = {
    "grid": filtering.grid_filter(model, -5.0, 5.0, num_nodes=400 if SMOKE else 2000, num_steps=100),
    "bootstrap": filtering.particle_filter(model, 500 if SMOKE else 10_000, threshold=1.1),
    "wfr": filtering.wfr_filter(model, prediction, **few),
}
found = {}
for name, method in methods.items():
    found[name] = jax.jit(lambda key, data, method=method: filtering.assimilate(method, key, data))(
        next(keys), data
    )
    law = found[name]
    print(
        f"{name:>10}: log-evidence {jnp.sum(law.log_evidence):.3f},"
        f" last state {law.mean[-1, 0]:.3f} ± {law.standard_deviation[-1, 0]:.3f}"
    )

# %% [markdown]
# The density of the flow at any point goes back through its maps; the grid is exact.

# %%
x = found["grid"].particles.position[-1]
density = filtering.flow_log_density(model, prediction, data, found["wfr"], x)
figure = Figure(figsize=(8, 4), layout="constrained")
axis = figure.subplots()
last = found["bootstrap"].particles
axis.hist(
    last.position[-1, :, 0],
    bins=80,
    weights=jnp.exp(last.log_weight[-1]) / (float(jnp.ptp(last.position[-1])) / 80),
    color="tab:gray",
    alpha=0.4,
    label="bootstrap, 10⁴ particles",
)
axis.plot(x[:, 0], jnp.exp(found["grid"].log_density[-1]), color="black", label="exact")
axis.plot(x[:, 0], jnp.exp(density), color="tab:orange", linestyle="--", label="WFR filter")
axis.set(xlabel="x", ylabel="density", title="half a unit of time after the last observation")
axis.legend(frameon=False)
show(figure, "density")

# %%
law = found["wfr"]
show(
    plotting.filtering(
        data.time, law.mean, law.standard_deviation, law.log_evidence, seen=data.value, truth=states
    ),
    "filtered",
)
