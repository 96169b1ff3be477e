"""The files of a class folder, those of its patients' folders included, and what is passed over on the way."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from features.images.entries import DEEPEST, TOO_DEEP, advice_on, is_image, is_left_out, is_litter, is_text
from features.runtime.errors import InputError
from features.runtime.text import printable, shortened

HIDDEN, LITTER, OTHERS, BESIDE = "hidden", "left behind by systems", "no images", "images beside those of a class"
MASKS = "masks beside images"
"""What was passed over, as ``ImageTable.ignored`` counts it."""
_OF_IMAGES = frozenset(("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "scans"))
_OF_MASKS = frozenset(("mask", "masks", "segmentation", "segmentations", "annotation", "annotations", "groundtruth"))
"""Names of folders, in lower case: where one of images stands beside one of masks, the latter are no images."""
_EARLIEST_NS = 31_536_000 * 10**9
_LATEST_NS = 4_102_444_800 * 10**9
"""1971 and 2100: a file's time outside of these was never the time of anything."""


@dataclass(frozen=True)
class File:
    """An image.

    Attributes:
        path: Relative to the image folder, with ``/``.
        size: Bytes.
        modified: When it was last written, nanoseconds since 1970; 0 where that is impossible or unknown.
    """

    path: str
    size: int
    modified: int

    @property
    def nested(self) -> bool:
        """Whether it lies in a folder within its class's folder."""
        return self.path.count("/") > 1


@dataclass
class Seen:
    """What was passed over: names of what is no image, images that lie beside a class, counts by reason."""

    others: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def pass_over(self, name: str) -> None:
        """Notes an entry that is no image."""
        self.others.append(name)
        self.counts[OTHERS] += 1

    def add(self, other: Seen) -> None:
        """Adds what another one saw."""
        self.others += other.others
        self.counts += other.counts


@dataclass
class _Branch:
    """A folder: its images and folders in their order, what else is in it, why it cannot be read."""

    path: str
    items: list[File | _Branch] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    problem: InputError | None = None

    @property
    def folders(self) -> list[_Branch]:
        return [item for item in self.items if isinstance(item, _Branch)]

    def is_called(self, names: Container[str]) -> bool:
        return self.path.rpartition("/")[2].casefold() in names

    def files(self) -> Iterator[File]:
        for item in self.items:
            if isinstance(item, File):
                yield item
            else:
                yield from item.files()


def entries_of(folder: Path, seen: Seen) -> list[os.DirEntry[str]]:
    """The entries of a folder that are neither hidden nor left behind by a system, sorted by name.

    Raises:
        InputError: There is no such folder, or it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise InputError(folder, expected="an image folder", found="no such folder") from error
    except NotADirectoryError as error:
        raise InputError(folder, expected="an image folder", found="a file", hint=advice_on(folder)) from error
    except OSError as error:
        raise InputError(folder, expected="a folder that can be read", found=error.strerror) from error
    for entry in found:
        if is_left_out(entry.name):
            seen.counts[LITTER if is_litter(entry.name) else HIDDEN] += 1
    return [entry for entry in found if not is_left_out(entry.name)]


def files_of_class(folder: Path, name: str, seen: Seen) -> list[File]:
    """The images of a class folder.

    Where more of them lie in folders within it than beside these, all are taken; else the folders are passed over.

    Args:
        folder: The image folder.
        name: The class's folder in it, or in a folder of it.
        seen: Filled with what is passed over.

    Raises:
        InputError: A folder that would be needed cannot be read.
    """
    whole = _walk(folder, name, ())
    _leave_masks_out(whole)
    files = [*whole.files()]
    above = name.count("/") + 1
    direct = [file for file in files if file.path.count("/") == above]
    if len(files) - len(direct) > len(direct) or not files:
        _take_all(whole, seen)
        return files
    if whole.problem is not None:
        raise whole.problem
    seen.add(whole.seen)
    for branch in whole.folders:
        seen.pass_over(branch.path)
    seen.beside += [file.path for file in files if file.path.count("/") > above]
    seen.counts[BESIDE] += len(files) - len(direct)
    return direct


def files_below(folder: Path, seen: Seen) -> list[File]:
    """The images of a folder and of all folders in it, sorted by path.

    Args:
        folder: The image folder.
        seen: Filled with what is passed over.

    Raises:
        InputError: There is no such folder, or it or a folder in it cannot be read.
    """
    files = []
    for entry in entries_of(folder, seen):
        if is_text(entry.name) and is_folder(entry):
            status = folder.stat()
            branch = _walk(folder, entry.name, ((status.st_dev, status.st_ino),))
            _take_all(branch, seen)
            files += [*branch.files()]
        elif _is_file(entry) and is_image(entry.path) and is_text(entry.name):
            files.append(_file(entry, entry.name))
        else:
            seen.pass_over(entry.name)
    return sorted(files, key=lambda file: file.path)


def _take_all(branch: _Branch, seen: Seen) -> None:
    if branch.problem is not None:
        raise branch.problem
    seen.add(branch.seen)
    for inner in branch.folders:
        if not inner.problem and not any(inner.files()):
            seen.pass_over(inner.path)
        _take_all(inner, seen)


def _walk(folder: Path, name: str, above: tuple[tuple[int, int], ...]) -> _Branch:
    """Reads a folder and all below it; ``above`` are those that it lies in, so that a link to one of them ends it."""
    branch = _Branch(name)
    if len(above) >= DEEPEST:
        found = f"{TOO_DEEP}: {shortened(printable(name), 60)}"
        branch.problem = InputError(folder, expected="an image folder", found=found)
        return branch
    try:
        status = (folder / name).stat()
        entries = entries_of(folder / name, branch.seen)
    except OSError as error:
        branch.problem = InputError(folder / name, expected="a folder that can be read", found=error.strerror)
        return branch
    except InputError as error:
        branch.problem = error
        return branch
    here = (status.st_dev, status.st_ino)
    if here in above:
        return branch
    for entry in entries:
        path = f"{name}/{entry.name}"
        if is_text(entry.name) and is_folder(entry):
            branch.items.append(_walk(folder, path, (*above, here)))
        elif _is_file(entry) and is_image(entry.path) and is_text(entry.name):
            branch.items.append(_file(entry, path))
        else:
            branch.seen.pass_over(path)
    return branch


def _leave_masks_out(branch: _Branch) -> None:
    """Passes over the folders of masks that stand beside those of images, however deep."""
    if any(inner.is_called(_OF_IMAGES) and any(inner.files()) for inner in branch.folders):
        masks = [inner for inner in branch.folders if inner.is_called(_OF_MASKS)]
        branch.seen.counts[MASKS] += sum(1 for inner in masks for _ in inner.files())
        branch.items = [item for item in branch.items if not (isinstance(item, _Branch) and item.is_called(_OF_MASKS))]
    for inner in branch.folders:
        _leave_masks_out(inner)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether this is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether this is a file, or a link to nowhere: with an image's ending that is a row which cannot be read."""
    try:
        return entry.is_file() or (entry.is_symlink() and not entry.is_dir())
    except OSError:
        return True


def _file(entry: os.DirEntry[str], path: str) -> File:
    try:
        status = entry.stat()
    except OSError:
        return File(path, 0, 0)
    possible = _EARLIEST_NS <= status.st_mtime_ns < _LATEST_NS
    return File(path, status.st_size, status.st_mtime_ns if possible else 0)
