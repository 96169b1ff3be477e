"""Arrays, or the article's layout, to a store, and a store to the article's layout: which of these, the source says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.runtime.command import bars, say
from features.runtime.errors import InputError
from features.runtime.options import checked, option_name, takes_options, tell_options
from features.runtime.text import counted, listed, printable
from features.store.array_files import is_array_file
from features.store.arrays import ArrayFiles, arrays_to_store
from features.store.article import article_to_store, is_article, store_to_article
from features.store.class_names import class_names
from features.store.conversion_options import ConversionOptions
from features.store.patient_names import remarks_on_words
from features.store.reader import FeatureStore

UNKNOWN_PATIENTS = "the patients are unknown, so images of one patient may fall on both sides of a split"


@dataclass(frozen=True)
class Converted:
    """What a conversion made.

    Attributes:
        path: The file.
        is_store: Whether it is a store; else it is of the article's layout.
        remarks: What was not given, and what was left out.
    """

    path: Path
    is_store: bool
    remarks: tuple[str, ...]


def convert(
    source: str | os.PathLike[str], destination: str | os.PathLike[str], *, progress: bool = True, **options: Any
) -> FeatureStore | Path:
    """Makes a store of arrays in files or of the article's layout; turns a store into that.

    A conversion to a store that was stopped goes on where it was when it is called again, and what one has finished is
    left as it is. Arrays that are no files become a store by ``FeatureStore.from_arrays``.

    Args:
        source: An ``.npz`` with ``X`` (n, c) or (n, h, w, c), ``y`` (class indices or names), and perhaps ``paths``,
            ``patients``, ``parts`` and ``classes``; or X as ``.npy``; or a file of the article's layout; or a store.
        destination: The store to make or to finish; of a store, the file in the article's layout.
        progress: Whether to show a progress bar, in a terminal or a notebook, and what is to be noted.
        options: Those of the command ``features.convert``:

    {options}

    Returns:
        The store that was made, opened; of a store, the path of the file in the article's layout.

    Raises:
        InputError: The source is none of these or does not fit, an option does not fit it, or the destination is
            another file.
        BottleneckError: The disk is full, or another process writes the destination.
    """
    chosen = checked(ConversionOptions, options, of="a conversion")
    made = run_conversion(Path(source), Path(destination), chosen, progress=progress)
    if progress:
        for line in describe(made):
            say(line)
    return FeatureStore(made.path) if made.is_store else made.path


tell_options(convert, ConversionOptions)
takes_options(convert, ConversionOptions)


def run_conversion(source: Path, destination: Path, options: ConversionOptions, *, progress: bool = True) -> Converted:
    """Converts, and shows how far it is.

    Raises:
        InputError: As ``convert``.
        BottleneckError: As ``convert``.
    """
    of_arrays = is_array_file(source)
    to_store = of_arrays or is_article(source)
    _refuse_what_does_not_fit(source, options, of_arrays=of_arrays, to_store=to_store)
    size = options.batch_size
    remarks: Iterable[str]
    with bars("images", shown=progress) as bar:
        on_progress = bar("converting")
        if of_arrays:
            files = ArrayFiles(source, classes=options.classes, **options.beside)
            arrays_to_store(files.read(), destination, dtype=options.dtype, batch_size=size, on_progress=on_progress)
            remarks = _of_arrays(files, FeatureStore(destination))
        elif to_store:
            names, kind = options.classes, options.dtype or "float16"
            article_to_store(source, destination, classes=names, dtype=kind, batch_size=size, on_progress=on_progress)
            remarks = _of_article(FeatureStore(destination), named=names is not None)
        else:
            store_to_article(source, destination, batch_size=size, on_progress=on_progress)
            remarks = _left_out(FeatureStore(source))
    return Converted(destination, to_store, tuple(remarks))


def _refuse_what_does_not_fit(source: Path, options: ConversionOptions, *, of_arrays: bool, to_store: bool) -> None:
    for name, own in (("classes", "a store, which has its own"), ("dtype", "a store: the layout is float32")):
        if not to_store and getattr(options, name) is not None:
            raise InputError(option_name(name), expected="a source of arrays or of the article's layout", found=own)
    if options.beside and not of_arrays:
        raise InputError(option_name(next(iter(options.beside))), expected="a source X.npy", found=source)


def describe(made: Converted) -> list[str]:
    """Returns what the command says of a conversion, a line each."""
    return [f"{made.path}: {remark}" for remark in made.remarks]


def _of_arrays(files: ArrayFiles, store: FeatureStore) -> Iterator[str]:
    """Says what was not given, and what was given for nothing."""
    unknown = store.header.patients.count("")
    if unknown == len(store):
        yield UNKNOWN_PATIENTS
    elif unknown:
        yield f"the patient of {counted(unknown, 'row')} is unknown, each of which counts as a patient of its own"
    yield from remarks_on_words(store.header.patients)
    if left_out := files.left_out():
        yield f"left out, as a store has no place for them: {listed(map(printable, left_out), 8)}"


def _of_article(store: FeatureStore, *, named: bool) -> Iterator[str]:
    """Says what of a store the article's layout does not tell."""
    if not named:
        names = listed(map(printable, store.classes), 8)
        yield f"the layout names no classes: they are {names}, in label order; --classes names them"
    yield UNKNOWN_PATIENTS


def _left_out(store: FeatureStore) -> Iterator[str]:
    """Says what of a store the article's layout has no place for."""
    skipped, views = len(store) - len(store.usable), len(store.header.views) - 1
    parts = [f"{skipped} skipped rows"] * bool(skipped) + [f"all views but {store.header.views[0]}"] * bool(views)
    if store.classes != class_names(None, len(store.classes), feature_shape=store.header.feature_shape):
        parts.append("the names of its classes")
    parts += ["the parts of its rows"] * bool(store.header.parts)
    parts += ["the basis of its channels"] * (store.header.projection is not None)
    if parts:
        yield f"left out, as the layout has no place for them: {' and '.join(parts)}"
