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
# # Bayesian inference
#
# ## Logistic regression
#
# A posterior of weights and of the logarithm of their precision, and weighted samples of it by the package's
# flows. All samplers have one interface: a key, a log-density, a law to start from, a number of samples.
#
# Set `WFR_SMOKE=1` for tiny sizes that only check that everything runs.

# %%
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from common import show
from matplotlib.figure import Figure

from wfr_flows import inference

SMOKE = bool(os.environ.get("WFR_SMOKE"))
NUM_SAMPLES = 200 if SMOKE else 4096
SIZES = {"num_iterations": 2, "batch": 64, "pool": 128} if SMOKE else {}

keys = iter(jax.random.split(jax.random.key(0), 16))

# %% [markdown]
# Two Gaussians in two dimensions, a hundred rows to learn from. Without an intercept the hyperplane goes
# through the origin, as in the papers; `intercept=True` adds one.
#
# The posterior of weights and their precision is a funnel. Laplace's approximation for every value of the
# precision follows it; samplers begin there.

# %%
table = inference.twonorm(next(keys), 500, dim=2)
train, test = inference.split(next(keys), table, 0.2)
model = inference.logistic_regression(train.features, train.label)
once = jax.jit(lambda: inference.laplace(model.log_density, jnp.zeros(model.dim)))()
near = jax.jit(lambda: inference.nested_laplace(model.log_density, once.mode))()
for name, start in (("Laplace", once), ("nested Laplace", near)):
    print(f"{name}: converged {start.converged}, log-evidence {start.log_evidence:.4f}")

# %%
samplers = {
    "importance": inference.sample_by_importance,
    "ICNN-JKO": partial(inference.sample_by_icnn_jko, **SIZES),
    "variational JKO": partial(inference.sample_by_variational_jko, **SIZES),
    "SVGD": partial(inference.sample_by_svgd, num_steps=5 if SMOKE else 500),
}
found = {
    name: sampler(next(keys), model.log_density, near.distribution, 200 if name == "SVGD" else NUM_SAMPLES)
    for name, sampler in samplers.items()
}
for name, weighted in found.items():
    scored = inference.score(model.predict(weighted.particles, test.features), test.label)
    print(
        f"{name:16s} accuracy {scored.accuracy:.4f}, log-likelihood {scored.log_likelihood:.4f}, effective"
        f" samples {weighted.particles.effective_sample_size:.0f} of {weighted.particles.log_weight.size},"
        f" log-evidence {weighted.log_evidence:.4f} ± {weighted.standard_error:.4f}"
    )

# %% [markdown]
# The precision has a skewed posterior, which no Gaussian has. On the right the probability of the label 1,
# averaged over the posterior.

# %%
figure = Figure(figsize=(10, 4), layout="constrained")
marginal, plane = figure.subplots(1, 2)
for name, weighted in found.items():
    particles = weighted.particles
    marginal.hist(
        np.asarray(particles.position[:, -1]),
        weights=np.asarray(particles.weight),
        bins=np.linspace(-6, 3, 40).tolist(),
        histtype="step",
        density=True,
        label=name,
    )
grid = np.linspace(-6, 3, 300)
deviation = float(jnp.sqrt(once.covariance[-1, -1]))
height = np.exp(-0.5 * ((grid - float(once.mode[-1])) / deviation) ** 2) / (2.5066 * deviation)
marginal.plot(grid, height, "k:", label="Laplace")
marginal.set_xlabel("log precision")
marginal.set_ylabel("density")
marginal.legend()
axis = jnp.linspace(-5, 5, 60)
points = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
probability = model.predict(found["ICNN-JKO"].particles, points).reshape(60, 60)
filled = plane.contourf(axis, axis, np.asarray(probability), levels=np.linspace(0, 1, 11), cmap="RdBu")
plane.scatter(*np.asarray(train.features).T, c=np.asarray(train.label), cmap="RdBu", edgecolors="k", s=15)
plane.set_title("probability of the label 1")
figure.colorbar(filled, ax=plane)
show(figure, "logistic_regression")

# %% [markdown]
# Is an intercept worth having? The evidence says. The classes of twonorm lie symmetric about 0, those of
# ringnorm do not.

# %%
for name, draw in (("twonorm", inference.twonorm), ("ringnorm", inference.ringnorm)):
    table = draw(next(keys), 200 if SMOKE else 2000)
    for intercept in (False, True):
        model = inference.logistic_regression(table.features, table.label, intercept=intercept)
        near = jax.jit(lambda model: inference.nested_laplace(model.log_density, jnp.zeros(model.dim)))(model)
        weighted = inference.sample_by_importance(
            next(keys), model.log_density, near.distribution, NUM_SAMPLES
        )
        print(
            f"{name}, {'with' if intercept else 'without'} an intercept: log-evidence"
            f" {weighted.log_evidence:.3f} ± {weighted.standard_error:.3f}"
        )
