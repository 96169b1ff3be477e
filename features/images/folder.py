"""An image folder as a table: path, class, patient of every image, one sub-folder per class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.images.dicom_patients import with_dicom_patients
from features.images.entries import is_image, is_left_out, is_text, to_install, what_is_there
from features.images.patients import GROUP_PATTERN, Patients, compile_group_pattern, find_patients
from features.images.walk import File, Seen, entries_of, files_of_class, is_folder
from features.runtime.errors import InputError
from features.runtime.text import composed, counted, listed, printable, utc_text
from features.store.parts import KNOWN_AS, part_named, part_within, words_of
from features.store.patient_names import without_point

IMAGE_FIELDS = ("paths", "sizes", "modified", "labels", "patients", "parts")
"""Fields of an ``ImageTable`` with a value for each image, or for none."""
_NAMED = 3
"""How many of the ignored files a remark names."""
_PARTS = KNOWN_AS.keys() | {"dev", "eval", "evaluation", "holdout"}
"""Folders of these names are parts of a data set, not classes, where there are folders in them."""


@dataclass(frozen=True)
class ImageTable:
    """The images of a folder, sorted by class, then path.

    Attributes:
        folder: The image folder.
        classes: Names of the sub-folders that hold images, composed (NFC), sorted.
        paths: Each image relative to ``folder``, with ``/``, as it is written on the disk.
        sizes: Size of each file in bytes.
        modified: When each file was last written, nanoseconds since 1970; 0 where that is impossible or unknown.
        labels: Index of each image's class.
        patients: Patient of each image, composed (NFC), '' where neither names nor folders tell.
        patient_source: Where the patients were taken from, with an example, for people; '' where none is known.
        newest: Time of the newest of these files, ISO 8601, UTC, in whole seconds; '' where no time is possible.
        ignored: Number of files and folders that were passed over, by reason.
        remarks: What the user should know about the folder, a line each.
        parts: Part of each image, ``train``, ``validation`` or ``test``, where folders or a table say it; else empty.
        left_out: Path and reason of what a table of labels names in vain, and of images that it does not name.
    """

    folder: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    modified: tuple[int, ...]
    labels: tuple[int, ...]
    patients: tuple[str, ...]
    patient_source: str
    newest: str
    ignored: dict[str, int]
    remarks: tuple[str, ...]
    parts: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


def scan_folder(folder: Path, *, group_pattern: str = GROUP_PATTERN, limit: int | None = None) -> ImageTable:
    """Lists the images of a folder that has one sub-folder per class.

    Folders of parts (``train`` beside ``val`` or ``test``, say) may stand above those of the classes: the part of each
    image is then known. Names with more words (``training_set`` beside ``test_set``) are taken for these where all of
    them hold the same folders, with a remark. Images may lie in a class's folder or in folders within it, those of its
    patients, say; where both are, the larger part is taken. Hidden entries, what systems leave behind, files beside the
    class folders, files without an image's ending and names that are no text (UTF-8, as the store keeps them) are
    ignored and counted; but for the first two with a remark. Links are followed. Folders whose names are two spellings
    of one (NFC and NFD) are one class.

    Args:
        folder: The image folder.
        group_pattern: Where in a file's name (without its ending) or path the patient is, see
            ``features.images.patients``.
        limit: Take at most this many images, evenly from the classes and evenly spaced within each.

    Raises:
        InputError: The folder is missing, is a file, cannot be read or holds no images; it holds parts of a data set
            beside what is none, or without classes; the pattern is none; the limit leaves a class without an image.
    """
    pattern = compile_group_pattern(group_pattern)
    seen = Seen()
    folders = _class_folders(folder, seen)
    parted = _part_folders(folder, folders)
    if parted:
        for own in sorted(own for owns in folders.values() for own in owns if own not in parted):
            seen.pass_over(own)
        folders = _classes_of_parts(folder, parted, seen)
    every = {name: [f for own in folders[name] for f in files_of_class(folder, own, seen)] for name in sorted(folders)}
    found = {name: files for name, files in every.items() if files}
    empty = [own for name, files in every.items() if not files for own in folders[name]]
    if not found:
        told, hint = _nothing(folder)
        raise InputError(folder, expected="one sub-folder per class, with images in it", found=told, hint=hint)
    if not parted:
        _refuse_parts(folder, found)
    if limit is not None:
        found = limited(found, limit)
    paths = [file.path for name in found for file in found[name]]
    within = [path.partition("/")[2] for path in paths] if parted else paths
    patients = find_patients(within, pattern, shown=paths)
    seen.counts["class folders without an image"] = len(empty)
    remarks = [
        *_remarks_on_parts(parted),
        *_remarks_on_ignored(folder, seen, empty),
        *_remarks_on_spelling(found, folders),
    ]
    parts = tuple(parted[path.partition("/")[0]] for path in paths) if parted else ()
    return table_of(folder, found, patients, ignored=seen.counts, remarks=remarks, parts=parts)


def table_of(
    folder: Path,
    found: Mapping[str, list[File]],
    patients: Patients,
    *,
    ignored: Mapping[str, int],
    remarks: Iterable[str],
    parts: tuple[str, ...] = (),
    left_out: tuple[tuple[str, str], ...] = (),
) -> ImageTable:
    """Returns the table of the images that were found, with remarks on their classes, times and patients.

    Args:
        folder: The image folder.
        found: The images of each class, in the order of the labels; a class without one is left out.
        patients: Of these images, in this order.
        ignored: Number of files, folders and rows that were passed over, by reason.
        remarks: What there is to say before.
        parts: Of these images; none where none are given.
        left_out: See ``ImageTable``.
    """
    files = [file for name in found for file in found[name]]
    patients = with_dicom_patients(folder, files, patients)
    return ImageTable(
        folder=folder,
        classes=tuple(found),
        paths=tuple(file.path for file in files),
        sizes=tuple(file.size for file in files),
        modified=tuple(file.modified for file in files),
        labels=tuple(label for label, name in enumerate(found) for _ in found[name]),
        patients=patients.names,
        patient_source=patients.source,
        newest=_newest(files),
        ignored={reason: count for reason, count in ignored.items() if count},
        remarks=(*remarks, *_remarks_on_names(found), *_remarks_on_times(files), *_remarks_on_patients(patients)),
        parts=parts,
        left_out=left_out,
    )


def _class_folders(folder: Path, seen: Seen) -> dict[str, list[str]]:
    """The folders of each class, by its composed name."""
    folders: dict[str, list[str]] = defaultdict(list)
    for entry in entries_of(folder, seen):
        if is_folder(entry) and is_text(entry.name):
            folders[composed(entry.name)].append(entry.name)
        else:
            seen.pass_over(entry.name)
    return folders


def _part_folders(folder: Path, folders: Mapping[str, list[str]]) -> dict[str, str]:
    """The part of each folder that holds images, where they are those of parts, one of them to train on; else nothing.

    Raises:
        InputError: Another folder with images stands beside them, a part has no folders of classes, or they lie deeper.
    """
    named = {own: part_named(own) for owns in folders.values() for own in owns}
    plain = _are_parts(named)
    if not plain:
        named = {own: part_within(own) for own in named}
    if not _are_parts(named):
        return {}
    every = {own: files_of_class(folder, own, Seen()) for own in named}
    nested = {own: any(file.nested for file in files) for own, files in every.items() if files}
    parts = {own: part for own in nested if (part := named[own]) is not None}
    training = any(nested[own] for own, part in parts.items() if part == "train")
    if not training or len(set(parts.values())) < 2:
        return {}
    _refuse_doubled(folder, parts, every, plain=plain)
    if not plain and not _are_alike(parts, every):
        return {}
    flat = [f"images without a class folder in {printable(own)}" for own in parts if not nested[own]]
    beside = [printable(own) for own in nested if own not in parts]
    if flat or beside:
        told = [
            *flat,
            *([f"{listed(beside, _NAMED)} beside {listed(map(printable, parts), _NAMED)}"] if beside else []),
        ]
        expected = "folders of parts of a data set alone, each with one sub-folder per class"
        hint = "move elsewhere what is none, or name the folder of one part"
        raise InputError(folder, expected=expected, found="; ".join(told), hint=hint)
    return parts


def _are_parts(named: Mapping[str, str | None]) -> bool:
    """Whether names say a part to train on and another one."""
    return {"train"} < {part for part in named.values() if part is not None}


def _folders_in(files: Iterable[File]) -> set[str]:
    """The names of the folders with images in the folder that these files lie in."""
    return {file.path.split("/")[1] for file in files if file.nested}


def _refuse_doubled(
    folder: Path, parts: Mapping[str, str], every: Mapping[str, Sequence[File]], *, plain: bool
) -> None:
    """Refuses parts that hold one folder each, of the same part again, as archives unpack: ``train/train``.

    A folder that another part has as well is a class. Where names say less, it takes two such parts.
    """
    inner = {own: _folders_in(every[own]) for own in parts}
    doubled = {}
    for own, part in parts.items():
        elsewhere = set[str]().union(*(inner[other] for other in parts if parts[other] != part))
        if len(inner[own]) == 1 and not inner[own] & elsewhere:
            (name,) = inner[own]
            if part_within(name) == part:
                doubled[own] = f"{own}/{name}"
    if not doubled or not (plain or _are_parts({own: parts[own] for own in doubled})):
        return
    alone = [f"{printable(deeper)} alone in {printable(own)}" for own, deeper in doubled.items()]
    own, deeper = next(iter(doubled.items()))
    raise InputError(
        folder,
        expected="folders of parts of a data set, each with one sub-folder per class",
        found=listed(alone, _NAMED),
        hint=f"move what is in {printable(deeper)} up into {printable(own)}{', and so on' * (len(doubled) > 1)}",
    )


def _are_alike(parts: Mapping[str, str], every: Mapping[str, Sequence[File]]) -> bool:
    """Whether folders are a part each and hold the same folders, more than one: it takes that where names say less."""
    first, *others = (_folders_in(every[own]) for own in parts)
    return len(parts) == len(set(parts.values())) and len(first) > 1 and all(names == first for names in others)


def _classes_of_parts(folder: Path, parts: Mapping[str, str], seen: Seen) -> dict[str, list[str]]:
    """The folders of each class, in all parts."""
    folders: dict[str, list[str]] = defaultdict(list)
    for part in sorted(parts):
        for entry in entries_of(folder / part, seen):
            if is_folder(entry) and is_text(entry.name):
                folders[composed(entry.name)].append(f"{part}/{entry.name}")
            else:
                seen.pass_over(f"{part}/{entry.name}")
    return folders


def _nothing(folder: Path) -> tuple[str, str | None]:
    """Says what there is instead of images in class folders, and what to do."""
    if any(not is_left_out(entry.name) and is_image(entry) for entry in folder.iterdir()):
        return "images without a class folder", None
    return what_is_there(folder)


def _refuse_parts(folder: Path, found: Mapping[str, list[File]]) -> None:
    """Refuses folders of train and test images, and a single folder of what are classes by their names.

    What looks like patients is not proposed as classes.
    """
    below = {name: _folders_in(files) for name, files in found.items()}
    parts = [name for name in found if below[name]]
    if not parts:
        return
    numbered = any(char.isdigit() for names in below.values() for name in names for char in name)
    plain = len(parts) == len(found) and {name.casefold() for name in parts} <= _PARTS
    hint = None
    if not plain and (numbered or not _say_different_parts(found)):
        if len(found) > 1:
            return
        whole, inner = parts[0], sorted(below[parts[0]])
        if {name.casefold() for name in inner} <= _PARTS:
            kept = _part_folders(folder / whole, _class_folders(folder / whole, Seen()))
            parts = [whole] if kept else [f"{whole}/{name}" for name in inner]
            hint = "its parts are kept" if kept else None
        elif numbered:
            return  # patients of a single class
    if len(parts) > 1:
        hint = "make a store of each: search.run has --features, --validation and --test"
        hint += "" if plain else "; or call them train, validation and test, each with the same folders of classes"
    meant = " or ".join(printable(str(folder / part)) for part in parts[:_NAMED])
    raise InputError(
        folder,
        expected="one sub-folder per class, with images in it",
        found=f"folders in folders (is the image folder {meant}?)",
        hint=hint,
    )


def _say_different_parts(names: Iterable[str]) -> bool:
    """Whether a word of each name is that of a part, and not always the same one."""
    said = [words_of(name) & _PARTS for name in names]
    return all(said) and len(set(said)) > 1


def limited(found: Mapping[str, list[File]], limit: int) -> dict[str, list[File]]:
    """Returns at most ``limit`` of the images, evenly from the classes and evenly spaced within each.

    Raises:
        InputError: A class would be left without an image.
    """
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


def _spaced(files: list[File], count: int) -> list[File]:
    """``count`` of the files, evenly spaced, so that few images still show many patients."""
    return [files[index * len(files) // count] for index in range(count)]


def _newest(files: Iterable[File]) -> str:
    newest = max(file.modified for file in files)
    return utc_text(newest // 10**9) if newest else ""


def _remarks_on_parts(parted: Mapping[str, str]) -> Iterator[str]:
    if any(part_named(own) is None for own in parted):
        taken = ", ".join(f"{printable(own)} for {part}" for own, part in sorted(parted.items()))
        yield f"taken for parts, as they hold the same folders, which are the classes: {taken}"


def _remarks_on_ignored(folder: Path, seen: Seen, empty: list[str]) -> Iterator[str]:
    unnamed = [name for name in seen.others if not is_text(name)]
    if unnamed:
        yield f"ignored, {len(unnamed)} whose names are not UTF-8 text: {_some(unnamed)}"
    others = [name for name in seen.others if is_text(name)]
    if others:
        yield f"ignored, not images in a class folder: {_some(others)}"
    if seen.beside:
        yield (
            f"ignored, {counted(len(seen.beside), 'image')} in folders beside the images of a class:"
            f" {_some(seen.beside)}; move them up to have them used, or all of the class into folders, one a patient"
        )
    yield from to_install(seen.others)
    if empty:
        told = {name: what_is_there(folder / name)[0].removeprefix("none, but ") for name in empty[:_NAMED]}
        held = [name if told.get(name, "none") == "none" else f"{name} ({told[name]})" for name in empty]
        yield f"ignored, class folders without an image: {_some(held)}"


def _remarks_on_spelling(found: Mapping[str, object], folders: Mapping[str, list[str]]) -> Iterator[str]:
    spelled = [name for name in found if len({own.rpartition("/")[2] for own in folders[name]}) > 1]
    if spelled:
        yield f"one class each, though their folders' names are written with different characters: {_some(spelled)}"


def _remarks_on_names(found: Mapping[str, object]) -> Iterator[str]:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in found:
        alike[_by_value(" ".join(name.casefold().split()))].append(name)
    for names in alike.values():
        if len(names) > 1:
            shown = " and ".join(printable(repr(name)) for name in names)
            yield f"{shown} are different classes: if they are one, give them one name"
    if len(found) == 1:
        yield f"there is a single class, {printable(next(iter(found)))}: nothing to tell apart"


def _by_value(name: str) -> str:
    whole = without_point(name)
    return str(int(whole)) if whole.removeprefix("-").isdecimal() else name


def _remarks_on_times(files: list[File]) -> Iterator[str]:
    timeless = [file.path for file in files if not file.modified and file.size]
    if timeless:
        yield f"the times of {len(timeless)} files are impossible and not used: {_some(timeless)}"


def _remarks_on_patients(patients: Patients) -> Iterator[str]:
    yield from patients.remarks
    unknown = sum(not patient for patient in patients.names)
    if unknown:
        yield (
            f"the patient of {unknown} of {len(patients.names)} images is unknown, so images of one patient may fall on"
            " both sides of a split: --group-pattern says where the patient is in a file's name, or a column of --table"
            " names it"
        )


def _some(names: Iterable[str]) -> str:
    # `ascii` where a name is no valid text: it could not be printed
    shown = [printable(name) if is_text(name) else ascii(name)[1:-1] for name in names]
    return listed(shown, _NAMED)
