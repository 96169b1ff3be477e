"""A search from its options to its report: what ``python -m search.run`` and ``search.run_study`` do.

1. *Given* (``RunOptions.given``): what somebody said, checked option by option.
2. *Resolved* (``resolve``): joined with the study file and the record; options that do not go together are refused.
3. *Fitted* (``_fitted``): stores are opened, what was left to the rows is decided, the space is fitted to the features.
4. *Projected* (``_projected``): with ``--channels`` the data in fewer directions.
5. *Config* (``Resolved.config``): what ``study.json`` keeps, compared with the record.
6. *Searched* (``search.searching``): trials, and what comes after them, up to the summary; then the report.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from features.extraction.summary import describe as extraction_in_words
from features.runtime.arithmetic import with_default_errstate
from features.runtime.backend import start_backend, use_backend
from features.runtime.command import bars, console, say
from features.runtime.errors import BottleneckError, DiskFullError, InputError
from features.runtime.keras_settings import python_random_restored
from features.runtime.letting_go import frames_cleared_on_failure
from features.runtime.lock import WriterLock
from features.runtime.options import described, takes_options
from features.runtime.text import counted
from features.runtime.unseen import Together
from features.store.reader import FeatureStore
from search.record.opened_study import OpenedStudy, held
from search.record.record_identity import note_made_of
from search.record.storage import check_record, config_in_storage, join_record, open_record, where_kept
from search.record.summary import read_summary
from search.setup.audit import audit_study, describe
from search.setup.by_rows import decide_by_rows
from search.setup.config import StudyConfig
from search.setup.data import SearchData, load_data
from search.setup.file_names import STUDY_FILE
from search.setup.images import ImageOptions, ImagesGiven, take_images
from search.setup.options import AUTO, RunOptions, options_in_words
from search.setup.own_function import Build, OwnFunction, find_function, name_of
from search.setup.own_head import OwnHead, changed_since
from search.setup.projection import StudyProjection, check_channels, find_directions, in_directions
from search.setup.remarks import remarks
from search.setup.resolve import DEMONSTRATION, Resolved, resolve
from search.setup.storage_url import VARIABLE, bare, has_secrets, in_full
from search.setup.stores import ALONE, StudyData, require_same_images
from search.study import Study
from search.training.resume import resumable
from search.training.snapshot import read_snapshot
from search.training.stages import IN_WORDS, OnStage, Stage, untold

StoreGiven = FeatureStore | str | Path
StoresGiven = StoreGiven | Sequence[StoreGiven] | Mapping[str, StoreGiven] | None
DEMONSTRATION_SEED = 0
"""The demonstration's scans are the same for every seed of a study."""


@with_default_errstate
def run_study(
    features: StoresGiven = None,
    *,
    head: str | Build | None = None,
    progress: bool = True,
    on_stage: OnStage = untold,
    **options: Any,
) -> Study:
    """Searches for the best head over cached bottlenecks.

    What is not given is looked up in the study file and, with ``resume=True``, in the study's record. Ctrl-C, SIGTERM
    or the notebook's stop button leaves a study that goes on with ``run_study(out=..., resume=True)``; so does a kill.

    Args:
        features: Store to train on, open or its path, or several of the same images: a list of them, or by name;
            without it, a built-in demonstration.
        head: Somebody's own function ``build(trial, feature_shape, classes)``, or its name as on the command line: it
            suggests what it likes and returns a keras.Model, which is trained in place of the heads of a space.
        progress: Whether to say on standard error, or in the notebook, what is found and how far it is.
        on_stage: Called with each ``search.Stage`` as it begins.
        options: See ``search.RunOptions``; stores may be open here, too.

    Returns:
        The study, with its report written.

    Raises:
        InputError: An option is unknown or does not fit, a store or a study file is wrong, the study directory holds a
            study already or none to resume, or Keras runs on another backend. Or images do not fit, see
            ``features.extract``.
        BottleneckError: No trial completed, or the disk is full.
        KeyboardInterrupt: After Ctrl-C or SIGTERM; in the midst of trials, once a snapshot is on the disk.
    """
    build = None if head is None or isinstance(head, str) else head
    if build is not None and not callable(build):
        raise InputError("head", expected="a function, or its name", found=type(build).__name__)
    if not callable(on_stage):
        raise InputError("on_stage", expected="a function", found=type(on_stage).__name__)
    told = {"features": features, "head": head if build is None else name_of(build), **options}
    images = take_images(told)
    given = RunOptions.given(told)
    with frames_cleared_on_failure(), quiet_unless(progress), python_random_restored():
        return _run(given, build, images, _telling(on_stage))


_OF_IMAGES = f"Beside images, as for features.extract:\n{described(ImageOptions)}"
_OPTIONS = options_in_words(but=("features", "head"))
run_study.__doc__ = "\n\n".join([inspect.getdoc(run_study) or "", _OPTIONS, _OF_IMAGES])
takes_options(run_study, RunOptions)
takes_options(run_study, ImageOptions)


