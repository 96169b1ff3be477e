"""The way into a compression, for the command and for Python: options and progress display."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from features.compression.compression import Compressed, compress_store
from features.compression.options import CompressionOptions
from features.runtime.arithmetic import with_default_errstate
from features.runtime.command import bars
from features.runtime.options import checked, takes_options, tell_options
from features.runtime.text import percent
from features.store.reader import FeatureStore


def compress(
    store: str | os.PathLike[str], out: str | os.PathLike[str], *, progress: bool = True, **options: Any
) -> FeatureStore:
    """Makes a store of fewer channels, on which a search takes a fraction of the time.

    Heads that leave such a study take all channels, as any other. A compression that was stopped goes on where it was
    when it is called again; a store that is finished already is opened.

    Args:
        store: A finished store.
        out: The store to make or to finish.
        progress: Whether to show a progress bar, in a terminal or a notebook.
        options: Those of the command ``features.compress``:

    {options}

    Returns:
        The store that was made, opened.

    Raises:
        InputError: The store is unfinished, compressed already or has fewer channels, or ``out`` is another file.
        BottleneckError: The disk is full, or another process writes ``out``.
    """
    chosen = checked(CompressionOptions, options, of="a compression")
    return FeatureStore(run_compression(Path(store), Path(out), chosen, progress=progress).path)


tell_options(compress, CompressionOptions)
takes_options(compress, CompressionOptions)


@with_default_errstate
def run_compression(store: Path, out: Path, options: CompressionOptions, *, progress: bool = True) -> Compressed:
    """Compresses, and shows how far it is.

    Raises:
        InputError: As ``compress``.
        BottleneckError: As ``compress``.
    """
    channels = options.channels
    with bars("rows", shown=progress) as bar:
        directions, rows = bar("finding directions"), bar("projecting")
        return compress_store(store, out, channels=channels, on_basis=directions, on_progress=rows)


def describe(made: Compressed) -> list[str]:
    """Returns what the command says of a compression, a line each."""
    if not made.written:
        return [f"{made.path}: {made.projection}, finished already"]
    which = "training rows of --folds 0" if made.by_split else "usable rows, as they cannot be split into parts"
    share = f"{percent(made.share, 2)} of the squares in" if made.share is not None else "for"
    return [f"{made.path}: {made.projection}, {share} the maps of {made.rows:,} {which}; {made.written:,} rows written"]
