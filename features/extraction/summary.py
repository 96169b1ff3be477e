"""What an extraction did, and how it is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from features.extraction.changes import Changes
from features.extraction.skipped import skipped_path
from features.images.folder import ImageTable
from features.runtime.text import counted, listed, printable
from features.store.parts import PARTS
from features.store.schema import RowState

_LISTED = 5
"""How many of the skipped images are named; the file beside the store names all."""


@dataclass(frozen=True, kw_only=True)
class ExtractionSummary:
    """What an extraction did.

    Attributes:
        store: The finished store.
        bytes: Its size.
        images: Rows of the store.
        settled: Rows that this run settled; the others were there already.
        seconds: How long that took, compilation included.
        skipped: Reason of each image that could not be decoded, in row order.
        reasons: Number of skipped images by reason, the most frequent first.
        counts: Usable images of each class.
        patients: Known patients of each class, among the usable images.
        known: Known patients, among the usable images.
        unknown: Usable images whose patient is unknown.
        patient_source: Where the patients were taken from, with an example, for people.
        ignored: Number of files and folders that were passed over, by reason.
        notes: What was noticed of the images that this run decoded, a line each.
        parts: Usable images of each part, where folders or a table say it.
        untrained: Classes whose usable images are all given for other parts than to train on.
        update: Numbers of images ``changed``, ``added``, ``gone`` and ``kept`` by an update; empty for none.
    """

    store: Path
    bytes: int
    images: int
    settled: int
    seconds: float
    skipped: dict[str, str]
    reasons: dict[str, int]
    counts: dict[str, int]
    patients: dict[str, int]
    known: int
    unknown: int
    patient_source: str
    ignored: dict[str, int]
    update: dict[str, int]
    parts: dict[str, int] = field(default_factory=dict)
    untrained: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def summarize(
    store: Path,
    done: npt.NDArray[np.uint8],
    table: ImageTable,
    *,
    changes: Changes | None,
    settled: int,
    seconds: float,
    skipped: dict[str, str],
) -> ExtractionSummary:
    """Returns what an extraction did.

    Args:
        store: The finished store.
        done: (rows,) its states.
        table: Its images.
        changes: What an update found; None where there was none.
        settled: Rows that this run settled.
        seconds: How long that took.
        skipped: Reason of each image that could not be decoded.
    """
    usable = np.flatnonzero(done == RowState.DONE).tolist()
    found = [(table.classes[table.labels[row]], table.patients[row]) for row in usable]
    images = Counter(label for label, _ in found)
    who_is_in = Counter(label for label, who in set(found) if who)
    return ExtractionSummary(
        store=store,
        bytes=store.stat().st_size,
        images=len(table),
        settled=settled,
        seconds=seconds,
        skipped=skipped,
        reasons=dict(Counter(skipped.values()).most_common()),
        counts={name: images[name] for name in table.classes},
        patients={name: who_is_in[name] for name in table.classes},
        known=len({who for _, who in found} - {""}),
        unknown=sum(not patient for _, patient in found),
        patient_source=table.patient_source,
        ignored=table.ignored,
        update={} if changes is None else _update(changes),
        parts=_count_parts(table, usable),
        untrained=_untrained(table, usable),
    )


def _count_parts(table: ImageTable, usable: list[int]) -> dict[str, int]:
    if not table.parts:
        return {}
    found = Counter(table.parts[row] for row in usable)
    return {name: found[name] for name in PARTS if found[name]}


def _untrained(table: ImageTable, usable: list[int]) -> tuple[str, ...]:
    if not table.parts:
        return ()
    trained = {table.labels[row] for row in usable if table.parts[row] == "train"}
    others = {table.labels[row] for row in usable} - trained
    return tuple(table.classes[label] for label in sorted(others)) if trained else ()


def _update(changes: Changes) -> dict[str, int]:
    return {
        "changed": len(changes.changed) + len(changes.doubtful),
        "added": len(changes.added),
        "gone": len(changes.gone),
        "kept": len(changes.kept),
    }


def describe(*summaries: ExtractionSummary) -> Iterator[str]:
    """Yields the lines that tell a user what an extraction did: one for each store, and one time what all share."""
    if len(summaries) == 1:
        yield from _describe_store(*summaries)
    else:
        yield from _describe_stores(summaries)
    first, longest = summaries[0], max(summaries, key=lambda one: len(one.skipped))
    yield from _describe_images(first)
    yield from (f"note: {note}" for note in dict.fromkeys(note for one in summaries for note in one.notes))
    missing = [printable(name) for name, count in first.counts.items() if not count]
    if missing:
        yield f"warning: no image left of {', '.join(missing)}"
    if first.ignored:
        yield "ignored: " + ", ".join(f"{count:,} {reason}" for reason, count in first.ignored.items())
    for path, reason in list(longest.skipped.items())[:_LISTED]:
        yield f"skipped {printable(path)}: {reason}"
    if len(longest.skipped) > _LISTED:
        yield f"skipped {len(longest.skipped) - _LISTED:,} more: {skipped_path(longest.store)}"


def _describe_store(summary: ExtractionSummary) -> Iterator[str]:
    yield _size_of(summary)
    if summary.settled:
        before = summary.images - summary.settled
        yield _rate_of(summary) + (f"; {before:,} were there already" if before else "")
    elif not summary.update:
        yield "nothing to do: the store was complete already"
    if summary.update:
        yield _updated(summary)


def _describe_stores(summaries: Sequence[ExtractionSummary]) -> Iterator[str]:
    for one in summaries:
        before = one.images - one.settled
        told = f"; {before:,} were there already" if before else ""
        if one.update:
            told = f"; {_updated(one)}"
        elif not one.settled:
            told = "; complete already"
        yield _size_of(one) + told
    most = max(summaries, key=lambda one: one.settled)
    if most.settled:
        yield _rate_of(most)
    elif not any(one.update for one in summaries):
        yield "nothing to do: the stores were complete already"


def _size_of(summary: ExtractionSummary) -> str:
    done = summary.images - len(summary.skipped)
    return f"{summary.store}: {counted(done, 'image')}, {len(summary.skipped):,} skipped, {summary.bytes / 1e6:,.1f} MB"


def _rate_of(summary: ExtractionSummary) -> str:
    rate = summary.settled / summary.seconds
    return f"{counted(summary.settled, 'image')} in {summary.seconds:.1f} s, {rate:.1f} images/s"


def _updated(summary: ExtractionSummary) -> str:
    return "updated: " + ", ".join(f"{count:,} {what}" for what, count in summary.update.items())


def _describe_images(summary: ExtractionSummary) -> Iterator[str]:
    for name, count in summary.counts.items():
        yield f"{printable(name)}: {counted(count, 'image')} of {counted(summary.patients[name], 'known patient')}"
    if summary.parts:
        told = ", ".join(f"{name} {count:,}" for name, count in summary.parts.items())
        yield f"parts as given: {told}; search.run uses them"
    if summary.untrained:
        yield f"warning: train has no image of {listed(map(printable, summary.untrained), _LISTED)}"
    if summary.known:
        yield f"{counted(summary.known, 'patient')} in all, taken from {summary.patient_source}"
    if summary.unknown:
        yield f"warning: the patient of {summary.unknown:,} images is unknown: see --group-pattern and --table"
