"""``python -m search.export STUDY_DIR OUT.hdf5``: the best head of a study as a plain Keras file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from features.runtime.backend import start_backend, use_backend
from features.runtime.command import console, run_command
from features.runtime.errors import InputError
from search.setup.config import StudyConfig

if TYPE_CHECKING:
    from heads.files.head_file import Head
    from heads.files.metadata import HeadMetadata
    from search.record.study_record import StudyRecord


def main(
    *,
    study: Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="The study directory.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT.hdf5", help="File to write.", show_default=False)],
    trial: Annotated[
        int | None,
        typer.Option(min=0, help="The head of this trial, as it was scored; else the chosen one.", show_default=False),
    ] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="One model that averages the finalists' heads.")] = False,
    with_backbone: Annotated[
        bool, typer.Option("--with-backbone", help="One model from image to class, preprocessing included.")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(help="Where the backbone's weights are, if they came from a file.", show_default=False)
    ] = None,
    backend: Annotated[str | None, typer.Option(help="tensorflow or jax.", show_default=False)] = None,
) -> None:
    """Writes a study's head to a plain Keras .hdf5 file.

    The one that the study chose, trained on training and validation rows together; with --trial that of any trial
    that was kept, as its value was recorded.
    """
    if out.suffix not in (".hdf5", ".h5"):
        raise InputError("OUT.hdf5", expected="a name that ends in .hdf5 or .h5", found=out.name)
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(out, expected="a file in a folder that exists", found="none")
    if weights is not None and not with_backbone:
        raise InputError("--weights", expected="--with-backbone beside it", found="none")
    if ensemble and trial is not None:
        raise InputError("--ensemble", expected="no --trial beside it", found=f"--trial {trial}")
    config = StudyConfig.read(study)
    use_backend(backend or config.backend)
    record = _read(study)
    if ensemble and not record.ensemble:
        expected = "a study that has ended with finalists, at least two of them"
        raise InputError("--ensemble", expected=expected, found="none")

    start_backend()
    from heads.files.head_file import save_head  # noqa: PLC0415  after the choice of the backend

    path, head = _ensemble(record) if ensemble else _single(record, trial)
    if with_backbone:
        from heads.files.backbone import NamedBackbone, backbone_spec, rebuild_backbone  # noqa: PLC0415
        from heads.files.image_model import save_image_model  # noqa: PLC0415

        spec = backbone_spec(path, head.metadata, NamedBackbone(weights=weights))
        save_image_model(out, rebuild_backbone(path, head.metadata, spec), head)
        if len(head.metadata.views) > 1:
            _say(f"{out}: sees each image as it is; heads.predict averages over {', '.join(head.metadata.views)}")
    else:
        save_head(out, head.model, head.metadata)
    typer.echo(f"{out}: {_scored(head.metadata, config)}")


def _single(record: StudyRecord, trial: int | None) -> tuple[Path, Head]:
    """The head of a trial, or the one that the study chose, and its file."""
    from heads.files.head_file import load_head  # noqa: PLC0415
    from search.record.head_files import find_head  # noqa: PLC0415

    number = record.summary["best"]["number"] if trial is None else trial
    path = find_head(record.folder, number, refitted=trial is None)
    return path, load_head(path)


def _ensemble(record: StudyRecord) -> tuple[Path, Head]:
    """The average of the finalists, and the file of one of them."""
    from heads.files.ensemble import join_heads  # noqa: PLC0415
    from heads.files.head_file import load_head  # noqa: PLC0415
    from search.record.head_files import find_head  # noqa: PLC0415

    told = record.ensemble
    paths = [find_head(record.folder, number, refitted=True) for number in told["trials"]]
    joined = join_heads([load_head(path) for path in paths])
    return paths[0], replace(joined, metadata=replace(joined.metadata, temperature=told["temperature"]))


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


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _read(folder: Path) -> StudyRecord:
    from search.record.study_record import read_record  # noqa: PLC0415  Optuna takes its time: checks come first

    record = read_record(folder)
    if not record.summary["best"]:
        raise InputError(folder, field="trials", expected="one that completed", found="none")
    return record


if __name__ == "__main__":
    run_command(main)
