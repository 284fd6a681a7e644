"""Every command that trains continues an interrupted run, and ends as if it had not been interrupted."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import few_lines, refusal

from wfr_flows.cli import main
from wfr_flows.training import NonFiniteError, resume

PLANE = np.random.default_rng(0).normal(size=(40, 2))
POSTERIOR = "posterior prior.csv --quick --width 4 --matching-steps 300 --refinement-steps 60 --batch 16"
COMMANDS = {
    "generate-from": "generate-from a.csv --out OUT.csv --start-steps 120 --steps 60 --batch 16 --width 4",
    "geodesic": "geodesic --num-samples 40 --width 4 --matching-steps 20 --refinement-steps 40 --batch 16"
    " --num-steps 2 --seed 3 --out OUT",
    "posterior": f"{POSTERIOR} --num-steps 2 --samples 50 --out OUT",
    "ratio": "ratio a.csv b.csv --at a.csv --width 4 --batch 16 --matching-steps 60 --refinement-steps 2"
    " --ratio-steps 60 --out OUT.csv",
    "sample": "sample --log-density target.py:log_density --dim 2 --samples 50 --steps 3 --iterations 5"
    " --batch 32 --num-particles 64 --units 2 --out OUT",
    "snapshots": "snapshots days.csv --time day --matching-steps 300 --refinement-steps 60 --width 4"
    " --alpha 1 --out OUT",
    "transport": "transport a.csv b.csv --width 4 --batch 16 --matching-steps 60 --refinement-steps 60"
    " --out OUT",
}


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    few_lines(monkeypatch)
    monkeypatch.chdir(tmp_path)
    write("a.csv", "x,y", PLANE)
    write("b.csv", "x,y", 0.5 * PLANE + 2)
    write("prior.csv", "x,y,log_likelihood", np.column_stack([PLANE, -np.sum(PLANE**2, axis=1)]))
    days = [np.column_stack([PLANE + day, np.full(40, day)]) for day in range(2)]
    write("days.csv", "x,y,day", np.concatenate(days))
    Path("target.py").write_text(
        "import jax.numpy as jnp\n\ndef log_density(x):\n    return -jnp.sum(x**2)\n"
    )


def write(name, header, table):
    np.savetxt(name, table, delimiter=",", header=header, comments="")


def run(name, out, *more):
    return main([*COMMANDS[name].replace("OUT", out).split(), "--quiet", *more])


def interrupt_after(monkeypatch, chunks):
    count, add = 0, resume.Record.add

    def counted(self, *chunk):
        nonlocal count
        add(self, *chunk)
        count += 1
        if count == chunks:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume.Record, "add", counted)


def count_restored(monkeypatch):
    steps, restored = [], resume.Record.restored

    def counted(self, *given):
        found = restored(self, *given)
        steps.append(found[0])
        return found

    monkeypatch.setattr(resume.Record, "restored", counted)
    return steps


def results(out):
    """Of a summary what does not differ from run to run."""
    path = Path(out) / "summary.json"
    summary = json.loads(path.read_text()) if path.exists() else {}
    return {name: value for name, value in summary.items() if name not in ("seconds", "run", "out")}


def arrays(out):
    if Path(out + ".csv").exists():
        return {"": np.loadtxt(out + ".csv", delimiter=",", skiprows=1)}
    return {
        f"{path.name} {name}": value
        for path in sorted(Path(out).glob("*.npz"))
        for name, value in np.load(path).items()
    }


@pytest.mark.parametrize(
    "name",
    # One of them always, and that with the shortest compilation.
    [pytest.param(name, marks=() if name == "sample" else pytest.mark.slow) for name in COMMANDS],
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(name, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        assert run(name, "again") == 130
    assert "--resume" in refusal(capsys)
    assert run(name, "again") == 2
    assert "--resume" in refusal(capsys)
    assert run(name, "again", "--seed", "1", "--resume") == 2
    assert ", not 1; resume it as it began" in refusal(capsys)
    with monkeypatch.context() as patched:
        restored = count_restored(patched)
        assert run(name, "again", "--resume") == 0
    assert restored
    assert not list(Path().rglob("*unfinished*"))
    assert run(name, "once") == 0
    expected, found = arrays("once"), arrays("again")
    assert expected
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    assert results("again") == results("once")


def test_a_changed_file_is_not_resumed(monkeypatch, capsys):
    with monkeypatch.context() as patched:
        interrupt_after(patched, 1)
        assert run("generate-from", "again") == 130
    capsys.readouterr()
    write("a.csv", "x,y", PLANE + 1)
    assert run("generate-from", "again", "--resume") == 2
    assert "contents of a.csv" in refusal(capsys)


def test_a_changed_density_is_not_resumed(monkeypatch, capsys):
    with monkeypatch.context() as patched:
        interrupt_after(patched, 1)
        assert run("sample", "again") == 130
    capsys.readouterr()
    Path("target.py").write_text("def log_density(x):\n    return -(x**4).sum()\n")
    assert run("sample", "again", "--resume") == 2
    assert "contents of target.py" in refusal(capsys)


def test_what_is_of_something_else_is_kept(capsys):
    Path("OUT/unfinished").mkdir(parents=True)
    Path("OUT/unfinished/notes.txt").write_text("precious")
    assert run("sample", "OUT") == 2
    assert "of something else" in refusal(capsys)
    assert Path("OUT/unfinished/notes.txt").read_text() == "precious"


def test_a_damaged_checkpoint_is_one_sentence(monkeypatch, capsys):
    with monkeypatch.context() as patched:
        interrupt_after(patched, 1)
        assert run("sample", "again") == 130
    capsys.readouterr()
    for path in Path("again/unfinished/0").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    assert run("sample", "again", "--resume") == 2
    assert "damaged; delete it" in refusal(capsys)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "sample" else pytest.mark.slow) for name in COMMANDS]
)
def test_a_failure_leaves_the_results_of_the_last_good_state(name, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        fail_at_the_second_chunk(patched)
        assert run(name, "again") == 1
    # Before it, posterior warns of few samples.
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "non-finite at step" in said
    assert "Results are of that state." in said
    found = arrays("again")
    assert found
    assert all(np.isfinite(value).all() for value in found.values())
    if Path("again").is_dir():
        assert "failed_at" in results("again")
    settings = next(Path().glob("again*")).parent.rglob("settings.json")
    assert any("failed_at" in json.loads(path.read_text()) for path in settings if "unfinished" in str(path))


def test_after_a_failure_other_options_may_be_tried(monkeypatch, capsys):
    with monkeypatch.context() as patched:
        fail_at_the_second_chunk(patched)
        assert run("sample", "again") == 1
    assert "non-finite at step 1" in refusal(capsys)
    assert json.loads(Path("again/unfinished/settings.json").read_text())["failed_at"] == 1
    assert run("sample", "again", "--step-size", "0.05") == 0
    assert "failed_at" not in results("again")
    assert not Path("again/unfinished").exists()


def fail_at_the_second_chunk(monkeypatch):
    count, add = 0, resume.Record.add

    def failing(self, step, state, info):
        nonlocal count
        count += 1
        if count == 2:
            raise NonFiniteError(step - 1, state)
        add(self, step, state, info)

    monkeypatch.setattr(resume.Record, "add", failing)
