"""Generating from a saved model and evaluating its density, through the front door."""

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusal

from wfr_flows import geodesics, measures, potentials
from wfr_flows.cli import main, model
from wfr_flows.dynamics import Geometry
from wfr_flows.measures import read_particles


def build(out, dimension, *, float64=False):
    """A directory as posterior leaves it, of a flow that nothing was learned for."""
    with jax.enable_x64(float64):
        shape = model.Shape(dimension, 4, 0.5, 4, float64)
        potential = potentials.resnet(dimension, width=4, start=1.0)
        factor = np.tril(np.full((dimension, dimension), 0.3)) + np.eye(dimension)

        @jax.jit
        def learned():
            params = jax.tree.map(lambda leaf: 0.25 * leaf, potential.init(jax.random.key(1)))
            normal = measures.standard_normal(dimension).sample(jax.random.key(2), 20000)
            total = geodesics.log_normaliser(potential, Geometry(0.5), params, normal, num_steps=8)
            seen = measures.whitening_by(jnp.arange(1.0, dimension + 1), jnp.asarray(factor @ factor.T))
            return geodesics.Learned(params, seen, total)

        out.mkdir()
        model.mark(out)
        model.save(out, shape, learned())
    return out


@pytest.fixture(autouse=True)
def fresh_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    return str(build(tmp_path_factory.mktemp("plane") / "out", 2))


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    return str(build(tmp_path_factory.mktemp("line") / "out", 1))


def copied(directory, tmp_path):
    """A model to damage."""
    return Path(shutil.copytree(directory, tmp_path / "out"))


def found(capsys, *arguments):
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def read_table(name):
    with Path(name).open() as file:
        return file.readline().strip().split(","), np.loadtxt(file, delimiter=",", ndmin=2)


def test_generate_twice_gives_the_same_file(plane, capsys):
    summary = found(capsys, "generate", plane, "-n", "500")
    assert (summary["num_generated"], summary["dimension"], summary["out"]) == (500, 2, "samples.csv")
    assert main(["generate", plane, "-n", "500", "--out", "again.csv"]) == 0
    assert Path("again.csv").read_bytes() == Path("samples.csv").read_bytes()
    assert main(["generate", plane, "-n", "500", "--seed", "1", "--out", "other.csv"]) == 0
    assert Path("other.csv").read_bytes() != Path("samples.csv").read_bytes()
    header, table = read_table("samples.csv")
    assert header == ["x1", "x2", "weight"]
    assert table.shape == (500, 3)
    np.testing.assert_allclose(table[:, 2].sum(), 1, rtol=1e-5)
    size = 1 / (table[:, 2] ** 2).sum()
    assert 1 < size < 499
    np.testing.assert_allclose(summary["effective_sample_size"], size, rtol=1e-3)
    # The other kind of file holds the same measure.
    assert main(["generate", plane, "-n", "500", "--out", "samples.npz"]) == 0
    for one, two in zip(read_particles("samples.csv"), read_particles("samples.npz"), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5)


@pytest.mark.parametrize("kind", ["csv", "npz", "npy"])
def test_resampling_leaves_no_weights(plane, kind, capsys):
    out = f"samples.{kind}"
    summary = found(capsys, "generate", plane, "-n", "300", "--resample", "--out", out)
    assert summary["resampled"]
    # Of the weighted samples before.
    assert summary["effective_sample_size"] < 299
    samples = read_particles(out)
    assert samples.position.shape == (300, 2)
    np.testing.assert_allclose(samples.weight, 1 / 300, rtol=1e-6)
    assert len(np.unique(samples.position, axis=0)) < 300


def test_blocks_hold_what_one_piece_does(line, capsys, monkeypatch):
    monkeypatch.setattr(model, "_BLOCK", 700)
    summary = found(capsys, "generate", line, "-n", "1500", "--out", "blocks.npz")
    blocks = read_particles("blocks.npz")
    assert blocks.position.shape == (1500, 1)
    np.testing.assert_allclose(blocks.mass, 1, rtol=1e-5)
    assert main(["density", line, "blocks.npz", "--out", "blocks.csv"]) == 0
    monkeypatch.setattr(model, "_BLOCK", 2000)
    whole = found(capsys, "generate", line, "-n", "1500", "--out", "whole.npz")
    np.testing.assert_allclose(summary["effective_sample_size"], whole["effective_sample_size"], rtol=0.1)
    assert main(["density", line, "blocks.npz", "--out", "whole.csv"]) == 0
    np.testing.assert_allclose(read_table("blocks.csv")[1], read_table("whole.csv")[1], atol=1e-5)


def test_density_of_a_line_integrates_to_one_and_is_that_of_the_samples(line, capsys):
    nodes = np.linspace(-14, 16, 3001)
    np.save("nodes.npy", nodes)
    summary = found(capsys, "density", line, "nodes.npy")
    assert (summary["points"], summary["not_finite"], summary["out"]) == (3001, 0, "density.csv")
    header, table = read_table("density.csv")
    assert header == ["x1", "log_density"]
    np.testing.assert_allclose(table[:, 0], nodes, rtol=1e-6)
    density = np.exp(table[:, 1])
    np.testing.assert_allclose(density.sum() * (nodes[1] - nodes[0]), 1, atol=0.03)
    assert main(["generate", line, "-n", "20000", "--out", "samples.npz"]) == 0
    samples = read_particles("samples.npz")
    mean = density @ nodes / density.sum()
    spread = np.sqrt(density @ (nodes - mean) ** 2 / density.sum())
    assert abs(samples.weight @ samples.position[:, 0] - mean) < 0.05 * spread


