"""What a store's file holds, and how it is checked before anything in it is believed (docs/store.md)."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from features.hdf5.values import Attributes, inner_dataset, shown
from features.runtime.errors import InputError
from features.runtime.text import composed, shortened
from features.store.intensity import GRAMMAR, parse_intensity
from features.store.kind import BY_TYPE, DRAWN_OTHERWISE, EIGHT_BITS, RESIZES, SQUASH, UNKNOWN, FeatureKind
from features.store.parts import PARTS
from features.store.projection import SOURCE, Projection, read_projection

Rows = npt.NDArray[np.int64]
SCHEMA = 1
SCHEMA_TEXT = f"{SCHEMA} (a feature store)"
DTYPES = ("float16", "float32")
DIGEST_BYTES = 16
"""Of a source file's hash in ``/contents``: BLAKE2b; zeros where it is not known."""
REQUIRED = ("classes", "views", "backbone", "weights", "image_size", "preprocessing", "fingerprint", "complete")
"""Attributes without which a file is no store."""
ARRAYS = "arrays_sha256"
EXPECTED = "a feature store"
ROW_FIELDS = ("paths", "sizes", "labels", "patients")
"""Fields of a header with a value for each row; ``parts`` and ``modified`` have one for each row or for none."""
WIDEST = 2**16
"""Bytes that a path or a patient may take: more than any file system has names for."""
_PIECE_BYTES = 2**24


class RowState(IntEnum):
    """What ``/done`` says of a row."""

    PENDING = 0
    DONE = 1
    SKIPPED = 2
    """The image could not be decoded: the row has no features and is never used."""


