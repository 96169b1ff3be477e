"""How a head leaves a study: in one of the formats of ``heads.files.formats``, tried before it stays."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from features.runtime.backend import start_backend, use_backend
from features.runtime.command import say
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import identity, replacing
from features.runtime.lock import WriterLock
from features.runtime.text import counted
from features.store.kind import SQUASH
from heads.files.checked_write import check_place, write_checked
from heads.files.formats import Format, format_of
from heads.files.head_file import Head, read_head
from heads.files.metadata import IMAGE_MODEL, KIND, HeadMetadata, file_attributes
from heads.files.own_file import read_own_metadata, why_not_plain
from search.finish.export_choice import Leaving, what_leaves
from search.finish.tried import Tried, made_images, some_features
from search.record.head_files import OWN, require_outside
from search.setup.config import StudyConfig
from search.setup.export_options import ExportOptions

if TYPE_CHECKING:
    from search.record.study_record import StudyRecord

T = TypeVar("T")


@dataclass(frozen=True)
class Exported:
    """A head that was written.

    Attributes:
        path: Its file, or the folder of a SavedModel.
        description: What the head is, and what is known of it.
        check: What was written gave, in words.
        remark: What its user should know; None for nothing.
    """

    path: Path
    description: str
    check: str
    remark: str | None


def export_head(
    folder: Path, out: str | os.PathLike[str], choice: ExportOptions, *, backend: str | None = None
) -> Exported:
    """Writes a study's head, and lets a few rows go through what was written before it takes its place.

    Args:
        folder: The study directory.
        out: File to write; its ending says the format, see ``heads.files.formats``. A name without one, or with a
            slash behind it, is that of a folder for a SavedModel.
        choice: Which head.
        backend: Keras backend to write it with; None for TensorFlow where the format needs it, else the one that runs
            or that ``KERAS_BACKEND`` names, else the study's where it is installed.

    Raises:
        InputError: The choice does not fit the study or itself, ``out`` is no name that can be written, or a package
            is missing; nothing was written.
        BottleneckError: It cannot be written, what was written gave other probabilities, or the study ends again at
            this moment; what was there before is unchanged.
    """
    form, out = format_of(out), Path(out)
    _check(out, form, choice)
    config = StudyConfig.read(folder)
    use_backend(_backend(form, backend), rather=config.backend)
    leaving, built = _of_one_end(folder, choice, partial(_built, choice=choice))
    if built is None:
        return _copy_own(leaving, out, form, config, with_backbone=choice.with_backbone)
    model, metadata = built
    if choice.with_backbone:
        kind, remark = IMAGE_MODEL, on_images(out, metadata)
        tried = Tried(made_images(metadata.image_size), "generated images")
    else:
        kind, remark = KIND, None
        tried = some_features(config, metadata)
    difference = write_checked(out, form, model, file_attributes(metadata, kind), tried.rows)
    check = f"{len(tried.rows)} {tried.what} gave the same probabilities to {max(difference, 1e-7):.0e}"
    said = [one for one in (leaving.said and f"{out}: {leaving.said}", remark) if one]
    return Exported(out, _scored(metadata, config), check, "; ".join(said) or None)


def on_images(out: Path, metadata: HeadMetadata) -> str | None:
    """What a model from image to class does not do to an image, and ``heads.predict`` does."""
    views, size = ", ".join(metadata.views), metadata.image_size
    remarks = [f"sees each image as it is; heads.predict averages over {views}"] if len(metadata.views) > 1 else []
    if size and metadata.resize != SQUASH:
        remarks.append(
            f"takes images that are {size} x {size} pixels already, as --resize {metadata.resize} makes them"
        )
    return f"{out}: {'; '.join(remarks)}" if remarks else None


def recommended_head(folder: Path) -> Head:
    """Reads what a study recommends; the single winner where that is an average that no file can hold.

    Keras' backend is the one that runs or that ``KERAS_BACKEND`` names, else the study's where it is installed.

    Args:
        folder: The study directory.

    Raises:
        InputError: No trial has completed, or its head was not kept.
        BottleneckError: The study ends again at this moment.
    """
    config = StudyConfig.read(folder)
    use_backend(None, rather=config.backend)
    leaving, head = _of_one_end(folder, ExportOptions(), partial(_head, config=config))
    if leaving.said:
        say(f"note: {leaving.said}")
    return head


def _check(out: Path, form: Format, choice: ExportOptions) -> None:
    require_outside(out)
    check_place(out, form)
    form.require_packages()
    for option, told in (("--weights", choice.weights), ("--backbone", choice.backbone)):
        if told is not None and not choice.with_backbone:
            raise InputError(option, expected="--with-backbone beside it", found="none")
    if choice.which is not None and choice.trial is not None:
        raise InputError("--which", expected="no --trial beside it", found=f"--trial {choice.trial}")


def _backend(form: Format, named: str | None) -> str | None:
    """The backend to write with: weights are the same on each, but only TensorFlow has some of the formats."""
    if not form.tensorflow:
        return named
    running = sys.modules["keras"].backend.backend() if "keras" in sys.modules else None
    instead = "export in a process of its own with --backend tensorflow"
    if named not in (None, "tensorflow"):
        where, found = "--backend", named
    elif not find_spec("tensorflow"):
        where, found, instead = "OUT", "no such package", "install it"
    elif running not in (None, "tensorflow"):
        where, found = "OUT", f"{running}, already in use"
    else:
        return "tensorflow"
    hint = f"{instead}; .keras and .hdf5 need no other backend"
    raise InputError(where, expected=f"tensorflow, which writes {form.title}", found=found, hint=hint)


def _copy_own(leaving: Leaving, out: Path, form: Format, config: StudyConfig, *, with_backbone: bool) -> Exported:
    """Writes a head that has layers of somebody's own: the file that was tried when it was written, as it is.

    Raises:
        InputError: Something else than a .keras file is asked for.
    """
    path = leaving.paths[0]
    why = why_not_plain(path)
    if with_backbone:
        raise InputError("--with-backbone", expected="a head of plain layers", found=why)
    if OWN not in form.suffixes:
        hint = f"{form.title} holds only layers that are read without running code, and {path.name} has another: {why}"
        raise InputError("OUT", expected=f"a name that ends in {OWN}", found=out.name, hint=hint)
    image = path.read_bytes()
    with WriterLock(out), replacing(out, needed=len(image)) as temporary:
        temporary.write_bytes(image)
    remark = "; ".join(filter(None, (leaving.said, _how_to_load(config))))
    check = "it was tried when it was written, by the function that made it"
    return Exported(out, _scored(read_own_metadata(path), config), check, f"{out}: {remark}")


def _how_to_load(config: StudyConfig) -> str:
    code = config.own_head.function.rpartition(":")[0] if config.own_head else "its layers"
    return f"keras.saving.load_model reads it where {code} is imported, with its classes as custom_objects"


def _of_one_end(folder: Path, choice: ExportOptions, read: Callable[[Leaving], T]) -> tuple[Leaving, T]:
    """Finds the heads that leave and reads them, anew where another end of the study came between the two.

    The temperature of an average is in the summary, and its heads are in files of their own. Before an end replaces a
    head, it withdraws the summary of the last one: where that is the same file afterwards, all is of one end.

    Raises:
        BottleneckError: The study ended again each time.
    """
    from search.record.summary import SUMMARY_FILE  # as _read

    for _ in range(2):
        before = identity(folder / SUMMARY_FILE)
        try:
            leaving = what_leaves(_read(folder), choice)
            found = read(leaving)
        except InputError:  # of a head that the later end has removed, perhaps
            if identity(folder / SUMMARY_FILE) == before:
                raise
            continue
        if identity(folder / SUMMARY_FILE) == before:
            return leaving, found
    raise BottleneckError(f"{folder}: the study ends again at this moment; export once more")


def _built(leaving: Leaving, choice: ExportOptions) -> tuple[Any, HeadMetadata] | None:
    """The model that leaves, and what its file says of it; None of one that leaves as the file that it is."""
    if _is_own(leaving):
        return None
    start_backend()
    if choice.with_backbone:
        from search.finish.with_backbone import image_model_of

        return image_model_of(leaving, choice)
    head = _joined(leaving)
    return head.model, head.metadata


def _head(leaving: Leaving, config: StudyConfig) -> Head:
    if _is_own(leaving):
        path, hint = leaving.paths[0], f"export it as .keras; {_how_to_load(config)}"
        raise InputError(path, expected="a head of plain layers", found=why_not_plain(path), hint=hint)
    start_backend()
    return _joined(leaving)


def _is_own(leaving: Leaving) -> bool:
    """Whether what leaves is a head that has layers of somebody's own."""
    return len(leaving.paths) == 1 and leaving.paths[0].suffix == OWN


