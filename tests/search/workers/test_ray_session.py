"""What is refused before Ray is asked, in one line."""

from __future__ import annotations

import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

from features.runtime.errors import BottleneckError, InputError
from search.workers import ray_session as ray_session_module
from search.workers.ray_session import ray_session


def enter(address: str = "local", **options) -> None:
    with ray_session(address, **{"workers": 2} | options):
        pytest.fail("a Ray was started")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "--workers: expected 1 or more, found 0"),
        ({"gpus_per_worker": -1.0}, "--gpus-per-worker: expected 0 or more, above 1 whole ones, found -1.0"),
        ({"gpus_per_worker": 1.5}, "--gpus-per-worker: expected 0 or more, above 1 whole ones, found 1.5"),
        ({"gpus_per_worker": float("nan")}, "--gpus-per-worker: expected 0 or more, above 1 whole ones, found nan"),
        ({"gpus_per_worker": float("inf")}, "--gpus-per-worker: expected 0 or more, above 1 whole ones, found inf"),
        ({"address": "ray://head:10001"}, "--address: expected local, auto or HOST:PORT, found ray://head:10001; ray:"),
        ({"address": "head"}, "--address: expected local, auto or HOST:PORT, found head"),
    ],
)
def test_options_that_do_not_fit(options, said):
    with pytest.raises(InputError) as caught:
        enter(**options)
    assert str(caught.value).startswith(said)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BottleneckError, match=r"^ray is not installed: pip install 'bottleneck-search\[cluster\]'$"):
        enter()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ((3, 1, 0.0), ""),
        ((4, 1, 0.0), "room for 3 of 4 workers with 1 CPU each"),
        ((1, 2, 0.0), ""),
        ((2, 2, 0.0), "room for 1 of 2 workers with 2 CPUs each"),  # three CPUs, and on no machine two twice
        ((1, 3, 0.0), "room for 0 of 1 worker with 3 CPUs each"),
        ((2, 1, 1.0), "room for 1 of 2 workers with 1 CPU and 1 GPU each"),
        ((2, 1, 0.3), ""),
        ((3, 1, 0.3), "room for 2 of 3 workers with 1 CPU and 0.3 GPUs each"),
    ],
)
def test_that_the_machines_of_a_cluster_have_too_little_room_is_said(capsys, wanted, said):
    nodes = [(True, {"CPU": 1.0}), (False, {"CPU": 8.0, "GPU": 8.0}), (True, {}), (True, {"CPU": 2.0, "GPU": 1.0})]
    ray = SimpleNamespace(nodes=lambda: [{"Alive": alive, "Resources": there} for alive, there in nodes])
    ray_session_module._say_where_room_is_short(ray, *wanted)
    note = f"note: the machines of the cluster have {said}; the rest waits for machines that join it\n"
    assert capsys.readouterr().err == (note if said else "")


def test_who_listens_and_does_not_answer_may_ask_for_a_token(monkeypatch):
    def init(**_):
        raise ConnectionError("InvalidAuthToken")

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        expected = f"a running Ray cluster at {address}, found none that answers; .* set RAY_AUTH_MODE=token"
        with pytest.raises(InputError, match=expected):
            ray_session_module._connect(SimpleNamespace(init=init), address)
    with pytest.raises(InputError, match="on this machine, found none that answers; `ray start --head` starts one"):
        ray_session_module._connect(SimpleNamespace(init=init), "auto")


@pytest.mark.parametrize("told", ["option", "environment"])
def test_where_nobody_listens_there_is_no_cluster(monkeypatch, told):
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        if told == "environment":
            monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(InputError, match=f"expected a running Ray cluster at {address}, found none"):
            enter("auto" if told == "environment" else address)


LOCAL = """
import os, signal, sys
from pathlib import Path
from features.runtime.errors import InputError
from search.workers.ray_session import ray_session
from search.workers.study_worker import StudyWorker
before, path = signal.getsignal(signal.SIGTERM), os.environ.get("PYTHONPATH")
with ray_session("local", workers=3) as ray:
    assert ray.cluster_resources()["CPU"] >= 3
    assert signal.getsignal(signal.SIGTERM) is before
    assert os.environ.get("PYTHONPATH") == path
    folder = Path(ray._private.worker.global_worker.node.temp_dir)
    assert folder.is_dir()
    try:
        with ray_session("local", workers=1, gpus_per_worker=99.0):
            sys.exit("99 GPUs")
    except InputError as error:
        assert str(error).startswith("--gpus-per-worker: expected at most the "), error
    assert ray.is_initialized()
    placed_nowhere = ray.remote(num_cpus=1_000_000)(StudyWorker).remote()
    run = placed_nowhere.run.remote((), (), {})
    assert ray.wait([run], timeout=0.1) == ([], [run])
    ray.kill(placed_nowhere)
    assert ray.wait([run], timeout=60.0) == ([run], [])
assert not ray.is_initialized()
assert not folder.exists()
"""


def test_a_ray_that_was_started_leaves_the_process_and_the_disk_as_they_were():
    pytest.importorskip("ray")
    ended = subprocess.run([sys.executable, "-c", LOCAL], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