def test_density_of_a_plane_integrates_to_one(plane):
    axis = np.linspace(-9, 12, 120)
    nodes = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    np.savetxt("nodes.csv", nodes, delimiter=",")
    assert main(["density", plane, "nodes.csv", "--out", "density.npz"]) == 0
    with np.load("density.npz") as arrays:
        np.testing.assert_allclose(arrays["position"], nodes, rtol=1e-6)
        total = np.exp(arrays["log_density"]).sum() * (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(total, 1, atol=0.03)


def test_a_model_is_used_in_the_precision_it_was_saved_in(tmp_path, capsys):
    out = str(build(tmp_path / "out", 1, float64=True))
    np.save("nodes.npy", np.linspace(0, 1, 5))
    with jax.enable_x64(False):
        assert found(capsys, "density", out, "nodes.npy")["precision"] == "float64"


def test_points_too_far_out_are_told(line, capsys):
    np.save("nodes.npy", np.array([0.0, 1e30]))
    summary = found(capsys, "density", line, "nodes.npy")
    assert (summary["points"], summary["not_finite"]) == (2, 1)
    assert np.isfinite(summary["mean_log_density"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["generate", "OUT"], "required: -n"),
        (["generate", "OUT", "-n", "0"], "no count"),
        (["generate", "OUT", "-n", "ten"], "no count"),
        (["generate", "OUT", "-n", "1000000000000"], "<= 1000000000"),
        (["generate", "OUT", "-n", "99999999999999999999999"], "<= 1000000000"),
        (["generate", "OUT", "-n", "1000000000"], "more than the 89478485 samples that fit"),
        (["generate", "OUT", "-n", "9", "--seed", "-1"], "seed"),
        (["generate", "OUT", "-n", "9", "--out", "samples.txt"], ".csv, .npz or .npy"),
        (["generate", "OUT", "-n", "9", "--out", "samples.npy"], "add --resample"),
        (["generate", "OUT", "-n", "9", "--out", "nowhere/samples.csv"], "nowhere"),
        (["generate", "OUT", "-n", "9", "--out", "points.csv"], "exists"),
        (["generate", "nowhere", "-n", "9"], "no directory"),
        (["generate", ".", "-n", "9"], "holds no model"),
        (["density", "OUT"], "required: POINTS"),
        (["density", "OUT", "nowhere.csv"], "not a file"),
        (["density", "OUT", "three.csv"], "three.csv has 3 coordinates and the model"),
        (["density", "OUT", "points.csv", "--out", "points.csv"], "exists"),
        (["density", "OUT", "points.csv", "--out", "points.npy"], ".csv or .npz"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(arguments, expected, plane, capsys):
    Path("points.csv").write_text("0,0\n")
    Path("three.csv").write_text("0,0,0\n")
    before = set(Path().iterdir())
    assert main([plane if word == "OUT" else word for word in arguments]) == 2
    assert expected in refusal(capsys)
    assert set(Path().iterdir()) == before


def generate_from(directory):
    return main(["generate", str(directory), "-n", "9"])


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("model.json", lambda text: text[:-3], "damaged"),
        ("model.json", lambda text: text.replace('"width": 4', '"width": 5'), "checkpoint"),
        ("model.json", lambda text: text.replace('"step": 1', '"step": 7'), "checkpoint"),
        ("model.json", lambda text: text.replace('"alpha": "0.5"', '"alpha": "no"'), "damaged"),
        ("model.json", lambda text: text.replace('"dimension"', '"dim"'), "damaged"),
        ("model.json", lambda text: text.replace('"dimension": 1', '"dimension": 1000000000'), "damaged"),
        ("model.json", lambda text: text.replace('"dimension": 1', '"dimension": 9000'), "checkpoint"),
        ("model.json", lambda text: text.replace('"width": 4', '"width": 100000000'), "damaged"),
        ("model.json", lambda text: text.replace('"width": 4', '"width": 8000'), "checkpoint"),
        ("model.json", lambda text: text.replace('"num_steps": 4', '"num_steps": 10000000000'), "damaged"),
        ("model.json", lambda text: text.replace('"step": 1', f'"step": {10**30}'), "finished run"),
        ("model.json", lambda text: text.replace('"alpha": "0.5"', f'"alpha": {10**400}'), "damaged"),
        ("model.json", lambda text: '{"a":' + 10**5 * "[" + 10**5 * "]" + "}", "nested too deeply"),
        ("model.json", lambda text: text.replace("wfr-flows posterior", "keras"), "another program"),
    ],
)
def test_damaged_models_are_refused(name, change, expected, line, tmp_path, capsys):
    out = copied(line, tmp_path)
    text = (out / name).read_text()
    assert change(text) != text
    (out / name).write_text(change(text))
    assert generate_from(out) == 2
    assert expected in refusal(capsys)


def test_a_model_without_checkpoint_or_unfinished_is_refused(line, tmp_path, capsys):
    out = copied(line, tmp_path)
    (out / "checkpoint").rename(tmp_path / "moved")
    assert generate_from(out) == 2
    assert "lost its checkpoint" in refusal(capsys)
    assert {path.name for path in out.iterdir()} == {"model.json"}
    (out / "model.json").unlink()
    model.mark(out)
    assert generate_from(out) == 2
    assert "no finished run" in refusal(capsys)


def test_installed_command_on_a_model_of_another_topology(plane):
    # The model was saved by a process with eight devices; this one has a single one.
    command = [Path(sysconfig.get_path("scripts")) / "wfr-flows", "generate", plane, "-n", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "effective sample size" in done.stdout
    assert read_particles("samples.csv").position.shape == (20, 2)
