"""``python -m features.info STORE``: what is in a feature store, and whether it is what it says."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from features.audit import Audit, Part, audit, count_patients, default_parts
from features.command import progress, run_command
from features.errors import BottleneckError, InputError
from features.split import SEED, TEST_FRACTION, VALIDATION_FRACTION
from features.store import SCHEMA, FeatureStore, RowState

CHUNK_BYTES = 32 * 2**20
"""Upper bound of the features held at once while they are checked (one row at least)."""
LISTED = 10
"""Rows named in a problem, or pairs of images shown, before the rest is only counted."""


def describe(store: FeatureStore) -> dict[str, Any]:
    """Returns what the store says of itself, as JSON types; reads no features.

    The store may be unfinished, and may be written while it is described.
    """
    header = store.header
    states = Counter(store.done.tolist())
    counts = np.bincount(store.labels, minlength=len(header.classes))
    known = [(patient, label) for patient, label in zip(header.patients, header.labels, strict=True) if patient]
    classes_of = defaultdict(set)
    for patient, label in known:
        classes_of[patient].add(label)
    return {
        "schema": SCHEMA,
        "rows": len(store),
        "done": states[RowState.DONE],
        "skipped": states[RowState.SKIPPED],
        "pending": states[RowState.PENDING],
        "complete": store.complete,
        "classes": dict(zip(header.classes, counts.tolist(), strict=True)),
        "patients": {
            "rows_known": len(known),
            "number": len(classes_of),
            "in_several_classes": sum(len(labels) > 1 for labels in classes_of.values()),
        },
        "views": list(header.views),
        "backbone": header.backbone,
        "alpha": header.alpha,
        "weights": header.weights,
        "weights_sha256": header.weights_sha256,
        "image_size": header.image_size,
        "preprocessing": header.preprocessing,
        "shape": list(header.shape),
        "dtype": header.dtype,
        "batch_size": header.batch_size,
        "bytes": store.path.stat().st_size,
        "fingerprint": store.fingerprint,
        "created": header.created,
        "versions": header.versions,
    }


def find_problems(
    store: FeatureStore, *, features: bool = True, advance: Callable[[int], object] = lambda rows: None
) -> list[str]:
    """Checks a store against itself.

    That labels are in range and the file is long enough was checked when it was opened.

    Args:
        store: The store, finished or not.
        features: Whether to read every bottleneck too (bounded memory, whatever the store's size).
        advance: Called with the number of rows checked since the last call.

    Returns:
        One line for each problem: the field, what was expected, what was found. Empty for a sound store.
    """
    problems = list(_header_problems(store))
    if features:
        problems += _feature_problems(store, advance)
    return problems


def _header_problems(store: FeatureStore) -> Iterator[str]:
    recomputed = store.header.fingerprint
    if recomputed != store.fingerprint:
        yield f"fingerprint: expected {recomputed} from the contents, found {store.fingerprint}"
    pending = np.count_nonzero(store.done == RowState.PENDING)
    # The reverse, all rows settled but not marked complete, is the moment before a writer's last act: no damage.
    if store.complete and pending:
        yield f"complete: expected every row done or skipped, found {pending} pending"
    unknown = np.flatnonzero(store.done > max(RowState))
    if len(unknown):
        yield f"done: expected 0, 1 or 2, found {store.done[unknown[0]]} in {_listed(unknown)}"
    path, times = Counter(store.header.paths).most_common(1)[0]
    if times > 1:
        yield f"paths: expected every file once, found {path} {times} times"


def _feature_problems(store: FeatureStore, advance: Callable[[int], object]) -> list[str]:
    """Reads all rows that are settled, in file order, and names those whose features cannot be right."""
    not_finite: list[int] = []
    all_zero: list[int] = []
    not_zero: list[int] = []
    for start, chunk in _chunks(store):
        rows = np.arange(start, start + len(chunk))
        done, skipped = (store.done[rows] == state for state in (RowState.DONE, RowState.SKIPPED))
        finite = np.isfinite(chunk).all(axis=(1, 2))
        filled = (chunk != 0).any(axis=2)
        not_finite += rows[done & ~finite].tolist()
        all_zero += rows[done & ~filled.all(axis=1)].tolist()
        not_zero += rows[skipped & filled.any(axis=1)].tolist()
        advance(len(chunk))
    found = (
        ("finite values in every row that is done", "others", not_finite),
        ("every row that is done to hold features in every view", "zeros only", all_zero),
        ("zeros in every row that was skipped", "others", not_zero),
    )
    return [f"features: expected {rule}, found {what} in {_listed(rows)}" for rule, what, rows in found if rows]


def _chunks(store: FeatureStore) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yields (first row, features as (rows, views, values)) from the file, without mapping it into memory."""
    values = int(np.prod(store.header.shape[1:]))
    row_bytes = values * np.dtype(store.header.dtype).itemsize
    step = max(1, CHUNK_BYTES // row_bytes)
    offset = int(getattr(store.features, "offset", 0))
    for start in range(0, len(store), step):
        rows = min(step, len(store) - start)
        place = offset + start * row_bytes
        flat = np.fromfile(store.path, store.header.dtype, rows * values, offset=place)
        yield start, flat.reshape(rows, len(store.header.views), -1)


def split_parts(store: FeatureStore) -> tuple[list[Part], str]:
    """Returns the parts that a search would use, or all rows as one part, '', and the reason why it could not."""
    if not store.complete:
        return [Part("", store, store.usable)], "not all rows are there yet"
    try:
        return default_parts(store), ""
    except InputError as error:
        return [Part("", store, store.usable)], str(error)


def _listed(rows: Iterable[int]) -> str:
    numbers = [str(row) for row in rows]
    more = f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(numbers[:LISTED])}{more}"


def _parts_text(found: Audit, reason: str) -> str:
    if reason:
        return f"none: {reason}"
    parts = (f"{name} {rows:,} rows of {found.patients[name]:,} patients" for name, rows in found.rows.items())
    return f"{', '.join(parts)}; {found.patients_shared:,} patients in two of them (the default of search.run)"


def _pairs_text(found: Audit) -> str:
    if found.pairs is None:
        return "not looked for"
    if not found.pairs:
        return "no pair of different patients or classes"
    number = f"{len(found.pairs):,}{' or more' if found.truncated else ''}"
    across = sum(pair.across for pair in found.pairs)
    lines = [f"{number} pairs of different patients or classes, {across:,} of them across these parts"]
    lines += map(str, found.pairs[:LISTED])
    lines += [f"and {len(found.pairs) - LISTED:,} more (--json has them)"] if len(found.pairs) > LISTED else []
    return "\n".join(lines)


def _table(path: Path, told: dict[str, Any], problems: list[str], found: Audit, reason: str) -> Table:
    """Returns the description as a two-column table for people."""
    patients = told["patients"]
    finished = "complete" if told["complete"] else "NOT complete"
    texts = {
        "rows": f"{told['rows']:,}: {told['done']:,} done, {told['skipped']:,} skipped, {told['pending']:,} pending",
        "state": finished,
        "classes": ", ".join(f"{name} {count:,}" for name, count in told["classes"].items()),
        "patients": f"{patients['number']:,} (known for {patients['rows_known']:,} rows), "
        f"{patients['in_several_classes']:,} of them in more than one class",
        "parts": _parts_text(found, reason),
        "near-identical": _pairs_text(found),
        "views": ", ".join(told["views"]),
        "backbone": told["backbone"] + (f", alpha {told['alpha']:g}" if told["alpha"] is not None else ""),
        "weights": f"{told['weights']} (sha256 {told['weights_sha256'][:16] or 'unknown'})",
        "image size": f"{told['image_size']} px" if told["image_size"] else "unknown",
        "preprocessing": told["preprocessing"],
        "features": f"{' x '.join(map(str, told['shape']))} {told['dtype']}",
        "file": f"{told['bytes'] / 1e6:,.1f} MB, schema {told['schema']}",
        "fingerprint": told["fingerprint"],
        "created": told["created"] or "unknown",
        "versions": ", ".join(f"{name} {version}" for name, version in told["versions"].items()),
        "problems": "\n".join(problems) or "none",
    }
    table = Table(title=str(path), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in texts.items():
        table.add_row(name, text)
    return table


def main(
    store: Annotated[Path, typer.Argument(help="The feature store.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the features, only what describes them.")] = False,
) -> None:
    """Shows what is in a feature store and checks it. Works while an extraction is writing it.

    Exit status 1 where a check fails. Near-identical images are listed and fail nothing.
    """
    opened = FeatureStore(store)
    parts, reason = split_parts(opened)
    with progress("rows") as display:
        task = display.add_task("checking", total=len(opened), visible=not quick)
        problems = find_problems(opened, features=not quick, advance=lambda rows: display.advance(task, rows))
        compared = len(opened.usable) and not quick and not problems
        found = _audit(parts, display) if compared else count_patients(parts)
    split = {"seed": SEED, "validation": VALIDATION_FRACTION, "test": TEST_FRACTION}
    leaks = {"split": None if reason else split, **found.to_dict()}
    told = describe(opened) | {"leaks": leaks, "problems": problems}
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        Console(highlight=False, markup=False).print(_table(store, told, problems, found, reason))
    if problems:
        raise BottleneckError(f"{store}: {len(problems)} {'problems' if len(problems) > 1 else 'problem'} found")


def _audit(parts: list[Part], display: Progress) -> Audit:
    task = display.add_task("comparing")
    return audit(parts, within_parts=True, report=lambda done, total: display.update(task, completed=done, total=total))


if __name__ == "__main__":
    run_command(main)
