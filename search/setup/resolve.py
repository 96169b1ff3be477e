"""What a search is told, on the command line, by its study file and by its own record: resolved to one config."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from features.runtime.errors import InputError
from features.runtime.files import ROOT
from features.runtime.options import option_name
from features.runtime.text import listed, printable
from features.store.reader import FeatureStore
from features.store.source import FeatureSource
from search.setup.classes import require_area
from search.setup.config import StudyConfig, package_versions
from search.setup.data import SearchData
from search.setup.file_names import STUDY_FILE
from search.setup.images import check_same_study, store_of_images
from search.setup.options import DEFAULT_STUDY, STORE_OPTIONS, RunOptions, StudyOptions
from search.setup.own_function import OwnHeadRecord
from search.setup.projection import StudyProjection
from search.setup.space import ALIKE, POOLING, Space, StudyFile, read_study_file
from search.setup.storage_url import (
    absolute,
    hidden,
    in_full,
    is_ambiguous,
    is_in_memory,
    located,
    openable,
    remember,
)
from search.setup.store_refs import StoreRef, StudyStores
from search.setup.stores import ALONE, StudyData, named_paths, part_paths, with_name

STUDIES = Path("studies")
DEMONSTRATION = "demonstration"
"""Folder in a study directory of what is searched over where no store is given."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How an address looks as a path, which has one of its slashes less; a Windows drive has one letter."""


@dataclass(frozen=True)
class Resolved:
    """A search that knows what it is to do.

    Attributes:
        folder: The study directory.
        recorded: The study to go on with, or None for a new one.
        name: Name of a new study.
        space: What trials draw from.
        options: With everything filled in that was not given; what the rows decide once these are known.
        decided: What they have decided, in a line each.
        unread: What of the study file holds no more, in a line each.
    """

    folder: Path
    recorded: StudyConfig | None
    name: str
    space: Space
    options: RunOptions
    decided: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def where(self) -> Path | str:
        """Where the study to go on with is recorded, for messages."""
        begun = (self.folder / STUDY_FILE).exists()
        return self.folder / STUDY_FILE if begun or not self.options.storage else hidden(self.options.storage)

    @property
    def paths(self) -> dict[str, Path]:
        """The stores to train on, by name; of one store, whatever its name, by ''. None for the demonstration."""
        found = named_paths(self.options.features or ())
        return dict.fromkeys((ALONE,), next(iter(found.values()))) if len(found) == 1 else found

    def part_paths(self, part: str) -> dict[str, Path | None]:
        """The stores of a part, ``validation`` or ``test``, by the names that ``paths`` has."""
        given = tuple(named_paths(self.options.features or ()))
        found = part_paths(given, getattr(self.options, part), option=f"--{part}")
        return dict(zip(self.paths, found.values(), strict=True))

    def check_store(self, name: str, store: FeatureStore) -> None:
        """Refuses a store that the recorded study was not made with, before it is split.

        Raises:
            InputError: Naming both fingerprints, or contents.
        """
        stores = self.recorded.stores_by_name.get(name) if self.recorded else None
        if stores:
            store.check_recorded(stores.features.identity, "this study was made with")

    def fitted_to(self, data: StudyData) -> Resolved:
        """Returns the search with what its space has no use for on these features left out.

        A study that has begun keeps the space that it was begun with.

        Raises:
            InputError: Nothing is left to search over.
        """
        if self.options.head:
            return self  # what is suggested is the function's own affair
        with_stores = self._with_stores(data.names)
        places = [math.prod(one.store.header.feature_shape[:2]) for one in data.named.values()]
        searched = self.recorded is not None and isinstance(self.recorded.space.get(POOLING), list)
        if max(places) > 1 or searched:
            return with_stores
        space = with_stores.space.for_one_place
        if not space.parameters:
            alike = f"{POOLING} by {', '.join(ALIKE)}, which are one on maps of 1 x 1"
            expected = f"something to search over beside {alike}"
            raise InputError(self.options.study or DEFAULT_STUDY, field="space", expected=expected, found="nothing")
        return replace(with_stores, space=space)

    def _with_stores(self, names: Sequence[str]) -> Resolved:
        """The search with the stores that a trial chooses between: those that the study file names, else all."""
        named = self.space.stores
        if lacking := [name for name in named if name not in names]:
            where, expected = self.options.study or DEFAULT_STUDY, f"some of {listed(names, 8) or 'several --features'}"
            raise InputError(where, field="space.features", expected=expected, found=lacking[0])
        return self if named or not names else replace(self, space=replace(self.space, stores=tuple(names)))

    def config(
        self,
        data: StudyData,
        backend: str,
        projection: StudyProjection | None = None,
        own: OwnHeadRecord | None = None,
    ) -> StudyConfig:
        """Returns the config of the study on ``data``; the recorded one, with more trials perhaps, on a resume.

        It keeps what was recorded of somebody's own function when the study was begun.

        Raises:
            InputError: The recorded study is another one; the difference is named. Or the rows that judge have no AUC.
        """
        options = self.options
        if options.objective == "auc":
            require_area(data.first.judging)
        kept = {name: getattr(options, name) for name in StudyOptions.model_fields}
        recorded_options: dict[str, Any] = kept | {"name": self.name, "backend": backend}
        stores = {name: self._stores_of(one) for name, one in data.named.items()}
        config = StudyConfig(
            **recorded_options,
            space=self.space.to_dict(),
            stores=next(iter(stores.values())),
            store_name=next(iter(stores)),
            more_stores=dict(list(stores.items())[1:]),
            split=data.first.split,
            versions=package_versions(backend),
            projection=projection,
            own_head=self.recorded.own_head if self.recorded is not None else own,
            decided=self.recorded.decided if self.recorded is not None else self.decided,
        )
        if self.recorded is not None:
            self.recorded.check_resumable(self.where, config)
        return config

    def _stores_of(self, data: SearchData) -> StudyStores:
        options = self.options
        return StudyStores(
            features=_store(data.train.store),
            validation=_store(data.validation.store) if options.validation else None,
            test=_store(data.test.store) if data.test and options.test else None,
        )


