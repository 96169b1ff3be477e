"""A worker of an extraction: one backbone, and the features of what it is given. It knows nothing of Ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from features.extraction.backbone_spec import IMAGENET, BackboneSpec
from features.extraction.backbones import Backbone, build_backbone
from features.extraction.making import versions_here
from features.extraction.pipeline import Batch, Written, bottlenecks
from features.images.pages import file_of, source_of
from features.images.reading import Reading, Tally
from features.images.views import View
from features.runtime.backend import start_backend, use_backend
from features.runtime.errors import InputError
from features.store.feature_writer import FeaturesPlace, FeatureWriter

_THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Setting:
    """What a worker is built of.

    Attributes:
        spec: The backbone; files by absolute paths.
        backend: That of Keras.
        threads: ``OMP_NUM_THREADS`` of the driver.
    """

    spec: BackboneSpec
    backend: str
    threads: str | None

    @classmethod
    def of(cls, spec: BackboneSpec) -> Setting:
        """Returns the setting of this process, with which a worker makes the same bits."""
        name = spec.name if spec.file is None else str(spec.file.path.absolute())
        in_file = spec.weights != IMAGENET and spec.seed is None
        weights = str(Path(spec.weights).absolute()) if in_file else spec.weights
        return cls(replace(spec, name=name, weights=weights), use_backend(), os.environ.get(_THREADS))


@dataclass(frozen=True)
class BuiltThere:
    """What a worker says of its backbone.

    Attributes:
        feature_shape: (height, width, channels) of one bottleneck.
        weights_sha256: Hash of the weights.
        remark: For the user, '' for nothing.
        versions: Of packages, as a store records them.
    """

    feature_shape: tuple[int, int, int]
    weights_sha256: str
    remark: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Job:
    """What is the same for all batches of an extraction.

    Attributes:
        folder: The image folder, absolute.
        views: What of each image is shown to the backbone.
        reading: How files are read.
        batch_size: Images in a forward pass.
        place: Where features go.
    """

    folder: Path
    views: tuple[View, ...]
    reading: Reading
    batch_size: int
    place: FeaturesPlace


@dataclass(frozen=True)
class Part:
    """Batches that one worker makes one after the other.

    Attributes:
        batches: Rows by place, as ``features.extraction.schedule`` has them.
        paths: The image of each of these rows.
    """

    batches: Sequence[Sequence[int]]
    paths: Mapping[int, str]


class BatchWorker:
    """Builds a backbone once, then makes the features of parts of an extraction."""

    def start(self, setting: Setting) -> tuple[str, BuiltThere]:
        """Builds the backbone; returns the host's name and what a store records of it.

        Raises:
            InputError: As ``build_backbone``, or the backend is not installed here.
        """
        # Ray says how many there should be, features.extract does not; the last bits of a feature depend on threads.
        os.environ.pop(_THREADS, None)
        if setting.threads is not None:
            os.environ[_THREADS] = setting.threads
        try:
            use_backend(setting.backend)
            start_backend()
            self._backbone: Backbone = build_backbone(setting.spec)
        except InputError as error:
            raise error.within(f"worker on {socket.gethostname()}") from error
        built = self._backbone
        return socket.gethostname(), BuiltThere(
            built.feature_shape, built.weights_sha256, built.remark, versions_here()
        )

    def make(self, job: Job, part: Part) -> Iterator[tuple[Batch | Written, Tally]]:
        """Yields batches in order, with what was noticed of images since the last one.

        Where the store is seen from here, features are written to it and do not come along.

        Raises:
            InputError: The images are not seen from here.
            BottleneckError: Features are not finite, or the disk is full.
        """
        _require_images(job, part)
        reading = replace(job.reading, tally=Tally())
        made = bottlenecks(
            {row: source_of(job.folder, path) for row, path in part.paths.items()},
            self._backbone,
            job.views,
            batches=part.batches,
            batch_size=job.batch_size,
            dtype=job.place.dtype,
            reading=reading,
        )
        writing: Future[Batch | Written] | None = None
        with ExitStack() as held:
            store = job.place.opened()
            if store is not None:
                held.enter_context(store)
            disk = held.enter_context(ThreadPoolExecutor(1, thread_name_prefix="write"))
            held.enter_context(closing(made))
            for batch in made:
                if writing is not None:
                    yield writing.result(), reading.tally.take()
                writing = disk.submit(_put, store, batch)
            if writing is not None:
                yield writing.result(), reading.tally.take()


def _put(store: FeatureWriter | None, batch: Batch) -> Batch | Written:
    if store is None:
        return batch
    store.write(batch.indices, batch.features)
    return batch.written()


def _require_images(job: Job, part: Part) -> None:
    """Refuses to take all images for damaged where they are merely not there, on a disk that is not mounted, say."""
    if not any((job.folder / file_of(path)).exists() for path in part.paths.values()):
        path = job.folder / file_of(next(iter(part.paths.values())))
        expected = "the image folder on every machine, at the same path"
        raise InputError(path, expected=expected, found=f"no such file on {socket.gethostname()}")
