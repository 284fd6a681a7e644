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
# # A learned geodesic, piece by piece
#
# The command `wfr-flows geodesic` is a short composition of library functions. This notebook is that
# composition on the one-dimensional mixture ⅓ N(-3, 1) + ⅔ N(3, 1), carried to N(0, 1):
#
# 1. the exact spherical distance between samples, with a certificate, and its geodesic;
# 2. a potential warm-started on that geodesic, without simulating anything;
# 3. its refinement against the true densities;
# 4. weighted samples by the reverse flow.
#
# Set `WFR_SMOKE=1` for tiny sizes that only check that everything runs.

# %%
import os

import jax
import jax.numpy as jnp
from common import show

from wfr_flows import Geometry, geodesics, measures, plotting, potentials, static, training
from wfr_flows.dynamics import flow, time_grid

SMOKE = bool(os.environ.get("WFR_SMOKE"))
ALPHA = 1.0
NUM_SAMPLES, MATCHING_STEPS, REFINEMENT_STEPS, BATCH = (
    (150, 200, 10, 256) if SMOKE else (1000, 3000, 200, 1024)
)

keys = iter(jax.random.split(jax.random.key(0), 16))

# %% [markdown]
# ## Both ends
#
# A `Distribution` is a pair of pure functions, `sample` and `log_density`. What it samples is a `Particles`:
# positions and log-weights. Everything below takes weighted particles at both ends; to use your own data,
# replace a sample by `measures.read_particles("my.csv")`.

# %%
source_law, target_law = measures.gaussian_mixture_1d(), measures.standard_normal(1)
source = source_law.sample(next(keys), NUM_SAMPLES)
target = target_law.sample(next(keys), NUM_SAMPLES)

# %% [markdown]
# ## The exact distance, with a certificate
#
# `alpha` is the squared length at which changing mass costs as much as moving it. The solver returns two
# bounds: the cost of an explicit plan from above, and feasible dual potentials from below. The true squared
# distance between these samples lies between them, whatever happened inside.

# %%
exact = jax.jit(static.spherical_wfr)(source, target, ALPHA)
print(f"d² lies in [{exact.lower_bound:.4f}, {exact.value:.4f}] after {exact.num_iterations} iterations")
print("converged:", bool(exact.converged))

# %% [markdown]
# The same function differentiates, and maps over scales. As alpha grows the distance approaches half the
# squared Wasserstein distance, `alpha = inf`, and stops depending on alpha.

# %%
few = source_law.sample(next(keys), 150), target_law.sample(next(keys), 150)
distance_and_slope = jax.value_and_grad(lambda alpha: static.spherical_wfr(*few, alpha).value)
scales = jnp.array([0.5, 1.0, 2.0, 10.0, 100.0, jnp.inf])
for alpha, value, slope in zip(scales, *jax.jit(jax.vmap(distance_and_slope))(scales), strict=True):
    print(f"alpha {alpha:5.1f}: d² = {value:.3f}, derivative {slope:.4f}")

# %% [markdown]
# ## The exact geodesic
#
# An optimal semi-coupling says how much of each source particle becomes how much of each target particle.
# Each pair travels into the other along a closed form, and together they are the geodesic. It has constant
# speed: the distance from the start to time t is t times the whole.

# %%
diracs = jax.jit(static.semi_coupling)(exact, source, target, ALPHA)


@jax.jit
def fraction_travelled(time):
    """d(start, point at time t) / d(start, end), through the pairs themselves."""
    point = static.spherical_geodesic(diracs, time, ALPHA)
    squared = jnp.sum((point.position - diracs.source) ** 2, axis=1)
    plain = jnp.sum(static.pair_cost(squared, diracs.source_mass, point.weight, ALPHA))
    return jnp.sqrt(static.spherical_from_plain(plain, ALPHA) / exact.value)


for time in (0.25, 0.5, 0.75):
    print(f"t = {time:.2f}: fraction of the distance travelled {fraction_travelled(time):.3f}")

# %% [markdown]
# ## Warm start: matching, without simulation
#
# A potential Φ(t, x) generates a flow: particles move with velocity -∇Φ and grow at rate -(Φ - mean Φ)/alpha.
# The travelling pairs show what both should be, so the potential can simply be regressed on them. No
# trajectory is solved.
#
# Methods are `init` and `step`; `training.run` scans them.

