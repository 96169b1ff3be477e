"""Snapshots as processes leave them, of heads with made-up states: small, real files."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from heads.bank.head_state import HeadState, head_state
from heads.bank.learning_rates import COSINE_FIELDS, FIELDS
from heads.bank.shape import BankShape, pages_of
from heads.metrics.scoring import EpochRecord, Score
from heads.model.spec import HeadSpec
from search.record.journal import BufferedJournal
from search.training.bank_shapes import BankShapes
from search.training.banked_trial import BankedTrial
from search.training.snapshot import Snapshot, Snapshots
from search.training.throughput import Throughput
from search.trials.ask_tell import Asked

SPEC = HeadSpec(conv_width=16, learning_rate=0.01)
OTHER = HeadSpec(conv_width=32, learning_rate=0.01)
WIDE = HeadSpec(conv_width=4096, learning_rate=0.01)
"""Whose arrays are not read to their ends where only their headers are asked for."""
METER = Throughput(epochs=7, head_epochs=14, page_epochs=20, room=28, training_seconds=1.5, compilations=2)


def asked(number: int, *, spec: HeadSpec = SPEC) -> Asked:
    return Asked(cast(Any, SimpleNamespace(number=number)), 0, spec, 5)


def state(spec: HeadSpec, told: float) -> HeadState:
    """All that has to be there of a head; its numbers are all the same."""
    parts = {part: {"kernel": np.full((4, spec.conv_width), told, np.float32)} for part in ("first", "second")}
    parts |= {part: {**parts["first"], "mean": np.full(spec.conv_width, told)} for part in ("weights", "best")}
    rates = {name: np.array(told) for name in (COSINE_FIELDS if spec.follows_cosine else FIELDS)}
    return head_state(spec, seed=5, steps=np.array(70), rates=rates, parts=parts)


def leave_snapshot(
    folder: Path,
    trials: dict[int, int],
    *,
    spec: HeadSpec = SPEC,
    told: float = 0.5,
    epoch: int = 7,
    folds: int = 1,
    throughput: Throughput = METER,
    journal: BufferedJournal | None = None,
    waiting: Sequence[int] = (),
    finished: int = 0,
    stores: Sequence[str] = ("",),
) -> Path:
    """Writes a snapshot of trials, by number with the epochs that each has trained; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    best = EpochRecord(1, 0.5, Score(0.5, 0.75, 0.75), 0.01)
    banked = [
        BankedTrial(asked(number, spec=spec), -1, 2, epochs, best if epochs else None, [0.01] * epochs)
        for number, epochs in trials.items()
    ]
    wide = pages_of(spec)
    pages = max(8, wide * len(banked))
    shape = BankShape.covering([spec], pages=pages, feature_shape=(2, 2, 4), classes=4, batch=8, folds=folds)
    places = [(slot, tuple(range(slot * wide, (slot + 1) * wide))) for slot in range(len(banked))]
    states = [tuple(state(spec, told + fold) for fold in range(folds)) for _ in banked]
    snapshots = Snapshots(folder, journal, every=0)
    shapes = BankShapes(dict.fromkeys(stores, shape), pages)
    snapshots.save(Snapshot(epoch, shapes, banked, list(waiting), throughput, places, states, finished))
    snapshots.wait()
    snapshots.close()
    return snapshots.path


def damage(path: Path, part: str) -> None:
    """Changes the last byte of an array of a snapshot."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{part}.npy")
    whole = bytearray(path.read_bytes())
    names = sum(struct.unpack_from("<HH", whole, info.header_offset + 26))
    whole[info.header_offset + 30 + names + info.file_size - 1] ^= 1
    path.write_bytes(whole)
