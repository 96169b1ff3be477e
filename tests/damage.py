"""Damaged copies of files: bytes flipped, zeroed, cut and padded at seeded places; parts replaced by others."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np

DEEP = "[" * 20_000
HUGE = "9" * 400


def damaged(content: bytes, seed: int) -> tuple[str, bytes]:
    """Returns a damaged copy of a file's content, and in words what was done to it."""
    drawn = random.Random(seed)
    made, size = bytearray(content), len(content)
    # Structures stand in a few places: half of all damage is where a file has something else than zeros.
    places = [index for index in range(size) if content[index]] if drawn.random() < 0.5 else range(size)
    at = places[drawn.randrange(len(places))]
    length = drawn.choice((1, 8, 16, 64, 512, 4096))
    what = drawn.choice(("flip", "flip", "flip", "byte", "zero", "ones", "copy", "cut", "pad", "move"))
    if what == "flip":
        made[at] ^= 1 << drawn.randrange(8)
    elif what == "byte":
        made[at] = drawn.choice((0, 1, 16, 127, 128, 255))
    elif what == "zero":
        made[at : at + length] = bytes(len(made[at : at + length]))
    elif what == "ones":
        made[at // 8 * 8 : at // 8 * 8 + 8] = b"\xff" * 8
    elif what == "copy":
        other = drawn.randrange(size) // 8 * 8
        made[at // 8 * 8 : at // 8 * 8 + length] = content[other : other + length]
    elif what == "cut":
        del made[at:]
    elif what == "pad":
        made += bytes(drawn.choice((b"\0", b"\xff", b"{")) * length)
    else:
        del made[at : at + length]
    return f"seed {seed}: {what} at {at}", bytes(made)


def json_values(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the keys that lead to each value of decoded JSON; of a long list only to the first ones."""
    if at:
        yield at
    items = data.items() if isinstance(data, dict) else list(enumerate(data))[:3] if isinstance(data, list) else ()
    for key, value in items:
        yield from json_values(value, (*at, key))


STRANGE_JSON = (
    "null",
    "true",
    "-1",
    "1e999",
    "NaN",
    HUGE,
    "0.5",
    '""',
    '"x"',
    "[]",
    "{}",
    '{"a": 1, "a": 2}',
    '"\\ud800"',
)
"""Texts that stand in the place of a value."""


ATTRIBUTES: dict[str, Callable[[], Any]] = {
    "a list": lambda: np.array([True, False]),
    "no number": lambda: np.float64("nan"),
    "no end": lambda: np.float64("inf"),
    "huge": lambda: np.uint64(2**64 - 1),
    "below zero": lambda: np.int64(-1),
    "nested": lambda: DEEP,
    "a number in JSON": lambda: HUGE,
    "no JSON number": lambda: '{"a": NaN}',
    "no text": lambda: b"\xff\xfe",
    "an empty text": lambda: "",
    "nothing": lambda: h5py.Empty("f4"),
    "an empty list": lambda: np.zeros(0, "i8"),
    "a table": lambda: np.zeros((2, 2), "f4"),
    "texts": lambda: np.array(["a", "a"], h5py.string_dtype()),
    "fixed texts": lambda: np.array([b"a", b"\xff"], "S4"),
    "a record": lambda: np.zeros(1, [("a", "i4"), ("b", "f8")]),
    "lists": lambda: np.array([np.arange(3), np.arange(2)], dtype=h5py.vlen_dtype("i4")),
    "a complex number": lambda: np.complex64(1),
    "large": lambda: np.zeros(7000, "i8"),
}
"""What can stand in the place of any attribute."""


def _contiguous(file: Any, name: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Declares a dataset that is never written."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plan)


def _virtual(file: Any, name: str, shape: tuple[int, ...], dtype: Any) -> None:
    layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
    layout[...] = h5py.VirtualSource("elsewhere.h5", "x", shape=shape)
    file.create_virtual_dataset(name, layout)


DATASETS: dict[str, Callable[[Any, str, tuple[int, ...], Any], Any]] = {
    "another type": lambda f, name, shape, dtype: f.create_dataset(name, shape, "c8"),
    "texts of any length": lambda f, name, shape, dtype: f.create_dataset(name, shape, h5py.string_dtype()),
    "doubles": lambda f, name, shape, dtype: f.create_dataset(name, shape, "f8"),
    "another order": lambda f, name, shape, dtype: f.create_dataset(name, shape, ">f2"),
    "no value": lambda f, name, shape, dtype: f.create_dataset(name, data=h5py.Empty("f4")),
    "one value": lambda f, name, shape, dtype: f.create_dataset(name, data=3),
    "less": lambda f, name, shape, dtype: f.create_dataset(name, (1,), dtype),
    "no rows": lambda f, name, shape, dtype: f.create_dataset(name, (0, *shape[1:]), dtype),
    "one axis more": lambda f, name, shape, dtype: f.create_dataset(name, (*shape, 2), dtype),
    "2^31 rows": lambda f, name, shape, dtype: _contiguous(f, name, (2**31, *shape[1:]), dtype),
    "2^26 chunks": lambda f, name, shape, dtype: f.create_dataset(
        name, (2**26, *shape[1:]), dtype, chunks=(1, *shape[1:])
    ),
    "one large chunk": lambda f, name, shape, dtype: f.create_dataset(
        name, (2**28, *shape[1:]), "i1", chunks=(2**20, *shape[1:]), compression="gzip"
    ),
    "chunked": lambda f, name, shape, dtype: f.create_dataset(name, data=np.zeros(shape, dtype), chunks=True),
    "compressed": lambda f, name, shape, dtype: f.create_dataset(name, data=np.zeros(shape, dtype), compression="gzip"),
    "wide": lambda f, name, shape, dtype: _contiguous(f, name, shape, "S1000000"),
    "a bomb": lambda f, name, shape, dtype: f.create_dataset(
        name, shape, "S1000000", chunks=shape, compression="gzip", data=np.full(shape, b"", "S1000000")
    ),
    "in another file": lambda f, name, shape, dtype: f.create_dataset(
        name, shape, dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    ),
    "virtual": _virtual,
    "a link to itself": lambda f, name, shape, dtype: f.__setitem__(name, h5py.SoftLink(f"/{name}")),
    "a link to nowhere": lambda f, name, shape, dtype: f.__setitem__(name, h5py.SoftLink("/nowhere")),
    "a link elsewhere": lambda f, name, shape, dtype: f.__setitem__(name, h5py.ExternalLink("elsewhere.h5", "/x")),
    "a group": lambda f, name, shape, dtype: f.create_group(name),
    "a type": lambda f, name, shape, dtype: f.__setitem__(name, np.dtype("f4")),
    "itself": lambda f, name, shape, dtype: f.__setitem__(name, f["/"]),
}
"""What can stand in the place of any dataset of some shape and dtype."""


def hdf5_changes(file: Any) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Yields what can be done to each attribute, dataset and group of an open HDF5 file, in words and as a function."""
    objects: list[tuple[str, Any]] = [("/", file)]
    file.visititems(lambda name, node: objects.append((name, node)))
    for where, node in objects:
        for attribute in node.attrs:
            for what, made in ATTRIBUTES.items():
                yield f"{where}@{attribute}: {what}", _attribute(where, attribute, made)
        if isinstance(node, h5py.Dataset):
            for what, put in DATASETS.items():
                yield f"{where}: {what}", _dataset(where, put, node.shape, node.dtype)
        elif where != "/":
            yield f"{where}: a number", _dataset(where, DATASETS["one value"], (), None)
            yield f"{where}: a link", _dataset(where, DATASETS["a link to itself"], (), None)


def _attribute(where: str, name: str, made: Callable[[], Any]) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        file[where].attrs[name] = made()

    return change


def _dataset(where: str, put: Callable[..., Any], shape: tuple[int, ...], dtype: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[where]
        put(file, where, shape, dtype)

    return change
