"""Which entries of a folder count: images by their endings, never what systems leave behind. And what else is there."""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from PIL import Image

from features.images import dicom
from features.images.dicom_pixels import HEAD
from features.images.plugins import endings, formats, register_plugins, remedies
from features.images.reading import open_file
from features.runtime.text import counted

_LITTER = frozenset(
    (
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),  # Explorer and Finder
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),  # Synology, QNAP
        "dicomdir",  # the index of a folder of DICOM files
        *("$recycle.bin", "system volume information", "found.000"),  # Windows; its "Recycled" of old may be a class
        *("__macosx", "network trash folder", "temporary items", "lost+found"),  # macOS' archives and shares, ext4
        "__pycache__",
    )
)
_LITTER_STARTS = ("._", "~$", "synofile_thumb", "synophoto_thumb", "synoindex_media_info")
_SNIFFED = 16
"""Files without an ending that are looked into."""
_LOOKED_AT = 100_000
"""Entries that are counted where there is no image: what a folder holds shows before."""
DEEPEST = 200
"""How many folders may lie in one another: more are a loop of mounts or of copies, and not what anyone made."""
TOO_DEEP = f"more than {DEEPEST} folders in one another"
_DICOM = dicom.REMEDY
_SIEMENS = "give DICOM files the ending .dcm"
_VOLUME = "volumes are not read: write their slices as PNG first, e.g. with SimpleITK or nibabel"
_SLIDE = "whole slides are not read: write their tiles as PNG first, e.g. with OpenSlide"
_ARRAY = "arrays are not read: write them as PNG or TIFF first"
_ARCHIVE = "unpack the archives first"
_FILM = "films are not read: write their frames as PNG first"
_CAMERA = "a camera's raw files are not read: develop them to TIFF or JPEG first"
_UNNAMED = (
    "whose names, or whose folders' names, are not UTF-8: rename them, e.g. convmv -f latin1 -t utf8 -r --notest FOLDER"
)
_NUMBERED = re.compile(r".*#[1-9]\d{0,8}", re.DOTALL)
"""Names that mean a page of another file."""
_ADVICE = (
    {".ima": _SIEMENS}
    | dict.fromkeys((".nii", ".nrrd", ".mha", ".mhd", ".e2e", ".vol", ".fda"), _VOLUME)
    | dict.fromkeys((".svs", ".ndpi", ".mrxs", ".scn", ".czi", ".lif", ".vsi"), _SLIDE)
    | dict.fromkeys((".npy", ".npz", ".mat"), _ARRAY)
    | dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), _ARCHIVE)
    | dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".wmv"), _FILM)
    | dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf"), _CAMERA)
)
"""What to do about a format that is none of ours, by ending."""


def _image_suffixes() -> frozenset[str]:
    """Suffixes of the formats that are read."""
    register_plugins()
    return frozenset(endings().union(dicom.SUFFIXES if dicom.CAN_READ else ()))


IMAGE_SUFFIXES = _image_suffixes()
"""Lower-case endings, dot included, of the files that count as images."""


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image, in whatever case its ending is written."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file counts as an image: by its name; without an ending, where it says that it is DICOM."""
    name = Path(path).name
    if is_image_name(name):
        return True
    if not dicom.CAN_READ or _ending(Path(path)) or _NUMBERED.fullmatch(name):
        return False
    try:
        with open_file(Path(path)) as file:
            return dicom.is_dicom(file.read(HEAD))
    except OSError:
        return False


def is_litter(name: str) -> bool:
    """Whether a system left this behind: network disks, Finder and Explorer, in whatever case."""
    folded = name.casefold()
    return folded in _LITTER or folded.startswith(_LITTER_STARTS)


def is_left_out(name: str) -> bool:
    """Whether an entry is passed over, file or folder with all that is in it: hidden, or left behind by a system."""
    return name.startswith(".") or is_litter(name)


