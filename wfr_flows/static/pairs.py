"""Which pairs of particles a transport plan may use: all of them, or a list."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from wfr_flows.typing import Array, Int

_CG_TOLERANCE = 1e-3
_CG_STEPS = 500

Combine = Callable[[Array, Array], Array]
Product = Callable[[Array], Array]
Solve = Callable[[Array, Array], tuple[Array, Array]]


class Pairs(Protocol):
    """Sums between what lives on particles (``[n]``, ``[m]``) and what lives on pairs (``[*p]``)."""

    def combine(self, function: Combine, source: Array, target: Array) -> Array:
        """``function(source_i, target_j)`` on every pair."""
        ...

    def sums(self, value: Array) -> tuple[Array, Array]:
        """Sums of a value on pairs over the partners of each source and of each target particle."""
        ...

    def least(self, value: Array) -> tuple[Array, Array]:
        """Minima in place of sums; ``+inf`` for a particle without pairs."""
        ...

    def products(self, kernel: Array) -> tuple[Product, Product]:
        """``v -> K v`` and ``u -> uᵀK``, for a kernel on pairs."""
        ...

    def factorise(self, weight: Array, source: Array, target: Array) -> Solve:
        """Solver of ``[[diag(source), W], [Wᵀ, diag(target)]] (x, y) = (a, b)``, symmetric and definite."""
        ...


class AllPairs:
    """Every pair, as a dense array ``[n, m]``; Newton systems by a Cholesky factor of the smaller side."""

    def combine(self, function: Combine, source: Array, target: Array) -> Array:
        """See `Pairs`."""
        return function(source[:, None], target[None, :])

    def sums(self, value: Array) -> tuple[Array, Array]:
        """See `Pairs`."""
        return value.sum(axis=1), value.sum(axis=0)

    def least(self, value: Array) -> tuple[Array, Array]:
        """See `Pairs`."""
        return value.min(axis=1), value.min(axis=0)

    def products(self, kernel: Array) -> tuple[Product, Product]:
        """See `Pairs`."""
        dot = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
        return lambda v: dot(kernel, v), lambda u: dot(u, kernel)

    def factorise(self, weight: Array, source: Array, target: Array) -> Solve:
        """See `Pairs`."""
        n, m = weight.shape
        if n > m:
            transposed = self.factorise(weight.T, target, source)

            def solve_transposed(a: Array, b: Array) -> tuple[Array, Array]:
                y, x = transposed(b, a)
                return x, y

            return solve_transposed
        # Scaled to a unit diagonal, so that one small shift keeps every factor definite under rounding.
        rows, columns = jax.lax.rsqrt(source), jax.lax.rsqrt(target)
        scaled = rows[:, None] * weight * columns[None, :]
        shift = 1 + 20 * jnp.finfo(weight.dtype).eps
        factor = jnp.linalg.cholesky(shift * jnp.eye(n, dtype=weight.dtype) - scaled @ scaled.T)

        def solve(a: Array, b: Array) -> tuple[Array, Array]:
            a, b = rows * a, columns * b

            def refine(_, found: tuple[Array, Array]) -> tuple[Array, Array]:
                x, y = found
                rest_x, rest_y = a - x - scaled @ y, b - y - x @ scaled
                dx = jax.scipy.linalg.cho_solve((factor, True), rest_x - scaled @ rest_y)
                return x + dx, y + rest_y - dx @ scaled

            # The second time gives back most of the digits that the shift and rounding take.
            x, y = jax.lax.fori_loop(0, 2, refine, (jnp.zeros_like(a), jnp.zeros_like(b)))
            return rows * x, columns * y

        return solve


class ListedPairs(NamedTuple):
    """Partners chosen for every particle, in linear memory; Newton systems by conjugate gradients.

    Values on pairs are ``[n·p + m·q]``: the partners of the source particles, then those of the target's. A
    pair may come up twice; whoever sets values masks the second (`listed_twice`).

    Attributes:
      by_row: ``[n, p]``, target particles that each source particle may send to.
      by_column: ``[m, q]``, source particles that each target particle may receive from.
    """

    by_row: Int[Array, "n p"]
    by_column: Int[Array, "m q"]

    @property
    def row(self) -> Int[Array, " k"]:
        """Source particle of every pair."""
        own = jnp.repeat(jnp.arange(self.by_row.shape[0], dtype=self.by_row.dtype), self.by_row.shape[1])
        return jnp.concatenate([own, self.by_column.ravel()])

    @property
    def column(self) -> Int[Array, " k"]:
        """Target particle of every pair."""
        own = jnp.repeat(
            jnp.arange(self.by_column.shape[0], dtype=self.by_row.dtype), self.by_column.shape[1]
        )
        return jnp.concatenate([self.by_row.ravel(), own])

    def combine(self, function: Combine, source: Array, target: Array) -> Array:
        """See `Pairs`."""
        first = function(source[:, None], target[self.by_row])
        second = function(source[self.by_column], target[:, None])
        return jnp.concatenate([first.ravel(), second.ravel()])

    def sums(self, value: Array) -> tuple[Array, Array]:
        """See `Pairs`."""
        first, second = self._parts(value)
        rows = first.sum(axis=1).at[self.by_column.ravel()].add(second.ravel())
        return rows, second.sum(axis=1).at[self.by_row.ravel()].add(first.ravel())

    def least(self, value: Array) -> tuple[Array, Array]:
        """See `Pairs`."""
        first, second = self._parts(value)
        rows = first.min(axis=1).at[self.by_column.ravel()].min(second.ravel())
        return rows, second.min(axis=1).at[self.by_row.ravel()].min(first.ravel())

    def products(self, kernel: Array) -> tuple[Product, Product]:
        """See `Pairs`."""
        first, second = self._parts(kernel)

        def to_rows(y: Array) -> Array:
            own = jnp.sum(first * y[self.by_row], axis=1)
            return own.at[self.by_column.ravel()].add((second * y[:, None]).ravel())

        def to_columns(x: Array) -> Array:
            own = jnp.sum(second * x[self.by_column], axis=1)
            return own.at[self.by_row.ravel()].add((first * x[:, None]).ravel())

        return to_rows, to_columns

    def factorise(self, weight: Array, source: Array, target: Array) -> Solve:
        """See `Pairs`."""
        rows, columns = jax.lax.rsqrt(source), jax.lax.rsqrt(target)
        scaled = weight * self.combine(jnp.multiply, rows, columns)
        to_rows, to_columns = self.products(scaled)
        diagonal = jnp.maximum(1 - self.sums(scaled**2)[0], jnp.finfo(weight.dtype).eps)

        def solve(a: Array, b: Array) -> tuple[Array, Array]:
            a, b = rows * a, columns * b
            x, _ = jax.scipy.sparse.linalg.cg(
                lambda x: x - to_rows(to_columns(x)),
                a - to_rows(b),
                tol=_CG_TOLERANCE,
                maxiter=_CG_STEPS,
                M=lambda x: x / diagonal,
            )
            return rows * x, columns * (b - to_columns(x))

        return solve

    def heaviest(self, plan: Array, count: int) -> "ListedPairs":
        """The partners, ``count`` for each particle, that a plan on these pairs gives most mass."""
        parts = (part.astype(jnp.float32) for part in self._parts(plan))
        best = (jax.lax.top_k(part, min(count, part.shape[1]))[1] for part in parts)
        lists = (self.by_row, self.by_column)
        return ListedPairs(
            *(jnp.take_along_axis(all_, i, axis=1) for all_, i in zip(lists, best, strict=True))
        )

    def _parts(self, value: Array) -> tuple[Array, Array]:
        split = self.by_row.size
        return value[:split].reshape(self.by_row.shape), value[split:].reshape(self.by_column.shape)
