"""Tables of numbers in text files: their encoding, separators, and marks of decimals and thousands."""

import codecs
import csv
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np


class ReadingNote(UserWarning):
    """Warning that tells how a file was understood, or what was left out of it."""


class TextTable(NamedTuple):
    """Cells of a text file.

    Attributes:
      header: names of the columns, without blanks around them; empty where there is no header.
      number: ``[n, k]``; a column of text holds NaN.
      text: ``[n]``, the column that may hold text, as it stands; None where it holds numbers.
    """

    header: list[str]
    number: np.ndarray
    text: np.ndarray | None


class _Marks(NamedTuple):
    """Mark before the decimals, and marks that may stand between thousands."""

    decimal: str
    thousands: str


# A mark of byte order is the only sure sign of an encoding; that of UTF-32 begins like that of UTF-16.
_ENCODINGS = {
    codecs.BOM_UTF8: "UTF-8",
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", " ": "blanks"}
_SPACES = " \u00a0\u202f"
_THOUSANDS = {"": "", ",": "commas", ".": "dots", _SPACES: "blanks", "'’": "apostrophes"}
_PLAIN = _Marks(".", "")
_MARKS = [_PLAIN, *(_Marks(d, g) for d in ".," for g in _THOUSANDS if d != g and (d, g) != (".", ""))]
_EXPONENT = "(?:[eE][+-]?[0-9]+)?"
_WORDS = "[+-]?(?:nan|inf|infinity)"
# Rows by which the separator is chosen; all rows are checked afterwards.
_LOOKED_AT = 50
# A tenth of the decimals of measured numbers begin with 0 and no whole number does, so that this many whole
# numbers of two digits and more are hardly decimals: .9 to this power is below 2 in 1000.
_ENOUGH = 60


def read_table(path: Path, text_column: str | None = None) -> TextTable:
    """Read a text file of numbers, whatever its dialect, and refuse one that can be read in two ways.

    Columns are separated by tabs, semicolons, commas or blanks; decimals by a point or a comma; thousands by
    nothing, or by commas, points, blanks or apostrophes all over the table. The text is UTF-8, or UTF-16 or
    UTF-32 with a mark of byte order. A dialect other than decimal points in UTF-8 is told as a `ReadingNote`.

    Args:
      path: the file.
      text_column: name of the column that may hold text.

    Raises:
      ValueError: text in another encoding, rows of unequal length, cells that are no numbers, and tables that
        can be read in two ways.
    """
    text, encoding = _decoded(path)
    lines = text.splitlines()
    separator, ambiguous = _separator(lines, text_column)
    try:
        rows = _rows(lines, separator)
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV file ({error}); repair it.") from error
    if not rows:
        raise ValueError(f"{path} holds no rows; give a file with at least one point.")
    header = _header(rows, separator)
    if any(_number_like(cell, separator) for cell in header):
        raise ValueError(f"{path}, row 1 mixes numbers and words; give numbers, or a header of names.")
    rows = rows[1:] if header else rows
    if not rows:
        raise ValueError(f"{path} holds no rows after its header; give a file with at least one point.")
    if ambiguous and not _whole_numbers(rows):
        raise ValueError(
            f"{path} has no header, and its commas may separate columns or be decimal marks; add a header of"
            " names, or write decimal points."
        )
    _check_widths(path, header, rows)
    at = header.index(text_column) if text_column in header else None
    columns = [[cell.strip() for cell in column] for column in zip(*rows, strict=True)]
    strings = None
    if at is not None and not all(_number_like(cell, separator) for cell in columns[at]):
        strings = np.array(columns[at])
        columns[at] = ["nan"] * len(rows)
    number, marks = _numbers(path, columns, separator, first_row=2 if header else 1)
    _tell(path, encoding, separator, marks, len(columns))
    return TextTable(header, number, strings)


def _decoded(path: Path) -> tuple[str, str]:
    content = path.read_bytes()
    mark = next((mark for mark in _ENCODINGS if content.startswith(mark)), b"")
    encoding = _ENCODINGS.get(mark, "UTF-8")
    try:
        text = content.decode("utf-8-sig" if encoding == "UTF-8" else encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text; give a CSV file in UTF-8.") from error
    if "\0" in text:
        raise ValueError(f"{path} is not text, or is in UTF-16 without a byte order mark; save it as UTF-8.")
    return text, encoding


def _separator(lines: Sequence[str], text_column: str | None) -> tuple[str, bool]:
    """The separator of columns, and whether the commas of a table without header may be decimal marks."""
    some = [line for line in lines if line.strip()][: _LOOKED_AT + 1]
    fitting = {}
    for separator in _SEPARATORS:
        try:
            rows = _rows(some, separator)
        except csv.Error:
            continue
        if _fits(rows, separator, text_column):
            fitting[separator] = rows
    several = [separator for separator, rows in fitting.items() if len(rows[0]) > 1]
    if not fitting:
        first = some[0] if some else ""
        return max(_SEPARATORS, key=lambda separator: (first.count(separator), separator == ",")), False
    chosen = next(iter(several or fitting))
    return chosen, chosen == "," and _pairs(fitting[chosen])


def _rows(lines: Sequence[str], separator: str) -> list[list[str]]:
    if separator == " ":
        lines = [" ".join(line.split()) for line in lines]
    return [row for row in csv.reader(lines, delimiter=separator) if any(cell.strip() for cell in row)]


def _header(rows: list[list[str]], separator: str) -> list[str]:
    """Names of the columns, none where the first row holds numbers."""
    first = [cell.strip() for cell in rows[0]]
    return [] if all(_number_like(cell, separator) for cell in first) else first


def _fits(rows: list[list[str]], separator: str, text_column: str | None) -> bool:
    """Whether these are rows of one length that hold numbers, below a header or not."""
    if not rows:
        return False
    header = _header(rows, separator)
    text = header.index(text_column) if text_column in header else None
    body = rows[1:] if header else rows
    if len(rows[0]) == 1 and not _one_column(header, body):
        return False
    return bool(body) and all(
        len(row) == len(rows[0])
        and all(at == text or _number_like(cell.strip(), separator) for at, cell in enumerate(row))
        for row in body
    )


def _one_column(header: list[str], body: list[list[str]]) -> bool:
    """Whether rows of one cell each are a column, and not columns separated by something else."""
    if header:
        return not any(separator in header[0] for separator in "\t;,")
    return not any("," in cell for row in body for cell in row)


def _pairs(rows: list[list[str]]) -> bool:
    """Whether pairs of columns could be whole parts and decimals of one number."""
    return len(rows[0]) % 2 == 0 and all(
        re.fullmatch("[0-9]+" if at % 2 else "[+-]?[0-9]+", cell)
        for row in rows
        for at, cell in enumerate(row)
    )


def _whole_numbers(rows: list[list[str]]) -> bool:
    """Whether what could be decimals are whole numbers, to judge by how they begin."""
    if not _pairs(rows):
        return True
    decimals = [cell for row in rows for cell in row[1::2] if len(cell) > 1]
    return len(decimals) >= _ENOUGH and not any(cell.startswith("0") for cell in decimals)


def _check_widths(path: Path, header: list[str], rows: list[list[str]]) -> None:
    width = len(header or rows[0])
    for line, row in enumerate(rows, start=2 if header else 1):
        if len(row) == 2 * width and header:
            raise ValueError(
                f"{path}, row {line}: {len(row)} columns under {width} names; if its commas are decimal"
                " marks, separate the columns by semicolons."
            )
        if len(row) != width:
            raise ValueError(f"{path}, row {line}: {len(row)} columns where {width} are expected; repair it.")


def _numbers(
    path: Path, columns: list[list[str]], separator: str, *, first_row: int
) -> tuple[np.ndarray, _Marks]:
    """All cells by the marks that fit every one of them."""
    cells = [cell for column in columns for cell in column]
    candidates = [marks for marks in _MARKS if not (separator == " " and marks.thousands == _SPACES)]
    fitting = []
    for marks in candidates:
        pattern = re.compile(_pattern(marks))
        if all(pattern.fullmatch(cell) for cell in cells):
            fitting.append(marks)
            if marks == _PLAIN:
                break
    if not fitting:
        raise _no_number(path, columns, separator, first_row)
    unclear = next((cell for cell in cells if "," in cell), None)
    if unclear is not None and len({marks.decimal for marks in fitting}) > 1:
        raise ValueError(
            f"{path}: the comma in '{unclear}' may be a decimal mark or stand between thousands; write"
            " decimal points and nothing between thousands."
        )
    decimal, thousands = fitting[0]
    table = str.maketrans(decimal, ".", thousands)
    number = np.array([cell.translate(table) for cell in cells] if fitting[0] != _PLAIN else cells, float)
    return np.ascontiguousarray(number.reshape(len(columns), -1).T), fitting[0]


def _pattern(marks: _Marks) -> str:
    point, between = re.escape(marks.decimal), f"[{re.escape(marks.thousands)}]" if marks.thousands else ""
    whole = f"(?:[1-9][0-9]{{0,2}}(?:{between}[0-9]{{3}})+|[0-9]+)" if between else "[0-9]+"
    return f"[+-]?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+){_EXPONENT}|(?i:{_WORDS})"


def _no_number(path: Path, columns: list[list[str]], separator: str, first_row: int) -> ValueError:
    for line, row in enumerate(zip(*columns, strict=True), start=first_row):
        for cell in row:
            if not _number_like(cell, separator):
                return ValueError(f"{path}, row {line}: '{cell}' is no number; repair or remove the row.")
    plain = re.compile(_pattern(_PLAIN))
    odd = next(cell for column in columns for cell in column if not plain.fullmatch(cell))
    return ValueError(
        f"{path}: no marks of decimals and thousands fit all numbers, '{odd}' among them; write decimal"
        " points and nothing between thousands."
    )


_LIKE = re.compile(f"[+-]?(?:[0-9]+|(?=[0-9.,])[0-9.,'’{_SPACES}]*[0-9.]){_EXPONENT}|(?i:{_WORDS})")
_LIKE_WITHOUT_SPACES = re.compile(f"[+-]?(?:[0-9.,'’]*[0-9][.]?){_EXPONENT}|(?i:{_WORDS})")


def _number_like(cell: str, separator: str) -> bool:
    """Whether a cell is a number by one of the marks, blanks between thousands only where they are safe."""
    cell = cell.strip()
    like = _LIKE_WITHOUT_SPACES if separator in ", " else _LIKE
    return like.fullmatch(cell) is not None and any(digit in cell for digit in "0123456789nN")


def _tell(path: Path, encoding: str, separator: str, marks: _Marks, width: int) -> None:
    said = [f"{encoding} text"] if encoding != "UTF-8" else []
    if width > 1 and (separator == " " or (separator != "," and marks != _PLAIN)):
        said.append(f"{_SEPARATORS[separator]} between columns")
    if marks.decimal == ",":
        said.append("decimal commas")
    if marks.thousands:
        said.append(f"{_THOUSANDS[marks.thousands]} between thousands")
    if said:
        warnings.warn(f"{path} is read with {', '.join(said)}.", ReadingNote, stacklevel=2)
