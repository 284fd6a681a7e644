"""What every notebook shares; itself none."""

import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure


def show(figure: Figure, name: str) -> None:
    """Display a figure in a notebook; save it to a temporary directory in a script."""
    path = Path(tempfile.mkdtemp(prefix="wfr-notebook-")) / f"{name}.png"
    figure.savefig(path, dpi=110)
    if "ipykernel" in sys.modules:
        from IPython.display import Image, display  # noqa: PLC0415

        display(Image(filename=path))
    else:
        print(f"figure: {path}")
