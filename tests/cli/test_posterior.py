"""Posteriors through the front door: closed forms, weights, damaged files, what is kept when a run fails."""

import io
import json
import math
from contextlib import redirect_stdout

import jax
import numpy as np
import pytest
from helpers import refusal

from wfr_flows import training
from wfr_flows.cli import main

TINY = [
    "--quick",
    "--width",
    "8",
    "--matching-steps",
    "300",
    "--refinement-steps",
    "20",
    "--batch",
    "64",
    "--num-steps",
    "2",
]
WRITTEN = {"summary.json", "posterior.npz", "posterior.png", "model.json", "checkpoint"}
OBSERVED, NOISE = 1.5, 0.7


@pytest.fixture(autouse=True)
def single_precision():
    with jax.enable_x64(False):
        yield


@pytest.fixture(scope="module")
def conjugate(tmp_path_factory):
    """A finished run: prior N(0, 1), one observation with Gaussian noise."""
    directory = tmp_path_factory.mktemp("conjugate")
    theta = np.random.default_rng(0).normal(size=400)
    write_table(directory / "prior.csv", theta=theta, log_likelihood=gaussian(theta, OBSERVED, NOISE**2))
    with jax.enable_x64(False), redirect_stdout(io.StringIO()) as said:
        assert infer(directory / "prior.csv", directory / "out", "--json") == 0
    (directory / "said.json").write_text(said.getvalue())
    return directory


def gaussian(x, mean, variance):
    return -0.5 * (x - mean) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)


def write_table(path, **columns):
    np.savetxt(
        path, np.column_stack(list(columns.values())), delimiter=",", header=",".join(columns), comments=""
    )
    return path


def infer(path, out, *arguments):
    return main(["posterior", str(path), *TINY, "--out", str(out), *arguments])


def summary(out):
    return json.loads((out / "summary.json").read_text())


def contents(out):
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_run_writes_everything_it_promises(conjugate):
    out = conjugate / "out"
    assert {path.name for path in out.iterdir()} == WRITTEN
    assert (out / "posterior.png").read_bytes().startswith(b"\x89PNG")
    found = summary(out)
    assert json.loads((conjugate / "said.json").read_text()) == found
    assert (found["dimension"], found["num_data"], found["num_generated"]) == (1, 400, 4096)
    assert 1 <= found["effective_sample_size"]["generated"] <= 4096
    assert {"matching", "refinement"} <= set(found["seconds"])
    assert found["settings"]["matching_steps"] == 300
    with np.load(out / "posterior.npz") as arrays:
        assert set(arrays) == {"position", "log_weight"}
        np.testing.assert_allclose(np.exp(arrays["log_weight"]).sum(), 1, rtol=1e-4)
        mean = np.exp(arrays["log_weight"]) @ arrays["position"]
    np.testing.assert_allclose(mean, found["mean"]["generated"], rtol=1e-3)


def test_conjugate_gaussian(conjugate):
    found = summary(conjugate / "out")
    variance = 1 + NOISE**2
    error = found["log_evidence_standard_error"]
    assert 0.01 < error < 0.1
    assert abs(found["log_evidence"] - gaussian(0, OBSERVED, variance)) < 3 * error
    (mean,), (error,) = found["mean"]["data"], found["standard_error"]["data"]
    assert 0.01 < error < 0.1
    assert abs(mean - OBSERVED / variance) < 3 * error
    # The model has the data's moments, and nearly the least cross-entropy: the posterior's entropy.
    (generated,), (spread,) = found["mean"]["generated"], found["standard_deviation"]["generated"]
    assert abs(generated - mean) < 0.1
    assert abs(spread - found["standard_deviation"]["data"][0]) < 0.1
    entropy = 0.5 * math.log(2 * math.pi * math.e * NOISE**2 / variance)
    assert abs(found["cross_entropy"] - entropy) < 0.15
    assert abs(found["gaussian_cross_entropy"] - entropy) < 0.15


