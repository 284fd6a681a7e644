"""What the README promises: its commands, its example, its links and its map; the names in the docs."""

import importlib
import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    "python -m pip install -e . && wfr-flows geodesic",
    'python -m pip install -e ".[test]" && pytest',
]
PAPERS = (ROOT / "docs" / "papers.md").read_text()
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "docs/papers.md"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_has_the_commands(command):
    assert f"{command}\n" in blocks("")


def test_readme_example_runs():
    (example,) = blocks("python")
    names = {}
    with jax.enable_x64(False):
        exec(compile(example, "README.md", "exec"), names)
    result = names["result"]
    assert bool(result.converged)
    assert result.lower_bound <= names["value"]
    assert names["slope"].shape == names["source"].position.shape
    assert all(bool(jax.numpy.isfinite(leaf).all()) for leaf in jax.tree.leaves(names["gradient"]))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_local_links_lead_somewhere(document):
    path = ROOT / document
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text())
    broken = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not broken


def test_readme_maps_every_package():
    packages = {path.parent.name for path in (ROOT / "wfr_flows").glob("*/__init__.py")} | {"typing"}
    section = README.split("## The map of the house")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| \[?`(\w+)`", section, flags=re.MULTILINE)) == packages


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:[a-z_]+\.)+\w+)`", PAPERS))))
def test_the_page_on_the_papers_names_code_that_is_there(name):
    package, attribute = name.rsplit(".", 1)
    assert hasattr(importlib.import_module(f"wfr_flows.{package}"), attribute)