@dataclass(frozen=True, kw_only=True)
class StoreHeader(FeatureKind):
    """Everything about a store that is decided before its first row is written, beside the kind of its features.

    Attributes:
        classes: Class names; a label is an index into them.
        paths: Source file of each row, relative to the image folder, with ``/``.
        sizes: Size in bytes of each source file.
        labels: Class index of each row.
        patients: Patient id of each row, empty where unknown.
        parts: Part of each row, one of ``PARTS``, where folders or a table said it; '' in a row of none; else empty.
        pages: ``first`` where a file is a row, ``all`` where one with several pages is a row for each of them.
        views: Names of the views of each image, in their order in the store.
        dtype: ``float16`` or ``float32``.
        batch_size: Rows in a batch: resuming continues at a multiple of it.
        created: Time of the newest source file, ISO 8601, UTC: not of the run, so that equal input gives equal bytes.
        versions: Package versions that made it.
        modified: When each source file was last written, nanoseconds since 1970, 0 where that is unknown; empty for a
            store that keeps neither times nor hashes of its source files.
        projection: Of a compressed store, what its channels are made of; ``feature_shape`` has those that are left.
        arrays_sha256: Of a store that was made of arrays, the hash of its features, as nothing else tells them from
            another backbone's; else empty.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    labels: tuple[int, ...]
    patients: tuple[str, ...]
    pages: str = "first"
    views: tuple[str, ...] = ("identity",)
    dtype: str = "float16"
    batch_size: int = 32
    created: str = ""
    versions: dict[str, str]
    modified: tuple[int, ...] = ()
    projection: Projection | None = None
    arrays_sha256: str = ""
    parts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Shape of ``/features``: (rows, views, height, width, channels)."""
        return (len(self), len(self.views), *self.feature_shape)

    @property
    def row_values(self) -> int:
        """Numbers of a row, in all of its views."""
        return math.prod(self.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, in all of its views."""
        return self.row_values * np.dtype(self.dtype).itemsize

    @property
    def of_backbone(self) -> StoreHeader:
        """The header of the store that this one was compressed from; itself where it was not."""
        if self.projection is None:
            return self
        height, width, _ = self.feature_shape
        return replace(self, feature_shape=(height, width, self.projection.channels), projection=None)

    @property
    def made_by(self) -> str:
        """What makes such a store: a command, or the function for arrays that came from no file."""
        if self.projection is not None:
            return "features.compress"
        if self.arrays_sha256 and not self.created:
            return "FeatureStore.from_arrays"
        return "features.convert" if self.backbone == UNKNOWN else "features.extract"

    @property
    def fingerprint(self) -> str:
        """Hash over all that decides the features: backbone, weights, preprocessing, size, views, classes, files.

        What is hashed, and in which order, is part of the format: stores keep the result. The intensity is hashed where
        it is none that a type has, so that others keep the fingerprint that they had before it was recorded; how images
        were resized where they were not squashed; and the layer, the basis, and the hash of arrays, where there is one.
        Of a backbone that is in a file, that file's hash stands for its name.
        """
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "backbone": self.backbone_sha256 or self.backbone,
            "alpha": self.alpha,
            "weights_sha256": self.weights_sha256,
            "preprocessing": self.preprocessing,
            "image_size": self.image_size,
            "views": self.views,
            "classes": self.classes,
            "dtype": self.dtype,
            "files": list(zip(self.paths, self.sizes, self.labels, strict=True)),
        }
        if self.intensity not in (UNKNOWN, EIGHT_BITS, BY_TYPE):
            content["intensity"] = self.intensity
        if self.resize != SQUASH:
            content["resize"] = self.resize
        if self.layer:
            content["layer"] = self.layer
        if self.projection is not None:
            content["projection"] = [self.projection.compressed_from, self.projection.digest]
        if self.arrays_sha256:
            content[ARRAYS] = self.arrays_sha256
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    def spelled(self) -> StoreHeader:
        """Returns the header with names of classes and patients composed (NFC), as they are compared.

        Where two classes of an older store would become one, all stay as they are.
        """
        classes = tuple(map(composed, self.classes))
        kept = self.classes if len(set(classes)) < len(classes) else classes
        return replace(self, classes=kept, patients=tuple(map(composed, self.patients)))

    def check_same(
        self, path: Path, other: StoreHeader, *, hint: str = "choose another store, or remove this one"
    ) -> None:
        """Compares this header, of the store at ``path``, with what a command was told.

        Args:
            path: The store, for the message.
            other: What the command was told.
            hint: What to do where they differ.

        Raises:
            InputError: Naming the first field that differs. Versions and times may differ, and the spelling of names.
        """
        # The files first, which say best what store this is; then the kind; last how it is kept.
        turn = {field.name: 1 for field in fields(FeatureKind)} | {"dtype": 2, "batch_size": 2, "pages": -1}
        names = (field.name for field in fields(self) if field.name not in ("versions", "created", "modified"))
        stored, told = self.spelled(), other.spelled()
        for name in sorted(names, key=lambda name: turn.get(name, 0)):
            mine, theirs = getattr(stored, name), getattr(told, name)
            if mine == theirs:
                continue
            expected, found = _shorten(theirs, mine)
            if name == "weights_sha256" and stored.drawn:
                hint = f"{DRAWN_OTHERWISE}; {hint}"
            raise InputError(path, field=name, expected=expected, found=found, hint=hint)


def _shorten(told: Any, stored: Any) -> tuple[str, str]:
    """Returns both values for a message; of long lists only the first entry that differs."""
    if isinstance(told, tuple) and isinstance(stored, tuple) and max(len(told), len(stored)) > 8:
        if len(told) != len(stored):
            return f"{len(told)} entries", f"{len(stored)}"
        row = next(i for i, pair in enumerate(zip(told, stored, strict=True)) if pair[0] != pair[1])
        return f"{told[row]!r} in row {row}", repr(stored[row])
    return repr(told), repr(stored)


def fixed_width(texts: tuple[str, ...]) -> npt.NDArray[Any]:
    """Returns texts as (n,) UTF-8 of one width, so that they lie contiguous in the file."""
    encoded = [text.encode() for text in texts]
    width = max(1, *(len(text) for text in encoded))
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", width))


def header_attributes(header: StoreHeader) -> dict[str, Any]:
    """Returns the attributes of a store that is not complete yet."""
    text = h5py.string_dtype("utf-8")
    return {
        "schema": np.int64(SCHEMA),
        "classes": np.array(header.classes, dtype=text),
        "views": np.array(header.views, dtype=text),
        "pages": header.pages,
        **header.origin,
        "alpha": np.float64(np.nan if header.alpha is None else header.alpha),
        "image_size": np.int64(header.image_size),
        "batch_size": np.int64(header.batch_size),
        "created": header.created,
        "versions": json.dumps(header.versions, sort_keys=True),
        "fingerprint": header.fingerprint,
        "complete": np.bool_(False),
        **({SOURCE: header.projection.compressed_from} if header.projection is not None else {}),
        **({ARRAYS: header.arrays_sha256} if header.arrays_sha256 else {}),
    }


def read_header(path: Path, file: Any) -> StoreHeader:
    """Reads and checks what a store says of itself.

    Args:
        path: The store, for messages.
        file: The store, opened through ``features.hdf5.door``.

    Raises:
        InputError: It is no store of this schema; the field is named.
    """
    attributes = Attributes(path, file)
    if "model_config" in attributes:
        found = "a head" if "kind" in attributes and attributes.text("kind") == "head" else "a Keras model"
        raise InputError(path, expected=EXPECTED, found=found)
    if "schema" not in attributes:
        hint = "features.convert reads the article's layout" if "batches" in file else None
        raise InputError(path, field="schema", expected=SCHEMA_TEXT, found="no such attribute", hint=hint)
    if (found := attributes.value("schema")) != SCHEMA:
        raise attributes.refusal("schema", SCHEMA_TEXT, shown(found))
    for name in REQUIRED:
        if name not in attributes:
            raise attributes.refusal(name, "an attribute of that name", "none")
    shape, dtype = _features_of(path, file)
    classes, views = _names(attributes, "classes"), _names(attributes, "views")
    if len(views) != shape[1]:
        raise attributes.refusal("views", f"{shape[1]} names", len(views))
    labels = _numbers(path, file, "labels", shape[0])
    if not all(0 <= label < len(classes) for label in labels):
        raise attributes.refusal("labels", f"0 to {len(classes) - 1}", "others")
    header = StoreHeader(
        classes=classes,
        paths=_texts(path, file, "paths", shape[0]),
        sizes=_numbers(path, file, "sizes", shape[0]) if "sizes" in file else (0,) * shape[0],
        labels=labels,
        patients=_texts(path, file, "patients", shape[0]),
        feature_shape=(shape[2], shape[3], shape[4]),
        views=views,
        pages=attributes.text("pages") if "pages" in attributes else "first",
        **_origin_of(attributes),
        dtype=dtype,
        batch_size=attributes.whole("batch_size", least=1) if "batch_size" in attributes else 32,
        created=attributes.text("created") if "created" in attributes else "",
        versions=attributes.json_object("versions", _versions) if "versions" in attributes else {},
        modified=_numbers(path, file, "modified", shape[0]) if "modified" in file else (),
        projection=read_projection(path, file),
        arrays_sha256=attributes.text(ARRAYS) if ARRAYS in attributes else "",
        parts=_parts(path, file, shape[0]),
    )
    if header.projection is not None and header.projection.kept != shape[4]:
        expected = f"as many directions as there are channels, {shape[4]}"
        raise InputError(path, field="projection", expected=expected, found=header.projection.kept)
    check_shown(path, header)
    return header


def check_shown(path: Path, kind: FeatureKind) -> None:
    """Refuses an unreadable intensity or an unknown resize mode.

    Raises:
        InputError: Naming the file and the field.
    """
    if kind.resize not in RESIZES:
        found = shortened(ascii(kind.resize), 80)
        raise InputError(path, field="resize", expected=f"one of {', '.join(RESIZES)}", found=found)
    try:
        parse_intensity(kind.intensity)
    except InputError as error:
        found = shortened(ascii(kind.intensity), 80)
        raise InputError(path, field="intensity", expected=GRAMMAR, found=found) from error


def _features_of(path: Path, file: Any) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of the features."""
    features = _dataset(path, file, "features")
    shape, dtype = tuple(int(side) for side in features.shape or ()), features.dtype.name
    if len(shape) != 5:
        raise InputError(path, field="features", expected="5 axes (rows, views, height, width, channels)", found=shape)
    if not all(shape):
        raise InputError(path, field="features", expected="at least one row, view, place and channel", found=shape)
    if dtype not in DTYPES or not features.dtype.isnative:
        found = dtype if features.dtype.isnative else f"{dtype} of another byte order"
        raise InputError(path, field="features", expected=" or ".join(DTYPES), found=found)
    return shape, dtype


def _dataset(path: Path, file: Any, name: str) -> Any:
    return inner_dataset(path, file, name, expected="a dataset of that name")


def _row_dataset(path: Path, file: Any, name: str, rows: int) -> Any:
    """A dataset with one value for each row, known to lie in the file as a whole before anything of it is read."""
    dataset = _dataset(path, file, name)
    if dataset.shape != (rows,):
        raise InputError(path, field=name, expected=f"shape ({rows},)", found=dataset.shape)
    dataset_offset(path, file, name)
    return dataset


def _numbers(path: Path, file: Any, name: str, rows: int) -> tuple[int, ...]:
    dataset = _row_dataset(path, file, name, rows)
    if dataset.dtype.kind not in "iu":
        raise InputError(path, field=name, expected="whole numbers", found=dataset.dtype)
    return tuple(dataset[:].tolist())


def _texts(path: Path, file: Any, name: str, rows: int) -> tuple[str, ...]:
    """Reads fixed-width UTF-8 in pieces: it takes the memory of the texts, however wide they are declared."""
    dataset = _row_dataset(path, file, name, rows)
    width = dataset.dtype.itemsize
    if dataset.dtype.kind != "S" or width > WIDEST:
        found = f"{dataset.dtype}" if dataset.dtype.kind != "S" else f"{width} bytes"
        raise InputError(path, field=name, expected=f"UTF-8 of one width, at most {WIDEST} bytes", found=found)
    texts: list[str] = []
    try:
        for start in range(0, rows, step := max(1, _PIECE_BYTES // width)):
            texts += [text.decode() for text in dataset[start : start + step].tolist()]
    except UnicodeDecodeError as error:
        raise InputError(
            path, field=name, expected="UTF-8", found=f"other bytes in row {len(texts)} or after"
        ) from error
    return tuple(texts)


def _parts(path: Path, file: Any, rows: int) -> tuple[str, ...]:
    if "parts" not in file:
        return ()
    parts = _texts(path, file, "parts", rows)
    for row, part in enumerate(parts):
        if part not in ("", *PARTS):
            raise InputError(path, field="parts", expected=f"one of {', '.join(PARTS)}", found=f"another in row {row}")
    return parts


def _names(attributes: Attributes, name: str) -> tuple[str, ...]:
    names = attributes.texts(name)
    if not names or len(set(names)) != len(names):
        raise attributes.refusal(name, "different names, at least one", shown(list(names)))
    return names


def _versions(data: dict[str, Any]) -> dict[str, str]:
    if not all(isinstance(version, str) for version in data.values()):
        raise ValueError("expected a text for each package")
    return data


def _origin_of(attributes: Attributes) -> dict[str, Any]:
    """Where the features come from, each attribute as the type of its default; an alpha of NaN is none."""
    origin: dict[str, Any] = {}
    for field in fields(FeatureKind):
        if field.name == "feature_shape" or field.name not in attributes:
            continue
        if field.name == "alpha":
            alpha = attributes.number("alpha", or_nan=True)
            origin["alpha"] = None if math.isnan(alpha) else alpha
        elif isinstance(field.default, int):
            origin[field.name] = attributes.whole(field.name, least=0)
        else:
            origin[field.name] = attributes.text(field.name)
    return origin


def read_states(path: Path, file: Any, rows: int) -> npt.NDArray[np.uint8]:
    """Returns the state of each row, (rows,) uint8.

    Raises:
        InputError: ``done`` is of another type or layout.
    """
    dataset = _row_dataset(path, file, "done", rows)
    if dataset.dtype != np.uint8:
        raise InputError(path, field="done", expected="uint8", found=dataset.dtype)
    states: npt.NDArray[np.uint8] = dataset[:]
    return states


def read_contents(path: Path, file: Any, rows: int) -> npt.NDArray[np.uint8] | None:
    """Returns the hash of each source file, (rows, DIGEST_BYTES) uint8; None in stores older than that.

    Raises:
        InputError: ``contents`` is of another type or shape.
    """
    if "contents" not in file:
        return None
    dataset = inner_dataset(path, file, "contents")
    if dataset.shape != (rows, DIGEST_BYTES) or dataset.dtype != np.uint8:
        expected, found = f"uint8 ({rows}, {DIGEST_BYTES})", f"{dataset.dtype} {dataset.shape}"
        raise InputError(path, field="contents", expected=expected, found=found)
    contents: npt.NDArray[np.uint8] = dataset[:]
    return contents


def dataset_offset(path: Path, file: Any, name: str) -> int:
    """Byte offset of a contiguous dataset, checked against the file's size (a copy may have been cut short).

    Raises:
        InputError: It has another layout, or does not lie in the file.
    """
    dataset = file[name]
    offset: int | None = dataset.id.get_offset()
    if offset is None or dataset.chunks is not None:
        raise InputError(path, field=name, expected="a contiguous dataset", found="another layout")
    end = offset + math.prod(dataset.shape) * dataset.dtype.itemsize
    if path.stat().st_size < end:
        raise InputError(path, field=name, expected=f"a file of at least {end} bytes", found=path.stat().st_size)
    return offset