@pytest.mark.slow
def test_weights_of_a_proposal_in_many_dimensions(tmp_path, capsys):
    rng = np.random.default_rng(1)
    theta = rng.normal(size=(300, 21))
    # So large that single precision would lose all that matters.
    log_likelihood = -((theta[:, :2] - 1) ** 2).sum(axis=1) - 1e6
    log_likelihood[:5] = -np.inf
    mass = rng.uniform(1, 3, 300)
    np.savez(tmp_path / "prior.npz", position=theta, fit=log_likelihood, mass=mass)
    arguments = ["--log-likelihood", "fit", "--weights", "mass", "--alpha", "inf", "--samples", "100"]
    sizes = ["--width", "4", "--refinement-steps", "5", "--num-steps", "2"]
    out = tmp_path / "out"
    assert main(["posterior", str(tmp_path / "prior.npz"), *sizes, "--out", str(out), *arguments]) == 0
    found = summary(out)
    weight = mass * np.exp(log_likelihood + 1e6)
    np.testing.assert_allclose(found["log_evidence"], math.log(weight.sum() / mass.sum()) - 1e6, atol=1e-4)
    np.testing.assert_allclose(found["mean"]["data"], weight @ theta / weight.sum(), rtol=1e-4, atol=1e-5)
    size = weight.sum() ** 2 / (weight**2).sum()
    np.testing.assert_allclose(found["effective_sample_size"]["data"], size, rtol=1e-4)
    # Optimal transport changes no weights.
    np.testing.assert_allclose(found["effective_sample_size"]["generated"], 100, rtol=1e-3)
    assert found["settings"]["alpha"] == "inf"
    said = capsys.readouterr()
    assert "mean of x2" in said.out
    assert "effective samples" in said.err
    # So many do without plans.
    assert (found["settings"]["matching_steps"], found["settings"]["batch"]) == (0, 256)
    assert "matching" not in found["seconds"]
    assert np.isfinite(found["cross_entropy"])


@pytest.mark.slow
def test_model_is_replaced_only_by_a_complete_one(conjugate, monkeypatch, tmp_path):
    out, save = conjugate / "out", training.save

    def interrupted(directory, step, tree):
        save(directory, step, tree)
        raise KeyboardInterrupt

    before = json.loads((out / "model.json").read_text())
    samples = (out / "posterior.npz").read_bytes()
    monkeypatch.setattr(training, "save", interrupted)
    assert infer(conjugate / "prior.csv", out) == 130
    assert json.loads((out / "model.json").read_text()) == before
    assert main(["generate", str(out), "-n", "10", "--out", str(tmp_path / "samples.csv")]) == 0
    monkeypatch.setattr(training, "save", save)
    assert infer(conjugate / "prior.csv", out, "--resume") == 0
    after = json.loads((out / "model.json").read_text())
    assert after["run"] != before["run"]
    assert training.latest_step(out / "checkpoint") == after["step"]
    # The seed is the same.
    assert (out / "posterior.npz").read_bytes() == samples


def test_failed_training_exits_with_one_and_keeps_everything(conjugate, capsys):
    out, before = conjugate / "out", contents(conjugate / "out")
    # Its inverse is not a normal number of single precision.
    assert infer(conjugate / "prior.csv", out, "--alpha", "1e-38") == 1
    said = refusal(capsys)
    assert "non-finite at step 0" in said
    assert "prior.csv" in said
    assert contents(out) == before


def test_foreign_files_in_the_output_directory_are_kept(conjugate, tmp_path, capsys):
    for name in ("checkpoint", "settings.json", "model.json"):
        out = tmp_path / name
        out.mkdir()
        (out / name).write_text('{"of": "something else"}')
        assert infer(conjugate / "prior.csv", out) == 2
        assert "something else" in refusal(capsys)
        assert (out / name).read_text() == '{"of": "something else"}'
    assert main(["geodesic", "--out", str(conjugate / "out")]) == 2
    assert "something else" in refusal(capsys)


