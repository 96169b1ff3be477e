"""Feature stores on a worker's machine: at the path that the driver named, or fetched once from an address."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.runtime.errors import BottleneckError, InputError
from features.runtime.extras import extra_hint
from features.runtime.files import replacing
from features.runtime.lock import WriterLock
from features.runtime.options import option_name
from features.store.reader import FeatureStore
from search.setup.stores import is_address, with_name

VARIABLE = "BOTTLENECK_CACHE"
"""Variable of the environment that names the folder for stores that were fetched."""
_FETCHING_S = 6 * 3600.0
"""Seconds for which a worker waits for another of its machine to fetch the same store."""
_OF_VERSIONS = {"etag", "contentmd5", "digest", "lastmodified", "mtime", "updated", "md5hash", "generation", "crc"}
"""What systems call that which changes with a file, without its capitals and hyphens."""
_BLOCK = 1 << 24
"""Bytes that are fetched at once."""


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
        BottleneckError: It cannot be fetched, for the moment at least: the driver has found it at its address.
    """
    path = _brought(sent) if is_address(sent.address) else Path(sent.address)
    FeatureStore(path).check_recorded(dict(sent.identity), "the driver was given")
    return with_name(sent.name, path)


def _brought(sent: Sent) -> Path:
    try:
        return fetched(sent.address, part=sent.option, identity=sent.identity)
    except InputError as error:
        raise BottleneckError(str(error)) from error


def fetched(address: str, *, part: str = "features", identity: Mapping[str, str] | None = None) -> Path:
    """Returns this machine's copy of a store that lies at an address, fetched where there is none of that version.

    Where nothing tells one version from another, it is fetched anew; but for a worker whose copy is the driver's.

    Args:
        address: For fsspec.
        part: What the store is of, for messages: ``features``, ``validation`` or ``test``.
        identity: Of the store that is wanted; None for the one that is there.

    Raises:
        InputError: There is no such file, or nobody knows such addresses.
        BottleneckError: fsspec, or what it needs for such addresses, is not installed, or the transfer broke.
    """
    try:
        import fsspec  # an extra
    except ImportError as error:
        raise BottleneckError(f"{address}: fsspec is not installed: {extra_hint('cluster')}") from error
    with _reaching(address, part):
        try:
            system, there = fsspec.core.url_to_fs(address)
        except ValueError as error:
            raise _nothing(address, part, error) from error
        version = _version(system, there)
    named = version if version is not None else sorted((identity or {}).items())
    path = _cache() / f"{hashlib.sha256(f'{address} {named}'.encode()).hexdigest()[:32]}.h5"

    def is_there() -> bool:
        return path.is_file() and (version is not None or _is_of(path, identity))

    if not is_there():
        with _turn(path), _reaching(address, part):
            if not is_there():  # another worker of this machine may have been at it
                _fetch(system, there, address, path)
    return path


def _version(system: Any, there: str) -> str | None:
    """What changes with a file, by what a system says of it; None where it says no such thing.

    What fsspec itself makes of that (``ukey``) is for some systems the address alone, as for ``http://``.
    """
    info = system.info(there)
    known = {name: info[name] for name in sorted(info) if _letters(name) in _OF_VERSIONS and info[name] is not None}
    return f"{system.ukey(there)} {info.get('size')} {known}" if known else None


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _is_of(path: Path, identity: Mapping[str, str] | None) -> bool:
    """Whether a store is the one that is wanted; not where any may be."""
    if identity is None:
        return False
    try:
        FeatureStore(path).check_recorded(dict(identity), "the driver was given")
    except BottleneckError:
        return False
    return True


def _turn(path: Path) -> WriterLock:
    """Takes the lock on a copy, once no other worker of this machine has it."""
    ends = time.monotonic() + _FETCHING_S
    while True:
        try:
            return WriterLock(path)
        except InputError:
            raise
        except BottleneckError:
            if time.monotonic() > ends:
                raise
            time.sleep(1)


def _fetch(system: Any, there: str, address: str, path: Path) -> None:
    with system.open(there, "rb") as source, replacing(path) as temporary, temporary.open("wb") as target:
        while block := _read(source, address):
            target.write(block)


def _read(source: Any, address: str) -> Any:
    """Reads on; what fails here is no matter of this machine's disk."""
    try:
        return source.read(_BLOCK)
    except Exception as error:  # of as many kinds as there are systems
        raise _broken(address, error) from error


@contextmanager
def _reaching(address: str, part: str) -> Iterator[None]:
    """Says in one line what fails of an address: that nothing is there, or that it cannot be reached."""
    try:
        yield
    except BottleneckError:
        raise
    except FileNotFoundError as error:
        raise _nothing(address, part, error) from error
    except Exception as error:  # of as many kinds as there are systems
        raise _broken(address, error) from error


def _nothing(address: str, part: str, error: Exception) -> InputError:
    return InputError(option_name(part), expected="a store at this address", found=f"{address} ({_reason(error)})")


def _broken(address: str, error: Exception) -> BottleneckError:
    return BottleneckError(f"{address}: cannot be fetched: {_reason(error)}")


def _reason(error: Exception) -> str:
    return " ".join(f"{error}".split())[:200] or type(error).__name__


def _cache() -> Path:
    told = os.environ.get(VARIABLE)
    return Path(told) if told else Path.home() / ".cache" / "bottleneck" / "stores"
