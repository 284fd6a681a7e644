"""The command ``filter``, through its front door."""

import json

import numpy as np
import pytest

from tests.helpers import refusal
from wfr_flows.cli import main

LINEAR = """
import jax.numpy as jnp
from wfr_flows.inference.filtering import LinearGaussian

one = jnp.ones((1, 1))
model = LinearGaussian(-one, jnp.zeros(1), one, one, 0.5 * one, jnp.zeros(1), one)
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "linear.py").write_text(LINEAR)
    (tmp_path / "seen.csv").write_text("time,y\n0.5,0.4\n1.0,-0.2\n2.0,0.9\n")
    return tmp_path


def command(files, *more, model="linear.py", seen="seen.csv", out="out"):
    given = [str(files / seen), "--model", str(files / model), "--out", str(files / out), "--json"]
    return main(["filter", *given, *more])


def test_methods_agree_with_the_exact_one(files, capsys):
    few = ["--particles", "400", "--num-steps", "2"]
    options = {
        "kalman": [],
        "bootstrap": ["--particles", "4000", "--num-steps", "10"],
        "grid": ["--interval", "-5", "5", "--num-steps", "100"],
        "wfr": [*few, "--iterations", "60", "--threshold", "0"],
    }
    found = {}
    for method, more in options.items():
        assert command(files, "--method", method, *more, "--until", "2.5", out=method) == 0
        found[method] = json.loads(capsys.readouterr().out)
        arrays = np.load(files / method / "filtered.npz")
        np.testing.assert_allclose(arrays["mean"].tolist(), found[method]["mean"], rtol=1e-6)
        assert arrays["position"].shape[0] == 4
        np.testing.assert_allclose(np.exp(arrays["log_weight"]).sum(axis=1), 1, rtol=1e-4)
        assert (files / method / "filtered.png").stat().st_size > 1000
    exact = found["kalman"]
    assert exact["log_evidence_by_time"][-1] == 0
    assert exact["effective_sample_size"] == [None] * 4
    for method, atol in (("bootstrap", 0.1), ("grid", 0.02), ("wfr", 0.15)):
        np.testing.assert_allclose(found[method]["mean"], exact["mean"], atol=atol)
        np.testing.assert_allclose(
            found[method]["standard_deviation"], exact["standard_deviation"], atol=atol
        )
        np.testing.assert_allclose(found[method]["log_evidence"], exact["log_evidence"], atol=atol)


def test_the_same_seed_gives_the_same_particles(files):
    for out in ("a", "b"):
        assert command(files, "--method", "bootstrap", "--particles", "50", "--num-steps", "1", out=out) == 0
    first, second = (np.load(files / out / "filtered.npz")["position"] for out in ("a", "b"))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("linear.py", "x = 1\n", "defines no `model`"),
        ("linear.py", "import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("seen.csv", "time,y\n1.0,0.4\n0.5,-0.2\n", "increase"),
        ("seen.csv", "when,y\n1.0,0.4\n", "no 'time'"),
        ("seen.csv", "time,y,z\n1.0,0.4,1.0\n", "fit"),
        ("seen.csv", "time,y\n", "no rows"),
    ],
)
def test_refusals(files, capsys, name, content, said):
    (files / name).write_text(content)
    assert command(files, "--method", "kalman") == 2
    assert said in refusal(capsys)
    assert not (files / "out").exists()


def test_methods_that_do_not_fit_are_refused(files, capsys):
    assert command(files, "--method", "grid") == 2
    assert "--interval" in refusal(capsys)
    text = LINEAR + "model = model.state_space()\n"
    (files / "general.py").write_text(text)
    assert command(files, "--method", "kalman", model="general.py") == 2
    assert "linear" in refusal(capsys)
    assert command(files, model="missing.py") == 2
    assert "not a file" in refusal(capsys)
    impossible = (
        text
        + "never = model.sensor._replace(log_likelihood=lambda t, x, y: jnp.log(0 * y[0]))\n"
        + "model = model._replace(sensor=never)\n"
    )
    (files / "general.py").write_text(impossible)
    assert command(files, "--method", "bootstrap", "--particles", "9", model="general.py") == 2
    assert "at time 0.5" in refusal(capsys)