def resolve(given: RunOptions, noted: Callable[[str, str], StudyConfig | None] = lambda url, name: None) -> Resolved:
    """Joins what was given with the study file and, on a resume, with the study's record.

    Args:
        given: What was given.
        noted: Returns the config that is noted in a storage, by its URL, in the study of a name.

    Raises:
        InputError: The study file is wrong, the study directory holds a study already, or none to resume, or options
            do not go together.
    """
    file = read_study_file(find_study_file(given.study or DEFAULT_STUDY))
    folder = given.out or STUDIES / file.name
    _require_possible(folder)
    begun = (folder / STUDY_FILE).exists()
    # With images the same command goes on, wherever it was stopped: an extraction knows no --resume.
    goes_on = begun if given.images or given.join else given.resume
    if given.join:  # before a record is read, or a database asked; what these and the study file say is checked later
        _check_together(given)
    if goes_on and not begun and folder.is_dir():  # killed before it was, perhaps, when nothing is lost
        hint = "without --resume the same command begins one"
        raise InputError(folder, expected="a study to go on with", found=f"no {STUDY_FILE}: none was begun", hint=hint)
    recorded = StudyConfig.read(folder) if goes_on else None
    if not goes_on and begun:
        hint = "pass --resume to go on with it, or --out for another directory"
        raise InputError(folder, expected="no study there yet", found=STUDY_FILE, hint=hint)
    if folder.exists() and not folder.is_dir():
        raise InputError("--out", expected="a folder", found=f"{folder}, a file")
    if recorded is not None and recorded.head and not given.head:
        hint = "code is run only where a command names it"
        raise InputError(
            "--head", expected=f"{recorded.head} again, as {folder / STUDY_FILE} has it", found="none", hint=hint
        )
    if given.images:
        place = _place_of(given) or store_of_images(folder, given.images)
        check_same_study(folder, recorded, place)
        given = given.model_copy(update={"features": [with_name(ALONE, place)], "resume": goes_on})
    space = Space.from_dict({}, "") if given.head else file.space
    if given.join and given.storage:
        recorded = _where_it_was_found(recorded, storage_of(given.storage), file.name, noted)
    if recorded is None:
        return Resolved(folder, None, file.name, space, _filled_in(given, file.run))
    known: dict[str, Any] = {}
    if recorded.storage:
        known["storage"] = given.storage or openable(folder, recorded.storage)
        recorded = recorded.model_copy(update={"storage": located(folder, recorded.storage)})
    use_file = given.study is not None
    space = space if use_file else Space.from_dict(recorded.space, str(folder / STUDY_FILE))
    options = _filled_in(_in_recorded_order(given, recorded), _recorded_values(folder, recorded) | known)
    if options.folds != recorded.folds:  # else what is said is that the record has no validation rows, or some
        raise InputError(folder / STUDY_FILE, field="folds", expected=f"{recorded.folds}", found=options.folds)
    unread = tuple(_unread(file, given, options)) if use_file else ()
    return Resolved(folder, recorded, recorded.name, space, options, unread=unread)


