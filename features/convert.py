"""``python -m features.convert SOURCE DESTINATION``: the article's layout to a feature store, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.runtime.command import progress, run_command, say
from features.runtime.errors import InputError
from features.store.article import article_to_store, is_article, store_to_article
from features.store.reader import FeatureStore
from features.store.schema import DTYPES

UNKNOWN_PATIENTS = "the patients are unknown, so images of one patient may fall on both sides of a split"


def main(
    source: Annotated[Path, typer.Argument(help="A file of the article's layout, or a store.", show_default=False)],
    destination: Annotated[Path, typer.Argument(help="The other of the two.", show_default=False)],
    classes: Annotated[
        str | None,
        typer.Option(
            help="Class names in label order, joined by commas; else the article's four, or class-0, class-1, ..."
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float16 or float32, of the store that is made; else float16.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows in a batch; else the article's own where that is known, else 100.")
    ] = None,
) -> None:
    """Converts features between the article's layout and a store; SOURCE decides which way.

    A conversion to a store that was interrupted goes on when the same command runs again.
    """
    if dtype not in (None, *DTYPES):
        raise InputError("--dtype", expected=" or ".join(DTYPES), found=dtype)
    to_store = is_article(source)
    for option, given in (("--classes", classes), ("--dtype", dtype)):
        if not to_store and given is not None:
            found = "a store, which has its own" if option == "--classes" else "a store: the layout is float32"
            raise InputError(option, expected="a source of the article's layout", found=found)
    with progress("images") as display:
        task = display.add_task("converting", total=None)

        def on_progress(rows: int, total: int) -> None:
            display.update(task, completed=rows, total=total)

        if to_store:
            kind = dtype or "float16"
            article_to_store(
                source, destination, classes=classes, dtype=kind, batch_size=batch_size, on_progress=on_progress
            )
        else:
            store_to_article(source, destination, batch_size=batch_size, on_progress=on_progress)
    remark = UNKNOWN_PATIENTS if to_store else _left_out(FeatureStore(source))
    if remark:
        say(f"{destination}: {remark}")


def _left_out(store: FeatureStore) -> str:
    """Says what of a store the article's layout has no place for; '' for nothing."""
    skipped, views = len(store) - len(store.usable), len(store.header.views) - 1
    parts = [f"{skipped} skipped rows"] * bool(skipped) + [f"all views but {store.header.views[0]}"] * bool(views)
    parts += ["the basis of its channels"] * (store.header.projection is not None)
    listed = " and ".join(parts)
    return f"left out, as the layout has no place for them: {listed}" if parts else ""


if __name__ == "__main__":
    run_command(main, resume_hint="run the same command again to go on")
