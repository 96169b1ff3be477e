"""A process that reads damaged files, one after the other: ``python tests/fuzz.py PLACE JOB...``.

It goes through the doors that users take. What it prints is JSON; what it is at stands in a file, so that whoever
started it knows at which damage it hung, or was taken down.
"""

from __future__ import annotations

import faulthandler
import json
import random
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from damage import STRANGE_JSON, damaged, hdf5_changes, json_values

from features.hdf5 import door
from features.runtime.command import console
from features.runtime.errors import BottleneckError

PATIENCE_S = 30
"""What one file may take before the process ends itself with a traceback of where it is."""
Variant = tuple[str, Path]


def bytes_damaged(source: Path, file: str, first: int, count: int, place: Path) -> Iterator[Variant]:
    """Yields damaged copies of ``source``, or of a folder with one damaged ``file``."""
    for seed in range(first, first + count):
        path = copied(source, place)
        what, content = damaged((source / file if file else source).read_bytes(), seed)
        (path / file if file else path).write_bytes(content)
        yield what, path


def parts_replaced(source: Path, file: str, first: int, count: int, place: Path) -> Iterator[Variant]:
    """Yields copies of which a part is replaced: an attribute, a dataset, a value of JSON."""
    whole = source / file if file else source
    if whole.suffix == ".json":
        yield from json_replaced(source, file, first, count, place)
        return
    with h5py.File(whole, locking=False) as original:
        changes = list(hdf5_changes(original))
    random.Random(0).shuffle(changes)
    for what, change in islice(changes, first, first + count):
        path = copied(source, place)
        with h5py.File(path, "r+") as copy:
            try:
                change(copy)
            except (TypeError, ValueError, OSError, RuntimeError):  # HDF5 has no such attribute
                continue
        yield what, path


def json_replaced(source: Path, file: str, first: int, count: int, place: Path) -> Iterator[Variant]:
    data = json.loads((source / file).read_text())
    changes = [(at, strange) for at in json_values(data) for strange in (*STRANGE_JSON, None)]
    random.Random(0).shuffle(changes)
    for at, strange in islice(changes, first, first + count):
        changed = json.loads((source / file).read_text())
        inner = changed
        for key in at[:-1]:
            inner = inner[key]
        if strange is None:
            del inner[at[-1]]
        else:
            inner[at[-1]] = "@@"
        path = copied(source, place)
        (path / file).write_text(json.dumps(changed).replace('"@@"', strange or ""))
        yield f"{'.'.join(map(str, at))}: {strange}", path


def copied(source: Path, place: Path) -> Path:
    path = place / source.name
    if source.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(source, path)
    else:
        shutil.copy(source, path)
    return path


def read_store(path: Path) -> None:
    from commands import invoke

    from features.store.check import describe, find_problems
    from features.store.reader import FeatureStore

    store = FeatureStore(path)
    describe(store), find_problems(store)
    store.take(np.arange(len(store))[::-1])
    store.to_frame()
    repr(store), store._repr_html_()
    quick = () if random.random() < WHOLE else ("--quick",)  # comparing all images takes its time
    invoked(invoke("features.info", path, *quick))


def read_article(path: Path) -> None:
    from commands import invoke

    made = path.with_name("made.h5")
    for left in (made, made.with_name(".made.h5.lock")):
        left.unlink(missing_ok=True)
    invoked(invoke("features.convert", path, made))


def read_head(path: Path) -> None:
    from heads import load_head

    head = load_head(path)
    repr(head), head._repr_html_()
    head.model(np.zeros((2, *head.metadata.feature_shape), np.float32), training=False)


