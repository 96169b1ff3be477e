"""An image folder into a feature store by workers that Ray places, byte for byte that of ``features.extract``.

The driver does all that ``features.extract`` does but for the features: it looks at the images, makes the store and
holds its lock, hands out batches, cut where ``features.extract`` cuts them, and is the one that says which rows are
done. Workers, one backbone each, write features of their batches into that one file, at the places of their rows; a
worker that does not see the file sends them to the driver, which writes them. So a driver that was killed goes on as
``features.extract`` goes on, also with a store that the other one began.

Plain actors and not Ray Data: what its ``map_batches`` brings, blocks that it cuts and joins as it likes and runs
again as a whole where a worker died, is in the way here. Bits depend on where batches are cut; decoding runs ahead over
many batches of one worker; each batch counts as soon as it is on the disk, and a worker's death costs those that it was
at. And its exceptions would have to be unpacked from logs that it writes, where here a refusal is one line.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.extraction import Say, extract_store
from features.extraction.filling import Work
from features.extraction.making import versions_here
from features.extraction.options import ExtractionOptions
from features.extraction.pipeline import EMPTY, Batch, Written
from features.extraction.summary import ExtractionSummary
from features.images.reading import Reading, Tally
from features.runtime.backend import use_backend
from features.runtime.errors import BottleneckError
from features.runtime.progress import OnProgress, unwatched
from features.runtime.text import printable
from search.workers.batch_worker import BatchWorker, BuiltThere, Job, Part, Setting
from search.workers.ray_session import AUTO, GPUS_PER_WORKER, WORKERS, ray_session

MOST_BATCHES = 32
"""Of a part: between two parts decoding does not run ahead, so they should be few."""
PARTS_A_WORKER = 4
"""At least, where there are batches enough: who is faster does more of them."""
UNSETTLED = 4
"""Batches that a worker may be ahead of the driver: the memory that they take where features are sent."""
MOST_DEATHS = 3
"""Workers that may die of one batch, or while one is being started in the same place."""


def extract_on_ray(
    images: Path,
    store: Path,
    options: ExtractionOptions,
    *,
    address: str = AUTO,
    workers: int = WORKERS,
    gpus_per_worker: float = GPUS_PER_WORKER,
    say: Say = lambda line: None,
    on_progress: OnProgress = unwatched,
) -> ExtractionSummary:
    """Extracts an image folder into a store, or goes on with one that is unfinished, on the machines of a Ray cluster.

    All of them see the image folder, and weights that are in files, at the same paths, and have the same versions of
    the packages that decide a feature's bits. Those that see the store write to it themselves.
    A worker has one CPU of those that Ray counts, and all threads of its machine that ``features.extract`` would take;
    without GPUs of its own it computes on the CPU.

    What was noticed of images and is said after the work may count some twice where a worker died.

    Args:
        images: Folder with one sub-folder per class; with a table of labels, any folder.
        store: File to make or to finish.
        options: How; of several backbones or sizes a call makes one store each.
        address: ``auto``, ``local`` or HOST:PORT, see ``search.workers.ray_session``.
        workers: How many work at once, at most.
        gpus_per_worker: GPUs of each; a part of one lets several share it.
        say: Told what the user should know.
        on_progress: Told how many rows of how many are settled: before the work, then after each batch.

    Returns:
        What was done.

    Raises:
        InputError: As ``features.extraction.extraction.extract_stores``; there is no such cluster, or its machines do
            not see the images.
        BottleneckError: As ``extract_stores``; Ray is not installed, workers have other versions than the driver, or
            die again and again.
    """
    use_backend(options.backend)
    with ExitStack() as held:

        def build(specs: Sequence[BackboneSpec]) -> _RayMaker:
            (spec,) = specs
            ray = held.enter_context(ray_session(address, workers=workers, gpus_per_worker=gpus_per_worker))
            remote = ray.remote(num_cpus=1, num_gpus=gpus_per_worker, max_restarts=0, scheduling_strategy="SPREAD")
            crew = _Crew(ray, remote(BatchWorker).remote, Setting.of(spec), say)
            return _RayMaker(held.enter_context(crew), workers)

        return extract_store(images, store, options, say=say, on_progress=on_progress, build=build)


@dataclass(eq=False)
class _Worker:
    """An actor, and what it is at.

    Attributes:
        actor: Its handle.
        task: What is waited for: its start, or the stream of its batches; None where it is idle.
        host: The machine that it is on, once it has said so.
        part: What it works on.
        left: Batches of that which have not come yet.
        failures: How many died in its place while they were starting.
    """

    actor: Any
    task: Any
    host: str = ""
    part: Part | None = None
    left: deque[Sequence[int]] = field(default_factory=deque)
    failures: int = 0


class _Crew:
    """The workers of one extraction. Use as a context manager: it ends them."""

    def __init__(self, ray: Any, place: Callable[[], Any], setting: Setting, say: Say) -> None:
        """Starts nobody yet; ``place()`` returns the handle of a new actor."""
        self._ray = ray
        self._place = place
        self._setting = ray.put(setting)
        self._say = say
        self._versions = versions_here()
        self._workers: list[_Worker] = []
        self._built: BuiltThere | None = None

    def __len__(self) -> int:
        return len(self._workers)

    def built(self) -> BuiltThere:
        """Starts a worker where there is none, and returns what the first to be ready says of its backbone."""
        while self._built is None:
            if not self._workers:
                self.hire()
            self.next_event()
        return self._built

    def hire(self, failures: int = 0) -> None:
        """Has one more worker started, which takes seconds."""
        actor = self._place()
        self._workers.append(_Worker(actor, actor.start.remote(self._setting), failures=failures))

    def idle(self) -> list[_Worker]:
        """Returns those that are ready and have nothing to do."""
        return [worker for worker in self._workers if worker.task is None]

    def busy(self) -> bool:
        """Whether batches are being made."""
        return any(worker.part is not None for worker in self._workers)

    def give(self, worker: _Worker, job: Any, part: Part) -> None:
        """Gives an idle worker a part to do."""
        stream = worker.actor.make.options(num_returns="streaming", _generator_backpressure_num_objects=UNSETTLED)
        worker.part, worker.left, worker.task = part, deque(part.batches), stream.remote(job, part)

    def next_event(self) -> tuple[_Worker, tuple[Batch | Written, Tally] | None]:
        """Waits for one of them to be ready, to have made a batch, to have finished its part, or to have died.

        Returns:
            Who it is, and the batch. One that has died is none of them any more; what it had not made is ``left``.

        Raises:
            BottleneckError: What a worker raised; or nobody can be started.
        """
        waited = {worker.task: worker for worker in self._workers if worker.task is not None}
        (task,), _ = self._ray.wait([*waited], num_returns=1)
        worker = waited[task]
        self._workers.remove(worker)
        self._workers.append(worker)  # so that nobody is kept waiting by those before
        try:
            if worker.part is None:
                self._greet(worker, *self._ray.get(task))
                return worker, None
            made: tuple[Batch | Written, Tally] = self._ray.get(next(task))
            worker.left.popleft()
            return worker, made
        except StopIteration:
            assert not worker.left
            worker.part = worker.task = None
            return worker, None
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, BottleneckError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:  # it died, or its machine, or the way to it is gone
            self._bury(worker, error)
            return worker, None

    def _greet(self, worker: _Worker, host: str, built: BuiltThere) -> None:
        if built.versions != self._versions:
            ours, theirs = self._versions, built.versions
            other = [f"{name} {theirs[name]} instead of {ours[name]}" for name in ours if theirs[name] != ours[name]]
            raise BottleneckError(f"worker on {host}: {', '.join(other)}, which makes other features")
        if self._built is None:
            self._built = built
        elif (built.weights_sha256, built.feature_shape) != (self._built.weights_sha256, self._built.feature_shape):
            raise BottleneckError(f"worker on {host}: other weights than the first worker has")
        worker.host, worker.task, worker.failures = host, None, 0

    def _bury(self, worker: _Worker, error: Exception) -> None:
        """Replaces a worker."""
        self._workers.remove(worker)
        self._ray.kill(worker.actor)  # it may only be cut off: what it writes until then are the same bytes
        failures = worker.failures + (not worker.host)
        if failures < MOST_DEATHS:
            self.hire(failures)
            self._say(f"note: a worker{f' on {worker.host}' if worker.host else ''} died, another one takes its place")
        elif self._workers:
            self._say(f"note: {failures} workers died while they were starting: one less goes on")
        else:
            raise BottleneckError(f"no worker can be started: {str(error).splitlines()[0]}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            self._ray.kill(worker.actor)


class _RayMaker:
    """A ``features.extraction.making.Maker``: hands batches to a crew."""

    def __init__(self, crew: _Crew, most: int) -> None:
        self._crew = crew
        self._most = most
        self.built = [crew.built()]

    def make(self, work: Work) -> Generator[Batch | Written]:
        """Yields the features of all batches, as they come."""
        (store,) = work.stores
        header = store.writer.header
        job = Job(
            work.table.folder.absolute(),
            tuple(work.views),
            _untold(store.reading),
            header.batch_size,
            store.writer.features_place,
        )
        paths = work.table.paths
        todo = deque(_parts_of([batch for (batch,) in work.batches], paths, self._most))
        for _ in range(len(self._crew), min(self._most, len(todo))):
            self._crew.hire()
        deaths: Counter[int] = Counter()
        while todo or self._crew.busy():
            for worker in self._crew.idle()[: len(todo)]:
                self._crew.give(worker, job, todo.popleft())
            worker, made = self._crew.next_event()
            if made is not None:
                batch, noticed = made
                store.reading.tally.merge(noticed)
                yield batch
            elif worker.left:
                first = _rows_in(worker.left[0])[0]
                deaths[first] += 1
                if deaths[first] >= MOST_DEATHS:
                    place = work.table.folder / printable(paths[first])
                    raise BottleneckError(
                        f"{place}: {deaths[first]} workers died, one after the other, of the batch that begins here"
                    )
                todo.append(_part([*worker.left], paths))  # last: should it kill others, the rest is done by then
                worker.left.clear()


def _untold(reading: Reading) -> Reading:
    """The same reading, with nothing counted yet."""
    return Reading(reading.intensity, reading.max_pixels, reading.resize)


def _parts_of(batches: Sequence[Sequence[int]], paths: Sequence[str], workers: int) -> list[Part]:
    """Cuts the work between batches, in as few parts as keep all workers busy to the end."""
    step = max(1, min(MOST_BATCHES, len(batches) // (PARTS_A_WORKER * workers)))
    return [_part(batches[start : start + step], paths) for start in range(0, len(batches), step)]


def _part(batches: Sequence[Sequence[int]], paths: Sequence[str]) -> Part:
    return Part(batches, {row: paths[row] for batch in batches for row in _rows_in(batch)})


def _rows_in(batch: Sequence[int]) -> list[int]:
    return [row for row in batch if row != EMPTY]
