"""Bayesian logistic regression: the posterior of weights and of the logarithm of their precision."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.measures import Distribution, Particles, equally_weighted
from wfr_flows.numerics import in_blocks
from wfr_flows.typing import Array, ArrayLike, Float, Key, Scalar

_ROWS = 8192


class LogisticRegression(NamedTuple):
    """Data and prior of ``p(y = ±1 | x, w) = σ(y w·x)``, ``w ~ N(0, I/a)``, ``a ~ Gamma(shape, rate)``.

    A particle is ``θ = (w, log a)``, ``[d + k + 1]``. A tree of arrays: it may pass through `jax.jit`.

    Attributes:
      features: ``[n, d]``.
      label: ``[n]``, -1 or 1.
      constant: ``[k]``, appended to every row of features: ``[1]`` with an intercept, which has the prior of
        a weight, and ``[]`` without.
      shape, rate: of the prior of the precision, whose mean is ``shape/rate``.
    """

    features: Float[Array, "n d"]
    label: Float[Array, " n"]
    constant: Float[Array, " k"]
    shape: Scalar
    rate: Scalar

    @property
    def dim(self) -> int:
        """Of ``θ``: ``d + k + 1``."""
        return self.features.shape[-1] + self.constant.shape[-1] + 1

    @property
    def prior(self) -> Distribution:
        """The law of ``θ`` before the data."""

        def sample(key: Key, n: int) -> Particles:
            precision_key, weight_key = jax.random.split(key)
            dtype = self.features.dtype
            log_precision = jax.random.loggamma(precision_key, self.shape, (n,), dtype) - jnp.log(self.rate)
            noise = jax.random.normal(weight_key, (n, self.dim - 1), dtype)
            weight = noise * jnp.exp(-0.5 * log_precision)[:, None]
            return equally_weighted(jnp.concatenate([weight, log_precision[:, None]], axis=1))

        return Distribution(self.dim, sample, self.log_prior, sample)

    def log_prior(self, theta: Float[Array, " D"]) -> Scalar:
        """``log N(w; 0, I/a) + log Gamma(a; shape, rate) + log a``, normalised as a density of ``θ``.

        The last term is the Jacobian of ``a = exp(log a)``.
        """
        weight, log_precision = theta[:-1], theta[-1]
        precision = jnp.exp(log_precision)
        normaliser = 0.5 * weight.size * (log_precision - math.log(2 * math.pi))
        gamma = self.shape * jnp.log(self.rate) - jax.scipy.special.gammaln(self.shape)
        gamma += self.shape * log_precision - self.rate * precision
        return normaliser - 0.5 * precision * jnp.vdot(weight, weight) + gamma

    def log_likelihood(self, theta: Float[Array, " D"]) -> Scalar:
        """``Σ_i log σ(y_i w·x_i)``, of many rows in blocks: memory does not grow with their number."""

        def block(features: Float[Array, "s d"], label: Float[Array, " s"]) -> Scalar:
            return jnp.sum(jax.nn.log_sigmoid(label * self.logit(theta, features)))

        count = self.label.shape[0] // _ROWS
        whole = count * _ROWS
        total = block(self.features[whole:], self.label[whole:])
        if count == 0:
            return total
        blocks = self.features[:whole].reshape(count, _ROWS, -1), self.label[:whole].reshape(count, _ROWS)

        @jax.checkpoint
        def add(total: Scalar, rows: tuple[Array, Array]) -> tuple[Scalar, None]:
            return total + block(*rows), None

        return jax.lax.scan(add, total, blocks)[0]

    def log_density(self, theta: Float[Array, " D"]) -> Scalar:
        """``log p(data|θ) + log p(θ)`` with all constants: its integral is the evidence."""
        return self.log_likelihood(theta) + self.log_prior(theta)

    def minibatch(self, key: Key, size: int) -> Callable[[Float[Array, " D"]], Scalar]:
        """`log_density` with the likelihood of ``size`` rows, drawn without replacement, times ``n/size``.

        Its mean over keys is `log_density`, which it is for ``size = n``.
        """
        num = self.label.shape[0]
        if not 1 <= size <= num:
            raise ValueError(f"size is {size}; give a number of rows from 1 to {num}.")
        row = jax.random.choice(key, num, (size,), replace=False)
        some = self._replace(features=self.features[row], label=self.label[row])
        return lambda theta: some.log_likelihood(theta) * (num / size) + self.log_prior(theta)

    def logit(self, theta: Float[Array, " D"], features: Float[Array, "m d"]) -> Float[Array, " m"]:
        """``w·x`` of every row."""
        dim = features.shape[-1]
        return features @ theta[:dim] + jnp.vdot(theta[dim:-1], self.constant)

    def predict(self, particles: Particles, features: Float[Array, "m d"]) -> Float[Array, " m"]:
        """``p(y = 1 | x, data) = Σ_j w_j σ(logit_j(x))`` of weighted posterior samples ``[N, d + k + 1]``.

        Raises:
          ValueError: particles or features of other dimensions.
        """
        if particles.position.shape[-1] != self.dim:
            raise ValueError(f"particles have dimension {particles.position.shape[-1]}; give {self.dim}.")
        if features.ndim != 2 or features.shape[1] != self.features.shape[1]:
            raise ValueError(f"features have shape {features.shape}; give [m, {self.features.shape[1]}].")
        weight = particles.normalise().weight

        def block(some: Float[Array, "s d"]) -> Float[Array, " s"]:
            logit = jax.vmap(self.logit, (0, None))(particles.position, some)
            return weight @ jax.nn.sigmoid(logit)

        return in_blocks(block, features, weight.size)


def logistic_regression(
    features: ArrayLike,
    label: ArrayLike,
    *,
    intercept: bool = False,
    shape: float = 1.0,
    rate: float = 0.01,
) -> LogisticRegression:
    """The posterior of a logistic regression ([JKO] section 6.3), from concrete arrays.

    Args:
      features: ``[n, d]``.
      label: ``[n]``, 0 and 1 or -1 and 1.
      intercept: whether a constant is added to the features. The papers have none, and their accuracies
        suffer where the classes are not symmetric about 0.
      shape, rate: of the prior Gamma of the precision; 1 and .01 are what the papers print. The code of
        [JKO] has a rate of 100.

    Raises:
      ValueError: shapes that do not fit, NaN or infinity, other labels, one class only, or a ``shape`` or
        ``rate`` that is not positive and finite.

    >>> logistic_regression([[0.0, 1.0], [1.0, 0.0]], [0, 1]).dim
    3
    """
    for name, value in (("shape", shape), ("rate", rate)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; give a finite number > 0.")
    table, dtype = real_table(features), jnp.result_type(float)
    signs = jnp.asarray(_signs(np.asarray(label), table.shape[0]), dtype)
    prior = jnp.asarray(shape, dtype), jnp.asarray(rate, dtype)
    return LogisticRegression(jnp.asarray(table, dtype), signs, jnp.ones(int(intercept), dtype), *prior)


class Score(NamedTuple):
    """How well probabilities predict labels.

    Attributes:
      accuracy: share of labels that had the greater probability.
      log_likelihood: mean of the logarithm of the probability of the label.
    """

    accuracy: Scalar
    log_likelihood: Scalar


def score(probability: Float[Array, " m"], label: ArrayLike) -> Score:
    """Accuracy and mean log-likelihood of predicted probabilities.

    Args:
      probability: ``[m]`` of the label 1, from ``LogisticRegression.predict``.
      label: ``[m]``, 0 and 1 or -1 and 1.

    Raises:
      ValueError: shapes that differ.
    """
    positive = jnp.asarray(label) > 0
    if positive.shape != probability.shape:
        raise ValueError(f"label has shape {positive.shape}; give one per probability, {probability.shape}.")
    of_label = jnp.where(positive, probability, 1 - probability)
    # Probabilities of 1 are rounded; the logarithm of what is left over would be -inf.
    least = jnp.finfo(probability.dtype).eps
    return Score(jnp.mean((probability > 0.5) == positive), jnp.mean(jnp.log(jnp.maximum(of_label, least))))


def real_table(features: ArrayLike, name: str = "features") -> np.ndarray:
    """A concrete array ``[n, d]`` of finite real numbers.

    Raises:
      ValueError: what is not.
    """
    table = np.asarray(features)
    if table.dtype.kind not in "fiub" or table.ndim != 2 or 0 in table.shape:
        raise ValueError(
            f"{name} have dtype {table.dtype} and shape {table.shape}; give real numbers [n, d], n, d >= 1."
        )
    bad = ~np.isfinite(table).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name} have {bad.sum()} rows with NaN or infinity (first: row {int(bad.argmax())});"
            " remove or repair them."
        )
    return table


def _signs(label: np.ndarray, num: int) -> np.ndarray:
    if label.shape != (num,):
        raise ValueError(f"label has shape {label.shape}; give one per row of features, ({num},).")
    kinds = np.unique(label).tolist()
    if len(kinds) == 1 and kinds[0] in (-1, 0, 1):
        raise ValueError(f"label is {kinds[0]} in every row; give rows of both classes.")
    if kinds not in ([0, 1], [-1, 1]):
        shown = f"{kinds[:5]}{' and more' if len(kinds) > 5 else ''}"
        raise ValueError(f"label takes the values {shown}; give 0 and 1, or -1 and 1.")
    return np.where(label > 0, 1, -1)
