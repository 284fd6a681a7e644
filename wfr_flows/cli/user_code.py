"""Python of the user's: loading it, and telling in one sentence what goes wrong in it."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType

from wfr_flows.cli.options import InputError

_LOADED = "wfr_flows_user_module"


@contextmanager
def guarded(name: str, remedy: str = "repair it") -> Iterator[None]:
    """Run code of the user's: whatever it raises, ``sys.exit`` too, becomes an `InputError`.

    What it prints goes to standard error, since results in JSON go to standard output.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines()
        reason = f": {lines[0].rstrip('.')}" if lines else ""
        raise InputError(f"{name} cannot be used ({type(error).__name__}{reason}); {remedy}.") from error


def load_module(name: str) -> ModuleType:
    """A Python file, or a module by its name; what lies beside it, or in this directory, can be imported.

    To be called within `guarded`.
    """
    is_file = name.endswith(".py")
    folder = str((Path(name).parent if is_file else Path()).resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if not is_file:
        return importlib.import_module(name)
    if not Path(name).is_file():
        raise InputError(f"{name} is not a file; give a Python file, or the name of a module.")
    spec = importlib.util.spec_from_file_location(_LOADED, name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_LOADED] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module
