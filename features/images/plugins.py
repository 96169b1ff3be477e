"""What opens image files: which of Pillow's formats, what beside Pillow itself, and what to do about those not read."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec

from PIL import Image

from features.images import dicom
from features.images.dicom_pixels import HEAD, MAGIC
from features.runtime.extras import extra_hint

_PLUGINS = {"pillow_heif": "register_heif_opener", "pillow_jxl": ""}
"""Packages that open formats through Pillow, and the function that tells Pillow; none where importing them does."""
HEIF = f"HEIF is read once pillow-heif is there: {extra_hint('heic')}"
AVIF = "AVIF is read by a Pillow that was built with it: pip install --upgrade pillow"
JPEG_XL = "JPEG XL is read once its plugin is there: pip install pillow-jxl-plugin"
GIT_LFS = "a Git LFS pointer, not the file itself: git lfs pull in its checkout gets that"
POSTSCRIPT = "PostScript is a program, and no file's program is run: write PNG or TIFF first"
_NOT_READ = frozenset(("EPS", "IPTC", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"))
"""Pillow has Ghostscript run PostScript, also one within an IPTC file; the others it only knows by name."""
_GIT_LFS_START = b"version https://git-lfs.github.com/spec/"
_BOX = re.compile(rb"....ftyp(?P<brand>....)", re.DOTALL)
_AVIF_BRANDS, _HEIF_BRANDS = (
    (b"avif", b"avis"),
    (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"),
)
_JPEG_XL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
_POSTSCRIPT_STARTS = (b"%!PS", b"\xc5\xd0\xd3\xc6")


def register_plugins() -> None:
    """Lets Pillow open what the packages that are installed can decode."""
    Image.init()
    for name, function in _PLUGINS.items():
        if find_spec(name) is None:
            continue
        try:
            plugin = import_module(name)
            if function:
                getattr(plugin, function)()
        except Exception:  # made for another Pillow: its formats are then not read, as if it were not there
            continue


def formats() -> list[str]:
    """Returns which of Pillow's formats are read, in the order in which Pillow tries them."""
    return [name for name in Image.ID if name not in _NOT_READ]


def endings() -> set[str]:
    """Returns the endings of files that Pillow reads here: lower case, dot included."""
    read = formats()
    return {ending for ending, name in Image.registered_extensions().items() if name in read}


def remedies() -> dict[str, str]:
    """Returns what to install, or else to do, by the endings of files that are not read as things are."""
    known = dict.fromkeys(dicom.SUFFIXES, dicom.REMEDY) | dict.fromkeys((".heic", ".heif", ".hif"), HEIF)
    known |= {".avif": AVIF, ".avifs": AVIF, ".jxl": JPEG_XL, ".eps": POSTSCRIPT, ".ps": POSTSCRIPT}
    read = endings().union(dicom.SUFFIXES if dicom.CAN_READ else ())
    return {ending: remedy for ending, remedy in known.items() if ending not in read}


def remedy_for(start: bytes) -> str | None:
    """Returns what to install, or else to do, for a file that is not read, by its content.

    Args:
        start: Its first ``features.images.dicom_pixels.HEAD`` bytes.
    """
    if start[HEAD - len(MAGIC) : HEAD] == MAGIC and not dicom.CAN_READ:
        return dicom.REMEDY
    if start.startswith(_JPEG_XL_STARTS):
        return JPEG_XL if ".jxl" in remedies() else None
    if start.startswith(_POSTSCRIPT_STARTS):
        return POSTSCRIPT
    if start.startswith(_GIT_LFS_START):
        return GIT_LFS
    box = _BOX.match(start)
    if box is None:
        return None
    remedy, ending = (AVIF, ".avif") if box["brand"] in _AVIF_BRANDS else (HEIF, ".heic")
    return remedy if box["brand"] in (*_AVIF_BRANDS, *_HEIF_BRANDS) and ending in remedies() else None
