"""Who is on an image: told by its name, by the folders that it lies in, or by a pattern for both."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType

from features.runtime.errors import InputError
from features.runtime.text import composed, printable
from features.store.parts import part_named

GROUP_PATTERN = r"^[^-]+-(?P<patient>[^-]+)-[^-]+$"
"""Fits OCT2017's ``<CLASS>-<patient>-<image>`` (the file name without its ending)."""

_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_DATE = re.compile(rf"(?:{_YEAR}([-_.]?){_MONTH}\1{_DAY}|{_DAY}([-_.]?){_MONTH}\2{_YEAR})(?:[T_.-]?\d{{4,9}})?")
_DATE_INSIDE = re.compile(rf"(?<!\d)(?:{_YEAR}-{_MONTH}-{_DAY}|{_DAY}-{_MONTH}-{_YEAR})(?!\d)")
_RECENT_YEAR = re.compile(r"(?:199\d|20[0-3]\d)")
_KIND, _PART = "the kind of image", "the part of the data set"
_DIGITS = frozenset("0123456789")
_INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        _KIND: "should these be the classes, put them into the image folder itself, or give a --table",
        _PART: "to have parts, put their folders above those of the classes, or give a --table with a column split",
    }
)
"""What to do about folders that hold something else than patients."""
_NAMES, _FOLDERS, _PATTERN = "the file names", "the first folder below each class", "--group-pattern"


@dataclass(frozen=True)
class Patients:
    """The patients of some images.

    Attributes:
        names: Of each image, composed (NFC); '' where unknown.
        source: Where they were taken from, with an example, for people; '' where none is known.
        remarks: What was not taken for a patient, a line each.
    """

    names: tuple[str, ...]
    source: str
    remarks: tuple[str, ...]


def compile_group_pattern(pattern: str) -> re.Pattern[str]:
    """Compiles ``--group-pattern``: a regular expression whose group ``patient``, or first group, is the patient.

    Nothing, '', says that neither names nor folders hold a patient.

    Raises:
        InputError: It is not a regular expression, or has no group.
    """
    if not pattern:
        return re.compile("()")
    try:
        compiled = re.compile(composed(pattern))
    except re.error as error:
        raise InputError("--group-pattern", expected="a regular expression", found=f"{pattern!r} ({error})") from error
    if not compiled.groups:
        raise InputError("--group-pattern", expected="a group (...) around the patient id", found=repr(pattern))
    return compiled


def find_patients(paths: Sequence[str], pattern: re.Pattern[str], *, shown: Sequence[str] | None = None) -> Patients:
    """Returns the patients of images.

    A pattern of the user's is looked for in the file's name without its ending; where images lie in folders within
    their class, in the path below the class first, then in the whole path, then in the name; what it finds in the
    class's own name is no patient. Without one, a patient is
    the first folder below the class where there is one, unless every name there is ``<CLASS>-<patient>-<image>``; and
    the middle of a name of that form otherwise. What looks like a date, or is a class's name, is not taken; neither are
    folders that all classes have, if their names hold no number, or those of parts (``train``, ``test``), nor one word
    in all names of a class.

    Args:
        paths: Each image relative to the image folder, with ``/``.
        pattern: ``--group-pattern``, compiled.
        shown: What each image is called in an example; as in ``paths`` by default.
    """
    told_as = paths if shown is None else shown
    spelled = [PurePosixPath(composed(path)) for path in paths]
    if pattern.pattern != GROUP_PATTERN:
        return _of_pattern(told_as, [_by_pattern(path, pattern) for path in spelled])
    named = [_matched(path.stem, pattern) for path in spelled]
    nested = [len(path.parts) > 2 for path in spelled]
    told = all(
        who and path.stem.startswith(f"{path.parts[0]}-")
        for who, path, deep in zip(named, spelled, nested, strict=True)
        if deep
    )
    found = [
        (path.parts[1], _FOLDERS) if deep and not told else (who, _NAMES)
        for who, path, deep in zip(named, spelled, nested, strict=True)
    ]
    doubtful = _doubtful(spelled, found) | _same_everywhere(spelled, found) | _of_parts(found)
    kept = [("", "") if row in doubtful else one for row, one in enumerate(found)]
    return Patients(tuple(who for who, _ in kept), _source(told_as, kept), tuple(_remarks(told_as, found, doubtful)))


def find_in_paths(paths: Sequence[str], pattern: re.Pattern[str]) -> Patients:
    """Returns the patients that a pattern of the user's finds in each path, then in the file's name.

    Args:
        paths: Each image relative to the image folder, with ``/``; the folders are not those of classes.
        pattern: ``--group-pattern``, compiled.
    """
    spelled = [PurePosixPath(composed(path)) for path in paths]
    whole = (_matched(str(path.with_suffix("")), pattern) for path in spelled)
    return _of_pattern(paths, [who or _matched(path.stem, pattern) for who, path in zip(whole, spelled, strict=True)])


def _of_pattern(told_as: Sequence[str], names: Sequence[str]) -> Patients:
    return Patients(tuple(names), _source(told_as, [(who, _PATTERN) for who in names]), ())


