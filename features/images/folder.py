"""An image folder as a table: path, class, patient of every image, one sub-folder a class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from features.images.patients import GROUP_PATTERN, compile_group_pattern, patient_of
from features.runtime.errors import InputError
from features.runtime.text import listed, printable

_NAMED = 3
"""How many of the ignored files a remark names."""


def _image_suffixes() -> frozenset[str]:
    """Suffixes of the formats that Pillow reads; not of those that it only knows by name (HDF5, GRIB and such)."""
    Image.init()
    stubs = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
    readable = {name for name in Image.OPEN if name not in stubs}
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable)


IMAGE_SUFFIXES = _image_suffixes()
"""Lower-case endings, dot included, of the files that count as images."""


@dataclass(frozen=True)
class ImageTable:
    """The images of a folder, sorted by class, then path.

    Attributes:
        folder: The image folder.
        classes: Names of the sub-folders that hold images, sorted.
        paths: Each image relative to ``folder``, with ``/``.
        sizes: Size of each file in bytes.
        labels: Index of each image's class.
        patients: Patient of each image, '' where the file name does not tell.
        newest: Time of the newest of these files, ISO 8601, UTC, in whole seconds.
        remarks: What the user should know about the folder, a line each.
    """

    folder: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    labels: tuple[int, ...]
    patients: tuple[str, ...]
    newest: str
    remarks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class _File:
    path: str
    size: int
    modified: float


def scan_folder(folder: Path, *, group_pattern: str = GROUP_PATTERN, limit: int | None = None) -> ImageTable:
    """Lists the images of a folder that has one sub-folder a class.

    Hidden entries, files beside the class folders, folders within them, files without an image's ending and names that
    are no text (UTF-8, as the store keeps them) are ignored; all but the hidden ones with a remark. Links are followed.

    Args:
        folder: The image folder.
        group_pattern: Where in a file's name (without its ending) the patient is, see ``features.images.patients``.
        limit: Take at most this many images, evenly from the classes and evenly spaced within each.

    Raises:
        InputError: The folder is missing, is a file, cannot be read or holds no images; the pattern is none; the
            limit leaves a class without an image.
    """
    pattern = compile_group_pattern(group_pattern)
    ignored: list[str] = []
    found = {name: _images_of(folder, name, ignored) for name in _class_folders(folder, ignored)}
    empty = [name for name, files in found.items() if not files]
    found = {name: files for name, files in found.items() if files}
    if not found:
        raise InputError(folder, expected="one sub-folder a class, with images in it", found=_nothing(folder, empty))
    if limit is not None:
        found = _limited(found, limit)
    files = [file for name in found for file in found[name]]
    patients = tuple(patient_of(Path(file.path).stem, pattern) for file in files)
    newest = datetime.fromtimestamp(int(max(file.modified for file in files)), UTC)
    return ImageTable(
        folder=folder,
        classes=tuple(found),
        paths=tuple(file.path for file in files),
        sizes=tuple(file.size for file in files),
        labels=tuple(label for label, name in enumerate(found) for _ in found[name]),
        patients=patients,
        newest=newest.strftime("%Y-%m-%dT%H:%M:%SZ"),
        remarks=tuple(_remarks(ignored, empty, tuple(found), patients)),
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder that are not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise InputError(folder, expected="an image folder", found="no such folder") from error
    except NotADirectoryError as error:
        raise InputError(folder, expected="an image folder", found="a file") from error
    except OSError as error:
        raise InputError(folder, expected="a folder that can be read", found=error.strerror) from error


def _class_folders(folder: Path, ignored: list[str]) -> Iterator[str]:
    for entry in _entries(folder):
        if _is_folder(entry) and _is_text(entry.name):
            yield entry.name
        else:
            ignored.append(entry.name)


def _images_of(folder: Path, name: str, ignored: list[str]) -> list[_File]:
    images = []
    for entry in _entries(folder / name):
        if _is_file(entry) and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and _is_text(entry.name):
            images.append(_file(entry, f"{name}/{entry.name}"))
        else:
            ignored.append(f"{name}/{entry.name}")
    return images


def _is_folder(entry: os.DirEntry[str]) -> bool:
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


def _file(entry: os.DirEntry[str], path: str) -> _File:
    try:
        status = entry.stat()
    except OSError:
        return _File(path, 0, 0.0)
    return _File(path, status.st_size, status.st_mtime)


def _is_text(name: str) -> bool:
    """Whether a file name is valid Unicode: the store keeps its paths as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _nothing(folder: Path, empty: list[str]) -> str:
    """Says what there is instead of images in class folders."""
    if any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in folder.iterdir()):
        return "images without a class folder"
    deeper = next((name for name in empty if any(entry.is_dir() for entry in _entries(folder / name))), None)
    if deeper is not None:
        return f"folders in folders (is the image folder {printable(str(folder / deeper))}?)"
    return "none"


def _limited(found: dict[str, list[_File]], limit: int) -> dict[str, list[_File]]:
    if limit < len(found):
        raise InputError("--limit", expected=f"at least {len(found)}, one image of every class", found=limit)
    shares = dict.fromkeys(found, 0)
    left = limit
    while left > 0:
        open_classes = [name for name in found if shares[name] < len(found[name])]
        if not open_classes:
            break
        share = max(1, left // len(open_classes))
        for name in open_classes[:left]:
            step = min(share, len(found[name]) - shares[name])
            shares[name] += step
            left -= step
    return {name: _spaced(files, shares[name]) for name, files in found.items()}


def _spaced(files: list[_File], count: int) -> list[_File]:
    """``count`` of the files, evenly spaced, so that few images still show many patients."""
    return [files[index * len(files) // count] for index in range(count)]


def _remarks(
    ignored: list[str], empty: list[str], classes: tuple[str, ...], patients: tuple[str, ...]
) -> Iterator[str]:
    unnamed = [name for name in ignored if not _is_text(name)]
    if unnamed:
        yield f"ignored, {len(unnamed)} whose names are not UTF-8 text: {_some(unnamed)}"
    others = [name for name in ignored if _is_text(name)]
    if others:
        yield f"ignored, not images in a class folder: {_some(others)}"
    if empty:
        yield f"ignored, class folders without an image: {_some(empty)}"
    if len(classes) == 1:
        yield f"there is a single class, {printable(classes[0])}: nothing to tell apart"
    unknown = sum(not patient for patient in patients)
    if unknown:
        yield (
            f"the patient of {unknown} of {len(patients)} images is unknown, so images of one patient may fall on both"
            " sides of a split: name the patient's place in the file names with --group-pattern"
        )


def _some(names: Iterable[str]) -> str:
    # `ascii` where a name is no valid text: it could not be printed
    shown = [printable(name) if _is_text(name) else ascii(name)[1:-1] for name in names]
    return listed(shown, _NAMED)
