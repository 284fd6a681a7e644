"""Log-determinants of symmetric positive definite matrices: exact, and by random probes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wfr_flows.typing import Array, Float, Key, Scalar


def log_det(matrix: Float[Array, "*s d d"]) -> Float[Array, "*s"]:
    """``log det`` of symmetric positive definite matrices by Cholesky; NaN where one is not.

    The derivative is ``<matrix⁻¹, d matrix>``, from the same factor.

    >>> log_det(jnp.eye(2))
    Array(0., dtype=float32)
    """
    return _log_det(matrix)


@jax.custom_jvp
def _log_det(matrix: Array) -> Array:
    return _from_factor(jnp.linalg.cholesky(matrix))


@_log_det.defjvp
def _log_det_jvp(primals, tangents):
    (matrix,), (change,) = primals, tangents
    factor = jnp.linalg.cholesky(matrix)
    identity = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    inverse = jax.scipy.linalg.cho_solve((factor, True), identity)
    return _from_factor(factor), jnp.sum(inverse * change, axis=(-2, -1))


def _from_factor(factor: Array) -> Array:
    return 2 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)


def signs(key: Key, num: int, dim: int) -> Float[Array, "num dim"]:
    """Probes for `stochastic_log_det`: entries ±1 with equal probability."""
    return jax.random.rademacher(key, (num, dim), jnp.result_type(float))


def stochastic_log_det(
    product: Callable[[Float[Array, " d"]], Float[Array, " d"]],
    probes: Float[Array, "m d"],
    *,
    num_steps: int = 20,
) -> Scalar:
    """``log det`` of a symmetric positive definite matrix that is only known by its products with vectors.

    ``mean_z |z|² e₁ᵀ log(T_z) e₁`` with the tridiagonal ``T_z`` of ``num_steps`` Lanczos steps from ``z``
    (Ubaru, Chen, Saad, 2017). Its derivative is ``mean_z (A⁻¹z)ᵀ dA z``, with ``A⁻¹z`` by conjugate
    gradients: unbiased for that of ``log det A``, without differentiating an iteration. Second derivatives
    are not those of ``log det A``.

    Args:
      product: ``z: [d] -> A z``; may close over parameters that are differentiated.
      probes: random, of mean zero and covariance I, for instance `signs`.
      num_steps: of Lanczos, and at most of conjugate gradients. Exact, but for the probes, from ``d`` on.

    Raises:
      ValueError: ``num_steps`` below 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; give at least 1.")
    num_steps = min(num_steps, probes.shape[1])
    frozen = jax.lax.stop_gradient

    def one(z: Float[Array, " d"]) -> tuple[Scalar, Scalar]:
        solved = jax.scipy.sparse.linalg.cg(lambda v: frozen(product(v)), z, tol=1e-8, maxiter=num_steps)[0]
        return _quadrature(lambda v: frozen(product(v)), z, num_steps), jnp.vdot(frozen(solved), product(z))

    value, slope = jax.tree.map(jnp.mean, jax.vmap(one)(probes))
    # The slope counts in the derivative alone.
    return frozen(value) + slope - frozen(slope)


def _quadrature(product: Callable[[Array], Array], z: Float[Array, " d"], num_steps: int) -> Scalar:
    """``zᵀ log(A) z`` by Lanczos with full reorthogonalisation."""
    tiny = jnp.finfo(z.dtype).tiny
    norm = jnp.linalg.norm(z)

    def step(basis: Float[Array, "k d"], index: Array):
        now = basis[index]
        image = product(now)
        diagonal = jnp.vdot(now, image)
        rest = image
        for _ in range(2):
            rest = rest - (basis @ rest) @ basis
        size = jnp.linalg.norm(rest)
        # A basis that spans an invariant space ends there: what follows has no share in the first vector.
        ended = size <= 10 * jnp.finfo(z.dtype).eps * jnp.linalg.norm(image)
        following = jnp.where(ended, 0.0, rest / jnp.maximum(size, tiny))
        basis = basis.at[index + 1].set(following, mode="drop")
        return basis, (jnp.where(jnp.any(now != 0), diagonal, 1.0), jnp.where(ended, 0.0, size))

    basis = jnp.zeros((num_steps, z.size), z.dtype).at[0].set(z / norm)
    _, (diagonal, beside) = jax.lax.scan(step, basis, jnp.arange(num_steps))
    tridiagonal = jnp.diag(diagonal) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1)
    value, vector = jnp.linalg.eigh(tridiagonal)
    return norm**2 * jnp.sum(vector[0] ** 2 * jnp.log(value))
