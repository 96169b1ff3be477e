"""Files that hold several pages: which of them are images, and how they are named in a table, ``scan.tif#2``."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError

from features.images import dicom
from features.images.dicom_pixels import HEAD
from features.images.entries import is_image_name
from features.images.folder import IMAGE_FIELDS, ImageTable
from features.images.pillow_internals import (
    Places,
    cut_is_damaged,
    give_places,
    has_deep_colours,
    places_of_pages,
)
from features.images.plugins import formats
from features.images.reading import MAX_PIXELS, ImageFile, Page, Source, file_holding, open_file
from features.runtime.files import identity
from features.runtime.portable import cpu_count
from features.runtime.text import counted

Pages = Literal["first", "all"]
"""What ``--pages`` takes."""
_PAGED = frozenset(("TIFF", "GIF", "PNG", "WEBP", "AVIF", "DCX", "DICOM", "FLI", "IM", "SPIDER"))
"""Formats whose frames are images of equal rank: not the layers of a PSD, the sizes of an icon, a camera's preview."""
_IN_ORDER = frozenset(("GIF", "PNG", "WEBP", "AVIF"))
"""Formats whose frames are made one from another: each costs all before it."""
_SUBFILE = 254
_REDUCED, _MASK = 1, 4
_NUMBERED = re.compile(r"(?P<file>.+)#(?P<number>[1-9]\d{0,8})", re.DOTALL)


@contextmanager
def open_image(source: Source) -> Iterator[Image.Image]:
    """Opens a file, at a page where it is one, or a content. Within, an image that is cut short is damaged.

    Raises:
        Exception: Whatever Pillow raises.
    """
    with cut_is_damaged():
        if not (isinstance(source, Page) and source.number > 1):
            with _image_of(source) as image:
                yield image
        elif _reel.reaches(source):
            yield _reel.frame(source)
        else:
            with _image_of(source) as image:
                if _can_go_on(image):
                    _reel.begin(source)
                    yield _reel.frame(source)
                else:
                    _go_to(source, image)
                    yield image


def _can_go_on(image: Image.Image) -> bool:
    """Whether frames of an open file may be copied: a copy has no lower bytes, and is made before its size is asked."""
    return image.format in _IN_ORDER and image.width * image.height <= MAX_PIXELS and not has_deep_colours(image)


class _Reel(threading.local):
    """The file that a thread has pages of, at the page that it had last: all of them cost the file's length once."""

    def __init__(self) -> None:
        self._file: tuple[object, ...] | None = None
        self._image: Image.Image | None = None

    def reaches(self, page: Page) -> bool:
        """Whether it has this very file, and is not beyond the page."""
        if self._image is None or self._image.tell() >= page.number:
            return False
        return self._file == (page.path, identity(page.path))

    def begin(self, page: Page) -> None:
        """Takes the file of a page in memory, so that none stays open."""
        self._image = None
        self._file = page.path, identity(page.path)
        with open_file(page.path) as file:
            self._image = _image_of(file.read())

    def frame(self, page: Page) -> Image.Image:
        """Goes on to a page; returns what may be turned and closed without the next ones being others for it."""
        image, self._image = self._image, None  # what fails is not gone on with
        assert image is not None
        image.seek(page.number - 1)
        shown = image.copy()
        self._image = image
        return shown


_reel = _Reel()


def _go_to(page: Page, image: Image.Image) -> None:
    if image.format == "TIFF":
        reach = 1 << (page.number - 1).bit_length()  # twice as far each time: all pages of a file cost twice its length
        give_places(image, _places(page.path, identity(page.path), reach), page.number)
    image.seek(page.number - 1)


@lru_cache(maxsize=64)
def _places(path: Path, which: tuple[int, ...] | None, reach: int) -> Places:
    """Where the first pages of a TIFF are, remembered as long as it is the same file."""
    del which
    with _image_of(path) as image:
        with suppress(Exception):  # EOFError after the last; damage ends the file as well
            for number in range(1, reach):
                image.seek(number)
        return places_of_pages(image)


def _image_of(source: Source) -> Image.Image:
    opened = io.BytesIO(source) if isinstance(source, bytes) else file_holding(source)
    start = start_of(source)
    if dicom.is_dicom(start):
        return dicom.DicomImage(opened)
    try:
        image = Image.open(opened, formats=formats())
    except UnidentifiedImageError:
        if not (dicom.CAN_READ and dicom.may_be_dicom(start)):
            raise
        return dicom.DicomImage(opened)
    # a file with a name may be mapped, which scrambles a TIFF that is to be turned (Pillow 13)
    image.filename = ""
    return image


