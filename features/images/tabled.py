"""The images that a table of labels names: each of its rows finds its file in the image folder."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from features.images.columns import LabelRow, LabelTable
from features.images.entries import is_image_name, to_install
from features.images.folder import ImageTable, limited, table_of
from features.images.label_file import shown
from features.images.patients import GROUP_PATTERN, Patients, compile_group_pattern, find_in_paths, find_patients
from features.images.walk import File, Seen, files_below
from features.runtime.errors import InputError
from features.runtime.text import composed, counted, listed, printable
from features.store.patient_names import remarks_on_words

MISSING, AGAIN, UNNAMED = "rows whose file is missing", "rows that name a file again", "images without a row"
"""What is left out, as ``ImageTable.ignored`` counts it."""
_NAMED = 3


def scan_table(
    folder: Path,
    labels: LabelTable,
    *,
    group_pattern: str = GROUP_PATTERN,
    limit: int | None = None,
    strict: bool = False,
) -> ImageTable:
    """Finds the images that a table of labels names, wherever they lie in a folder.

    A path is relative to the folder, or absolute and inside of it, with or without the file's ending. A name alone is
    looked for in the folders within, too, and must be that of one file. Rows whose file is missing, rows that say the
    same of a file again and images without a row are left out.

    Args:
        folder: The image folder.
        labels: The table.
        group_pattern: Where the patient is in a path or a file's name, for a table without a column that says it; one
            of the user's has precedence over a column.
        limit: As for ``scan_folder``.
        strict: Refuse what would be left out.

    Raises:
        InputError: The folder is missing or cannot be read; no row has a file, a path leads out of the folder, may be
            one of several files, or two rows say different things of one file; the row is named.
    """
    pattern = compile_group_pattern(group_pattern)
    seen = Seen()
    rows = _rows_of_files(folder, labels, files_below(folder, seen))
    _refuse_none(folder, labels, rows, to_install(seen.others))
    if strict and rows.left_out:
        expected, told = f"one row for each image in {folder}", "; ".join(rows.told())
        raise InputError(labels.name, expected=expected, found=told, hint="without --strict they are left out")
    by_class = rows.by_class()
    every = {name: by_class.get(name, []) for name in labels.classes}
    found = {name: files for name, files in every.items() if files}
    if limit is not None:
        found = limited(found, limit)
    taken = [rows.by_path[file.path] for files in found.values() for file in files]
    paths = [file.path for files in found.values() for file in files]
    if group_pattern != GROUP_PATTERN:
        patients = find_in_paths(paths, pattern)
    elif labels.patient_column:
        patients = _of_column(labels, taken, paths)
    else:
        own = [_below_class(row, path) for row, path in zip(taken, paths, strict=True)]
        patients = find_patients(own, pattern, shown=paths)
    return table_of(
        folder,
        found,
        patients,
        ignored=seen.counts | rows.counts,
        remarks=[
            *(f"left out, {told}" for told in rows.told()),
            *to_install(seen.others),
            *_remarks_on_classes([name for name in every if name not in found]),
        ],
        parts=tuple(row.part for row in taken) if labels.has_parts else (),
        left_out=tuple((path, told) for path, _, told in rows.left_out),
    )


@dataclass(frozen=True)
class _Rows:
    """Rows with their files, and what has none: (path, reason, which row or why)."""

    by_path: dict[str, LabelRow]
    files: dict[str, File]
    left_out: tuple[tuple[str, str, str], ...]

    def by_class(self) -> dict[str, list[File]]:
        """The files of each class, sorted by path."""
        found: dict[str, list[File]] = defaultdict(list)
        for path in sorted(self.by_path):
            found[self.by_path[path].label].append(self.files[path])
        return found

    @property
    def counts(self) -> dict[str, int]:
        counts = {reason: len(self.paths(reason)) for reason in (MISSING, AGAIN, UNNAMED)}
        return {reason: count for reason, count in counts.items() if count}

    def paths(self, reason: str) -> list[str]:
        return [path for path, why, _ in self.left_out if why == reason]

    def named(self, reason: str, most: int = _NAMED) -> str:
        return listed(map(printable, self.paths(reason)), most)

    def told(self) -> Iterator[str]:
        for reason, count in self.counts.items():
            what, _, rest = reason.partition("s ")
            rest = rest.replace("name ", "names ") if count == 1 else rest
            yield f"{counted(count, what)} {rest}: {self.named(reason)}"


class _Files:
    """The files of a folder, by all that a table may call them."""

    def __init__(self, folder: Path, files: Iterable[File]) -> None:
        self._roots = [PurePosixPath(place) for place in (os.path.abspath(folder), os.path.realpath(folder))]  # noqa: PTH100
        self._names: tuple[dict[str, list[File]], ...] = tuple(defaultdict(list) for _ in range(4))
        for file in files:
            path = PurePosixPath(composed(file.path))
            bare = path.with_suffix("") if is_image_name(path.name) else path  # `.7` of a DICOM identifier is no ending
            for names, name in zip(self._names, (path, bare, path.name, bare.name), strict=True):
                names[str(name)].append(file)

    def within(self, text: str) -> str | None:
        """The path relative to the folder; None for one that leads out of it."""
        path = posixpath.normpath(text if "\\" not in text else text.replace("\\", "/"))
        if not posixpath.isabs(path):
            return None if path.split("/")[0] == ".." else path
        for known in (path, os.path.realpath(path)):
            for root in self._roots:
                if PurePosixPath(known).is_relative_to(root):
                    return str(PurePosixPath(known).relative_to(root))
        return None

    def called(self, path: str) -> list[File]:
        """The files that a path in the folder may mean: itself, with another ending, in a folder within."""
        for names in self._names if "/" not in path else self._names[:2]:
            if found := names.get(path):
                return [file for file in found if file.path == path] or found
        return []


def _rows_of_files(folder: Path, labels: LabelTable, files: list[File]) -> _Rows:
    known = _Files(folder, files)
    by_path: dict[str, LabelRow] = {}
    left_out: list[tuple[str, str, str]] = []
    for row in labels.rows:
        path = known.within(row.path)
        if path is None:
            hint = "give the folder that holds all images as IMAGES"
            raise labels.refusal(row, f"a path within {folder}", shown(row.path), hint)
        found = known.called(path)
        if len(found) > 1:
            several = " or ".join(printable(file.path) for file in found[:_NAMED])
            raise labels.refusal(row, "the path of one image", f"{shown(row.path)}, which may be {several}")
        if not found:
            left_out.append((row.path, MISSING, f"row {row.number} of {labels.name}: no such file"))
            continue
        first = by_path.setdefault(found[0].path, row)
        if first is not row:
            _refuse_other(labels, row, first)
            left_out.append((row.path, AGAIN, f"row {row.number} of {labels.name}: again, after row {first.number}"))
    left_out += [(file.path, UNNAMED, f"no row of {labels.name}") for file in files if file.path not in by_path]
    return _Rows(by_path, {file.path: file for file in files}, tuple(left_out))


def _refuse_other(labels: LabelTable, row: LabelRow, first: LabelRow) -> None:
    """Refuses a second row of a file that says something else than the first one."""
    for name in ("label", "patient", "part"):
        mine, theirs = getattr(row, name), getattr(first, name)
        if mine != theirs:
            expected = f"the {name} that row {first.number} says of {shown(row.path)}, {shown(theirs)}"
            raise labels.refusal(row, expected, shown(mine))


def _refuse_none(folder: Path, labels: LabelTable, rows: _Rows, hints: list[str]) -> None:
    if rows.by_path:
        return
    there = rows.named(UNNAMED, most=1) or "no image at all"
    found = f"none of {len(labels.rows):,} rows' files: no {rows.named(MISSING)}, but {there}"
    hint = "; ".join(hints) or None
    raise InputError(folder, expected=f"the images that {labels.name} names", found=found, hint=hint)


def _of_column(labels: LabelTable, rows: list[LabelRow], paths: list[str]) -> Patients:
    """The patients that a column says."""
    names = tuple(row.patient for row in rows)
    example = next(
        (f", e.g. {shown(who)} of {printable(path)}" for who, path in zip(names, paths, strict=True) if who), ""
    )
    source = f"column {printable(labels.patient_column)} of {labels.name}{example}"
    return Patients(names, source if any(names) else "", tuple(remarks_on_words(names)))


def _below_class(row: LabelRow, path: str) -> str:
    """The path as it would be if the file lay in a folder of its class, where patients are looked for."""
    return f"{row.label.replace('/', '_')}/{PurePosixPath(path).name}"


def _remarks_on_classes(empty: list[str]) -> Iterator[str]:
    if empty:
        yield f"left out, classes without an image: {listed(map(printable, empty), _NAMED)}"
