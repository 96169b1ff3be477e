"""``python -m features.info STORE``: what is in a feature store, and whether it is what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from features.leaks.leaks import TOO_FEW, Leaks, Part, count_patients, default_parts, find_leaks, too_few_values
from features.rows.split import SEED, TEST_FRACTION, VALIDATION_FRACTION
from features.runtime.command import bars, run_command, show, tell
from features.runtime.errors import BottleneckError, InputError
from features.runtime.text import counted, printable
from features.store.check import LISTED, describe, find_problems
from features.store.reader import FeatureStore

_SPLIT = "as search.run --folds 0 splits them"
_FOLDED = "without it, where validation rows are few, a search takes train and validation together, in folds"


def split_parts(store: FeatureStore) -> tuple[list[Part], str]:
    """Returns the parts of a search with one validation part, or all rows as one part, '', and why there are none."""
    if not store.complete:
        return [Part("", store, store.usable)], "not all rows are there yet"
    try:
        return default_parts(store), ""
    except InputError as error:
        return [Part("", store, store.usable)], str(error)


def _parts_text(store: FeatureStore, found: Leaks, reason: str) -> str:
    if reason:
        return f"none: {printable(reason)}"
    given = set(np.asarray(store.header.parts)[store.usable]) if store.header.parts else set()
    if {"validation", "test"} <= given:
        return f"{found.in_words} (as given, and as search.run uses them)"
    if "validation" in given:
        return f"{found.in_words} (validation as given, and as search.run splits the rest)"
    made = "test as given, and as search.run --folds 0 splits the rest" if "test" in given else _SPLIT
    return f"{found.in_words} ({made}; {_FOLDED})"


def _pairs_text(store: FeatureStore, found: Leaks) -> str:
    if found.pairs is None:
        return TOO_FEW if too_few_values(store) else "not looked for"
    if not found.pairs:
        return "no pair of different patients or classes"
    number = f"{len(found.pairs):,} or more pairs" if found.truncated else counted(len(found.pairs), "pair")
    across = sum(pair.across for pair in found.pairs)
    lines = [f"{number} of different patients or classes, {across:,} of them across these parts"]
    lines += [printable(f"{pair}") for pair in found.pairs[:LISTED]]
    lines += [f"and {len(found.pairs) - LISTED:,} more (--json has them)"] if len(found.pairs) > LISTED else []
    return "\n".join(lines)


def _compression_texts(told: dict[str, Any]) -> dict[str, str]:
    if "compressed_from" not in told:
        return {}
    text = f"{told['shape'][-1]:,} of {told['channels']:,} channels, of the store with fingerprint"
    return {"compressed": f"{text} {told['compressed_from']}"}


def _table(store: FeatureStore, told: dict[str, Any], problems: list[str], found: Leaks, reason: str) -> Table:
    """Returns the description as a two-column table for people."""
    patients = told["patients"]
    finished = "complete" if told["complete"] else "NOT complete"
    texts = {
        "rows": f"{told['rows']:,}: {told['done']:,} done, {told['skipped']:,} skipped, {told['pending']:,} pending",
        "state": finished,
        "classes": ", ".join(f"{printable(name)} {count:,}" for name, count in told["classes"].items()),
        "patients": f"{patients['number']:,} (known for {patients['rows_known']:,} rows), "
        f"{patients['in_several_classes']:,} of them in more than one class",
        "parts": _parts_text(store, found, reason),
        "near-identical": _pairs_text(store, found),
        "views": ", ".join(told["views"]),
        "pages": {"first": "one a file", "all": "all of a file, a row each"}.get(told["pages"], told["pages"]),
        **store.header.texts(),
        "features": f"{' x '.join(map(str, told['shape']))} {told['dtype']}",
        "file": f"{told['bytes'] / 1e6:,.1f} MB, schema {told['schema']}",
        "fingerprint": told["fingerprint"],
        **_compression_texts(told),
        "content": told["content"] or "unknown",
        "created": told["created"] or "unknown",
        "versions": ", ".join(f"{name} {version}" for name, version in told["versions"].items()),
        "problems": "\n".join(map(printable, problems)) or "none",
    }
    table = Table(title=printable(str(store.path)), title_justify="left", show_header=False)
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
    with bars("rows") as bar:
        problems = find_problems(opened, features=not quick, on_progress=bar("checking"))
        if len(opened.usable) and not quick and not problems:
            found = find_leaks(parts, within_parts=True, on_progress=bar("comparing"))
        else:
            found = count_patients(parts)
    split = {"seed": SEED, "validation": VALIDATION_FRACTION, "test": TEST_FRACTION}
    leaks = {"split": None if reason else split, **found.to_dict()}
    told = describe(opened) | {"leaks": leaks, "problems": problems}
    if as_json:
        tell(json.dumps(told, indent=2))
    else:
        show(_table(opened, told, problems, found, reason))
    if problems:
        raise BottleneckError(f"{store}: {len(problems)} {'problems' if len(problems) > 1 else 'problem'} found")


if __name__ == "__main__":
    run_command(main)