def quiet_unless(wanted: bool) -> AbstractContextManager[None]:
    """Says what is found and how far it is, or keeps it to itself, as long as one of several threads wants it so."""
    return nullcontext() if wanted else _quiet()


@contextmanager
def _quiet_console() -> Iterator[None]:
    before = console.quiet
    console.quiet = True
    try:
        yield
    finally:
        console.quiet = before


_quiet = Together(_quiet_console)


def _telling(on_stage: OnStage) -> OnStage:
    """Says what begins before it is reported to the caller."""

    def told(stage: Stage) -> None:
        if stage in IN_WORDS:
            say(IN_WORDS[stage])
        on_stage(stage)

    return told


@contextmanager
def _in_its_place(lock: WriterLock | None) -> Iterator[None]:
    """Says of whatever fails in a study directory that was removed that this is why."""
    try:
        yield
    except (BottleneckError, OSError):
        if lock is not None:
            lock.check()
        raise


@contextmanager
def _nothing_left(folder: Path) -> Iterator[None]:
    """Takes a folder away again where what fails had made it, and put nothing in."""
    there = folder.exists()
    try:
        yield
    except BaseException:
        if not there:
            with suppress(OSError):  # something is
                folder.rmdir()
        raise


@contextmanager
def _with_resume_hint(folder: Path) -> Iterator[None]:
    """Says of a full disk how a study that has begun goes on."""
    try:
        yield
    except DiskFullError as error:
        if not (folder / STUDY_FILE).exists():
            raise
        raise DiskFullError(error.where, error.why, then="go on with --resume") from error


def _run(given: RunOptions, build: Build | None, images: ImagesGiven | None, on_stage: OnStage) -> Study:
    resolved = resolve(given, config_in_storage)
    if images is not None:
        _extract(images, resolved, named=bool(given.features))
    with _with_resume_hint(resolved.folder):
        return _carry_out(resolved, build, on_stage)


def _carry_out(requested: Resolved, build: Build | None, on_stage: OnStage) -> Study:
    options = requested.options
    backend = _backend_of(requested)
    function = find_function(options.head, build) if options.head else None
    read_summary(requested.folder)  # one that is damaged is refused before the trials, not behind them
    with _prepared(requested) as (resolved, data, projection, lock), _in_its_place(lock):
        own = _rehearsed(function, data.first) if function else None
        config = resolved.config(data, backend, projection, function.record if function else None)
        goes_on = options.resume and not options.join and config.engine == "fused"
        saved = read_snapshot(resolved.folder) if goes_on else None
        opened = _open(resolved, config, keep_bytes=saved.journal_bytes if saved else None)
        with held(opened, config.storage):
            check_record(opened.study, where_kept(resolved.folder, config.storage), config)
            if opened.crew is None:  # several have their config itself in the record
                note_made_of(opened.study, config)
            saved = resumable(resolved.folder, saved, opened)
            changed = changed_since(config.own_head, own) if own else ()
            noted = (*resolved.unread, *remarks(config, resolved.space, data), *changed)
            _introduce(resolved.folder, config, data, noted)
            start_backend()
            from search.searching import Search

            ends = Search(
                resolved=resolved,
                config=config,
                data=data,
                opened=opened,
                own=own,
                saved=saved,
                noted=noted,
                lock=lock,
                on_stage=on_stage,
            ).run()
    study = Study(resolved.folder)
    if ends:
        on_stage(Stage.REPORT)
        study.report()
    return study


def _backend_of(requested: Resolved) -> str:
    """The backend in force; where that of a study which goes on cannot be had, the message says whose it is."""
    named, recorded = requested.options.backend, requested.recorded
    try:
        return use_backend(named)
    except InputError as error:
        if recorded is None or recorded.backend != named:
            raise
        raise error.advising(f"{requested.where} has it: a study stays on the backend that it was begun on") from error


def _open(resolved: Resolved, config: StudyConfig, *, keep_bytes: int | None) -> OpenedStudy:
    """Opens the study's record, for this process alone or for one of several."""
    name, url, direction, options = config.name, config.storage, config.direction, resolved.options
    if options.join:
        assert url is not None
        return join_record(url, name, direction=direction, grace=options.grace)
    return open_record(resolved.folder, name, url, direction=direction, resume=options.resume, keep_bytes=keep_bytes)


def _extract(given: ImagesGiven, resolved: Resolved, *, named: bool) -> None:
    """Makes the store of the images, or finishes it; where it is whole already, makes sure that it is theirs.

    Raises:
        InputError: As ``features.extract``; where nobody named the store, it may be that of a folder of the same name.
    """
    from features.extraction.door import extract_as_told
    from features.images.walk import Seen, entries_of

    entries_of(given.images, Seen())  # what is no folder is refused before anything is made or said
    (store,) = resolved.paths.values()
    say(f"{given.images}: extracting into {store}")
    told = {**given.options, "backend": resolved.options.backend}
    try:
        summaries = extract_as_told(given.images, store, told)
    except InputError as error:
        if error.where == str(store) and not named:
            raise error.advising("--features FILE names another store for these images") from error
        raise
    for line in extraction_in_words(summaries):
        say(line)
    if resolved.recorded is not None:
        say(f"{resolved.folder}: has been begun, and goes on")


