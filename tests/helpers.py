"""What several test files use: finite differences and casts."""

import jax
import jax.numpy as jnp
import numpy as np

LEAST_STEP = 1e-5


def central_difference(function, x, step=LEAST_STEP):
    """Derivative of a function of one number (array-valued results are fine) by central differences."""
    return (function(x + step) - function(x - step)) / (2 * step)


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
        return function(jax.tree.map(lambda x, d: x + h * d, tree, direction))

    return jax.tree.map(lambda a, b: (a - b) / (2 * step), moved(step), moved(-step))


def random_like(key, tree):
    """Standard normal numbers in the shape of a tree."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        jax.random.normal(k, jnp.shape(x), jnp.result_type(x)) for k, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def tree_dot(a, b):
    """Inner product of two trees."""
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def single_precision(tree):
    """Floating leaves of a tree as float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


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
