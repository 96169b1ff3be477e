"""The stores of a study: several ones of the same images, of which each trial trains on one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from features.rows.feed import Feed
from features.runtime.errors import InputError
from features.runtime.text import printable
from features.store.source import FeatureSource
from heads.files.metadata import HeadMetadata
from search.setup.data import SearchData
from search.setup.options import STORE_OPTIONS

ALONE = ""
"""Name of a study's one store: its trials say nothing of it."""
_NAME = re.compile(r"[^/\\]+")
"""Of one store of several: what a file may be called, equals signs and all."""


@dataclass(frozen=True)
class StudyData:
    """The rows of a study, in each of its stores: the same images in the same parts, as other features.

    Attributes:
        named: By the store's name, in the order given; of one store by ``ALONE``.
    """

    named: Mapping[str, SearchData]

    @classmethod
    def of_one(cls, data: SearchData) -> StudyData:
        """Returns the rows of a study of one store."""
        return cls({ALONE: data})

    @property
    def names(self) -> tuple[str, ...]:
        """Names that a trial's ``features`` may have; none where there is one store."""
        return tuple(name for name in self.named if name != ALONE)

    @property
    def first(self) -> SearchData:
        """The rows in the first store: for what is the same in each, labels, patients and parts."""
        return next(iter(self.named.values()))

    def of(self, name: str) -> SearchData:
        """Returns the rows in the store of a name.

        Raises:
            KeyError: There is no such store.
        """
        return self.named[name]

    def of_head(self, metadata: HeadMetadata) -> SearchData:
        """Returns the rows in the store that a head was trained on.

        Raises:
            StopIteration: It was trained on another.
        """
        if not self.names:
            return self.first
        wanted = _marks(metadata)
        return next(data for data in self.named.values() if _told_by_heads(data.store) == wanted)

    def each(self, change: Callable[[SearchData], SearchData]) -> StudyData:
        """Returns the study with the rows of each store made anew."""
        return replace(self, named={name: change(data) for name, data in self.named.items()})

    def only(self, names: Sequence[str]) -> StudyData:
        """Returns the study without the stores that nobody chooses; all stay where no names are given."""
        return replace(self, named={name: self.named[name] for name in names}) if names else self

    def require_unchanged(self) -> None:
        """Makes sure that the rows are still those that the study was begun with.

        Raises:
            InputError: A store was written to since it was opened; it is named.
        """
        for feed in self.feeds():
            feed.store.require_unchanged()

    def feeds(self) -> Iterator[Feed]:
        """Yields all feeds, that of a study's folds once."""
        for data in self.named.values():
            found = (data.train, data.validation, data.test)
            yield from {id(feed): feed for feed in found if feed is not None}.values()


def split_name(text: str) -> tuple[str | None, str]:
    """Splits ``NAME=PATH``, where the path may be an address; a file whose name has an equals sign in it stays one.

    A name that a file gave may have equals signs in it, too. So of several the first one counts that is before a file,
    an absolute path or an address; the first of all where none is.

    Returns:
        The name, None where there is none, and the path.
    """
    pieces = text.split("=")
    splits = [("=".join(pieces[:index]), "=".join(pieces[index:])) for index in range(1, len(pieces))]
    named = [(name, path) for name, path in splits if path and _NAME.fullmatch(name)]
    if not named or _is_there(text):
        return None, text
    return next((split for split in named if _leads_somewhere(split[1])), named[0])


def with_name(name: str, path: str | Path) -> str:
    """Returns the text that ``split_name`` splits into a name, '' for none, and a path again."""
    if name:
        return f"{name}={path}"
    return f"{os.curdir}{os.sep}{path}" if "=" in "".join(Path(path).parts[:1]) else str(path)


def is_address(text: str) -> bool:
    """Whether something is an address for fsspec, and no path."""
    scheme, sign, _ = text.partition("://")
    return bool(sign) and "=" not in scheme


