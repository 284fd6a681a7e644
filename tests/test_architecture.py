"""The house: who imports whom, sizes, public names, cheap imports, one version."""

import ast
import importlib
import importlib.metadata
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import pytest

import wfr_flows

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wfr_flows"

# Data enters at the top and leaves at the bottom. A package imports only from those before it.
ORDER = [
    "typing",
    "numerics",
    "measures",
    "static",
    "metrics",
    "potentials",
    "dynamics",
    "training",
    "geodesics",
    "gradient_flows",
    "proximal",
    "refinement",
    "inference",
    "plotting",
    "cli",
]
LARGEST_FILE = 400
LONGEST_FUNCTION = 60

FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(
    {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__", "__main__"}
)


def name_of(path):
    return str(path.relative_to(ROOT))


def imported_modules(tree):
    """Dotted names of everything a module imports, wherever the import stands: ``(line, name)``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def constant_docstrings(path):
    """Names assigned at the top of a module and followed by a string: documented constants."""
    body = ast.parse(path.read_text()).body
    for statement, after in zip(body, body[1:], strict=False):
        if (
            isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            targets = (
                statement.targets
                if isinstance(statement, ast.Assign)
                else [getattr(statement, "target", None)]
            )
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_every_package_has_its_place_in_the_order():
    assert set(ROOMS) <= set(ORDER), f"no place for {set(ROOMS) - set(ORDER)}; give it one in ORDER"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in {"__init__", "__main__"}:
        return
    allowed = {*ORDER[: ORDER.index(room)], room}
    wrong = []
    for line, name in imported_modules(ast.parse(path.read_text())):
        package, _, rest = name.partition(".")
        if package == "wfr_flows" and rest.partition(".")[0] not in allowed:
            wrong.append(f"line {line}: {name}")
    assert not wrong, f"{room} may import from {sorted(allowed)} only, not {wrong}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LARGEST_FILE
    lengths = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    long = {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION}
    assert not long, f"longer than {LONGEST_FUNCTION} lines: {long}"


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_exist_and_are_documented(room):
    module = importlib.import_module(f"wfr_flows.{room}")
    assert (module.__doc__ or "").strip()
    assert len(set(module.__all__)) == len(module.__all__)
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing
    if room == "typing":
        return  # aliases, explained by the module
    room_files = [path for path in FILES if path.relative_to(PACKAGE).parts[0] == room]
    constants = {name for path in room_files for name in constant_docstrings(path)}
    bare = [
        name for name in module.__all__ if not documented(getattr(module, name)) and name not in constants
    ]
    assert not bare, f"without a docstring: {bare}"


def documented(value):
    if not (inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, jax.custom_jvp)):
        return False
    text = (value.__doc__ or "").strip()
    # What NamedTuple writes when nobody else does.
    return bool(text) and not text.startswith(f"{value.__name__}(")


def test_headline_names_exist():
    assert not [name for name in wfr_flows.__all__ if not hasattr(wfr_flows, name)]
    assert len(set(wfr_flows.__all__)) == len(wfr_flows.__all__)


def test_import_is_light():
    # rich is absent from this list because flax imports it; the next test keeps it out of our own modules.
    heavy = ["matplotlib", "orbax", "scipy.stats", "wfr_flows.plotting", "wfr_flows.cli"]
    code = f"import sys, wfr_flows; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_only_the_command_line_uses_rich():
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in FILES
        for _, name in imported_modules(ast.parse(path.read_text()))
        if name.split(".")[0] == "rich"
    }
    assert users <= {"cli"}


def test_one_version():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert wfr_flows.__version__ == importlib.metadata.version("wfr-flows") == declared
    assert f"\nversion: {declared}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{declared}]" in (ROOT / "CHANGELOG.md").read_text()
