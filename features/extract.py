"""``python -m features.extract IMAGES STORE``: an image folder through a frozen backbone into a feature store."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from features.extraction.door import network_layers, run_extraction, stores_told
from features.extraction.options import ExtractionOptions
from features.extraction.summary import describe
from features.runtime.backend import use_backend
from features.runtime.command import run_command, say, tell
from features.runtime.errors import InputError
from features.runtime.options import checked, option_name, with_options

_T = TypeVar("_T")
_SEVERAL = "Several joined by commas make a store each, in a folder"
_MORE = {
    "backbone": f"{_SEVERAL}; --layer, --weights and --preprocessing then take as many.",
    "image_size": f"{_SEVERAL}.",
}
"""What this command takes of an option beside what all takers of ``ExtractionOptions`` do."""


def main(
    images: Annotated[
        Path | None, typer.Argument(help="Folder with one sub-folder per class; with --table, any.", show_default=False)
    ] = None,
    store: Annotated[
        Path | None,
        typer.Argument(
            help="The feature store to make or to finish; with several backbones or sizes, a folder for theirs.",
            show_default=False,
        ),
    ] = None,
    *,
    show_layers: Annotated[
        bool, typer.Option("--list-layers", help="Only show the layers of --backbone, and the shapes of their outputs.")
    ] = False,
    **options: Any,
) -> None:
    """Runs the images of a folder through a frozen backbone and keeps its last feature maps.

    An extraction that was stopped goes on where it was when the same command runs again. Where images have changed
    since, it says so; with --update it computes these, and keeps the rest. Several backbones, several sizes: each image
    is decoded once, and STORE is a folder that gets a store for each of them.
    """
    chosen = checked(ExtractionOptions, options, of="an extraction")
    if show_layers:
        use_backend(chosen.backend)
        backbone, size = _only("backbone", chosen.backbones), _only("image_size", chosen.image_sizes)
        for layer in network_layers(backbone, alpha=chosen.alpha, image_size=size):
            tell(str(layer))
        return
    if images is None or store is None:
        raise _MissingError(f"Missing argument '{'images' if images is None else 'store'}'")
    stores = stores_told(store, chosen)
    for line in describe(*run_extraction(images, stores, chosen)):
        say(line)
    say(f"search over {'them' if len(stores) > 1 else 'it'}:  python -m search.run {_as_features(stores)}")


def _as_features(stores: Iterable[Path]) -> str:
    return " ".join(f"--features {shlex.quote(str(path))}" for path in stores)


def _only(field: str, told: Sequence[_T]) -> _T:
    if len(told) > 1:
        found = ", ".join(map(str, told))
        raise InputError(option_name(field), expected="one beside --list-layers", found=found)
    return told[0]


class _MissingError(typer.TyperException):
    """As Typer's own, for arguments that are needed but for ``--list-layers``."""

    exit_code = 2


with_options(main, ExtractionOptions, more=_MORE)


if __name__ == "__main__":
    run_command(main, resume_hint="run the same command again to go on")
