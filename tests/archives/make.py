"""Makes what lies in this folder, by the code of commit 2444166: how it is called stands in README.md."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from conftest import build_features, build_header, build_store

from features.feed import Feed
from features.store import FeatureStore, RowState, StoreWriter
from heads.files import load_head
from heads.scoring import predict_probabilities

STUDY = """name = "old"
[run]
trials = 6
epochs = 24
batch_size = 12
[space]
conv_width = [16]
dropout = { low = 0.0, high = 0.5 }
learning_rate = { low = 1e-3, high = 1e-2, log = true }
"""
OPTIONS = ("--study", "old.toml", "--objective", "loss", "--sampler", "random", "--pages", 4, "--dtype", "float32")
FINALISTS = ("--finalists", 2, "--repeats", 2, "--seed", 4, "--snapshot-every", 0)
MIDDLE = 10_000
"""Bytes of a journal."""


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def run(module: str, *arguments: object) -> None:
    subprocess.run(command(module, *arguments), check=True)


def make_stores() -> None:
    """A complete store with a skipped row, one whose writer stopped after a batch, and one of the article's layout."""
    options = {"rows": 72, "views": ("identity", "flip"), "classes": ("A", "B", "C"), "batch_size": 12}
    build_store(Path("store.h5"), **options, skipped=[7])
    header = build_header(**options)
    with StoreWriter(Path("unfinished.h5"), header) as writer:
        batch = next(writer.pending())
        writer.write(batch, build_features(header)[batch.start : batch.stop], np.full(len(batch), RowState.DONE, "u1"))
    run("features.convert", "store.h5", "article.h5", "--batch-size", 30)


def stop(folder: Path, journal: Path) -> bool:
    """Runs the study, and presses Ctrl-C once its journal is so long; returns whether it was stopped in the middle."""
    process = subprocess.Popen(command("search.run", "--features", "store.h5", *OPTIONS, *FINALISTS, "--out", folder))
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > MIDDLE):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    return process.wait() == 130 and (journal.parent / "snapshot.npz").exists()


def make_studies() -> None:
    """One that has ended, one that was stopped in its search, one that was stopped among its finalists."""
    Path("old.toml").write_text(STUDY)
    run("search.run", "--features", "store.h5", *OPTIONS, *FINALISTS, "--out", "finished")
    for name, journal in (("stopped", "journal.log"), ("stopped-repeats", "finalists/journal.log")):
        while not stop(Path(name), Path(name, journal)):
            shutil.rmtree(name)
    chosen = json.loads(Path("finished/summary.json").read_text())["best"]["number"]
    run("search.export", "finished", "head.hdf5", "--trial", chosen)
    run("search.export", "finished", "refit.hdf5")
    run("search.export", "finished", "ensemble.hdf5", "--which", "ensemble")


def make_expected() -> None:
    """What the heads say of the store's rows, (rows, classes)."""
    store = FeatureStore("store.h5")
    for name in ("head", "refit", "ensemble"):
        feed = Feed(store, store.usable, memory_bytes=10**8)
        np.save(f"{name}.npy", predict_probabilities(load_head(Path(f"{name}.hdf5")).model, feed))


def make_neutral() -> None:
    """Takes this machine's folder out of the records, and the pages, which any version can write again."""
    for path in Path().rglob("*.json"):
        path.write_text(path.read_text().replace(f"{Path.cwd()}/", ""))
    for path in (*Path().glob("*/report.html"), *Path().rglob("*.lock"), Path("old.toml")):
        path.unlink()
    here = str(Path.cwd()).encode()
    assert not [path for path in Path().rglob("*") if path.is_file() and here in path.read_bytes()]


if __name__ == "__main__":
    make_stores()
    make_studies()
    make_expected()
    make_neutral()
