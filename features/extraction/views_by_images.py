"""Which views an extraction takes where it is not told: those of the store that is there, or as few images need."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from features.images.views import View, parse_views
from features.runtime.errors import InputError

AUTO = "auto"
FEW = 5_000
"""Below so many images each is worth its views: a judgement, measured on hundreds (docs/benchmarks.md, *Views*)."""
OF_FEW = parse_views("identity,rotate:5,zoom:1.1")
"""A few degrees and a tenth larger: no class is told by that, as one may be by what lies left and right."""
OF_MANY = parse_views("identity")


def views_by_images(images: int, stored: Sequence[Sequence[str]]) -> tuple[View, ...]:
    """Returns the views of each image where ``--views`` is left to the images.

    Args:
        images: How many there are.
        stored: The views of each store that is there already: the first that an extraction can have made decides.
    """
    for names in stored:
        with suppress(InputError):
            return parse_views(",".join(names))
    return OF_FEW if images < FEW else OF_MANY


def remark_on(views: Sequence[View], images: int) -> str:
    """Says which views were taken, and what to say instead."""
    names = ", ".join(view.name for view in views)
    return (
        f"{images:,} images, so each in {len(views)} views ({names}), of which heads learn more; --views identity"
        " takes each as it is alone, in less time and room"
    )
