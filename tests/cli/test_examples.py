"""What the README and ``--help`` tell to type."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from wfr_flows.cli import main

ROOT = Path(__file__).parents[2]
# Of a command as it is told, to be done in a few seconds.
SMALL = {
    "filter": "--particles 200 --num-steps 2 --iterations 5",
    "generate-from": "--start-steps 30 --steps 2 --batch 16 --width 4",
    "geodesic": "--num-samples 40 --width 4 --matching-steps 20 --refinement-steps 2 --batch 16",
    "posterior": "--quick --width 4 --matching-steps 20 --refinement-steps 2 --batch 16 --num-steps 2",
    "ratio": "--width 4 --batch 16 --matching-steps 20 --refinement-steps 2 --ratio-steps 20",
    "sample": "--steps 3 --iterations 5 --batch 32 --num-particles 64 --units 2",
    "snapshots": "--matching-steps 20 --refinement-steps 2 --width 4",
    "transport": "--width 4 --batch 16 --matching-steps 20 --refinement-steps 2",
}
COMMANDS = [*SMALL, "density", "distance", "generate"]
README = (ROOT / "README.md").read_text()


def told_by_the_readme():
    """Those with lower-case arguments; capitals stand for something."""
    found = re.findall(r"^wfr-flows (.+)$|`wfr-flows ([^`]+)`", README, flags=re.MULTILINE)
    lines = [first or second for first, second in found]
    return [line for line in lines if " " in line and not re.search(r"\b[A-Z]+\b|--help", line)]


def told_by_help(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    (line,) = re.findall(r"^  wfr-flows (.+)$", capsys.readouterr().out, flags=re.MULTILINE)
    return line


def write(name, header, *columns):
    np.savetxt(name, np.column_stack(columns), delimiter=",", header=header, comments="")


def prepare(name):
    rng = np.random.default_rng(0)
    plane, shifted = rng.normal(size=(40, 2)), 0.5 * rng.normal(size=(40, 2)) + 1
    for file, points in {"a": plane, "b": shifted, "points": plane}.items():
        write(f"{file}.csv", "x,y", points)
    for file, points in {"before": plane, "after": shifted}.items():
        write(f"{file}.csv", "x,y,weight", points, rng.uniform(0.5, 1, 40))
    if name == "geodesic":
        write("samples.csv", "x,y", plane)
    write("prior.csv", "x,y,log_likelihood", plane, -np.sum((plane - 1) ** 2, axis=1))
    write("cells.csv", "x,y,day", np.concatenate([plane, shifted]), np.repeat([0, 1], 40))
    write("seen.csv", "time,y", [0.5, 1.0, 2.0], [0.4, -0.2, 0.9])
    # The README has two files of this name.
    models = re.findall(r"^# model\.py\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    Path("model.py").write_text(dict(zip(("sample", "filter"), models, strict=True)).get(name, ""))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_by_an_example(name, capsys):
    assert told_by_help(name, capsys).split()[0] == name


def test_the_readme_tells_every_command():
    told = {line.split()[0] for line in told_by_the_readme()}
    assert told == set(COMMANDS)


@pytest.mark.slow
def test_every_example_runs(tmp_path, monkeypatch, capsys):
    told = [*told_by_the_readme(), *(told_by_help(name, capsys) for name in COMMANDS)]
    # A model is learned before samples of it are drawn.
    needs_model = {"generate", "density"}
    for line in sorted(dict.fromkeys(told), key=lambda line: line.split()[0] in needs_model):
        name, *given = shlex.split(line)
        folder = tmp_path / line.replace("/", " ")
        folder.mkdir()
        monkeypatch.chdir(folder)
        prepare(name)
        if name in needs_model:
            (folder / "result").symlink_to(tmp_path / "posterior prior.csv --out result" / "result")
        assert main([name, *given, *SMALL.get(name, "").split(), "--quiet"]) == 0, line
