"""``--channels``: a study in a few directions of its store's channels, which it keeps in its directory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from features.compression.directions import principal_directions, require_channels
from features.rows.feed import Feed
from features.runtime.errors import InputError
from features.runtime.memory import resident_budget
from features.runtime.progress import OnProgress, unwatched
from features.runtime.text import percent
from features.store.projected import ProjectedStore
from features.store.projection import Projection, load_projection, save_projection
from search.setup.channels import MeasuredChannels, channels_in_words, choose_channels
from search.setup.data import SearchData
from search.setup.options import AUTO, RunOptions
from search.setup.space import Space

PROJECTION_FILE = "projection.h5"


class StudyProjection(BaseModel):
    """What ``study.json`` says of a study in a few directions.

    Attributes:
        channels: That it trains in.
        of: Channels of the store.
        basis: ``Projection.digest`` of the directions, which lie beside it; '' where it trains in all channels, as
            ``--channels auto`` may find.
        share: Share of the sum of squares of the training rows' maps that they hold.
        measured: What ``--channels auto`` decided by; empty where it was not asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int
    of: int
    basis: str
    share: float
    measured: tuple[MeasuredChannels, ...] = ()

    def remarks(self) -> Iterator[str]:
        """Yields what the user should know of it, a line each."""
        if self.basis:
            yield (
                f"trained in {self.channels:,} directions of {self.of:,} channels, which hold {percent(self.share)} of"
                " the squares of the training rows' maps; heads leave the study on all channels"
            )
        if self.measured:
            found = f"{self.channels:,}" if self.basis else "all, as none less kept the accuracy"
            yield f"--channels auto took {found}; accuracy of a few heads by folds: {channels_in_words(self.measured)}"


def check_channels(data: SearchData, channels: str | None) -> None:
    """Refuses a number of channels that the stores do not have, and stores that are compressed already.

    Raises:
        InputError: Naming the store.
    """
    if channels is None:
        return
    for feed in (data.train, data.validation, data.test):
        if feed is not None:
            require_channels(feed.store, 1 if channels == AUTO else int(channels))


def find_directions(
    folder: Path, data: SearchData, options: RunOptions, space: Space, *, on_progress: OnProgress = unwatched
) -> StudyProjection | None:
    """Decides what a new study trains in, and writes the directions into its directory.

    Args:
        folder: The study directory.
        data: Rows of the study, with all channels.
        options: The study's.
        space: What its trials draw from.
        on_progress: Told how many of the rows that decide the directions have been read.

    Returns:
        What study.json is to say; None where the study trains in the features as they are.
    """
    if options.channels is None:
        return None
    source, rows = data.train.store, data.train.rows
    directions = principal_directions(source, rows, on_progress=on_progress)
    measured: tuple[MeasuredChannels, ...] = ()
    if options.channels == AUTO:
        assert options.batch_size is not None, "decided by the rows before this"
        chosen, measured = choose_channels(
            directions, source, rows, space, seed=options.seed, batch_size=options.batch_size
        )
    else:
        chosen = int(options.channels)
    most = source.header.feature_shape[2]
    study_projection = StudyProjection(
        channels=chosen, of=most, basis="", share=float(directions.shares[chosen - 1]), measured=measured
    )
    if options.channels == AUTO and chosen == most:
        return study_projection
    projection = directions.first(chosen)
    save_projection(folder / PROJECTION_FILE, projection)
    return study_projection.model_copy(update={"basis": projection.digest})


def in_directions(folder: Path, data: SearchData, recorded: StudyProjection | None, *, resident: bool) -> SearchData:
    """Returns a study's data as it trains on them: projected as they are read, and held where they fit.

    Args:
        folder: The study directory.
        data: Rows with all channels.
        recorded: What study.json says.
        resident: Whether features may take the memory; else a quarter of it, beside the bank's own copy.

    Raises:
        InputError: The directions that the study was made with are not there, or are others.
    """
    if recorded is None or not recorded.basis:
        return data
    projection = _kept(folder / PROJECTION_FILE, recorded, data)
    budget = resident_budget() // (1 if resident else 4)
    stores: dict[int, ProjectedStore] = {}

    def projected(feed: Feed, memory_bytes: int) -> Feed:
        store = stores.setdefault(id(feed.store), ProjectedStore(feed.store, projection))
        return Feed(store, feed.rows, memory_bytes=memory_bytes)

    train = projected(data.train, budget * 4 // 5)
    same = data.validation is data.train
    return replace(
        data,
        train=train,
        validation=train if same else projected(data.validation, budget // 5),
        test=projected(data.test, 0) if data.test else None,
    )


def _kept(path: Path, recorded: StudyProjection, data: SearchData) -> Projection:
    projection = load_projection(path)
    expected = {
        "channels": (f"{recorded.channels} of {recorded.of}", f"{projection.kept} of {projection.channels}"),
        "projection": (f"{recorded.basis[:16]}, the directions of this study", projection.digest[:16]),
        "compressed_from": (data.store.fingerprint[:16], projection.compressed_from[:16]),
    }
    for field, (wanted, found) in expected.items():
        if found != wanted.partition(",")[0]:
            raise InputError(path, field=field, expected=wanted, found=found)
    return projection
