"""Small stores that a head can learn from, written in a moment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.store.schema import RowState, StoreHeader
from features.store.writer import StoreWriter

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")


def build_header(
    *,
    rows: int = 48,
    views: Sequence[str] = ("identity",),
    shape: tuple[int, int, int] = (2, 2, 8),
    classes: Sequence[str] = CLASSES,
    dtype: str = "float16",
    batch_size: int = 16,
) -> StoreHeader:
    """Returns the header of ``build_store``: classes in turn, three rows a patient."""
    labels = tuple((row // 3) % len(classes) for row in range(rows))
    names = [(classes[label], str(1000 + row // 3), row % 3 + 1) for row, label in enumerate(labels)]
    return StoreHeader(
        classes=tuple(classes),
        paths=tuple(f"{name}/{name}-{patient}-{number}.png" for name, patient, number in names),
        sizes=tuple(500 + row for row in range(rows)),
        labels=labels,
        patients=tuple(patient for _, patient, _ in names),
        feature_shape=shape,
        views=tuple(views),
        backbone="mobilenet",
        alpha=0.25,
        weights="random:0",
        weights_sha256="ab" * 32,
        image_size=64,
        preprocessing="backbone",
        dtype=dtype,
        batch_size=batch_size,
        created="2026-01-01T00:00:00Z",
        versions={"keras": "0"},
    )


def build_features(header: StoreHeader, *, seed: int = 0) -> np.ndarray:
    """Returns (rows, views, h, w, c) features: noise, and a mean that depends on the class in half of the channels."""
    generator = np.random.default_rng(seed)
    channels = header.feature_shape[2]
    means = generator.normal(0, 1, (len(header.classes), channels)) * (np.arange(channels) % 2)
    noise = generator.normal(0, 0.7, header.shape)
    return np.maximum(noise + means[list(header.labels)][:, None, None, None], 0.01).astype(header.dtype)


def fill_store(
    path: Path,
    header: StoreHeader,
    features: np.ndarray | Callable[[range], np.ndarray] | None = None,
    states: np.ndarray | None = None,
    *,
    skipped: Collection[int] = (),
    contents: np.ndarray | None = None,
    batches: int | None = None,
) -> Path:
    """Writes all batches that the store lacks and finishes it, or writes ``batches`` of them where it lacks more.

    Args:
        path: The store.
        header: Of the store.
        features: Of all rows, or what returns those of a batch; those of ``build_features`` where none are given.
        states: Of all rows, else they are done.
        skipped: Rows that hold zeros, as those of files that could not be decoded, where no states are given.
        contents: Hashes of all rows' source files.
        batches: See above.
    """
    features = build_features(header) if features is None else features
    if states is None:
        states = np.full(len(header), RowState.DONE, np.uint8)
        states[list(skipped)] = RowState.SKIPPED
    with StoreWriter(path, header) as writer:
        for number, rows in enumerate(writer.pending()):
            if number == batches:
                return path
            part = slice(rows.start, rows.stop)
            values = np.array(features(rows) if callable(features) else features[part])
            values[np.isin(rows, list(skipped))] = 0
            writer.write(rows, values, states[part], None if contents is None else contents[part])
        writer.finish()
    return path


def build_store(path: Path, *, seed: int = 0, skipped: Collection[int] = (), **header: Any) -> Path:
    """Writes a complete, learnable store through StoreWriter; ``header`` as ``build_header`` takes it.

    Rows come in threes of one patient and one class, named ``<CLASS>/<CLASS>-<patient>-<n>.png``; rows in
    ``skipped`` hold zeros, as those of files that could not be decoded.
    """
    made = build_header(**header)
    return fill_store(path, made, build_features(made, seed=seed), skipped=skipped)
