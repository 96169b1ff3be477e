"""``python -m features.compress STORE OUT``: a store of the strongest directions of another one's channels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from features.compression.door import describe, run_compression
from features.compression.options import CompressionOptions
from features.runtime.command import run_command, say
from features.runtime.options import checked, with_options


def main(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A finished feature store.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The store to make or to finish.", show_default=False)],
    **options: Any,
) -> None:
    """Makes a store of fewer channels, on which a search takes a fraction of the time.

    The channels are the strongest directions (uncentred principal directions) of the maps of the rows that
    search.run --folds 0 trains on: the split of its default seed and shares, so that no patient of the test part has a
    say. A search takes the store as any other, and the heads that leave it take all channels. A compression that was
    stopped goes on where it was when the same command runs again.
    """
    for line in describe(run_compression(store, out, checked(CompressionOptions, options, of="a compression"))):
        say(line)


with_options(main, CompressionOptions)


if __name__ == "__main__":
    run_command(main, resume_hint="run the same command again to go on")
