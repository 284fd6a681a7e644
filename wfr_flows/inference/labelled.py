"""Tables of features and labels to classify: Breiman's generators, CSV files, OpenML."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.inference.logistic_regression import real_table
from wfr_flows.measures import read_particles, read_with_column
from wfr_flows.typing import Array, Float, Int, Key


class Labelled(NamedTuple):
    """Rows with a class each.

    Attributes:
      features: ``[n, d]``.
      label: ``[n]`` integers.
    """

    features: Float[Array, "n d"]
    label: Int[Array, " n"]


def twonorm(key: Key, n: int, dim: int = 20) -> Labelled:
    """``x ~ N(±a1, I)`` with ``a = 2/√d``, for labels 1 and 0 of equal probability (Breiman, 1996).

    The best rule is ``Σx > 0``, with an error of ``Φ(-2)``, 2.3 %, in any dimension.
    """
    label_key, noise_key = jax.random.split(key)
    label = jax.random.bernoulli(label_key, shape=(n,)).astype(jnp.int32)
    centre = 2 / dim**0.5 * (2 * label - 1)
    return Labelled(centre[:, None] + jax.random.normal(noise_key, (n, dim)), label)


def ringnorm(key: Key, n: int, dim: int = 20) -> Labelled:
    """``N(0, 4I)`` for the label 0 and ``N(a1, I)``, ``a = 2/√d``, for 1 (Breiman, 1996).

    No hyperplane separates the classes well: a linear rule errs by a fourth, the best one by 1.3 %.
    """
    label_key, noise_key = jax.random.split(key)
    label = jax.random.bernoulli(label_key, shape=(n,)).astype(jnp.int32)
    noise = jax.random.normal(noise_key, (n, dim))
    return Labelled(jnp.where(label[:, None] == 1, 2 / dim**0.5 + noise, 2 * noise), label)


def waveform(key: Key, n: int) -> Labelled:
    """``u h_a + (1 - u) h_b + N(0, I)`` in 21 dimensions, for three classes 0, 1, 2 of equal probability.

    ``h_1(i) = max(6 - |i - 11|, 0)``, ``h_2(i) = h_1(i - 4)``, ``h_3(i) = h_1(i + 4)``, ``u`` uniform in
    [0, 1]; the pairs ``(a, b)`` are (1, 2), (1, 3), (2, 3) (Breiman et al., 1984). See `against_rest`.
    """
    class_key, share_key, noise_key = jax.random.split(key, 3)
    label = jax.random.randint(class_key, (n,), 0, 3)
    i = jnp.arange(1, 22)
    wave = jnp.stack([jnp.maximum(6.0 - jnp.abs(i - top), 0.0) for top in (11, 15, 7)])
    first, second = wave[jnp.array([0, 0, 1])[label]], wave[jnp.array([1, 2, 2])[label]]
    share = jax.random.uniform(share_key, (n, 1))
    noise = jax.random.normal(noise_key, (n, 21))
    return Labelled(share * first + (1 - share) * second + noise, label)


def against_rest(table: Labelled, *chosen: int) -> Labelled:
    """The label 1 for the chosen classes, 0 for all others."""
    return table._replace(label=jnp.isin(table.label, jnp.array(chosen)).astype(jnp.int32))


def split(key: Key, table: Labelled, share: float = 0.8) -> tuple[Labelled, Labelled]:
    """A random share of the rows to learn from, and the rest.

    Raises:
      ValueError: a share that leaves one of both empty.
    """
    num = table.label.shape[0]
    size = round(share * num)
    if not 0 < size < num:
        raise ValueError(f"share is {share}, which takes {size} of {num} rows; leave rows on both sides.")
    order = jax.random.permutation(key, num)
    first, rest = order[:size], order[size:]
    return Labelled(*(leaf[first] for leaf in table)), Labelled(*(leaf[rest] for leaf in table))


def standardised(table: Labelled, like: Labelled) -> Labelled:
    """Features with the means of ``like`` taken off, in units of its standard deviations.

    Features that are constant there are only shifted.
    """
    # The deviation of a constant is rounding, not 0.
    varies = jnp.ptp(like.features, axis=0) > 0
    # About a row, where floats keep their digits.
    apart = like.features - like.features[0]
    deviation = jnp.where(varies, jnp.std(apart, axis=0), 1.0)
    centred = (table.features - like.features[0]) - jnp.mean(apart, axis=0)
    return table._replace(features=centred / deviation)


def read_labelled(path: str | Path, label: str | None = None) -> Labelled:
    """A table of numbers, as `measures.read_particles` reads it: CSV, NPY, NPZ, Parquet.

    Args:
      path: the file.
      label: name of the column of labels; the last one by default.

    Raises:
      ValueError: as there, fewer than two columns, or labels that are no whole numbers.
    """
    if label is None:
        table = np.asarray(read_particles(path).position)
        if table.shape[1] < 2:
            raise ValueError(f"{path} has one column; give features and, in the last column, labels.")
        features, values = table[:, :-1], table[:, -1]
    else:
        measure, values = read_with_column(path, label)
        features = np.asarray(measure.position)
    whole = np.isfinite(values) & (values == np.round(values))
    if not whole.all():
        at = int(np.argmin(whole))
        raise ValueError(f"{path}: the label of row {at + 1} is {values[at]}; give whole numbers.")
    return Labelled(jnp.asarray(features), jnp.asarray(values.astype(np.int32)))


def fetch_labelled(name: str, version: int = 1) -> Labelled:
    """A table of https://www.openml.org, among them those of UCI, through scikit-learn, which keeps a copy.

    Classes are numbered in the order of their names.

    Args:
      name: as on OpenML, for instance ``"diabetes"`` or ``"credit-g"``.
      version: of the table there.

    Raises:
      ValueError: no scikit-learn, no connection and no copy, no such table, or features that are no numbers.
    """
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ValueError(
            "fetch_labelled needs scikit-learn; install wfr-flows[tables], or read a file with read_labelled."
        ) from error
    try:
        found: Any = datasets.fetch_openml(name, version=version, as_frame=False, parser="liac-arff")
    except OSError as error:  # URLError and HTTPError are among them
        raise ValueError(
            f"OpenML cannot be reached for '{name}' ({error}); go online once, or read a file with"
            " read_labelled."
        ) from error
    except Exception as error:  # OpenMLError has no public name
        raise ValueError(f"OpenML has no table '{name}' of version {version} to read ({error}).") from error
    features = real_table(found.data, f"features of '{name}'")
    _, label = np.unique(np.asarray(found.target), return_inverse=True)
    return Labelled(jnp.asarray(features, jnp.result_type(float)), jnp.asarray(label.astype(np.int32)))