def _joined(leaving: Leaving) -> Head:
    """A head, or the average of several."""
    heads = [read_head(path) for path in leaving.paths]
    if len(heads) == 1:
        return heads[0]
    from heads.files.ensemble import join_heads

    return join_heads(heads, temperature=leaving.temperature)


def _scored(metadata: HeadMetadata, config: StudyConfig) -> str:
    """What the head is, and what is known of it: what it scored itself, or what heads like it did."""
    if metadata.trials:
        numbers = sorted(set(metadata.trials))
        if len(numbers) == 1:
            return f"the average of trial {numbers[0]} of {config.name} from {counted(len(metadata.trials), 'seed')}"
        return f"the average of trials {', '.join(map(str, metadata.trials))} of {config.name}"
    name = f"trial {metadata.trial} of {config.name}"
    if metadata.value is not None:
        return f"{name}, validation {config.objective} {metadata.value:.4f}"
    again = metadata.refit
    if again is None or again.rows is None or again.epochs is None:
        return name
    trained = f"{name}, trained on {again.rows:,} rows for {counted(again.epochs, 'epoch')}"
    if again.mean is None:
        return trained
    return f"{trained}; validation {config.objective} of {again.repeats} heads like it {again.mean:.4f} on the mean"


def _read(folder: Path) -> StudyRecord:
    from search.record.study_record import read_record  # Optuna takes its time: checks come first

    record = read_record(folder)
    if record.summary.best is None:
        raise InputError(record.folder, field="trials", expected="one that completed", found="none")
    return record
