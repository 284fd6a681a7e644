"""The random targets of the published ICNN-JKO tables, from their seeds; neither scikit-learn nor torch."""

import zlib

import jax.numpy as jnp
import numpy as np

from wfr_flows import measures
from wfr_flows.measures import Distribution
from wfr_flows.typing import ArrayLike

MIXTURES = {
    2: ("venus", 5),
    4: ("earth", 6),
    6: ("mars", 7),
    8: ("saturn", 8),
    10: ("jupiter", 9),
    12: ("uran", 10),
}
"""Key and number of components by dimension, of the comparison of convergence."""

LARGE_MIXTURES = {13: ("mercury", 10, 5.0), 32: ("earth", 10, 3.0)}
"""Key, number of components, half width of the box of their centres."""


def ornstein_uhlenbeck(dim: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of stationary law ``index``."""
    draw = np.random.RandomState(_seed(f"abacaba@{dim}@{index}numpy"))
    factor = draw.uniform(size=(dim, dim))
    left, _, right = np.linalg.svd(factor.T @ factor)
    covariance = left @ (1 + np.diag(draw.uniform(size=dim))) @ right
    return draw.randn(dim), 0.5 * (covariance + covariance.T)


def mixture_centres(key: str, dim: int, num: int, half_width: float, index: int | None = None) -> np.ndarray:
    """Centres, uniform in a cube, of the published mixtures: Gaussians of equal weight and covariance I."""
    name = f"{key}@{dim}" + ("" if index is None else f"@{index}")
    return half_width * (2 * torch_uniform(_seed(name + "pytorch"), num * dim) - 1).reshape(num, dim)


def mixture(centre: ArrayLike) -> Distribution:
    """That mixture."""
    centre = jnp.asarray(centre)
    num, dim = centre.shape
    return measures.mixture(jnp.ones(num), centre, jnp.tile(jnp.eye(dim), (num, 1, 1)))


def torch_uniform(seed: int, num: int) -> np.ndarray:
    """What ``torch.manual_seed(seed); torch.rand(num)`` gives on a CPU: 24 bits of a Mersenne twister."""
    bits = np.random.RandomState(seed).randint(0, 2**32, num, dtype=np.uint32)
    return (bits & 0xFFFFFF) / 2**24


def _seed(text: str) -> int:
    return zlib.crc32(text.encode())
