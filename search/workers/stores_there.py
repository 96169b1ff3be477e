"""Feature stores on a worker's machine: at the path that the driver named, or fetched once from an address."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import replacing
from features.runtime.lock import WriterLock
from features.store.reader import FeatureStore
from search.setup.stores import is_address, with_name

VARIABLE = "BOTTLENECK_CACHE"
"""Variable of the environment that names the folder for stores that were fetched."""
_FETCHING_S = 6 * 3600.0
"""Seconds for which a worker waits for another of its machine to fetch the same store."""


@dataclass(frozen=True)
class Sent:
    """A store as the driver names it.

    Attributes:
        option: The option that it is given to: ``features``, ``validation`` or ``test``.
        name: Its name among several; '' where there is none.
        address: A path that every machine sees, or an address for fsspec: ``s3://bucket/store.h5``.
        identity: Fingerprint and content of the driver's copy.
    """

    option: str
    name: str
    address: str
    identity: Mapping[str, str]


def find_there(sent: Sent) -> str:
    """Returns what the option takes on this machine, the store being the driver's.

    Raises:
        InputError: It is not there, or another one.
        BottleneckError: It cannot be fetched.
    """
    path = fetched(sent.address) if is_address(sent.address) else Path(sent.address)
    FeatureStore(path).check_recorded(dict(sent.identity), "the driver was given")
    return with_name(sent.name, path)


def fetched(address: str) -> Path:
    """Returns this machine's copy of a store that lies at an address, fetched where there is none of that version.

    Raises:
        InputError: There is no such file, or nobody knows such addresses.
        BottleneckError: fsspec is not installed, or the transfer broke.
    """
    try:
        import fsspec  # noqa: PLC0415  an extra
    except ImportError as error:
        raise BottleneckError(f"{address}: fsspec is not installed: pip install '.[cluster]'") from error
    try:
        system, place = fsspec.core.url_to_fs(address)
        version = system.ukey(place)
    except Exception as error:  # of as many kinds as there are systems
        reason = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise InputError("--features", expected="a store at this address", found=f"{address} ({reason})") from error
    name = hashlib.sha256(f"{address} {version}".encode()).hexdigest()[:32]
    path = _cache() / f"{name}.h5"
    ends = time.monotonic() + _FETCHING_S
    while not path.is_file():
        try:
            with WriterLock(path):
                if not path.is_file():
                    _fetch(system, place, address, path)
        except InputError:
            raise
        except BottleneckError:  # another worker of this machine is at it
            if time.monotonic() > ends:
                raise
            time.sleep(1)
    return path


def _fetch(system: Any, place: str, address: str, path: Path) -> None:
    try:
        with replacing(path) as temporary, system.open(place, "rb") as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 24)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise InputError("--features", expected="a store that can be fetched", found=f"{address} ({reason})") from error


def _cache() -> Path:
    told = os.environ.get(VARIABLE)
    return Path(told) if told else Path.home() / ".cache" / "bottleneck" / "stores"
