"""The way into an extraction, for the command and for Python: options, backend, progress display."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.backbones import list_layers
from features.extraction.combinations import places_in
from features.extraction.extraction import Say, extract_stores
from features.extraction.network import NetworkLayer
from features.extraction.options import ExtractionOptions
from features.extraction.summary import ExtractionSummary
from features.runtime.arithmetic import with_default_errstate
from features.runtime.backend import start_backend, use_backend
from features.runtime.command import bars, say
from features.runtime.errors import InputError
from features.runtime.keras_settings import python_random_restored
from features.runtime.letting_go import frames_cleared_on_failure
from features.runtime.options import A_PATH, NO_PATH, checked, takes_options, tell_options
from features.store.reader import FeatureStore

if TYPE_CHECKING:
    import pandas as pd


def extract(
    images: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    progress: bool = True,
    table: str | os.PathLike[str] | pd.DataFrame | None = None,
    **options: Any,
) -> FeatureStore:
    """Runs the images of a folder through a frozen backbone and keeps its last feature maps.

    An extraction that was stopped (Ctrl-C, the stop button of a notebook) goes on where it was when it is called
    again. A store that is finished already is opened; where images have changed since, it is refused, and with
    ``update=True`` made that of the images as they are.

    Args:
        images: Folder with one sub-folder per class; with ``table``, any folder.
        store: The feature store to make or to finish.
        progress: Whether to show a progress bar, in a terminal or a notebook, and what is to be noted.
        table: CSV, TSV or Parquet file, or DataFrame, with a row for each image.
        options: Those of the command ``features.extract``:

    {options}

    Returns:
        The store, opened.

    Raises:
        InputError: Folder, options or weights do not fit, the store is another one, or images have changed since it
            was made; the field is named. Or there are several backbones or sizes: see ``extract_several``.
        BottleneckError: The disk is full, another process writes the store, or no image can be decoded.
    """
    extract_as_told(Path(images), Path(store), {**options, "table": table}, progress=progress)
    return FeatureStore(store)


def extract_several(
    images: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    progress: bool = True,
    table: str | os.PathLike[str] | pd.DataFrame | None = None,
    **options: Any,
) -> dict[str, FeatureStore]:
    """Makes a store for each of several backbones and image sizes, and decodes each image once for all of them.

    Each store is what ``extract`` makes of its backbone and size, to the byte. What was stopped goes on where it was
    when it is called again, and stores that are whole are left as they are.

    Args:
        images: Folder with one sub-folder per class; with ``table``, any folder.
        folder: Where the stores are made, called as ``mobilenet_v2-224.h5``.
        progress: As in ``extract``.
        table: As in ``extract``.
        options: Those of ``extract``. ``backbone`` and ``image_size`` may be lists, or texts with commas; with several
            backbones ``layer``, ``weights`` and ``preprocessing`` are as many, if not one that holds for all.

    Returns:
        The stores, opened, by name: ``mobilenet_v2-224``.

    Raises:
        InputError: As ``extract``; or two stores would have the same name, or what was told for the backbones is not
            as much as there are backbones.
        BottleneckError: As ``extract``.
    """
    chosen, frame = _told({**options, "table": table})
    if not os.fspath(folder):
        raise InputError("folder", expected=A_PATH, found=NO_PATH)
    stores = places_in(Path(folder), chosen.specs)
    run_extraction(Path(images), stores, chosen, frame=frame, progress=progress)
    return {path.stem: FeatureStore(path) for path in stores}


tell_options(extract, ExtractionOptions, but=["table"])
takes_options(extract, ExtractionOptions)
takes_options(extract_several, ExtractionOptions)


def network_layers(
    backbone: str | os.PathLike[str], *, alpha: float | None = None, image_size: int | None = None
) -> list[NetworkLayer]:
    """Lists the layers of a backbone that ``extract(..., layer=NAME)`` can cut it at: name, kind, output shape.

    Args:
        backbone: A network of keras.applications by its name, or a Keras file (.keras, .h5).
        alpha: Width multiplier, for a backbone that has one.
        image_size: Side in pixels of what it is shown; its own size by default.

    Raises:
        InputError: There is no such backbone, or the file holds what is not Keras' own.
    """
    use_backend()
    start_backend()
    with python_random_restored():
        return list_layers(os.fspath(backbone), alpha=alpha, image_size=image_size)


def extract_as_told(images: Path, store: Path, told: Mapping[str, Any], *, progress: bool = True) -> ExtractionSummary:
    """Does what ``extract`` does with its options in one mapping, and returns what was done.

    Args:
        images: The image folder.
        store: The store to make or to finish.
        told: Options by name; ``table`` may be a DataFrame.
        progress: As in ``extract``.

    Raises:
        InputError: As ``extract``.
        BottleneckError: As ``extract``.
    """
    chosen, frame = _told(told)
    (summary,) = run_extraction(images, {store: chosen.spec}, chosen, frame=frame, progress=progress)
    return summary


def _told(told: Mapping[str, Any]) -> tuple[ExtractionOptions, pd.DataFrame | None]:
    """The options, and the table of labels where that is a DataFrame."""
    table = told.get("table")
    file = table if isinstance(table, str | os.PathLike) else None
    frame = None if table is None or isinstance(table, str | os.PathLike) else table
    if frame is not None and not hasattr(frame, "iloc"):
        raise InputError("table", expected="a path or a pandas DataFrame", found=type(frame).__name__)
    return checked(ExtractionOptions, {**told, "table": file}, of="an extraction"), frame


def stores_told(out: Path, options: ExtractionOptions) -> dict[Path, BackboneSpec]:
    """Returns the stores that a command line is about: the one that it names, or several in the folder that it names.

    Raises:
        InputError: Options do not fit, or it names a file, and there are several stores.
    """
    specs = options.specs
    return {out: next(iter(specs.values()))} if len(specs) == 1 else places_in(out, specs)


@with_default_errstate
def run_extraction(
    images: Path,
    stores: Mapping[Path, BackboneSpec],
    options: ExtractionOptions,
    *,
    frame: pd.DataFrame | None = None,
    progress: bool = True,
) -> list[ExtractionSummary]:
    """Extracts with the backend that the options name, and shows how far it is.

    Args:
        images: The image folder.
        stores: The backbone of each store.
        options: How; all of them but the backbones.
        frame: A table of labels, instead of the file that ``options.table`` names.
        progress: As in ``extract``.

    Returns:
        What was done to each store.

    Raises:
        InputError: As ``extract``.
        BottleneckError: As ``extract``.
    """
    use_backend(options.backend)
    told: Say = say if progress else lambda line: None
    with frames_cleared_on_failure(), bars("images", shown=progress) as bar, python_random_restored():
        return extract_stores(images, stores, options, frame=frame, say=told, on_progress=bar("extracting"))