def _unread(file: StudyFile, given: RunOptions, options: RunOptions) -> Iterator[str]:
    """Says which options of a study file do not hold in a study that goes on: its record has the word before that."""
    others = [
        f"{name} = {getattr(options, name)} and not {value}"
        for name, value in file.run.items()
        if name not in given.model_fields_set and getattr(options, name) != value
    ]
    if others:
        yield f"{file.path}: [run] is for a study that begins; this one goes on with {', '.join(others)}"


def _where_it_was_found(
    recorded: StudyConfig | None, url: str, name: str, noted: Callable[[str, str], StudyConfig | None]
) -> StudyConfig | None:
    """The study of a database as ``url`` names it, with the number of trials that it has by now.

    Others may name the same database otherwise, and may have gone on with more trials.
    """
    if recorded is not None and not recorded.storage:
        return recorded  # one of a journal is none of a database, whatever that holds
    there = noted(url, recorded.name if recorded is not None else name)
    if there is None:
        return recorded
    return (recorded or there).model_copy(update={"storage": url, "trials": there.trials})


def _require_possible(folder: Path) -> None:
    """Refuses a name that no folder can have, too long or with a null character in it, and one that is an address."""
    if _ADDRESS.match(folder.as_posix()) and not Path(folder.parts[0]).exists():
        hint = "a study directory is on a disk; only --features may be elsewhere"
        raise InputError("--out", expected="a folder", found=f"{printable(str(folder))[:80]}, an address", hint=hint)
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        found = f"{printable(str(folder))[:80]} ({getattr(error, 'strerror', None) or error})"
        raise InputError("--out", expected="a folder", found=found) from error


def _check_together(given: RunOptions) -> None:
    """Refuses what does not go with processes that work on one study together.

    Raises:
        InputError: Naming the option.
    """
    for option, value, instead in (
        ("--head", given.head, "none beside --join"),
        ("--images", given.images, "none beside --join, but --features"),
        ("--channels", given.channels, "none beside --join, but a store that features.compress has made"),
    ):
        if value is not None:
            raise InputError(option, expected=instead, found=value)


def _place_of(given: RunOptions) -> Path | None:
    """The one store of ``--features`` that ``--images`` are extracted into."""
    paths = list(named_paths(given.features or ()).values())
    if len(paths) > 1:
        hint = "extract them first, and name their stores"
        raise InputError("--features", expected="one store beside --images", found=f"{len(paths)}", hint=hint)
    return paths[0] if paths else None


def _in_recorded_order(given: RunOptions, recorded: StudyConfig) -> RunOptions:
    """The stores of a study that goes on in the order in which it was begun: they are told apart by their names."""
    names, order = list(named_paths(given.features or ())), list(recorded.stores_by_name)
    if len(names) < 2 or set(names) != set(order):
        return given
    places = [names.index(name) for name in order]
    told = {part: getattr(given, part) for part in STORE_OPTIONS}
    moved = {part: [one[place] for place in places] for part, one in told.items() if one and len(one) == len(names)}
    return given.model_copy(update=moved)


def study_of(given: RunOptions) -> tuple[str, Path]:
    """Returns the name of the study that processes are to work on together, and its directory.

    Raises:
        InputError: The study file is wrong, or options do not go together or with that.
    """
    file = read_study_file(find_study_file(given.study or DEFAULT_STUDY))
    _filled_in(given.model_copy(update={"join": True}), file.run)  # which refuses what would be refused of each
    folder = given.out or STUDIES / file.name
    _require_possible(folder)
    return file.name, folder


