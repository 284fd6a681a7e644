"""Weighted samples from CSV, NPY, NPZ, Parquet and AnnData files."""

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from wfr_flows.measures.particles import Particles, particles
from wfr_flows.measures.tables import ReadingNote, read_table
from wfr_flows.measures.times import Labels, Times, times_of

WEIGHT_NAMES = ("weight", "weights", "log_weight")
POSITION_NAMES = ("position", "positions", "x", "samples", "data")


def read_particles(path: str | Path, *, weight: str | None = None) -> Particles:
    """Read weighted samples from a file.

    * **CSV**: one row a point, columns separated by commas, semicolons, tabs or blanks, decimal points or
      commas, with or without a header. A column named ``weight``, ``weights`` or ``log_weight`` holds the
      weights; all others are coordinates, but row numbers in a first column without a name, or in the index
      of a data frame, which are left out. `ReadingNote` warns of that, and of decimal commas and the like.
    * **NPY**: an array ``[n, d]`` or ``[n]``.
    * **Parquet**, as CSV with a header, and **AnnData** (``.h5ad``), whose points are ``obsm["X_pca"]`` or
      else ``X`` and whose columns are those of ``obs``: with the extra ``cells``.
    * **NPZ**: an array named ``position`` (or ``positions``, ``x``, ``samples``, ``data``, or the only one
      that is not the weights) and optionally ``weight``, ``weights`` or ``log_weight`` ``[n]``.

    Args:
      path: the file.
      weight: name of the weight column or array, when it is none of the above. A name that starts with
        ``log_`` holds logarithms.

    Returns:
      `Particles`, with the weights as they stand in the file (not normalised).

    Raises:
      ValueError: a file that is missing, empty, truncated, not of these kinds, that can be read in two ways,
        has two columns of one name, or is not a measure. The message names the file and the remedy.
    """
    return _read(path, weight, None)[0]


def read_with_column(
    path: str | Path, column: str, *, weight: str | None = None
) -> tuple[Particles, np.ndarray]:
    """Read weighted samples and one more number for each, as `read_particles` does.

    Args:
      path: a CSV or NPZ file.
      column: name of the CSV column or NPZ array ``[n]`` of these numbers; it is no coordinate.
      weight: as in `read_particles`.

    Returns:
      `Particles` and the numbers ``[n]`` in float64, as they stand in the file.

    Raises:
      ValueError: as `read_particles`, and where the file has no such numbers.
    """
    measure, values = _read(path, weight, column)
    values = np.asarray(values.text if isinstance(values, Labels) else values)
    if values.dtype.kind not in "fiu" or values.shape != measure.log_weight.shape:
        raise ValueError(
            f"{path}: '{column}' has dtype {values.dtype} and shape {values.shape}; give one real number"
            f" per point: {measure.log_weight.shape}."
        )
    return measure, values.astype(np.float64)


def read_with_times(path: str | Path, column: str, *, weight: str | None = None) -> tuple[Particles, Times]:
    """Read weighted samples and the time of each, as `read_particles` does.

    Args:
      path: a table, an NPZ or an AnnData file.
      column: name of the column or array ``[n]`` of times: numbers, dates, or labels, see `times_of`.
      weight: as in `read_particles`.

    Returns:
      `Particles` and their `Times`.

    Raises:
      ValueError: as `read_particles`, and for times that have no order.
    """
    measure, found = _read(path, weight, column)
    assert found is not None
    if not isinstance(found, Labels) and found.shape != measure.log_weight.shape:
        raise ValueError(
            f"{path}: '{column}' has shape {found.shape}; give one time per point,"
            f" {measure.log_weight.shape}."
        )
    return measure, times_of(found, name=f"{path}: '{column}'")


def _read(
    path: str | Path, weight: str | None, column: str | None
) -> tuple[Particles, np.ndarray | Labels | None]:
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a file; give a CSV, NPY or NPZ file.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give a file with at least one point.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} has the ending '{path.suffix}'; give a .csv, .npy or .npz file.")
    position, name, values, extra = reader(path, weight, column)
    if values is None or not name.startswith("log_"):
        return particles(position, values, name=str(path)), extra
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path}: the weights '{name}' have dtype {values.dtype}; give real numbers.")
    values = values.astype(float)
    shift = max(values[np.isfinite(values)], default=0.0)
    measure = particles(position, np.exp(values - shift), name=str(path))
    return measure._replace(log_weight=measure.log_weight + shift), extra


def _read_npy(path: Path, weight: str | None, column: str | None):
    if weight is not None or column is not None:
        wanted = f"weights '{weight}'" if weight is not None else f"'{column}'"
        raise ValueError(f"{path} holds one array, so it has no {wanted}; use CSV or NPZ.")
    return _load(path), "", None, None


def _read_npz(path: Path, weight: str | None, column: str | None):
    arrays = _load(path)
    if isinstance(arrays, np.ndarray):
        raise ValueError(f"{path} is an NPY array with the ending .npz; rename it to .npy.")
    name = _weight_name(path, list(arrays), weight)
    _check_column(path, list(arrays), column, name)
    rest = [key for key in arrays if key not in (*WEIGHT_NAMES, name, column)]
    named = [key for key in POSITION_NAMES if key in rest] or (rest if len(rest) == 1 else [])
    if not named:
        raise ValueError(f"{path} holds arrays {sorted(arrays)}; name the points 'position'.")
    return arrays[named[0]], name, arrays[name] if name else None, arrays[column] if column else None


