"""Extraction by workers of a local Ray: the bytes of features.extract, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import made_backbone
import numpy as np
import psutil
import pytest
from conftest import ROOT
from made_backbone import SMALL, MadeBackbone
from made_images import OLD, blurred_noise, put_image

from features.extraction import extraction
from features.extraction.options import ExtractionOptions
from features.runtime.errors import BottleneckError, InputError
from features.runtime.progress import unwatched
from features.store.reader import FeatureStore
from features.store.schema import RowState
from features.store.writer import StoreWriter
from search.workers import extraction as on_ray
from search.workers.batch_worker import BatchWorker, BuiltThere
from search.workers.extraction import extract_on_ray
from search.workers.ray_session import ray_session

pytest.importorskip("ray", reason="Ray is not installed: pip install 'bottleneck-search[cluster]'")

BATCH = 4
OPTIONS = ExtractionOptions(**SMALL | {"batch_size": BATCH}, views="identity,flip")
BAD = {"A/A-3-1.png": b"", "B/B-5-2.png": b"no image"}
ROWS = 50
"""That no size of batches here divides."""


def put(path: Path, seed: int) -> None:
    put_image(path, blurred_noise(seed))


@pytest.fixture
def images(tmp_path) -> Path:
    """Two classes of images, two of each patient, and two that cannot be decoded."""
    folder = tmp_path / "images"
    for name in "AB":
        for number in range(ROWS // 2):
            put(folder / name / f"{name}-{number // 2}-{number % 2 + 1}.png", 100 * ord(name) + number)
    for path, content in BAD.items():
        (folder / path).write_bytes(content)
        os.utime(folder / path, (OLD, OLD))
    return folder


class Levels(MadeBackbone):
    """Its features' last bits depend on an image's place in float16, too."""

    by_place = 1


class LevelsWorker(BatchWorker):
    """A worker that starts no backend."""

    def start(self, setting):
        self._backbone = made = Levels()
        return "somewhere", BuiltThere(made.feature_shape, made.weights_sha256, made.remark, extraction.versions_here())


class SlowWorker(LevelsWorker):
    """One that can be caught at work."""

    def make(self, job, part):
        for made in super().make(job, part):
            time.sleep(0.1)
            yield made


class BlindWorker(LevelsWorker):
    """One on a machine that does not see the store."""

    def make(self, job, part):
        elsewhere = replace(job.place, path=Path("/nowhere/s.h5"))
        for batch, noticed in super().make(replace(job, place=elsewhere), part):
            assert batch.features.any()
            yield batch, noticed


class PoisonedWorker(LevelsWorker):
    """One that an image kills."""

    def make(self, job, part):
        for made in super().make(job, part):
            if any(part.paths[row] == "B/B-2-1.png" for row in made[0].indices):
                os._exit(1)
            yield made


class StillbornWorker(LevelsWorker):
    def start(self, setting):
        os._exit(1)


class OtherWorker(LevelsWorker):
    """One with another Keras."""

    def start(self, setting):
        host, built = super().start(setting)
        return host, replace(built, versions={**built.versions, "keras": "2.1.5"})


class LargeWorker(LevelsWorker):
    def start(self, setting):
        started = super().start(setting)
        self._backbone.features = lambda images: np.full((len(images), 1, 1, 3), 1e6, np.float32)
        return started


@pytest.fixture(scope="module")
def local_ray():
    """Two processors' worth of Ray, which the calls below find connected and leave so."""
    with ray_session("local", workers=2) as ray:
        for module in (sys.modules[__name__], made_backbone):  # its workers do not find the tests
            ray.cloudpickle.register_pickle_by_value(module)
        yield ray


@pytest.fixture
def levels(monkeypatch) -> None:
    """Both ways make the features of ``Levels``."""
    monkeypatch.setattr(extraction, "build_backbone", lambda spec: Levels())
    monkeypatch.setattr(extraction, "start_backend", lambda: None)
    monkeypatch.setattr(on_ray, "BatchWorker", LevelsWorker)


@pytest.fixture
def settled(monkeypatch) -> Counter[int]:
    """Counts how often each row is said to be done."""
    counts: Counter[int] = Counter()
    write = StoreWriter.write

    def counted(self, rows, *arguments):
        counts.update(rows)
        write(self, rows, *arguments)

    monkeypatch.setattr(StoreWriter, "write", counted)
    return counts


def extract_here(images: Path, store: Path, options: ExtractionOptions = OPTIONS):
    return extraction.extract_store(images, store, options)