def _matched(text: str, pattern: re.Pattern[str], *, behind: int = 0) -> str:
    """What the pattern finds in a text, '' where it does not fit; what ends at ``behind`` or before is none."""
    match = pattern.search(text)
    group = "patient" if "patient" in pattern.groupindex else 1
    return match.group(group) if match and match.end(group) > behind else ""


def _by_pattern(path: PurePosixPath, pattern: re.Pattern[str]) -> str:
    if len(path.parts) <= 2:
        return _matched(path.stem, pattern)
    whole = path.with_suffix("")
    return (
        _matched("/".join(whole.parts[1:]), pattern)
        or _matched(str(whole), pattern, behind=len(whole.parts[0]))
        or _matched(path.stem, pattern)
    )


def _doubtful(paths: Sequence[PurePosixPath], found: Sequence[tuple[str, str]]) -> dict[int, str]:
    """Rows whose patient is none, with what it is instead.

    One number may look like a date by chance, or be a class's as well: it is taken for that where most of them are.
    """
    dated = [row for row, (who, source) in enumerate(found) if who and _is_date(who, paths[row], source)]
    if 2 * len({found[row][0] for row in dated}) > len({who for who, _ in found if who}):
        return dict.fromkeys(dated, "a date")
    classes = [row for row, (who, _) in enumerate(found) if who.casefold() == paths[row].parts[0].casefold()]
    if 2 * len(classes) > sum(bool(who) for who, _ in found):
        return dict.fromkeys(classes, "the class")
    return _one_word(paths, found)


def _one_word(paths: Sequence[PurePosixPath], found: Sequence[tuple[str, str]]) -> dict[int, str]:
    """Rows of classes whose names have all one word, without a number: ``cats/img-cat-7``, ``cats/cats-photo-7``.

    Where each class has a word of its own, names that begin with the class say that it is the patient.
    """
    words: dict[str, set[str]] = defaultdict(set)
    for path, (who, source) in zip(paths, found, strict=True):
        words[path.parts[0]].add(who if source == _NAMES else "")
    every = set().union(*words.values())
    if len(paths) <= len(words) or len(words) < 2 or any(len(own) > 1 for own in words.values()):
        return {}
    if "" in every or any(_DIGITS & set(who) for who in every):
        return {}
    if len(every) == 1:
        return dict.fromkeys(range(len(paths)), "a word that all have")
    begun = all(path.stem.startswith(f"{path.parts[0]}-") for path in paths)
    return {} if begun or len(every) < len(words) else dict.fromkeys(range(len(paths)), "the class")


def _same_everywhere(paths: Sequence[PurePosixPath], found: Sequence[tuple[str, str]]) -> dict[int, str]:
    """Rows whose folder is no patient's, as each class has the same ones, without a number: ``images``, ``left``."""
    folders: dict[str, set[str]] = defaultdict(set)
    for path, (who, source) in zip(paths, found, strict=True):
        folders[path.parts[0]].add(who if source == _FOLDERS else "")
    first, *others = folders.values()
    if not others or any(names != first for names in others) or any(_DIGITS & set(name) for name in first):
        return {}
    kind = _KIND if len(first) > 1 else "images of all patients"
    return {row: kind for row, (who, source) in enumerate(found) if who and source == _FOLDERS}


def _of_parts(found: Sequence[tuple[str, str]]) -> dict[int, str]:
    """Rows whose folder is no patient's, as all are called as parts are, one of them to train on."""
    rows = [row for row, (who, source) in enumerate(found) if who and source == _FOLDERS]
    parts = {part_named(found[row][0]) for row in rows}
    return dict.fromkeys(rows, _PART) if {"train"} < parts and None not in parts else {}


def _is_date(who: str, path: PurePosixPath, source: str) -> bool:
    if _DATE.fullmatch(who):
        return True
    if source != _NAMES or path.stem.startswith(f"{path.parts[0]}-"):
        return False
    return bool(_DATE_INSIDE.search(path.stem) or _RECENT_YEAR.fullmatch(who))


def _source(paths: Sequence[str], found: Sequence[tuple[str, str]]) -> str:
    """Names the places that patients were taken from, each with an example."""
    first: dict[str, str] = {}
    for path, (who, source) in zip(paths, found, strict=True):
        if who and source not in first:
            first[source] = f"{source}, e.g. {_example(who, path)}"
    return "; ".join(first.values())


def _remarks(paths: Sequence[str], found: Sequence[tuple[str, str]], doubtful: dict[int, str]) -> list[str]:
    remarks = []
    for what in dict.fromkeys(doubtful.values()):
        rows = [row for row, reason in doubtful.items() if reason == what]
        place = "folders" if found[rows[0]][1] == _FOLDERS else "names"
        remarks.append(
            f"the {place} of {len(rows)} images seem to hold {what}, not a patient, and none was taken from them:"
            f" {_example(found[rows[0]][0], paths[rows[0]])}; --group-pattern says where the patient is"
            + (f"; {_INSTEAD[what]}" if what in _INSTEAD else "")
        )
    return remarks


def _example(who: str, path: str) -> str:
    return f"{printable(repr(who))} of {printable(path)}"
