"""Named sources, so that a first run needs no file."""

from collections.abc import Callable

import jax.numpy as jnp

from wfr_flows.measures import toys
from wfr_flows.measures.distributions import Distribution, mixture


def gaussian_mixture_1d() -> Distribution:
    """``⅓ N(-3, 1) + ⅔ N(3, 1)``, the one-dimensional example of [WFR] section 6.1."""
    return mixture(jnp.array([1.0, 2.0]) / 3, jnp.array([[-3.0], [3.0]]), jnp.ones((2, 1, 1)))


BUILTIN: dict[str, Callable[[], Distribution]] = {
    "mixture": gaussian_mixture_1d,
    "eight-gaussians": toys.eight_gaussians,
    "moons": toys.moons,
    "circles": toys.circles,
    "checkerboard": toys.checkerboard,
    "pinwheel": toys.pinwheel,
    "swissroll": toys.swissroll,
    "two-spirals": toys.two_spirals,
}
"""Constructors by the name the command line uses."""
