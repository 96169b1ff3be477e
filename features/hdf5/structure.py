"""What an HDF5 file is built of, followed in its bytes before HDF5 does.

HDF5 believes its own structures: in a damaged file it may follow a list without end, deaf to Ctrl-C, or end the
process. The structures of files as h5py writes them by default are few and old, so they can be looked through: every
address lies in the file, nothing leads back to itself, every list ends. What is newer or rarer is not judged here.
"""

from __future__ import annotations

import math
from pathlib import Path
from struct import pack, unpack_from
from typing import Any, BinaryIO, Self

import h5py
import numpy as np

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NOWHERE = 2**64 - 1
MOST_STEPS = 2**21
"""Structures in a file; the largest archive of the article's layout has some thousand."""
_GROUP_LEAVES, _GROUP_NODES = 4, 16
"""Entries of a node of a group's tree, halved: what HDF5 takes unless it is told otherwise."""
_REFERENCE = 16
"""Bytes that stand for a text of any length: its length, and where it is."""
_IGNORED = {0x00: 0, 0x12: 8}
"""Messages of an object without a structure of their own, a gap and a time, with their least sizes."""


class DamagedError(ValueError):
    """The file's structures contradict themselves; the text says which."""

    def __init__(self, which: str) -> None:
        super().__init__(f"a damaged file ({which})")


class CutShortError(DamagedError):
    """The file is shorter than it says."""

    def __init__(self) -> None:
        ValueError.__init__(self, "a file cut short (an unfinished copy?)")


class _UnknownError(Exception):
    """Something that is not looked through here."""


