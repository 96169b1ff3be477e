"""How a head leaves a study: in one of the formats of ``heads.files.formats``, tried before it stays."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from features.runtime.backend import start_backend, use_backend
from features.runtime.errors import InputError
from features.runtime.files import replacing
from features.store.kind import SQUASH
from heads.files.formats import Format, format_of
from heads.files.head_file import Head, read_head
from heads.files.leaving import check_place, write_checked
from heads.files.metadata import IMAGE_MODEL, KIND, HeadMetadata, file_attributes
from heads.files.own_file import read_own_metadata, why_not_plain
from search.finish.tried import Tried, made_images, some_features
from search.record.head_files import OWN, find_head
from search.setup.config import StudyConfig
from search.setup.options import ExportOptions

if TYPE_CHECKING:
    from search.record.results import TrialResult
    from search.record.study_record import StudyRecord


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
        backend: Keras backend to write it with; None for TensorFlow where the format needs it, else the study's.

    Raises:
        InputError: The choice does not fit the study or itself, ``out`` is no name that can be written, or a package
            is missing; nothing was written.
        BottleneckError: It cannot be written, or what was written gave other probabilities; what was there before is
            unchanged.
    """
    form, out = format_of(out), Path(out)
    _check(out, form, choice)
    config = StudyConfig.read(folder)
    use_backend(_backend(form, backend, config))
    record = _read(folder)
    if choice.ensemble and not record.summary.ensemble:
        expected = "a study that has ended with finalists, at least two of them"
        raise InputError("--ensemble", expected=expected, found="none")

    own = None if choice.ensemble else _path(record, choice.trial)
    if own is not None and own.suffix == OWN:
        return _copy_own(own, out, form, config, with_backbone=choice.with_backbone)
    start_backend()
    path, head = _ensemble(record) if choice.ensemble else _single(record, choice.trial)
    model, kind, remark = head.model, KIND, None
    if choice.with_backbone:
        from heads.files.backbone import NamedBackbone, backbone_spec, rebuild_backbone  # noqa: PLC0415  seldom needed
        from heads.files.image_model import build_image_model  # noqa: PLC0415  beside Keras

        spec = backbone_spec(path, head.metadata, NamedBackbone(weights=choice.weights, backbone=choice.backbone))
        model, kind = build_image_model(rebuild_backbone(path, head.metadata, spec), head), IMAGE_MODEL
        remark = on_images(out, head.metadata)
        tried = Tried(made_images(spec.size), "generated images")
    else:
        tried = some_features(config, head.metadata)
    difference = write_checked(out, form, model, file_attributes(head.metadata, kind), tried.rows)
    check = f"{len(tried.rows)} {tried.what} gave the same probabilities to {max(difference, 1e-7):.0e}"
    return Exported(out, _scored(head.metadata, config), check, remark)


def on_images(out: Path, metadata: HeadMetadata) -> str | None:
    """What a model from image to class does not do to an image, and ``heads.predict`` does."""
    views, size = ", ".join(metadata.views), metadata.image_size
    remarks = [f"sees each image as it is; heads.predict averages over {views}"] if len(metadata.views) > 1 else []
    if size and metadata.resize != SQUASH:
        remarks.append(
            f"takes images that are {size} x {size} pixels already, as --resize {metadata.resize} makes them"
        )
    return f"{out}: {'; '.join(remarks)}" if remarks else None


def chosen_head(folder: Path, *, backend: str | None = None) -> Head:
    """Reads the head that a study chose.

    Args:
        folder: The study directory.
        backend: Keras backend to read it with; None for the study's.

    Raises:
        InputError: No trial has completed, or its head was not kept.
    """
    use_backend(backend or StudyConfig.read(folder).backend)
    record = _read(folder)
    start_backend()
    return _single(record, None)[1]


def _check(out: Path, form: Format, choice: ExportOptions) -> None:
    check_place(out, form)
    form.require_packages()
    for option, told in (("--weights", choice.weights), ("--backbone", choice.backbone)):
        if told is not None and not choice.with_backbone:
            raise InputError(option, expected="--with-backbone beside it", found="none")
    if choice.ensemble and choice.trial is not None:
        raise InputError("--ensemble", expected="no --trial beside it", found=f"--trial {choice.trial}")


