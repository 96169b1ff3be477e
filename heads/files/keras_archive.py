"""Heads in .keras files, read as data: a ZIP archive of a configuration, of weights in HDF5, and of ``head.json``.

As with HDF5 files, Keras never sees them: ``keras.saving.load_model`` would build whatever they name.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.extraction.network_file import CONFIG, WEIGHTS
from features.hdf5.door import open_checked, reading
from features.hdf5.values import Attributes, inside
from features.runtime.errors import InputError
from features.runtime.files import temporary_folder, why_no_file
from heads.files.layer_config import MAX_PARAMETERS
from heads.files.metadata_json import NAME, as_attributes

_MOST_TEXT = 2**24
"""Bytes; the configuration of the largest ensemble that is read has a hundredth of it."""
_MOST_WEIGHTS = 4 * 4 * MAX_PARAMETERS
"""Bytes: of float32, and as much again three times for what an optimizer keeps."""
_START = b"PK\3\4"


@dataclass(frozen=True)
class KerasArchive:
    """A .keras file that is open.

    Attributes:
        path: The file.
        config: Its model's architecture, JSON text.
        attributes: An HDF5 file in memory with what ``head.json`` says; without attributes where there is none.
        archive: The ZIP archive.
    """

    path: Path
    config: str
    attributes: Any
    archive: zipfile.ZipFile

    @contextmanager
    def weights(self) -> Iterator[tuple[Any, dict[str, str]]]:
        """Opens the weights: the HDF5 file, and in which of its groups those of each layer are, by its name.

        Raises:
            InputError: There are none, or they are damaged.
            BottleneckError: There is no room for a temporary copy of them.
        """
        with temporary_folder("head-") as folder:
            copy = folder / WEIGHTS
            archive = self.archive
            member = _member(self.path, archive, WEIGHTS, _MOST_WEIGHTS)
            with archive.open(member) as packed, copy.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            try:
                file = open_checked(copy, "weights")
            except InputError as error:
                found = str(error).rpartition("found ")[2]
                raise InputError(
                    self.path, field=WEIGHTS, expected="weights as Keras saves them", found=found
                ) from error
            with file:
                yield file, _groups(self.path, file)


def is_keras_archive(path: Path, expected: str) -> bool:
    """Whether a file is a ZIP archive, as .keras files are.

    Raises:
        InputError: It cannot be read.
    """
    if why_no_file(path):  # which whoever opens it next says
        return False
    with reading(path, expected), path.open("rb") as raw:
        return raw.read(len(_START)) == _START


@contextmanager
def opened_archive(path: Path, expected: str) -> Iterator[KerasArchive]:
    """Opens a .keras file that may come from anywhere; whatever is stumbled over in it, then or later, is one line.

    Raises:
        InputError: It is none, or is damaged.
    """
    with reading(path, expected), zipfile.ZipFile(path) as archive:
        if CONFIG not in archive.namelist():
            raise InputError(path, expected=expected, found="a ZIP archive that is no .keras file")
        config = archive.read(_member(path, archive, CONFIG, _MOST_TEXT)).decode()
        known = archive.read(_member(path, archive, NAME, _MOST_TEXT)) if NAME in archive.namelist() else None
        with as_attributes(path, known) as attributes:
            yield KerasArchive(path, config, attributes, archive)


def _member(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> zipfile.ZipInfo:
    """A member that does not become larger than it may: ``zipfile`` reads no more than is said of it."""
    if name not in archive.namelist():
        raise InputError(path, field=name, expected="a member of that name", found="none")
    member = archive.getinfo(name)
    if member.file_size > limit:
        raise InputError(path, field=name, expected=f"at most {limit} bytes", found=member.file_size)
    return member


def _groups(path: Path, file: Any) -> dict[str, str]:
    """Keras numbers layers by their class, in an order of its own; their names stand beside the weights."""
    groups = {}
    for key in inside(path, file, "layers", expected="weights in the file itself"):
        place = f"layers/{key}/vars"
        groups[Attributes(path, inside(path, file, place)).text("name")] = place
    return groups