def named_paths(given: Sequence[str]) -> dict[str, Path]:
    """Returns the paths of stores by their names: as given in ``NAME=PATH``, else the file's name without its ending.

    Args:
        given: What ``--features`` was given.

    Raises:
        InputError: Two have the same name, or are the same file.
    """
    found: dict[str, Path] = {}
    for text in given:
        given_name, told = split_name(text)
        path = Path(told)
        name = given_name or path.stem
        if name in found:
            hint = f"name them: --features one={found[name]} --features other={path}"
            raise InputError("--features", expected="stores of different names", found=f"{name} twice", hint=hint)
        if any(_is_same(earlier, path) for earlier in found.values()):
            raise InputError("--features", expected="different stores", found=f"{path} twice")
        found[name] = path
    return found


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths are of one file, however each is spelled."""
    there = _is_there(one) and _is_there(other)
    return one.samefile(other) if there else one.absolute() == other.absolute()


def _is_there(path: str | Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110  what no file can be called is not there


def _leads_somewhere(path: str) -> bool:
    return Path(path).is_absolute() or is_address(path) or _is_there(path)


def part_paths(names: Sequence[str], given: Sequence[str] | None, *, option: str) -> dict[str, Path | None]:
    """Returns for each store of ``--features`` the one of ``--validation`` or ``--test``: by name, else by order.

    Raises:
        InputError: There is not one for each.
    """
    if not given:
        return dict.fromkeys(names)
    found = [(name, Path(path)) for name, path in map(split_name, given)]
    expected = f"one for each of --features ({', '.join(map(printable, names))})"
    if all(name is None for name, _ in found):
        if len(found) != len(names):
            raise InputError(option, expected=expected, found=f"{len(found)}")
        return {name: path for name, (_, path) in zip(names, found, strict=True)}
    told = {name: path for name, path in found if name is not None}
    if told.keys() != set(names) or len(told) != len(found):
        raise InputError(option, expected=expected, found=", ".join(given)[:200])
    return {name: told[name] for name in names}


def require_same_images(stores: Mapping[str, SearchData]) -> None:
    """Refuses stores that are not of the same images.

    Raises:
        InputError: Naming the first image, or the first field, in which one differs from the first store.
    """
    first, *others = stores.values()
    for other in others:
        for part in STORE_OPTIONS:
            mine, theirs = _source(first, part), _source(other, part)
            if mine is not None and theirs is not None:
                _require_same(mine, theirs)
        if other.split.identity != first.split.identity:
            expected = f"the parts of {first.store.path}"
            raise InputError(other.store.path, field="split", expected=expected, found="others")


def _told_by_heads(store: FeatureSource) -> tuple[Any, ...]:
    """What the file of a head says of the store that it was trained on."""
    return _marks(HeadMetadata.of_store(store.header, store.fingerprint, versions={}))


def _marks(metadata: HeadMetadata) -> tuple[Any, ...]:
    return (
        metadata.store_fingerprint,
        metadata.projection,
        metadata.feature_shape,
        metadata.views,
        metadata.dtype,
    )


def _source(data: SearchData, part: str) -> FeatureSource | None:
    feed = {"features": data.train, "validation": data.validation, "test": data.test}[part]
    return feed.store if feed is not None else None


def _require_same(first: FeatureSource, other: FeatureSource) -> None:
    """Compares images one by one: their paths, classes, patients, and whether they could be read."""
    if len(first) != len(other):
        expected = f"{len(first):,}, as {first.path} has"
        raise InputError(other.path, field="images", expected=expected, found=f"{len(other):,}")
    if list(first.classes) != list(other.classes):
        expected = f"{', '.join(map(printable, first.classes))}, as {first.path} has"
        raise InputError(other.path, field="classes", expected=expected, found=", ".join(map(printable, other.classes)))
    nobody = ("",) * len(first)
    compared = {
        "image": (np.asarray(first.header.paths), np.asarray(other.header.paths)),
        "class": (np.asarray(first.classes)[first.labels], np.asarray(other.classes)[other.labels]),
        "patient": (np.asarray(first.patients), np.asarray(other.patients)),
        "part": (np.asarray(first.header.parts or nobody), np.asarray(other.header.parts or nobody)),
        "state": (np.isin(np.arange(len(first)), first.usable), np.isin(np.arange(len(other)), other.usable)),
    }
    for field, (mine, theirs) in compared.items():
        different = np.flatnonzero(mine != theirs)
        if len(different):
            row = int(different[0])
            words = ("was left out", "was read") if field == "state" else None
            told = [words[int(one[row])] if words else printable(str(one[row])) or "none" for one in (mine, theirs)]
            raise InputError(
                other.path,
                field=f"{field} of row {row}",
                expected=f"{told[0]}, as {first.path} has",
                found=told[1],
                hint="several --features are stores of the same images in the same order",
            )