def _backend(form: Format, named: str | None, config: StudyConfig) -> str:
    """The backend to write with: weights are the same on each, but only TensorFlow has some of the formats."""
    if not form.tensorflow:
        return named or config.backend
    if named not in (None, "tensorflow"):
        hint = "export in a process of its own with --backend tensorflow; .keras and .hdf5 need no other backend"
        raise InputError("--backend", expected=f"tensorflow, which writes {form.title}", found=named, hint=hint)
    return "tensorflow"


def _path(record: StudyRecord, trial: int | None) -> Path:
    """The file of a trial's head, or of the one that the study chose."""
    number = _best(record).number if trial is None else trial
    return find_head(record.folder, number, refitted=trial is None)


def _single(record: StudyRecord, trial: int | None) -> tuple[Path, Head]:
    path = _path(record, trial)
    if path.suffix == OWN:
        hint = f"export it as .keras; {_how_to_load(record.config)}"
        raise InputError(path, expected="a head of plain layers", found=why_not_plain(path), hint=hint)
    return path, read_head(path)


def _copy_own(path: Path, out: Path, form: Format, config: StudyConfig, *, with_backbone: bool) -> Exported:
    """Writes a head that has layers of somebody's own: the file that was tried when it was written, as it is.

    Raises:
        InputError: Something else than a .keras file is asked for.
    """
    why = why_not_plain(path)
    if with_backbone:
        raise InputError("--with-backbone", expected="a head of plain layers", found=why)
    if OWN not in form.suffixes:
        hint = f"{form.title} holds only layers that are read without running code, and {path.name} has another: {why}"
        raise InputError("OUT", expected=f"a name that ends in {OWN}", found=out.name, hint=hint)
    image = path.read_bytes()
    with replacing(out, needed=len(image)) as temporary:
        temporary.write_bytes(image)
    check = "it was tried when it was written, by the function that made it"
    return Exported(out, _scored(read_own_metadata(path), config), check, f"{out}: {_how_to_load(config)}")


def _how_to_load(config: StudyConfig) -> str:
    code = config.own_head.function.rpartition(":")[0] if config.own_head else "its layers"
    return f"keras.saving.load_model reads it where {code} is imported, with its classes as custom_objects"


def _ensemble(record: StudyRecord) -> tuple[Path, Head]:
    """The average of the finalists, and the file of one of them."""
    from heads.files.ensemble import join_heads  # noqa: PLC0415  beside Keras

    told = record.summary.ensemble
    assert told is not None
    paths = [find_head(record.folder, number, refitted=True) for number in told.trials]
    for path in paths:
        if path.suffix == OWN:
            raise InputError(
                "--ensemble", expected="heads of plain layers", found=f"{path.name}, {why_not_plain(path)}"
            )
    joined = join_heads([read_head(path) for path in paths])
    return paths[0], replace(joined, metadata=replace(joined.metadata, temperature=told.temperature))


def _scored(metadata: HeadMetadata, config: StudyConfig) -> str:
    """What the head is, and what is known of it: what it scored itself, or what heads like it did."""
    if metadata.trials:
        return f"the average of trials {', '.join(map(str, metadata.trials))} of {config.name}"
    name = f"trial {metadata.trial} of {config.name}"
    if metadata.value is not None:
        return f"{name}, validation {config.objective} {metadata.value:.4f}"
    again = metadata.refit or {}
    trained = f"{name}, trained on {again.get('rows', 0):,} rows for {again.get('epochs')} epochs"
    if again.get("mean") is None:
        return trained
    return (
        f"{trained}; validation {config.objective} of {again['repeats']} heads like it {again['mean']:.4f} on the mean"
    )


def _read(folder: Path) -> StudyRecord:
    from search.record.study_record import read_record  # noqa: PLC0415  Optuna takes its time: checks come first

    record = read_record(folder)
    _best(record)
    return record


def _best(record: StudyRecord) -> TrialResult:
    if record.summary.best is None:
        raise InputError(record.folder, field="trials", expected="one that completed", found="none")
    return record.summary.best