def is_text(name: str) -> bool:
    """Whether a file name is valid Unicode: the store keeps its paths as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def what_is_there(folder: Path) -> tuple[str, str | None]:
    """Says what a folder holds instead of images.

    Returns:
        The number of files by ending, the most frequent first, ``none`` where there are none; and what to do about
        them, if that is known.
    """
    files = [*islice(every_file(folder), _LOOKED_AT)]
    counts = Counter(map(_ending, files))
    told = ", ".join(f"{count:,} {ending or 'without an ending'}" for ending, count in counts.most_common(6))
    kinds = Counter(filter(None, map(_kind, islice((file for file in files if not _ending(file)), _SNIFFED))))
    known_advice = _ADVICE | remedies()
    advice = [known_advice[ending] for ending, _ in counts.most_common() if ending in known_advice]
    advice += [_DICOM] if "DICOM" in kinds else []
    known = [kind for kind in kinds if kind != "DICOM"]
    advice += [f"those without an ending are images ({', '.join(known)}): give them their endings"] if known else []
    unnamed = sum(is_image_name(file.name) and not is_text(str(file.relative_to(folder))) for file in files)
    advice += [f"{counted(unnamed, 'image')} {_UNNAMED}"] if unnamed else []
    hint = "; ".join(dict.fromkeys(advice))
    return (f"none, but {told}{' and others' if len(counts) > 6 else ''}" if files else "none"), hint or None


def advice_on(file: Path) -> str | None:
    """Returns what to do about a file where a folder of images belongs; None where that is not known."""
    if file.suffix.lower() in (".h5", ".hdf5"):
        return "a store of features is extracted already: search.run takes it as --features"
    return (_ADVICE | remedies()).get(_ending(file))


def to_install(names: Iterable[str]) -> list[str]:
    """Returns, for files that were passed over, what would have them read: a line for each way.

    Args:
        names: Of the files, or their paths.
    """
    known = remedies()
    counts: Counter[str] = Counter()
    for ending in map(_ending, map(Path, names)):
        if ending in known:
            counts[known[ending]] += 1
    return [f"{counted(count, 'file')} not read: {remedy}" for remedy, count in counts.items()]


def every_file(
    folder: Path, *, leave_out: Path | None = None, on_problem: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """Yields the files of a folder and of those in it, images or not, without what is passed over; each folder sorted.

    Links are followed, but not to a folder that they lie in.

    Args:
        folder: The folder.
        leave_out: A folder, resolved, that is passed over where it lies in this one.
        on_problem: Told of folders that cannot be read or lie too deep; they are passed over by default.
    """
    above: dict[str, tuple[Path, ...]] = {os.fspath(folder): ()}
    for at, folders, files in os.walk(folder, onerror=on_problem, followlinks=True):
        here, within = Path(at).resolve(), above.pop(at)
        if here in within or (within and here == leave_out):
            folders.clear()
            continue
        if folders and len(within) >= DEEPEST:
            folders.clear()
            if on_problem is not None:
                on_problem(OSError(errno.ELOOP, TOO_DEEP, at))
        folders[:] = sorted(name for name in folders if not is_left_out(name))
        above |= {os.path.join(at, name): (*within, here) for name in folders}  # noqa: PTH118  as os.walk does
        yield from (Path(at) / name for name in sorted(files) if not is_left_out(name))


def _ending(file: Path) -> str:
    """The ending in lower case; '' for none, and where it is a number, as in names made of a DICOM identifier."""
    ending = ascii(file.suffix.lower())[1:-1]
    return "" if ending[1:].isdigit() else ending


def _kind(file: Path) -> str:
    """What a file without an ending is by its content: DICOM, a format that Pillow reads, or '' for neither."""
    try:
        with open_file(file) as opened:
            if dicom.is_dicom(opened.read(HEAD)):
                return "DICOM"
            opened.seek(0)
            with Image.open(opened, formats=formats()) as image:
                return image.format or ""
    except Exception:  # whatever Pillow stumbles over: it is none
        return ""
