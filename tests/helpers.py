"""What several test files use: finite differences and casts.

By numpy where nothing is traced: jax compiles a program for every shape.
"""

from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows import proximal

LEAST_STEP = 1e-5


def central_difference(function, x, step=LEAST_STEP):
    """Derivative of a function of one number (array-valued results are fine) by central differences."""
    return (np.asarray(function(x + step)) - np.asarray(function(x - step))) / (2 * step)


def numerical_gradient(function, x, step=LEAST_STEP):
    """Gradient of a scalar function of one array, entry by entry, by central differences of order 4."""
    x = np.asarray(x, dtype=np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):

        def along(h, index=index):
            moved = x.copy()
            moved[index] += h
            return float(function(jnp.asarray(moved)))

        near, far = along(step) - along(-step), along(2 * step) - along(-2 * step)
        gradient[index] = (8 * near - far) / (12 * step)
    return gradient


def directional_difference(function, tree, direction, step=LEAST_STEP):
    """Derivative of a function of a tree along a direction, by central differences."""

    def moved(h):
        return function(jax.tree.map(lambda x, d: np.asarray(x) + h * np.asarray(d), tree, direction))

    there, back = moved(step), moved(-step)
    return jax.tree.map(lambda a, b: (np.asarray(a) - np.asarray(b)) / (2 * step), there, back)


def random_like(key, tree):
    """Standard normal numbers in the shape of a tree."""
    leaves, structure = jax.tree.flatten(tree)
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    drawn = [jnp.asarray(random.normal(size=np.shape(x)).astype(jnp.result_type(x))) for x in leaves]
    return jax.tree.unflatten(structure, drawn)


def tree_dot(a, b):
    """Inner product of two trees."""
    return sum(np.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def single_precision(tree):
    """Floating leaves of a tree as float32."""

    def cast(x):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.asarray(np.asarray(x).astype(np.float32)) if floating else x

    return jax.tree.map(cast, tree)


def convergence_orders(errors):
    """Observed orders from errors at doubling resolution."""
    errors = np.asarray(errors, dtype=np.float64)
    return np.log2(errors[:-1] / errors[1:])


def refusal(capsys):
    """The one sentence that a command refused its input with."""
    said = capsys.readouterr().err.strip()
    assert said.startswith("wfr-flows: ")
    assert "\n" not in said
    return said


def few_lines(monkeypatch):
    """The start of a generator with assignments of a size for tests: the usual ones take ten seconds."""
    # The package has a function of the same name.
    fit = import_module("wfr_flows.proximal.fit")
    monkeypatch.setattr(fit, "optimal_lines", lambda *given: proximal.optimal_lines(*given[:3], 400))