def _load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except Exception as error:  # numpy raises half a dozen kinds for damaged files
        raise ValueError(f"{path} is truncated or no NumPy file ({error}); write it again.") from error


def _read_csv(path: Path, weight: str | None, column: str | None):
    table = read_table(path, column)
    return _split(path, table.header, table.number, weight, column, table.text)


def _read_parquet(path: Path, weight: str | None, column: str | None):
    parquet = _optional("pyarrow.parquet", "pyarrow", path)
    try:
        table = parquet.read_table(path)
    except Exception as error:  # pyarrow raises several kinds for damaged files
        raise ValueError(f"{path} is truncated or no Parquet file ({error}); write it again.") from error
    text = None
    for name in table.column_names:
        if name == column and not _is_numeric(str(table[name].type)) and not table[name].null_count:
            text = np.array(table[name].to_pylist())
        elif table[name].null_count or not _is_numeric(str(table[name].type)):
            raise ValueError(f"{path}: column '{name}' holds no or missing numbers; repair or remove it.")
    nothing = np.full(table.num_rows, np.nan)
    columns = [
        nothing if text is not None and name == column else one.to_numpy().astype(float)
        for name, one in zip(table.column_names, table.columns, strict=True)
    ]
    return _split(path, table.column_names, np.column_stack(columns), weight, column, text)


def _read_anndata(path: Path, weight: str | None, column: str | None):
    anndata = _optional("anndata", "anndata", path)
    try:
        data = anndata.read_h5ad(path)
    except Exception as error:  # anndata and h5py raise several kinds for damaged files
        raise ValueError(f"{path} is truncated or no AnnData file ({error}); write it again.") from error
    name = _weight_name(path, list(data.obs), weight)
    _check_column(path, list(data.obs), column, name)
    position = data.obsm.get("X_pca", data.X)
    position = np.asarray(position.toarray() if hasattr(position, "toarray") else position, float)
    try:
        values = data.obs[name].to_numpy().astype(float) if name else None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: '{name}' holds no numbers ({error}); convert it.") from error
    return position, name, values, _observed(data.obs[column]) if column else None


def _observed(column) -> np.ndarray | Labels:
    """Numbers, dates or labels in a data frame, with the order of the categories where they have one."""
    if getattr(column.dtype, "ordered", False):
        return Labels(column.astype(str).to_numpy(), tuple(map(str, column.cat.categories)))
    values = np.asarray(column.astype(column.cat.categories.dtype) if hasattr(column, "cat") else column)
    return values.astype(str) if values.dtype.kind == "O" else values


def write_annotated(
    source: str | Path, target: str | Path, obs: dict[str, Any], obsm: dict[str, Any]
) -> None:
    """Write a copy of an AnnData file with more annotations of its cells, over those of the same name.

    Args:
        source: the ``.h5ad`` file to read.
        target: the file to write.
        obs: columns, ``[cells]`` each.
        obsm: matrices, ``[cells k]`` each.
    """
    data = _optional("anndata", "anndata", Path(source)).read_h5ad(source)
    for name, column in obs.items():
        data.obs[name] = column
    for name, matrix in obsm.items():
        data.obsm[name] = matrix
    data.write_h5ad(target)


def _optional(module: str, package: str, path: Path):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{path} needs the package {package}; install wfr-flows[cells], or give CSV."
        ) from error


def _is_numeric(kind: str) -> bool:
    return kind.startswith(("int", "uint", "float", "double", "halffloat", "decimal"))


def _split(
    path: Path,
    header: list[str],
    table: np.ndarray,
    weight: str | None,
    column: str | None,
    text: np.ndarray | None,
):
    """Coordinates, weights and the one more column of a table, which may be text."""
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path} has two columns named '{twice}'; rename or remove one of them.")
    name = _weight_name(path, header, weight)
    _check_column(path, header, column, name)
    taken = [header.index(key) for key in (name, column) if key]
    values, extra = (table[:, header.index(key)] if key else None for key in (name, column))
    taken += [at for at, key in enumerate(header) if at not in taken and _is_index(path, key, at, table)]
    return np.delete(table, taken, axis=1), name, values, extra if text is None else text


def _is_index(path: Path, name: str, at: int, table: np.ndarray) -> bool:
    """Whether a column holds the row numbers that data frames are written with, which are no coordinate."""
    if not (name.startswith("__index_level_") or (at == 0 and name in ("", "Unnamed: 0"))):
        return False
    values = table[:, at]
    if (values != np.round(values)).any() or len(np.unique(values)) < len(values):
        raise ValueError(f"{path}: column {at + 1} has no name and holds no row numbers; name or remove it.")
    said = f"{path}: column {at + 1}, which has no name, holds row numbers and is left out."
    warnings.warn(said, ReadingNote, stacklevel=2)
    return True


def _weight_name(path: Path, names: list[str], wanted: str | None) -> str:
    if wanted is not None and wanted not in names:
        raise ValueError(f"{path} has no weights '{wanted}'; it has {names or 'no header'}.")
    found = [name for name in WEIGHT_NAMES if name in names]
    if wanted is None and len(found) > 1:
        raise ValueError(f"{path} has several weights, {found}; keep one of them.")
    return wanted or (found[0] if found else "")


def _check_column(path: Path, names: list[str], column: str | None, weight: str) -> None:
    if column is None:
        return
    if column not in names:
        raise ValueError(f"{path} has no '{column}'; it has {names or 'no header'}.")
    if column == weight:
        raise ValueError(f"{path}: '{column}' cannot be the weights as well; name another column.")


_READERS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_csv,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
    ".h5ad": _read_anndata,
}