@contextmanager
def _prepared(requested: Resolved) -> Iterator[tuple[Resolved, StudyData, StudyProjection | None, WriterLock | None]]:
    """Opens the data, fits the search to them, and holds the study directory's lock; none where several share it.

    Nothing is made where the data do not fit.
    """
    paths = requested.paths
    if requested.options.join and not (paths and requested.options.storage):
        lacking = "--storage, which all processes reach" if paths else "--features, of which each process has a copy"
        raise InputError("--join", expected=lacking, found="none")
    fitted = _fitted(paths, requested) if paths else None
    with _nothing_left(requested.folder), _held(requested) as lock:
        resolved, data = fitted or _fitted({ALONE: make_demonstration_in(requested.folder)}, requested)
        yield resolved, *_projected(data, resolved), lock


def _held(requested: Resolved) -> AbstractContextManager[WriterLock | None]:
    """The study directory, made where it is not there, and its lock."""
    if requested.options.join:  # each process has a folder of its own in there
        requested.folder.mkdir(parents=True, exist_ok=True)
        return nullcontext()
    return WriterLock(requested.folder / STUDY_FILE)


def _fitted(paths: Mapping[str, Path], requested: Resolved) -> tuple[Resolved, StudyData]:
    """The search with what its data decide, and these."""
    for name, path in paths.items():
        requested.check_store(name, FeatureStore(path))
    decided = decide_by_rows(requested.options, partial(_load, paths, requested))
    resolved = replace(requested, options=decided.options, decided=decided.remarks)
    return resolved.fitted_to(decided.data), decided.data


def _load(paths: Mapping[str, Path], requested: Resolved, folds: int) -> StudyData:
    options = requested.options
    validation, test = (requested.part_paths(part) for part in ("validation", "test"))
    loaded = {}
    for name, path in paths.items():
        loaded[name] = load_data(
            path,
            validation=validation.get(name),
            test=test.get(name),
            validation_share=options.validation_fraction,
            test_share=options.test_fraction,
            folds=folds,
            seed=options.seed,
            ignore_parts=options.ignore_parts,
            resident=options.engine == "solo" and not options.channels and len(paths) == 1,
        )
        check_channels(loaded[name], options.channels)
    require_same_images(loaded)
    return StudyData(loaded)


def _projected(data: StudyData, resolved: Resolved) -> tuple[StudyData, StudyProjection | None]:
    """The data in the directions that the study trains in: those that it was begun with, or new ones."""
    options, recorded = resolved.options, resolved.recorded
    projection = recorded.projection if recorded is not None else None
    if recorded is None and options.channels:
        if options.channels == AUTO:
            start_backend()
            say("--channels auto: a few heads are cross-validated to find how many channels they need")
        with bars("rows") as bar:
            on_progress = bar("finding directions")
            projection = find_directions(resolved.folder, data.first, options, resolved.space, on_progress=on_progress)
    resident = options.engine == "solo"
    return data.each(lambda one: in_directions(resolved.folder, one, projection, resident=resident)), projection


def _rehearsed(function: OwnFunction, data: SearchData) -> OwnHead:
    """Somebody's own function for the data, once it has made a head that can be trained."""
    own = OwnHead.for_data(function, data)
    start_backend()
    own.rehearse()
    return own


def make_demonstration_in(folder: Path) -> Path:
    """Makes the store of the built-in demonstration in a study directory, unless it is there; returns its path."""
    from features.extraction.demonstration import make_demonstration

    say("no --features: searching over the built-in demonstration, generated scans through a random backbone")
    with bars("scans") as bar:
        on_progress = bar("making the demonstration")
        return make_demonstration(folder / DEMONSTRATION, seed=DEMONSTRATION_SEED, on_progress=on_progress)


def _introduce(folder: Path, config: StudyConfig, data: StudyData, noted: Sequence[str]) -> None:
    for remark in noted:
        say(f"note: {remark}")
    for name, one in data.named.items():
        shape, views = " x ".join(map(str, one.store.header.feature_shape)), one.store.header.views
        say(f"{f'{name}: ' if name else ''}{one.store.path}: {shape}, {counted(len(views), 'view')}")
    with bars("images") as bar:
        found = audit_study(folder, data.first, on_progress=bar("comparing"))
    for line in describe(found):
        say(line)
    if config.storage and has_secrets(config.storage) and in_full(bare(config.storage)) != config.storage:
        needed = f"for the report and --resume set {VARIABLE} to the whole URL"
        say(f"note: {STUDY_FILE} keeps no password of --storage: {needed}")
    repeated = "" if config.finalists == 0 else f", then {config.repeats_in_words}"
    own = f"heads of {config.head}, " if config.head else ""
    how = f"{own}{config.engine}, {config.sampler}, {config.pruner}, by validation {config.objective}"
    most = f"{counted(config.trials, 'trial')} of up to {counted(config.epochs, 'epoch')}"
    say(f"{folder}: {most} ({how}){repeated}")