def test_own_results_as_input_are_not_replaced(conjugate, capsys):
    out = conjugate / "out"
    arguments = ["--log-likelihood", "log_weight", "--weights", "log_weight"]
    assert infer(out / "posterior.npz", out, *arguments) == 2
    assert "as well" in refusal(capsys)
    np.savez(out / "posterior.npz", position=[0.0, 1.0], log_likelihood=[0.0, 1.0])
    before = (out / "posterior.npz").read_bytes()
    assert infer(out / "posterior.npz", out) == 2
    assert "would be replaced" in refusal(capsys)
    assert (out / "posterior.npz").read_bytes() == before


BAD_FILES = {
    "none.csv": ("x,y\n1,2\n3,4\n", "no 'log_likelihood'"),
    "header.csv": ("1,2\n3,4\n", "no header"),
    "twice.csv": ("x,log_likelihood,log_likelihood\n1,2,3\n", "twice"),
    "nan.csv": ("x,log_likelihood\n1,2\n2,nan\n", "NaN or +inf (first: row 1)"),
    "large.csv": ("x,log_likelihood\n1,inf\n", "NaN or +inf"),
    "zero.csv": ("x,log_likelihood\n1,-inf\n2,-inf\n", "-inf wherever"),
    "weightless.csv": ("x,weight,log_likelihood\n1,0,0\n2,1,-inf\n", "-inf wherever"),
    "alone.csv": ("log_likelihood\n1\n2\n", "shape (2, 0)"),
    "coordinate.csv": ("x,log_likelihood\n1,2\nnan,3\n", "NaN"),
    "far.csv": ("x,log_likelihood\n1e30,0\n2e30,0\n", "overflows float32"),
    "points.npy": (np.zeros((2, 1)), "one array"),
    "short.npz": ({"position": np.zeros((3, 1)), "log_likelihood": np.zeros(2)}, "one real number per point"),
    "words.npz": ({"position": np.zeros((1, 1)), "log_likelihood": np.array(["a"])}, "one real number"),
    "truncated.npz": ("PK\x03\x04half", "truncated"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_one_sentence_and_exit_code_two(name, tmp_path, capsys):
    content, expected = BAD_FILES[name]
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    elif isinstance(content, dict):
        np.savez(tmp_path / name, **content)
    else:
        np.save(tmp_path / name, content)
    assert infer(tmp_path / name, tmp_path / "out") == 2
    said = refusal(capsys)
    assert expected in said
    assert name in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("x", "log_likelihood", "expected"),
    [
        ([0, 1, 2], [0, -50, -60], "1 effective points"),
        ([3, 3, 3], [0, -1, -2], "1 effective points"),
        ([3, 3, 4], [0, -1, -9], "no spread"),
        ([0, 1, 2], [-1e300, -1e300, -1e300], "not placeholders"),
    ],
)
def test_a_posterior_without_spread_is_refused(x, log_likelihood, expected, tmp_path, capsys):
    write_table(tmp_path / "prior.csv", x=x, log_likelihood=log_likelihood)
    assert infer(tmp_path / "prior.csv", tmp_path / "out") == 2
    assert expected in refusal(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "required: FILE"),
        (["nowhere.csv"], "not a file"),
        (["prior.csv", "--log-likelihood", "fit"], "no 'fit'"),
        (["prior.csv", "--weights", "mass"], "no weights 'mass'"),
        (["prior.csv", "--weights", "log_likelihood"], "as well"),
        (["prior.csv", "--alpha", "0"], "not positive"),
        (["prior.csv", "--samples", "0"], "no count"),
        (["prior.csv", "--seed", "-1"], "seed"),
        (["prior.csv", "--out", "prior.csv"], "is a file"),
        (["prior.csv", "--out", "prior.csv/below"], "cannot be"),
        (["prior.csv", "--resume"], "no run to resume"),
    ],
)
def test_bad_option_is_one_sentence_and_exit_code_two(arguments, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "prior.csv", x=[0, 1], log_likelihood=[0, 0])
    before = contents(tmp_path)
    assert main(["posterior", *arguments]) == 2
    assert expected in refusal(capsys)
    assert contents(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"prior.csv"}