# %%
potential = potentials.resnet(1, width=32)
geometry = Geometry(ALPHA)
match = geodesics.matching(potential, geometry, diracs)
matching = geodesics.matching_method(match, training.cosine_muon(MATCHING_STEPS))
matched = training.run(
    matching,
    next(keys),
    matching.init(potential.init(next(keys))),
    lambda key: (),
    MATCHING_STEPS,
    chunk_size=min(200, MATCHING_STEPS),
    on_chunk=lambda chunk: print(f"step {chunk.step:5d}  loss {jnp.mean(chunk.info[0]):.4f}"),
).params

# %% [markdown]
# ## Refinement: the UOT-gen objective
#
# Matching knows only the samples. The objective compares the flow with the densities themselves:
# `cross_entropy` is the expected negative log-density of the target carried backward, `action` is the length
# of the path in units of d², `velocity` vanishes where weight times velocity is constant along paths, as on a
# geodesic. Both ends are drawn afresh at each step.

# %%
refinement = geodesics.uot_gen(
    potential,
    geometry,
    target_law.log_density,
    training.cosine_muon(REFINEMENT_STEPS, 1e-2),
    regulariser=lambda params, key: 10 * match(params, key),
)


def draw(key):
    source_key, target_key = jax.random.split(key)
    return source_law.sample(source_key, BATCH), target_law.sample(target_key, BATCH)


def print_terms(chunk: training.Chunk) -> None:
    terms = jax.tree.map(jnp.mean, chunk.info[1])
    print(f"step {chunk.step:4d}  cross-entropy {terms.cross_entropy:.4f}  action {terms.action:.4f}")


params = training.run(
    refinement,
    next(keys),
    refinement.init(matched),
    draw,
    REFINEMENT_STEPS,
    chunk_size=max(REFINEMENT_STEPS // 5, 1),
    on_chunk=print_terms,
).params

# %% [markdown]
# How good is it? The divergence from the truth, before and after, on fresh samples. The reference for the
# action is the distance between the true densities, 1.370 to 1.376 at alpha 1.


# %%
objective = geodesics.objective(potential, geometry, target_law.log_density)


@jax.jit
def quality(params, key):
    """KL divergence of the generated law from the source, and the action of the flow."""
    source_key, target_key = jax.random.split(key)
    fresh, far = source_law.sample(source_key, 4 * BATCH), target_law.sample(target_key, 8 * BATCH)
    terms = objective(params, fresh, far)
    entropy = -jnp.mean(jax.vmap(source_law.log_density)(fresh.position))
    return terms.cross_entropy - entropy, terms.action


test_key = next(keys)
for name, candidate in (("matched", matched), ("refined", params)):
    kl, action = quality(candidate, test_key)
    print(f"{name}: KL {kl:.4f}  action {action:.4f}")

# %% [markdown]
# ## Weighted samples
#
# The reverse flow carries fresh samples of N(0, 1) to weighted samples of the mixture. The weights carry
# information: the two modes hold a third and two thirds of the mass. Resample for equal weights.

# %%
generated = jax.jit(lambda params, noise: geodesics.generate(potential, geometry, params, noise))(
    params, target_law.sample(next(keys), 4 * BATCH)
)
left = jnp.sum(jnp.where(generated.position[:, 0] < 0, generated.weight, 0.0))
print(f"effective sample size {generated.effective_sample_size:.0f} of {generated.log_weight.shape[0]}")
print(f"mass left of zero: {left:.3f} (truth: 0.333)")
equally_weighted = measures.resample(next(keys), generated, 1000)

# %% [markdown]
# ## One picture
#
# Densities forward, beside the exact geodesic, and in reverse, beside the truth; trajectories, coloured by
# weight; weights at the end.


# %%
carry = jax.jit(lambda particles, grid: flow(potential, geometry, params, particles, grid))
figure = plotting.geodesic(
    carry(source_law.sample(next(keys), 2 * BATCH), time_grid(16)),
    carry(target_law.sample(next(keys), 2 * BATCH), time_grid(16, reverse=True)),
    exact_geodesic=lambda time: static.spherical_geodesic(diracs, time, ALPHA),
    source_log_density=source_law.log_density,
    target_log_density=target_law.log_density,
)
show(figure, "geodesic")
