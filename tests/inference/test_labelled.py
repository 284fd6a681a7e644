"""Generators against the moments of their formulas; tables from files and from OpenML."""

import sys
from urllib.error import URLError

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from wfr_flows import inference
from wfr_flows.inference import Labelled

NUM = 20_000


def moments_of(table, label):
    chosen = np.asarray(table.features)[np.asarray(table.label) == label]
    return chosen.mean(axis=0), np.cov(chosen.T), len(chosen) / NUM


@pytest.mark.parametrize("dim", [1, 20])
def test_twonorm_has_its_moments_and_its_best_rule(key, dim):
    table = inference.twonorm(key, NUM, dim)
    for label, sign in ((0, -1), (1, 1)):
        mean, covariance, share = moments_of(table, label)
        assert abs(share - 0.5) < 0.02
        np.testing.assert_allclose(mean, sign * 2 / np.sqrt(dim), atol=0.05)
        np.testing.assert_allclose(covariance, np.eye(dim) if dim > 1 else 1, atol=0.06)
    right = np.mean((np.asarray(table.features).sum(axis=1) > 0) == (np.asarray(table.label) == 1))
    assert abs(right - scipy.stats.norm.cdf(2)) < 0.005


def test_ringnorm_has_its_moments(key):
    table = inference.ringnorm(key, NUM)
    mean, covariance, _ = moments_of(table, 0)
    np.testing.assert_allclose(mean, 0, atol=0.1)
    np.testing.assert_allclose(covariance, 4 * np.eye(20), atol=0.25)
    mean, covariance, _ = moments_of(table, 1)
    np.testing.assert_allclose(mean, 2 / np.sqrt(20), atol=0.05)
    np.testing.assert_allclose(covariance, np.eye(20), atol=0.06)


def test_waveform_has_its_moments(key):
    table = inference.waveform(key, NUM)
    i = np.arange(1, 22)
    first = np.maximum(6 - abs(i - 11), 0.0)
    shifted = [np.maximum(6 - abs(i - 4 - 11), 0.0), np.maximum(6 - abs(i + 4 - 11), 0.0)]
    pairs = [(first, shifted[0]), (first, shifted[1]), (shifted[0], shifted[1])]
    for label, (a, b) in enumerate(pairs):
        mean, covariance, share = moments_of(table, label)
        assert abs(share - 1 / 3) < 0.02
        np.testing.assert_allclose(mean, (a + b) / 2, atol=0.12)
        np.testing.assert_allclose(covariance, np.eye(21) + np.outer(a - b, a - b) / 12, atol=0.25)


def test_classes_against_the_rest_and_both_parts_of_a_split(key):
    table = Labelled(jnp.arange(12.0).reshape(6, 2), jnp.array([0, 1, 2, 0, 1, 2]))
    np.testing.assert_array_equal(inference.against_rest(table, 2).label, [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(inference.against_rest(table, 0, 2).label, [1, 0, 1, 1, 0, 1])
    first, rest = inference.split(key, table, 0.5)
    rows = np.concatenate([first.features, rest.features])
    np.testing.assert_array_equal(np.sort(rows[:, 0]), table.features[:, 0])
    for part in (first, rest):
        np.testing.assert_array_equal(part.label, (part.features[:, 0] / 2) % 3)
    with pytest.raises(ValueError, match="leave rows on both sides"):
        inference.split(key, table, 1.0)


def test_features_are_standardised_like_others():
    one = Labelled(jnp.array([[1.0, 5.0], [3.0, 5.0]]), jnp.array([0, 1]))
    other = Labelled(jnp.array([[5.0, 6.0]]), jnp.array([0]))
    np.testing.assert_allclose(inference.standardised(one, one).features, [[-1, 0], [1, 0]])
    np.testing.assert_allclose(inference.standardised(other, one).features, [[3, 1]])
    with jax.enable_x64(False):
        constant = inference.Labelled(jnp.full((1001, 1), 0.1), one.label)
        near = inference.standardised(constant._replace(features=jnp.full((1, 1), 0.11)), constant)
        np.testing.assert_allclose(near.features, 0.01, atol=1e-5)


def test_tables_are_read_with_the_label_last_or_by_name(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("1.5,2,0\n3,4,1\n")
    table = inference.read_labelled(path)
    np.testing.assert_allclose(table.features, [[1.5, 2], [3, 4]])
    np.testing.assert_array_equal(table.label, [0, 1])
    path.write_text("class,x,y\n-1,2,0\n1,4,1\n")
    table = inference.read_labelled(path, "class")
    np.testing.assert_allclose(table.features, [[2, 0], [4, 1]])
    np.testing.assert_array_equal(table.label, [-1, 1])


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("1\n2\n", None, "has one column"),
        ("1,0.5\n2,1\n", None, "the label of row 1 is 0.5"),
        ("x,y\n1,0\n2,1\n", "class", "has no 'class'"),
        ("1,0\n2,benign\n", None, "no number"),
        ("", None, "empty"),
    ],
)
def test_tables_without_labels_are_refused(tmp_path, text, label, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        inference.read_labelled(path, label)


def test_openml_tables_get_numbered_classes(monkeypatch):
    datasets = pytest.importorskip("sklearn.datasets")
    found = type("Found", (), {"data": np.eye(3), "target": np.array(["yes", "no", "yes"])})
    monkeypatch.setattr(datasets, "fetch_openml", lambda *_, **__: found)
    table = inference.fetch_labelled("anything")
    np.testing.assert_array_equal(table.label, [1, 0, 1])
    np.testing.assert_allclose(table.features, np.eye(3))
    found.data = np.array([[1.0, np.nan]] * 3)
    with pytest.raises(ValueError, match="features of 'anything' have 3 rows with NaN"):
        inference.fetch_labelled("anything")


@pytest.mark.parametrize(
    ("error", "message"), [(URLError("no network"), "cannot be reached"), (RuntimeError("none"), "no table")]
)
def test_openml_out_of_reach_is_said(monkeypatch, error, message):
    datasets = pytest.importorskip("sklearn.datasets")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "fetch_openml", fail)
    with pytest.raises(ValueError, match=message):
        inference.fetch_labelled("anything")


def test_scikit_learn_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match="needs scikit-learn"):
        inference.fetch_labelled("anything")


def test_features_far_from_zero_are_standardised_in_single_precision():
    features = np.float32(1e6 + np.random.default_rng(0).normal(size=(2000, 1)))
    with jax.enable_x64(False):
        table = inference.Labelled(jnp.asarray(features), jnp.zeros(2000, jnp.int32))
        found = inference.standardised(table, table).features
    exact = np.asarray(features, np.float64)
    np.testing.assert_allclose(found, (exact - exact.mean()) / exact.std(), atol=1e-5)
