"""Which views an extraction takes where it is not told: those of the store that is there, or as few images need."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from features.images.views import View, parse_views
from features.runtime.errors import InputError

AUTO = "auto"
VIEWS = parse_views("identity,rotate:5,zoom:1.1,rotate:-5,shift:0:16,shift:0:-16")
"""A few degrees, a tenth larger, half a place of a map up and down (backbones have one for 32 pixels): no class is told
by that, as one may be by what lies left and right."""
COUNTS = (6, 3)
"""How many of them there may be, other than one."""
MAPS = 15_000
"""So many a store of several views does not come to: the fewer images there are, the more is each view worth, and the
less it costs. A judgement, measured on hundreds (docs/benchmarks.md, *Views*)."""


def views_by_images(images: int, stored: Sequence[Sequence[str]]) -> tuple[View, ...]:
    """Returns the views of each image where ``--views`` is left to the images.

    Args:
        images: How many there are.
        stored: The views of each store that is there already: the first that an extraction can have made decides.
    """
    for names in stored:
        with suppress(InputError):
            return parse_views(",".join(names))
    return VIEWS[: next((count for count in COUNTS if images * count < MAPS), 1)]


def rule() -> str:
    """Says it in words."""
    names = ", ".join(view.name for view in VIEWS)
    fewest = [f"the first {count} of fewer than {MAPS // count:,}" for count in COUNTS]
    return f"of {names} {', '.join(fewest)} images, which heads learn more from, and the first of more"


def remark_on(views: Sequence[View], images: int) -> str:
    """Says which views were taken, and what to say instead."""
    names = ", ".join(view.name for view in views)
    return (
        f"{images:,} images, so each in {len(views)} views ({names}), of which heads learn more; --views identity"
        " takes each as it is alone, in less time and room"
    )