def find_study_file(path: Path) -> Path:
    """Returns the path, looked for in the current directory, then beside the code, then among the installed package."""
    places = (path, ROOT / path, ROOT / "search" / path)
    return next((place for place in places if place.exists()), path)


def _filled_in(given: RunOptions, otherwise: dict[str, Any]) -> RunOptions:
    """The command line has the first word, then the record or the study file, then the defaults."""
    known = {name: value for name, value in otherwise.items() if value is not None}
    given_values = {name: value for name, value in given.model_dump(exclude_unset=True).items() if value is not None}
    options = RunOptions.model_validate(known | given_values)
    _check_shares(given.model_fields_set, options)
    if options.join:
        _check_together(options)
    if len(options.features or ()) > 1:
        _check_with_several(options)
    if options.head:
        options = _with_own_head(options, engine_given="engine" in given.model_fields_set)
    if options.folds == 1 or (options.folds and options.engine == "solo" and not options.head):
        expected = "0, or at least 2 with the fused engine"
        raise InputError("--folds", expected=expected, found=f"{options.folds} with {options.engine}")
    return options.model_copy(update={"storage": storage_of(options.storage)}) if options.storage else options


def _check_shares(given: Collection[str], options: RunOptions) -> None:
    """Refuses a share that was given, and splits nothing off."""
    pairs = {"validation": "validation_fraction", "folds": "validation_fraction", "test": "test_fraction"}
    for instead, share in pairs.items():
        if share in given and getattr(options, instead):
            expected = f"none beside {option_name(instead)}"
            raise InputError(option_name(share), expected=expected, found=getattr(options, share))


def _check_with_several(options: RunOptions) -> None:
    """Refuses what goes with one store only."""
    if options.head:
        raise InputError("--features", expected="one store beside --head", found=f"{len(options.features or ())}")
    if options.channels:
        hint = "features.compress makes stores of fewer channels"
        raise InputError("--channels", expected="none beside several --features", found=options.channels, hint=hint)


def _with_own_head(options: RunOptions, *, engine_given: bool) -> RunOptions:
    """Heads of somebody's own function are trained one at a time, and on all channels."""
    if engine_given and options.engine != "solo":
        raise InputError("--engine", expected="solo, or nothing, beside --head", found=options.engine)
    if options.channels:
        raise InputError("--channels", expected="none beside --head", found=options.channels)
    return options.model_copy(update={"engine": "solo"})


def storage_of(url: str) -> str:
    """Returns a storage's URL as it is used from now on: the same from every folder, its secrets where they are known.

    Raises:
        InputError: It names no database that is there when the search has ended, or it is not clear which one.
    """
    if is_in_memory(url):
        hint = "leave it out for a journal in the study directory"
        raise InputError("--storage", expected="a database that outlives the search", found=hidden(url), hint=hint)
    if is_ambiguous(url):  # nothing of it is shown: any part may be one of the password
        hint = "in a password @ is written %40"
        raise InputError("--storage", expected="one @, that between password and host", found="two", hint=hint)
    url = in_full(absolute(url))
    remember(url)
    return url


def _recorded_values(folder: Path, config: StudyConfig) -> dict[str, Any]:
    kept = {name: getattr(config, name) for name in StudyOptions.model_fields}
    paths: dict[str, list[str]] = {}
    for name, stores in config.stores_by_name.items():
        for part, store in stores.given.items():
            paths.setdefault(part, []).append(with_name(name, _there(folder, store.path)))
    shares = {"validation_fraction": config.split.validation, "test_fraction": config.split.test}
    return kept | paths | shares


def _there(folder: Path, path: str) -> str:
    """Where a store of the record is: the demonstration's went with the study directory where that was moved."""
    noted = Path(path)
    moved = folder / DEMONSTRATION / noted.name
    return str(moved) if noted.parent.name == DEMONSTRATION and not noted.exists() and moved.is_file() else path


def _store(store: FeatureSource) -> StoreRef:
    return StoreRef(path=str(store.path.absolute()), **store.identity)