def extract(images: Path, store: Path, options: ExtractionOptions = OPTIONS, *, on_progress=unwatched, say=str):
    return extract_on_ray(images, store, options, workers=2, on_progress=on_progress, say=say)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def workers_at_work() -> list[psutil.Process]:
    """Processes of this one's Ray that are making features, as their titles say."""
    every = psutil.Process().children(recursive=True)
    return [one for one in every if "Worker.make" in " ".join(one.cmdline())]


class StopHereError(Exception):
    """Stands for whatever ends a driver."""


def stop_at(rows: int):
    def report(done: int, total: int) -> None:
        if done >= rows:
            raise StopHereError

    return report


@pytest.mark.parametrize("batch_size", [7, pytest.param(BATCH, marks=pytest.mark.slow)])
def test_a_store_of_workers_is_that_of_features_extract_to_the_byte(local_ray, images, tmp_path, batch_size, capfd):
    """With a real network, cut where it is cut here: last bits depend on it."""
    how = OPTIONS.model_copy(update={"batch_size": batch_size})
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here = extract_here(images, tmp_path / "here" / "s.h5", how)
    reports: list[int] = []
    there = extract(
        images,
        tmp_path / "there" / "s.h5",
        how,
        on_progress=lambda done, total: reports.append(done),
        say=reports.append,
    )
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    assert sorted(contents(tmp_path / "there")) == ["s.h5", "s.h5.skipped.csv"]
    assert list(there.skipped) == list(BAD)
    assert replace(there, store=here.store, seconds=here.seconds) == here
    assert (reports[0], reports[-1], len(reports)) == (0, ROWS, 1 + -(-ROWS // batch_size))
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_is_killed_costs_only_the_batches_that_it_was_at(
    local_ray, images, tmp_path, levels, settled, monkeypatch, capfd
):
    monkeypatch.setattr(on_ray, "BatchWorker", SlowWorker)
    monkeypatch.setattr(on_ray, "PARTS_A_WORKER", 1)  # so that it dies amid one of several batches
    killed, said = [], []

    def kill_one(done: int, total: int) -> None:
        if done >= 3 * BATCH and not killed:
            killed.extend(workers_at_work()[:1])  # none where all are between two parts
            for one in killed:
                one.kill()

    extract(images, tmp_path / "there.h5", on_progress=kill_one, say=said.append)
    assert len(killed) == 1
    assert said == ["note: a worker on somewhere died, another one takes its place"]
    assert settled == dict.fromkeys(range(ROWS), 1)
    extract_here(images, tmp_path / "here.h5")
    assert (tmp_path / "there.h5").read_bytes() == (tmp_path / "here.h5").read_bytes()
    assert capfd.readouterr() == ("", "")


def test_what_a_driver_left_is_gone_on_with_and_nothing_done_twice(local_ray, images, tmp_path, levels, settled):
    """Stopped twice, once in a driver that uses no Ray: one can go on with what the other has begun."""
    store = tmp_path / "s.h5"
    with pytest.raises(StopHereError):
        extract(images, store, on_progress=stop_at(10))
    with pytest.raises(StopHereError):
        extraction.extract_store(images, store, OPTIONS, on_progress=stop_at(25))
    assert not FeatureStore(store).complete
    done = np.count_nonzero(FeatureStore(store).done)
    assert 25 <= done < ROWS
    summary = extract(images, store)
    assert summary.settled == ROWS - done
    assert settled == dict.fromkeys(range(ROWS), 1)
    assert list(summary.skipped) == list(BAD)
    extract_here(images, tmp_path / "here.h5")
    assert store.read_bytes() == (tmp_path / "here.h5").read_bytes()
    before = store.stat().st_mtime_ns
    assert extract(images, store).settled == 0
    assert store.stat().st_mtime_ns == before


def test_an_update_computes_what_is_new_at_the_places_that_it_has(local_ray, images, tmp_path, levels, settled):
    for name in ("here", "there"):
        extract_here(images, tmp_path / f"{name}.h5")
    put(images / "A" / "A-9-1.png", 5)
    put(images / "B" / "B-99-1.png", 6)
    settled.clear()
    how = OPTIONS.model_copy(update={"update": True})
    with pytest.raises(InputError, match="--update"):
        extract(images, tmp_path / "there.h5")
    extract_here(images, tmp_path / "here.h5", how)
    mine = dict(settled)
    settled.clear()
    summary = extract(images, tmp_path / "there.h5", how)
    assert dict(settled) == mine
    assert (summary.update["added"], summary.update["changed"]) == (1, 1)
    assert (tmp_path / "there.h5").read_bytes() == (tmp_path / "here.h5").read_bytes()


def test_workers_that_do_not_see_the_store_send_features(local_ray, images, tmp_path, levels, monkeypatch):
    monkeypatch.setattr(on_ray, "BatchWorker", BlindWorker)
    extract(images, tmp_path / "there.h5")
    extract_here(images, tmp_path / "here.h5")
    assert (tmp_path / "there.h5").read_bytes() == (tmp_path / "here.h5").read_bytes()


def test_a_batch_that_kills_workers_is_given_up_when_all_others_are_done(
    local_ray, images, tmp_path, levels, monkeypatch
):
    store = tmp_path / "s.h5"
    with monkeypatch.context() as patched:
        patched.setattr(on_ray, "BatchWorker", PoisonedWorker)
        with pytest.raises(BottleneckError, match=r"images/B/B-.*: 3 workers died, one after the other, of the batch"):
            extract(images, store)
    done = FeatureStore(store).done
    poisoned = FeatureStore(store).header.paths.index("B/B-2-1.png") // BATCH * BATCH
    assert [*np.flatnonzero(done == RowState.PENDING)] == [*range(poisoned, poisoned + BATCH)]
    assert extract(images, store).settled == BATCH
    extract_here(images, tmp_path / "here.h5")
    assert store.read_bytes() == (tmp_path / "here.h5").read_bytes()


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        (StillbornWorker, "no worker can be started: The actor died"),
        (OtherWorker, "worker on somewhere: keras 2.1.5 instead of"),
        (LargeWorker, "a feature of 1e[+]06 does not fit float16"),
    ],
)
def test_workers_that_cannot_do_it_end_it_in_one_line(
    local_ray, images, tmp_path, levels, monkeypatch, capfd, worker, said
):
    monkeypatch.setattr(on_ray, "BatchWorker", worker)
    with pytest.raises(BottleneckError, match=said) as caught:
        extract(images, tmp_path / "s.h5")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "s.h5").exists() == (worker is LargeWorker)


