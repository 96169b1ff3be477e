"""``python -m search.report STUDY_DIR``: everything that a study says of itself, in one file that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from features.runtime.command import run_command, tell
from features.runtime.errors import InputError
from features.runtime.text import counted
from heads.html.place import check_document
from search.record.study_record import read_record
from search.review.report import write_report
from search.setup.config import REPORT_FILE


def main(
    *,
    study: Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="The study directory.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help=escape(f"File to write. [default: STUDY_DIR/{REPORT_FILE}]"), show_default=False)
    ] = None,
) -> None:
    """Writes a study's report: one HTML file that opens without a network, while the search runs or after it."""
    path = out or study / REPORT_FILE
    if path.is_dir() or (out and not path.absolute().parent.is_dir()):
        raise InputError("--out", expected="a file in a folder that exists", found=path)
    check_document("--out", path)
    record = read_record(study)
    write_report(path, record)
    tell(f"{path}: {record.config.name}, {counted(record.summary.trials, 'trial')}, {record.progress}")


if __name__ == "__main__":
    run_command(main)