def resume(path: Path) -> None:
    """All of a resume until the bank trains."""
    from made_data import made_data

    from search.record.storage import check_record, open_record
    from search.setup.config import StudyConfig
    from search.setup.options import RunOptions
    from search.setup.resolve import resolve
    from search.setup.stores import ALONE, StudyData
    from search.training.bank_shapes import BankShapes
    from search.training.snapshot import read_snapshot
    from search.trials.ask_tell import Book

    store = ARCHIVES / "store.h5"
    resolved = resolve(RunOptions.given({"out": path, "resume": True, "features": store}))
    options = resolved.options
    shares = {"validation_share": options.validation_fraction, "test_share": options.test_fraction}
    data = made_data(store, **shares, folds=options.folds, seed=options.seed, resident=False)
    config = resolved.config(StudyData.of_one(data), "tensorflow")
    assert isinstance(config, StudyConfig)
    saved = read_snapshot(path)
    opened = open_record(
        path,
        config.name,
        None,
        direction=config.direction,
        resume=True,
        keep_bytes=saved.journal_bytes if saved else None,
    )
    try:
        check_record(opened.study, path, config)
        book = Book(opened.study, config, resolved.space, resumed=saved.trial_numbers if saved else ())
        if saved:
            shape = whole_shape()
            saved.to_snapshot(book.resumed_trial, BankShapes({ALONE: shape}, shape.pages))
    finally:
        opened.close()


def look(path: Path) -> None:
    """All that is said of a study, but for the figures, which take their time."""
    from search import open_study
    from search.record.study_record import read_split
    from search.review.note import note_on

    study = open_study(path)
    repr(study), study._repr_html_(), study.trials()
    note_on(study.record)
    read_split(path)
    if random.random() < WHOLE:
        study.report()


@cache
def whole_shape() -> Any:
    from search.training.snapshot import read_snapshot

    saved = read_snapshot(ARCHIVES / "stopped")
    assert saved is not None
    return saved.content.shape


def invoked(said: Any) -> None:
    if said.status == 2 or "Traceback" in said.err:
        raise BottleneckError(said.err)


ARCHIVES = Path(__file__).with_name("archives")
READERS: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "store": ("store.h5", "", read_store),
    "article": ("article.h5", "", read_article),
    "head": ("head.hdf5", "", read_head),
    "ensemble": ("ensemble.hdf5", "", read_head),
    "snapshot": ("stopped", "snapshot.npz", resume),
    "journal": ("stopped", "journal.log", resume),
    "journal-looked-at": ("finished", "journal.log", look),
    "study": ("stopped", "study.json", resume),
    "study-looked-at": ("finished", "study.json", look),
    "summary": ("finished", "summary.json", look),
    "split": ("finished", "split.json", look),
    "audit": ("finished", "audit.json", look),
}
"""Of each kind what is damaged, in it the file where it is a folder, and how it is read."""
WHOLE = 0.02
"""Share of the readings that go to the end: images compared, figures drawn."""


def main(place: str, *jobs: str) -> None:
    """Reads variants, and prints what came of each job.

    Args:
        place: A folder to work in.
        jobs: ``KIND:bytes|parts:FIRST:COUNT`` each; ``whole`` among them lets every reading go to the end.
    """
    global WHOLE  # noqa: PLW0603
    WHOLE = 1.0 if "whole" in jobs else WHOLE
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of what is imported late
    console.quiet = True
    door.PATIENCE_S = 5.0
    told = {}
    with (Path(place) / "trace").open("w") as trace:
        for job in jobs:
            if job != "whole":
                told[job] = fuzz(job, Path(place), trace)
    sys.stdout.write(json.dumps(told) + "\n")


def fuzz(job: str, place: Path, trace: IO[str]) -> dict[str, Any]:
    """Reads so many variants of a kind; what was sound before has to be read."""
    kind, how, first, count = job.split(":")
    archive, file, read = READERS[kind]
    random.seed(int(first))
    source = ARCHIVES / archive
    read(copied(source, place))  # which imports what there is to import
    made = {"bytes": bytes_damaged, "parts": parts_replaced}[how]
    told: dict[str, Any] = {"read": 0, "refused": 0, "wrong": []}
    for what, path in made(source, file, int(first), int(count), place):
        (place / "at").write_text(f"{kind}, {what}", encoding="utf-8", errors="replace")
        faulthandler.dump_traceback_later(PATIENCE_S, exit=True, file=trace)
        try:
            read(path)
            told["read"] += 1
        except BottleneckError as error:
            told["refused"] += 1
            if str(path) not in f"{error}" and kind != "study":  # whose values may be options that do not fit
                told["wrong"].append(f"{what}: {error}")
        except Exception:  # what must not be
            told["wrong"].append(f"{what}: {traceback.format_exc()}")
        faulthandler.cancel_dump_traceback_later()
    return told


if __name__ == "__main__":
    main(*sys.argv[1:])
