"""What decides how an image file is read beside the file itself, and what a run notices while it reads many."""

from __future__ import annotations

import errno
import io
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from PIL import Image

from features.runtime.text import counted
from features.store.intensity import Intensity, Scale
from features.store.kind import SQUASH

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 1 << 30
"""An image of more pixels is refused where nothing else is told: Pillow's own limit, from which on it warns."""
_NEARLY_LOST = 1 / 8
"""Images whose values cover a smaller share of their scale lose more than three of their eight bits."""


@dataclass(frozen=True)
class Page:
    """One page of a file that holds several.

    Attributes:
        path: The file.
        number: Which of its pages, from 1.
    """

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}#{self.number}"


ImageFile = Path | Page
"""A file, or a page of one."""
Source = ImageFile | bytes
"""A file, a page of one, or a file's content."""


def file_holding(source: ImageFile) -> Path:
    """Returns the file itself; of a page, the one that it is in."""
    return source.path if isinstance(source, Page) else source


def open_file(path: Path) -> io.BufferedReader:
    """Opens an image's file to read it.

    Raises:
        OSError: It cannot be read; or it is a named pipe or a device, which might be waited on for ever.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the system itself says what is wrong
        raise OSError(errno.EINVAL, "no regular file")
    return path.open("rb")


class Noticed(Enum):
    """What is worth telling of an image that was read."""

    DEEP = "more than 8 bits"
    CLIPPED = "values outside of the scale"
    NO_NUMBERS = "pixels that are no numbers"
    PAGES = "several pages"
    WINDOW = "a window of its own"


class Tally:
    """Counts what is noticed of a run's images; any thread may tell it, and processes send theirs to be merged."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[Noticed] = Counter()
        self.low = float("inf")
        self.high = float("-inf")
        self.scales: set[Scale] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def add(self, noticed: Noticed) -> None:
        """Counts an image."""
        with self._lock:
            self.counts[noticed] += 1

    def widen(self, low: float, high: float, scale: Scale) -> None:
        """Takes the range of an image's numbers, and the scale that they were put on."""
        with self._lock:
            self.low, self.high = min(self.low, low), max(self.high, high)
            self.scales.add(scale)

    def merge(self, other: Tally) -> None:
        """Adds what another one counted."""
        with self._lock:
            self.counts.update(other.counts)
            self.low, self.high = min(self.low, other.low), max(self.high, other.high)
            self.scales |= other.scales

    def take(self) -> Tally:
        """Returns what was counted since the last call, and counts anew."""
        taken = Tally()
        with self._lock:
            taken.counts, self.counts = self.counts, Counter()
            taken.low, taken.high = self.low, self.high
            taken.scales = set(self.scales)
        return taken

    def notes(self, intensity: Intensity, *, chosen: bool) -> Iterator[str]:
        """Yields what the user should know of the images, a line for each kind of thing.

        Args:
            intensity: How they were scaled.
            chosen: Whether the scale was chosen for these very images: then what it is was said before.
        """
        counts = self.counts
        if counts[Noticed.DEEP] and not chosen:
            yield from self._scale_notes(intensity)
        if counts[Noticed.CLIPPED]:
            yield (
                f"{_images(counts[Noticed.CLIPPED])} with values outside of the range {self._scales()}, clipped"
                f" to black or white (there are {self.low:g} to {self.high:g}): --intensity LOW:HIGH takes another"
            )
        if counts[Noticed.NO_NUMBERS]:
            yield f"{_images(counts[Noticed.NO_NUMBERS])} with pixels that are no numbers (NaN), shown black"
        if counts[Noticed.WINDOW]:
            yield f"{_images(counts[Noticed.WINDOW])} (DICOM) shown through the window that its file names"
        if counts[Noticed.PAGES]:
            files = counted(counts[Noticed.PAGES], "file")
            yield f"{files} with several pages: the first of each was used; --pages all takes all"

    def _scales(self) -> str:
        return " and ".join(sorted(map(str, self.scales)))

    def _scale_notes(self, intensity: Intensity) -> Iterator[str]:
        deep = f"{_images(self.counts[Noticed.DEEP])} of more than 8 bits"
        if intensity.by_itself:
            yield (
                f"{deep}, each scaled by its own range: how those were scaled that the features come from was not"
                " recorded; --intensity LOW:HIGH takes one scale for all"
            )
            return
        yield f"{deep}: shown on the scale {self._scales() or intensity}, black to white"
        covered = self.high - self.low
        if covered >= 0 and all(covered < _NEARLY_LOST * (one.high - one.low) for one in self.scales):
            yield (
                f"their values, {self.low:g} to {self.high:g}, are a small part of that range: contrast is nearly lost;"
                " is it another --intensity LOW:HIGH?"
            )


def described(intensity: Intensity) -> str:
    """Returns the scales in words."""
    if intensity.whole == intensity.fractions:
        return f"{intensity.whole}"
    return f"{intensity.whole} of whole numbers, {intensity.fractions} of fractions"


def _images(count: int) -> str:
    return counted(count, "image")


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Attributes:
        intensity: How images of more than 8 bits become greys.
        max_pixels: An image of more pixels is refused.
        resize: How they become squares, one of ``features.store.kind.RESIZES``.
        tally: Told what is noticed.
    """

    intensity: Intensity = field(default_factory=Intensity)
    max_pixels: int = MAX_PIXELS
    resize: str = SQUASH
    tally: Tally = field(default_factory=Tally, compare=False, repr=False)
