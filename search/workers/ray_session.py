"""A Ray that is there, or one that is started on this machine and ended again."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from features.runtime.command import say
from features.runtime.errors import BottleneckError, InputError
from features.runtime.extras import extra_hint
from features.runtime.files import ROOT
from features.runtime.portable import cpu_count
from features.runtime.text import counted
from search.workers.ray_internals import keep_quiet

LOCAL, AUTO = "local", "auto"
WORKERS, GPUS_PER_WORKER = 2, 0.0
"""What is taken where nobody says otherwise."""
_ADDRESS = re.compile(r"[^/\s]+:\d{1,5}", re.ASCII)
_PATIENCE_S = 10.0
"""How long the head of a cluster may take to answer."""
_LONGEST = 40
"""Characters of a folder in which Ray's sockets still get names that systems take (107 bytes)."""
_SMALLEST_SHARE = 1e-4
"""Of a GPU: Ray counts nothing finer."""
_SETTINGS = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # which under ``uv run`` sends the current folder around, data and all
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def ray_session(address: str, *, workers: int, cpus_per_worker: int = 1, gpus_per_worker: float = 0.0) -> Iterator[Any]:
    """Yields the module ``ray``, connected; where it was connected before, by the caller, it stays so.

    Args:
        address: ``local`` to start Ray on this machine and to end it afterwards, ``auto`` for the cluster that this
            machine is part of, or HOST:PORT of its head.
        workers: Actors that are to run; a Ray that is started has CPUs for them.
        cpus_per_worker: CPUs that each of them is to have.
        gpus_per_worker: GPUs that each of them is to have.

    Raises:
        BottleneckError: Ray is not installed, or cannot be started.
        InputError: There is no cluster at that address, or no machine with so many GPUs in it.
    """
    if workers < 1:
        raise InputError("--workers", expected="1 or more", found=workers)
    shared = gpus_per_worker == 0 or _SMALLEST_SHARE <= gpus_per_worker <= 1
    if not shared and not (1 < gpus_per_worker < math.inf and float(gpus_per_worker).is_integer()):
        raise InputError("--gpus-per-worker", expected="0 or more, above 1 whole ones", found=gpus_per_worker)
    told = _checked(address)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray  # an extra
    except ImportError as error:
        raise BottleneckError(f"ray is not installed: {extra_hint('cluster')}") from error
    with ExitStack() as held:
        if not ray.is_initialized():
            keep_quiet()
            if told == LOCAL:
                folder = held.enter_context(_folder())
                held.callback(ray.shutdown)
                _start(ray, folder, processors=max(workers * cpus_per_worker, cpu_count()))
            else:
                held.callback(ray.shutdown)
                _connect(ray, told)
        _require_gpus(ray, gpus_per_worker)
        _say_where_room_is_short(ray, workers, cpus_per_worker, gpus_per_worker)
        yield ray


def _start(ray: Any, folder: str | None, *, processors: int) -> None:
    with _seen_by_workers(), _own_sigterm():
        try:
            ray.init(
                address=LOCAL,
                num_cpus=processors,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=folder,
            )
        except Exception as error:  # whatever of its processes does not come up
            raise BottleneckError(f"Ray cannot be started on this machine: {error}") from error


def _checked(address: str) -> str:
    """Returns an address that may be one; ``auto`` as the environment has it, where that says something."""
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or AUTO
    if address not in (LOCAL, AUTO) and not _ADDRESS.fullmatch(address):
        hint = "ray:// is not for this: run it on a machine of the cluster" if address.startswith("ray:") else None
        raise InputError("--address", expected="local, auto or HOST:PORT", found=address, hint=hint)
    return address


def _connect(ray: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    hint = "`ray start --head` starts one, and local needs none"
    try:
        if address != AUTO:  # asked for where nobody listens, Ray tries for minutes
            socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
            hint = "for a cluster that asks for a token set RAY_AUTH_MODE=token"
        with _own_sigterm():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # ConnectionError, or whatever Ray makes of another server
        expected = f"a running Ray cluster {'on this machine' if address == AUTO else f'at {address}'}"
        raise InputError("--address", expected=expected, found="none that answers", hint=hint) from error


def _require_gpus(ray: Any, wanted: float) -> None:
    """An actor that no machine has room for would be waited for without end."""
    most = max((node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
    if most < wanted:
        expected = f"at most the {most:g} GPUs of a machine of this cluster"
        raise InputError("--gpus-per-worker", expected=expected, found=f"{wanted:g}")


def _say_where_room_is_short(ray: Any, workers: int, cpus: int, gpus: float) -> None:
    """A cluster may grow where work waits for room, and begin without any, so that it is not refused."""
    room = sum(_room(node["Resources"], cpus, gpus) for node in ray.nodes() if node["Alive"])
    if room < workers:
        each = counted(cpus, "CPU") + (f" and {gpus:g} {'GPU' if gpus == 1 else 'GPUs'}" if gpus else "")
        lacking = f"room for {room} of {counted(workers, 'worker')} with {each} each"
        say(f"note: the machines of the cluster have {lacking}; the rest waits for machines that join it")


def _room(there: Mapping[str, float], cpus: int, gpus: float) -> int:
    """Workers that a machine has room for: what one has is on one machine, and a part of a GPU on one GPU."""
    room = there.get("CPU", 0.0) // cpus
    if gpus >= 1:
        room = min(room, there.get("GPU", 0.0) // gpus)
    elif gpus:
        room = min(room, there.get("GPU", 0.0) * (1 / _SMALLEST_SHARE // round(gpus / _SMALLEST_SHARE)))
    return int(room)


@contextmanager
def _folder() -> Iterator[str | None]:
    """A folder for Ray's sockets and logs that goes when it ends; None, its own, where names would get too long."""
    if len(tempfile.gettempdir()) > _LONGEST:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield folder


@contextmanager
def _seen_by_workers() -> Iterator[None]:
    """Processes that are started within it find this project, wherever they run."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Puts back what this process does at SIGTERM, which ``ray.init`` changes."""
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
