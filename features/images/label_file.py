"""A table of labels, from a file or a DataFrame, as columns of text."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from features.runtime.errors import InputError
from features.runtime.extras import extra_hint
from features.runtime.files import read_text, require_file
from features.runtime.text import composed, printable, shortened

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = ",;\t"


def read_label_file(path: Path) -> pd.DataFrame:
    """Reads a CSV, TSV or Parquet file; CSV and TSV as text, so that ``007`` and ``NA`` stay what they are.

    A CSV whose first line has no comma may have semicolons or tabs, as spreadsheets write it in many countries.

    Raises:
        InputError: It is none of these by its ending, is missing, empty or damaged; or Parquet cannot be read here.
    """
    readers: Mapping[str, Callable[[Path], pd.DataFrame]] = MappingProxyType(
        {".csv": _read_text, ".tsv": _read_text, ".parquet": _read_parquet}
    )
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(path, expected=f"a table, one of {', '.join(readers)}", found=path.suffix or "no ending")
    require_file(path, "a table of labels")
    try:
        return reader(path)
    except InputError:
        raise
    except Exception as error:  # pandas and pyarrow raise whatever a damaged file makes them stumble over
        told = f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
        raise InputError(path, expected="a table that can be read", found=f"none ({shortened(told, 160)})") from error


def _read_text(path: Path) -> pd.DataFrame:
    import pandas as pd  # half a second that an extraction without a table need not spend

    try:
        read_text(path)
    except InputError as error:
        raise error.advising("a spreadsheet does as 'CSV UTF-8'") from error
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
    counts = {separator: first.count(separator) for separator in _SEPARATORS}
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    separator = usual if counts[usual] else max(counts, key=counts.__getitem__)
    header = _header_no_shorter_than_rows(path, separator)
    # `index_col`: a row with one value more than there are columns must not shift all of them
    frame = pd.read_csv(
        path,
        sep=separator,
        dtype=str,
        keep_default_na=False,
        index_col=False,
        encoding="utf-8-sig",
        on_bad_lines="error",
    )
    # spreadsheets write `,,,` below a table, of rows that were emptied; pandas itself passes over empty lines alone
    frame = frame.loc[(frame.fillna("") != "").any(axis=1)]
    # pandas calls the second column of a name `label.1`, and one without a name `Unnamed: 3`
    frame.columns = pd.Index([name or unnamed for name, unnamed in zip(header, frame.columns, strict=True)])
    return frame


def _header_no_shorter_than_rows(path: Path, separator: str) -> list[str]:
    """Returns the columns' names as they are written.

    A first row that is longer is refused: pandas refuses later ones, and cuts all as it cuts this one.

    Raises:
        InputError: Naming the row.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = filter(None, csv.reader(file, delimiter=separator))
        header, first = next(rows, []), next(rows, [])
    if len(first) > len(header):
        expected = f"at most {len(header)} values, as there are columns"
        hint = "a value with a separator in it needs quotes"
        raise InputError(path, field="row 1", expected=expected, found=len(first), hint=hint)
    return header


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except ImportError as error:
        expected, hint = "pyarrow, which reads Parquet", extra_hint("parquet")
        raise InputError(path, expected=expected, found="none installed", hint=hint) from error


def texts_of(column: pd.Series[Any]) -> list[str]:
    """Returns the values of a column as text: NFC, spaces around it left off, '' for none, ``7`` for 7.0."""
    return [_text(value) for value in column.tolist()]


def _text(value: object) -> str:
    if value is None or str(value) == "<NA>" or value != value:  # noqa: PLR0124  NaN and NaT are not themselves
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return composed(str(value)).strip()


def names_of(frame: pd.DataFrame) -> list[str]:
    """Returns the names of a table's columns, as text."""
    return [composed(str(name)).strip() for name in frame.columns]


def shown(text: str) -> str:
    """Returns a value as it is shown in a message: on one line, and not whole where it is long."""
    return printable(repr(shortened(text, 60)))