def start_of(source: Source, count: int = HEAD) -> bytes:
    """Returns the first bytes of a file or a content; of a page, those of the file that it is in.

    Raises:
        OSError: The file cannot be read.
    """
    if isinstance(source, bytes):
        return source[:count]
    with open_file(file_holding(source)) as file:
        return file.read(count)


def page_numbers(source: Path) -> list[int]:
    """Returns which pages of a file are images, counted from 1; ``[1]`` where that cannot be told.

    Reduced copies and masks of a TIFF are left out. What comes after damage is, too.
    """
    try:
        return [1, *_further(source)]
    except Exception:  # Pillow's decoders raise whatever a damaged file makes them stumble over
        return [1]


def may_have_pages(image: Image.Image) -> bool:
    """Whether an open image is of a format with pages, and says that it has some."""
    try:
        return image.format in _PAGED and bool(getattr(image, "is_animated", False))
    except Exception:  # of a GIF Pillow reads on to find out
        return False


def has_pages(source: Path | bytes) -> bool:
    """Whether a file has more pages than the first that are images."""
    try:
        return bool(list(islice(_further(source), 1)))
    except Exception:
        return False


def _further(source: Path | bytes) -> Iterator[int]:
    """Numbers of the pages after the first."""
    with open_image(source) as image:
        if not may_have_pages(image):
            return
        if image.format != "TIFF":
            yield from range(2, getattr(image, "n_frames", 1) + 1)
            return
        number = 1
        while True:
            try:
                image.seek(number)
            except Exception:  # EOFError after the last; damage ends the file as well
                return
            number += 1
            tags: Any = getattr(image, "tag_v2", {})
            subfile = tags.get(_SUBFILE, 0)
            if not (isinstance(subfile, int) and subfile & (_REDUCED | _MASK)):
                yield number


def source_of(folder: Path, path: str) -> ImageFile:
    """Returns what a path of a table or of a store names: a file in the folder, or a page of one.

    A file that counts as an image has an image's ending, and ``scan.tif#2`` has none: the two cannot be mistaken.
    """
    match = _NUMBERED.fullmatch(path)
    if match and not is_image_name(path):
        return Page(folder / match["file"], int(match["number"]))
    return folder / path


def file_of(path: str) -> str:
    """Returns the file that a path of a table or of a store names or names a page of."""
    match = _NUMBERED.fullmatch(path)
    return match["file"] if match and not is_image_name(path) else path


def with_all_pages(table: ImageTable) -> ImageTable:
    """Returns the table with a row for each page of a file that has several: ``scan.tif#1``, ``scan.tif#2``.

    All pages of a file are of one patient: where the patient is unknown, the file's path stands for one.

    Args:
        table: A row a file.
    """
    sources = [table.folder / path for path in table.paths]
    rows: list[int] = []
    paths: list[str] = []
    patients: list[str] = []
    nameless = 0
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="pages") as pool:
        for row, numbers in enumerate(pool.map(page_numbers, sources)):
            path, patient = table.paths[row], table.patients[row]
            several = len(numbers) > 1
            nameless += several and not patient
            rows += [row] * len(numbers)
            paths += [f"{path}#{number}" for number in numbers] if several else [path]
            patients += [patient or (path if several else "")] * len(numbers)
    said = {name: values for name in IMAGE_FIELDS if (values := getattr(table, name))}
    changed: dict[str, Any] = {name: tuple(values[row] for row in rows) for name, values in said.items()}
    told = [table.patient_source, *(["the files of several pages whose patient is unknown"] if nameless else [])]
    changed |= {"paths": tuple(paths), "patients": tuple(patients), "patient_source": "; ".join(filter(None, told))}
    return replace(table, **changed, remarks=(*table.remarks, *_remarks(table.paths, paths, nameless)))


def _remarks(files: Sequence[str], pages: Sequence[str], nameless: int) -> Iterator[str]:
    several = len(set(files) - set(pages))
    if several:
        yield f"{counted(several, 'file')} with several pages: {len(pages) - len(files) + several:,} rows of them"
    if nameless:
        yield f"the patient of {counted(nameless, 'file')} with several pages is unknown: each file counts as a patient"