def test_strict_stops_at_the_first_bad_image(local_ray, images, tmp_path, levels):
    with pytest.raises(BottleneckError, match=r"without --strict it is skipped"):
        extract(images, tmp_path / "s.h5", OPTIONS.model_copy(update={"strict": True}))
    assert not (FeatureStore(tmp_path / "s.h5").done == RowState.SKIPPED).any()


@pytest.mark.slow
def test_weights_that_do_not_fit_are_refused_as_they_are_here(local_ray, images, tmp_path):
    (tmp_path / "w.h5").write_bytes(b"nothing")
    how = OPTIONS.model_copy(update={"weights": str(tmp_path / "w.h5")})
    with pytest.raises(InputError, match=r"worker on .*w\.h5: expected the weights of mobilenet"):
        extract(images, tmp_path / "s.h5", how)
    assert not (tmp_path / "s.h5").exists()


DRIVER = """
import sys
from pathlib import Path
from features.extraction.options import ExtractionOptions
from search.workers.extraction import extract_on_ray
images, store = map(Path, sys.argv[1:3])
options = ExtractionOptions.model_validate_json(sys.argv[3])
extract_on_ray(images, store, options, address="local", workers=2)
print("ended")
"""


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_no_worker_and_its_work_goes_on(tmp_path, monkeypatch):
    """The real thing, from the start of a Ray of its own: SIGKILL while rows are written, then to the end."""
    images, store = tmp_path / "images", tmp_path / "s.h5"
    for name in "AB":
        for number in range(400):
            put(images / name / f"{name}-{number}-1.png", 1000 * ord(name) + number)
    how = OPTIONS.model_copy(update={"batch_size": 2})
    command = [sys.executable, "-c", DRIVER, str(images), str(store), how.model_dump_json()]
    with TemporaryDirectory(prefix="r-", ignore_cleanup_errors=True) as short:  # Ray's, which a killed driver leaves
        monkeypatch.setenv("TMPDIR", short)
        driver = subprocess.Popen(command, cwd=ROOT)
        while driver.poll() is None and not (store.exists() and FeatureStore(store).done.any()):
            time.sleep(0.01)
        family = psutil.Process(driver.pid).children(recursive=True)
        # Ray's two agents end by themselves, a minute later; they touch no store
        family = [one for one in family if not one.name().endswith("Agent")]
        driver.send_signal(signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL
        done = np.count_nonzero(FeatureStore(store).done)
        assert 0 < done < 800
        assert len(family) >= 4  # two servers of Ray's, two workers
        assert not psutil.wait_procs(family, timeout=30)[1]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr
    extract_here(images, tmp_path / "here.h5", how)
    assert store.read_bytes() == (tmp_path / "here.h5").read_bytes()