def _known_types() -> dict[bytes, tuple[int, bool]]:
    """How HDF5 stores the types that our files have: size in bytes, and whether values lie elsewhere in the file."""
    numbers = [f"{order}{kind}" for order in "<>" for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")]
    numbers += [f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8")]
    plain = [np.dtype(name) for name in (*numbers, "bool")]
    types = {_stored(dtype): (dtype.itemsize, False) for dtype in plain}
    for charset in ("utf-8", "ascii"):
        text = _stored(h5py.string_dtype(charset))
        types[text[:4] + pack("<I", _REFERENCE) + text[8:]] = (_REFERENCE, True)  # in the file larger than in memory
    return types


def _stored(dtype: Any) -> bytes:
    return bytes(h5py.h5t.py_create(dtype, logical=True).encode()[2:])


_TYPES = _known_types()
_TYPE_LENGTHS = sorted({len(kind) for kind in _TYPES})
_LIST = -1
"""Level of a list of names, below those of a group's tree."""


def is_plain(path: Path) -> bool:
    """Looks through the structures of a file.

    Args:
        path: A file that begins with HDF5's signature.

    Returns:
        True where HDF5 can be trusted with the whole file; False where it has structures that are not known here.

    Raises:
        DamagedError: An address leads out of the file, a list does not end, or another thing stands where one must be.
        OSError: The file cannot be read.
    """
    try:
        with _Walk(path) as walk:
            walk.look_through()
    except _UnknownError:
        return False
    return True


class _Walk:
    """One pass over a file's structures; their layouts are those of HDF5's file format specification."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        self._size = path.stat().st_size
        self._steps = 0
        self._objects: list[int] = []
        self._met: set[tuple[str, int]] = set()
        self._heaps: dict[int, dict[int, int]] = {}
        self._groups: dict[int, list[int]] = {}
        self._cached: set[tuple[int, int, int]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def look_through(self) -> None:
        """Follows everything from the superblock."""
        start = self._at("superblock", 0, 96)
        version, sizes, leaves, nodes = start[8], start[13:15], *unpack_from("<HH", start, 16)
        if not start.startswith(SIGNATURE) or version != 0 or sizes != b"\x08\x08" or start[9:13] != bytes(4):
            raise _UnknownError
        base, free, end, driver = unpack_from("<4Q", start, 24)
        if (leaves, nodes) != (_GROUP_LEAVES, _GROUP_NODES) or (base, free, driver) != (0, NOWHERE, NOWHERE):
            raise _UnknownError
        if end > self._size:
            raise CutShortError
        self._entry(start, 56)
        while self._objects:
            address = self._objects.pop()
            if not self._is_met("object", address):
                self._object(address)
        # Entries repeat where a group is: nothing else may stand there.
        if any(self._groups.get(address) != places for address, *places in self._cached):
            raise DamagedError("two places for one group")

    def _at(self, what: str, address: int, size: int) -> bytes:
        """Reads ``size`` bytes, all of which must be there; counts a step."""
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise _UnknownError
        if address + size > self._size:
            raise DamagedError(f"a {what} beyond the end of the file")
        self._file.seek(address)
        read = self._file.read(size)
        if len(read) != size:
            raise DamagedError(f"a {what} that cannot be read")
        return read

    def _is_met(self, what: str, address: int) -> bool:
        place = (what, address)
        if place in self._met:
            return True
        self._met.add(place)
        return False

    def _once(self, what: str, address: int) -> None:
        if self._is_met(what, address):
            raise DamagedError(f"a {what} that leads back to itself")

    # Objects: groups and datasets.

    def _object(self, address: int) -> None:
        head = self._at("object", address, 16)
        version, size = head[0], unpack_from("<I", head, 8)[0]
        if version != 1 or head[1] != 0:
            if head[:4] == b"OHDR":
                raise _UnknownError
            raise DamagedError("no object where one must be")
        found: dict[int, bytes] = {}
        chunks = [(address + 16, size)]
        while chunks:
            start, length = chunks.pop()
            self._once("list of messages", start)
            for kind, data in self._messages(self._at("list of messages", start, length)):
                if kind == 0x10:
                    _need("continuation", data, 16)
                    chunks.append(unpack_from("<QQ", data))
                elif kind == 0x0C:
                    self._attribute(data)
                elif kind in (0x01, 0x03, 0x08, 0x11):
                    if kind in found:
                        raise DamagedError("an object that is described twice")
                    found[kind] = data
                elif kind in (0x04, 0x05):
                    _check_fill_value(kind, data)
                elif kind in _IGNORED:
                    _need("message", data, _IGNORED[kind])
                else:
                    raise _UnknownError
        self._described(address, found)

    @staticmethod
    def _messages(chunk: bytes) -> list[tuple[int, bytes]]:
        messages, at = [], 0
        while at < len(chunk):
            if at + 8 > len(chunk):
                raise DamagedError("a message that is cut off")
            kind, size, flags = unpack_from("<HHB", chunk, at)
            if at + 8 + size > len(chunk):
                raise DamagedError("a message that is cut off")
            if flags & ~0x05:  # constant, not to be shared; others say that the message is shared, or must be known
                raise _UnknownError
            messages.append((kind, chunk[at + 8 : at + 8 + size]))
            at += 8 + size
        return messages

    def _described(self, address: int, found: dict[int, bytes]) -> None:
        if found.keys() == {0x11}:
            self._group(address, found[0x11])
        elif found.keys() == {0x01, 0x03, 0x08}:
            self._dataset(found[0x01], found[0x03], found[0x08])
        elif found:
            raise _UnknownError

    def _dataset(self, space: bytes, kind: bytes, layout: bytes) -> None:
        count = _count(space)
        size, far = _type_size(kind)
        _need("layout", layout, 2)
        if far or layout[0] != 3 or layout[1] not in (0, 1):  # chunked, virtual, or of HDF5 1.6 and before
            raise _UnknownError
        if layout[1] == 0:
            _need("layout", layout, 4)
            stored = unpack_from("<H", layout, 2)[0]
            _need("layout", layout, 4 + stored)
        else:
            _need("layout", layout, 18)
            place, stored = unpack_from("<QQ", layout, 2)
            if place != NOWHERE and place + stored > self._size:
                raise DamagedError("a dataset beyond the end of the file")
        if stored != count * size:
            raise DamagedError("a dataset whose size is not that of its values")

    def _attribute(self, data: bytes) -> None:
        _need("attribute", data, 8)
        version, flags, *sizes = unpack_from("<BBHHH", data)
        if version not in (1, 2, 3) or flags:
            raise _UnknownError
        at = 9 if version == 3 else 8
        parts = []
        for size in sizes:
            taken = -(-size // 8) * 8 if version == 1 else size
            _need("attribute", data, at + taken)
            parts.append(data[at : at + size])
            at += taken
        name, kind, space = parts
        if not name.endswith(b"\0"):
            raise DamagedError("an attribute without a name")
        size, far = _type_size(kind)
        count = _count(space)
        _need("attribute", data, at + count * size)
        if far:
            self._far_texts(data[at : at + count * size])

    # Texts of any length, which lie in a heap.

    def _far_texts(self, references: bytes) -> None:
        total = 0
        for at in range(0, len(references), _REFERENCE):
            length, address, index = unpack_from("<IQI", references, at)
            total += length
            if (address, index) in ((0, 0), (NOWHERE, 0)) and not length:
                continue
            if address not in self._heaps:
                self._heaps[address] = self._heap(address)
            if self._heaps[address].get(index, -1) < length:
                raise DamagedError("a text that is not there")
        if total > self._size:
            raise DamagedError("texts longer than the file")

    def _heap(self, address: int) -> dict[int, int]:
        """Size of each object of a heap; one of size 0 is what HDF5 goes round for ever."""
        head = self._at("heap", address, 16)
        size = unpack_from("<Q", head, 8)[0]
        if head[:4] != b"GCOL" or head[4] != 1 or size < 16:
            raise DamagedError("no heap where texts must be")
        heap, at, objects = self._at("heap", address, size), 16, {}
        while at + 16 <= size:
            index, length = unpack_from("<H6xQ", heap, at)
            taken = 16 + -(-length // 8) * 8 if index else length
            if taken < 16 or at + taken > size or index in objects:
                raise DamagedError("a heap of texts that contradicts itself")
            objects[index] = length
            at += taken
        return objects

    # Groups: a tree of nodes, at its ends lists of names with the objects that they stand for.

    def _group(self, address: int, message: bytes) -> None:
        _need("group", message, 16)
        self._groups[address] = [tree, heap] = list(unpack_from("<QQ", message))
        names = self._names(heap)
        nodes: list[tuple[int, int | None]] = [(tree, None)]
        while nodes:
            place, level = nodes.pop()
            self._once("group", place)
            if level == _LIST:
                self._symbols(place, names)
            else:
                nodes += self._tree_node(place, level, names)

    def _names(self, address: int) -> bytes:
        """The names of a group; the free room between them is a list, too."""
        head = self._at("heap of names", address, 32)
        size, free, place = unpack_from("<QQQ", head, 8)
        if head[:5] != b"HEAP\0":
            raise DamagedError("no names where they must be")
        names = self._at("heap of names", place, size)
        before: set[int] = set()
        while free not in (1, NOWHERE):
            if free in before or free + 16 > size:
                raise DamagedError("a heap of names that contradicts itself")
            before.add(free)
            after, length = unpack_from("<QQ", names, free)
            if free + length > size:
                raise DamagedError("a heap of names that contradicts itself")
            free = after
        return names

    def _tree_node(self, address: int, level: int | None, names: bytes) -> list[tuple[int, int | None]]:
        """Children of a node, each with its level: one lower than the node's own, which may be any of the root's."""
        node = self._at("group", address, 24 + 8 * (4 * _GROUP_NODES + 1))
        kind, own, entries = unpack_from("<BBH", node, 4)
        if node[:4] != b"TREE" or kind != 0 or level not in (None, own) or entries > 2 * _GROUP_NODES:
            raise DamagedError("no group where one must be")
        for entry in range(entries + 1 if entries else 0):
            _check_name(names, unpack_from("<Q", node, 24 + 16 * entry)[0])
        return [(unpack_from("<Q", node, 32 + 16 * entry)[0], own - 1) for entry in range(entries)]

    def _symbols(self, address: int, names: bytes) -> None:
        node = self._at("list of names", address, 8 + 40 * 2 * _GROUP_LEAVES)
        count = unpack_from("<H", node, 6)[0]
        if node[:5] != b"SNOD\1" or count > 2 * _GROUP_LEAVES:
            raise DamagedError("no list of names where one must be")
        for at in range(8, 8 + 40 * count, 40):
            _check_name(names, unpack_from("<Q", node, at)[0])
            self._entry(node, at)

    def _entry(self, node: bytes, at: int) -> None:
        """Notes the object of a name, and where the entry says that its group is."""
        address, cached = unpack_from("<QI", node, at + 8)
        if cached not in (0, 1):  # a link of another kind
            raise _UnknownError
        if cached:
            self._cached.add((address, *unpack_from("<QQ", node, at + 24)))
        self._objects.append(address)


def _need(what: str, data: bytes, size: int) -> None:
    if len(data) < size:
        raise DamagedError(f"a {what} that is cut off")


def _check_name(names: bytes, at: int) -> None:
    if at >= len(names) or names.find(b"\0", at) < 0:
        raise DamagedError("a name that is not there")


def _count(space: bytes) -> int:
    """Number of values of a dataspace."""
    _need("shape", space, 4)
    version, rank, flags = unpack_from("<BBB", space)
    if version not in (1, 2) or flags & 0xFE:
        raise _UnknownError
    if version == 2 and space[3] != bool(rank):  # one without any value is of type 2
        raise _UnknownError
    at = 8 if version == 1 else 4
    _need("shape", space, at + 8 * rank * (2 if flags else 1))
    if rank > 32:
        raise DamagedError("a shape of more than 32 axes")
    return math.prod(unpack_from(f"<{rank}Q", space, at))


def _type_size(kind: bytes) -> tuple[int, bool]:
    """Bytes of a value, and whether it is a reference to a text in a heap."""
    _need("type", kind, 8)
    if kind[0] == 0x13:  # text of fixed width
        size: int = unpack_from("<I", kind, 4)[0]
        if kind[1] & 0x0F > 2 or kind[1] >> 4 > 1 or kind[2:4] != b"\0\0" or not size:
            raise DamagedError("a text of no known kind")
        return size, False
    for length in _TYPE_LENGTHS:
        if kind[:length] in _TYPES:
            return _TYPES[kind[:length]]
    raise _UnknownError


def _check_fill_value(kind: int, data: bytes) -> None:
    """What stands where nothing was written: of the old form a size and the value, of the new one flags before."""
    at = 0
    if kind == 0x05:
        _need("fill value", data, 2)
        version = data[0]
        if version not in (1, 2, 3):
            raise _UnknownError
        given = data[1] & 0x20 if version == 3 else version == 1 or data[3:4] == b"\1"
        at = 2 if version == 3 else 4
        _need("fill value", data, at)
        if not given:
            return
    _need("fill value", data, at + 4)
    _need("fill value", data, at + 4 + max(0, unpack_from("<i", data, at)[0]))
