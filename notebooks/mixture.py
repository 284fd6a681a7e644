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
# # How alpha decides between motion and weight
#
# The one-dimensional example of [WFR], ⅓ N(-3, 1) + ⅔ N(3, 1) to N(0, 1), at alpha = ∞, 10 and 2: what its
# figures 1 to 5 show, with the exact geodesic beside the learned one.
#
# `geodesics.fit` is the whole of the training. The notebook `geodesic.py` takes it apart.

# %%
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from common import show
from matplotlib.figure import Figure

from wfr_flows import Geometry, geodesics, measures, plotting, potentials, static
from wfr_flows.dynamics import flow, time_grid

SMOKE = bool(os.environ.get("WFR_SMOKE"))
FIT = (
    {"num_pairs": 100, "matching_steps": 50, "refinement_steps": 2, "batch": 64, "num_steps": 2}
    if SMOKE
    else {"num_pairs": 1000, "matching_steps": 2000, "refinement_steps": 60}
)
PARTICLES = 200 if SMOKE else 4096

source, target = measures.gaussian_mixture_1d(), measures.standard_normal(1)
potential = potentials.resnet(1, width=32 if SMOKE else 64)
keys = iter(jax.random.split(jax.random.key(0), 64))

# %% [markdown]
# ## Densities, trajectories, weights
#
# One picture for each alpha. At alpha = ∞ mass only moves, and all weights stay 1. The smaller alpha, the
# less of the mass is moved: what sits at -3 shrinks instead, and less of it crosses between the modes.
# In reverse, samples of N(0, 1) become weighted samples of the mixture.
#
# A learned flow carries particles by `flow`; its action is the mean kinetic energy of motion and weight, and
# equals d²_SWFR between the ends on a geodesic.


# %%
@jax.jit
def exact_plan(start, end, alpha):
    result = static.spherical_wfr(start, end, alpha, tolerance=1e-3)
    return result, static.semi_coupling(result, start, end, alpha)


exact_geodesic = jax.jit(static.spherical_geodesic)


def learn(alpha):
    params = geodesics.fit(next(keys), potential, Geometry(alpha), source, target, **FIT)
    ends = source.spread(next(keys), PARTICLES), target.spread(next(keys), PARTICLES)
    terms = jax.jit(geodesics.objective(potential, Geometry(alpha), target.log_density))(params, *ends)
    return params, float(terms.action)


learned = {}
for alpha in (jnp.inf, 10.0, 2.0):
    learned[alpha] = params, action = learn(alpha)
    few = source.spread(next(keys), FIT["num_pairs"]), target.spread(next(keys), FIT["num_pairs"])
    exact, diracs = exact_plan(*few, alpha)
    print(
        f"alpha {alpha:4}: action {action:.4f}, exact between {FIT['num_pairs']} particles {exact.value:.4f}"
    )
    carry = jax.jit(partial(flow, potential, Geometry(alpha), params))
    figure = plotting.geodesic(
        carry(source.spread(next(keys), PARTICLES), time_grid(16)),
        carry(target.spread(next(keys), PARTICLES), time_grid(16, reverse=True)),
        exact_geodesic=lambda time, diracs=diracs, alpha=alpha: exact_geodesic(diracs, time, alpha),
        source_log_density=source.log_density,
        target_log_density=target.log_density,
    )
    show(figure, f"mixture-alpha-{alpha}")

# %% [markdown]
# ## The action against alpha
#
# The exact curve comes from certified plans between particles; its band is the certificate. As alpha grows it
# rises to half the squared Wasserstein distance. Where the learned action lies on the curve, the flow is a
# geodesic.

# %%
alphas = np.geomspace(0.25, 100, 5 if SMOKE else 25)
ends = source.spread(next(keys), FIT["num_pairs"]), target.spread(next(keys), FIT["num_pairs"])
curve = [exact_plan(*ends, alpha)[0] for alpha in alphas]
for alpha in () if SMOKE else (0.5, 1.0, 5.0, 100.0):
    learned[alpha] = learn(alpha)

figure = Figure(figsize=(7, 4.2), layout="constrained")
axis = figure.subplots()
axis.fill_between(
    alphas,
    [r.lower_bound for r in curve],
    [r.value for r in curve],
    color="black",
    alpha=0.8,
    lw=1.5,
    label="exact d²_SWFR",
)
axis.axhline(learned[jnp.inf][1], color="C1", linestyle="--", label="learned, alpha = ∞")
finite = sorted(alpha for alpha in learned if np.isfinite(alpha))
axis.plot(finite, [learned[alpha][1] for alpha in finite], "o", color="C0", label="learned")
axis.set(xscale="log", xlabel="alpha", ylabel="action")
axis.legend(frameon=False)
show(figure, "action-alpha")

# %% [markdown]
# ## The action against gamma1
#
# The published objective, without matching in the refinement, weighs the action by gamma1. The larger it is,
# the shorter the path, at the price of the end: the action falls below d²_SWFR because the flow no longer
# reaches the target.

# %%
weights = (1e-2, 1.0) if SMOKE else (1e-3, 1e-2, 1e-1, 3e-1, 1.0)
actions = []
for weight in weights:
    options = FIT | {"matching_weight": 0.0, "action_weight": weight, "batch": FIT.get("batch", 2048)}
    params = geodesics.fit(next(keys), potential, Geometry(1.0), source, target, **options)
    terms = jax.jit(geodesics.objective(potential, Geometry(1.0), target.log_density))(params, *ends)
    actions.append(float(terms.action))
    print(f"gamma1 {weight:5.3f}: action {terms.action:.4f}, cross-entropy {terms.cross_entropy:.4f}")

figure = Figure(figsize=(7, 4.2), layout="constrained")
axis = figure.subplots()
axis.plot(weights, actions, "o-", label="learned")
axis.axhline(exact_plan(*ends, 1.0)[0].value, color="black", linestyle="--", label="exact d²_SWFR")
axis.set(xscale="log", xlabel="gamma1", ylabel="action", title="alpha = 1")
axis.legend(frameon=False)
show(figure, "action-gamma1")
