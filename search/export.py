"""``python -m search.export STUDY_DIR OUT``: what a study recommends as a Keras, ONNX or TensorFlow file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from features.runtime.command import run_command, say, tell
from features.runtime.options import checked, with_options
from search.finish.export import export_head
from search.setup.export_options import ExportOptions

_OUT = "What to write: NAME.hdf5, NAME.keras, NAME.onnx, NAME.tflite, or a folder NAME/ for a SavedModel."


def main(
    *,
    study: Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="The study directory.", show_default=False)],
    out: Annotated[str, typer.Argument(metavar="OUT", help=_OUT, show_default=False)],
    backend: Annotated[str | None, typer.Option(help="tensorflow or jax.", show_default=False)] = None,
    **options: Any,
) -> None:
    """Writes a study's head, in the format that the ending of OUT says, and tries what was written.

    The one that the study recommends, trained on training and validation rows together; with --trial that of a trial
    that was kept.
    """
    exported = export_head(study, out, checked(ExportOptions, options, of="an export"), backend=backend)
    if exported.remark:
        say(exported.remark)
    say(f"{out}: {exported.check}")
    tell(f"{out}: {exported.description}")


with_options(main, ExportOptions, before="backend")


if __name__ == "__main__":
    run_command(main)
