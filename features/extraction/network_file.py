"""A backbone in a Keras file, read as data: what it is, and that it holds nothing but layers of Keras' own.

A .keras file is a ZIP archive of a configuration (JSON) and of weights (HDF5); an .h5 file has the configuration as an
attribute. Here that JSON is read, and every class that it names is looked at, before Keras sees any of it: code of the
file's own (Lambda layers), classes of others and layers that load more files are refused by name. Nothing here starts
Keras; ``features.extraction.network`` builds what was read.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from features.hdf5.door import opened, reading
from features.hdf5.values import Attributes
from features.runtime.errors import InputError
from features.runtime.files import require_file, why_no_file
from features.runtime.json_files import parse_json
from features.runtime.text import printable, shortened

EXPECTED = "a network (.keras or .h5 as Keras saves a whole model)"
SUFFIXES = (".keras", ".h5", ".hdf5")
CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
CHANNELS = (1, 3)
"""Of images that a backbone may take: grey, or red, green and blue."""
_START = b"PK\3\4"
_MOST_TEXT = 2**26
"""Bytes of a configuration; that of the largest network of keras.applications takes two millions."""
_MOST_PACKED = 100
"""Bytes that one byte of an archive may stand for: Keras packs nothing, and float32 can hardly be packed."""
_SMALL = 2**14
"""Bytes of weights, packed, that count for more than they are: empty space in a small HDF5 file packs well."""
_CODE = ("Lambda", "__lambda__", "TFOpLambda", "SlicingOpLambda")
_LOADING = (
    *("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__typespec__"),
    *("StringLookup", "IntegerLookup", "TextVectorization"),
)
"""Layers of Keras' own that read other files, or run what is in them."""
_BEFORE_SCALING = (
    *("InputLayer", "Resizing", "CenterCrop", "ZeroPadding2D", "Identity", "Cast", "GetItem", "Stack", "RandomFlip"),
    *("RandomRotation", "RandomZoom", "RandomTranslation", "RandomCrop", "RandomContrast", "RandomBrightness"),
    "Concatenate",  # of channels that were taken apart, as ``Stack``
)
"""Layers that leave numbers on their scale: what comes after them may be what scales."""
_SCALING = ("Rescaling", "Normalization", "TrueDivide", "Divide", "Multiply", "Subtract", "Add")
_MODELS = ("Functional", "Sequential", "Model")


@dataclass(frozen=True)
class NetworkFile:
    """What a file says of its network.

    Attributes:
        path: The file.
        sha256: Hash of its bytes.
        config: The network's configuration, JSON decoded, without what it was compiled with.
        classes: (module, class) of all that Keras would make of it; the module is '' in files of older versions.
        input_shape: (height, width, channels) of what it takes, None where that is free; None where it is not said.
        rescales: Whether its first layers bring pixels of 0 to 255 to another scale.
        archive: Whether it is a .keras file, and no HDF5.
    """

    path: Path
    sha256: str
    config: dict[str, Any]
    classes: frozenset[tuple[str, str]]
    input_shape: tuple[int | None, ...] | None
    rescales: bool
    archive: bool

    @property
    def size(self) -> int | None:
        """Side in pixels of the square that it takes; None where that is free."""
        return None if self.input_shape is None else self.input_shape[0]

    def check_input(self, shape: tuple[int | None, ...]) -> None:
        """Refuses a network that does not take square images.

        Args:
            shape: (height, width, channels) that it takes, None where that is free.

        Raises:
            InputError: Naming the file.
        """
        if len(shape) != 3 or shape[2] not in CHANNELS or shape[0] != shape[1]:
            expected = "a network of square images, (size, size, 3) or (size, size, 1)"
            raise InputError(self.path, field="input", expected=expected, found=_shown(shape))


def is_network_file(name: str) -> bool:
    """Whether the name of a backbone is that of a file."""
    return name.lower().endswith(SUFFIXES) or not why_no_file(Path(name))


def read_network(path: Path) -> NetworkFile:
    """Reads and checks a file; once, as long as it stays the same.

    Raises:
        InputError: It is no network, is damaged, takes no images, or holds what is not Keras' own.
    """
    require_file(path, EXPECTED)
    about = path.stat()
    return _read(path, about.st_ino, about.st_size, about.st_mtime_ns)


@cache
def _read(path: Path, *about: int) -> NetworkFile:
    with reading(path, EXPECTED), path.open("rb") as raw:
        archive = raw.read(len(_START)) == _START
        raw.seek(0)
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
    with reading(path, EXPECTED):
        config = _uncompiled(parse_json(_archived(path) if archive else _attribute(path), finite=False))
        classes = frozenset(_checked(path, config))
        if not isinstance(config, dict) or config.get("class_name") not in _MODELS:
            found = _shown(config.get("class_name")) if isinstance(config, dict) else "something else"
            raise InputError(path, expected=EXPECTED, found=found)
        shape, rescales = _input_shape(config), bool(_rescales(config))
    file = NetworkFile(path, digest, config, classes, shape, rescales, archive)
    if shape is not None:
        file.check_input(shape)
    return file


def _archived(path: Path) -> bytes:
    with reading(path, EXPECTED), zipfile.ZipFile(path) as archive:
        if not {CONFIG, WEIGHTS} <= {*archive.namelist()}:
            raise InputError(path, expected=EXPECTED, found="a ZIP archive that is no .keras file")
        config, weights = archive.getinfo(CONFIG), archive.getinfo(WEIGHTS)
        if config.file_size > _MOST_TEXT:
            raise InputError(path, field=CONFIG, expected=f"at most {_MOST_TEXT} bytes", found=config.file_size)
        if weights.file_size > _MOST_PACKED * (weights.compress_size + _SMALL):
            found = f"{weights.file_size} bytes packed into {weights.compress_size}"
            raise InputError(path, field=WEIGHTS, expected="weights that are hardly packed", found=found)
        return archive.read(config)


def _attribute(path: Path) -> str:
    with opened(path, EXPECTED) as file:
        attributes = Attributes(path, file)
        if "model_config" in attributes:
            return attributes.text("model_config")
        layered = "layer_names" in attributes or "layers" in file or "_layer_checkpoint_dependencies" in file
        hint = "name the network with --backbone, and pass this file with --weights" if layered else None
        found = "weights without their network" if layered else "an HDF5 file without model_config"
        raise InputError(path, expected=EXPECTED, found=found, hint=hint)


def _uncompiled(entry: Any) -> Any:
    """The same without losses and optimizers, of which nothing is needed."""
    if isinstance(entry, dict):
        return {key: _uncompiled(value) for key, value in entry.items() if key != "compile_config"}
    return [_uncompiled(value) for value in entry] if isinstance(entry, list) else entry


def _checked(path: Path, config: Any) -> Iterator[tuple[str, str]]:
    """Yields module and class of every object in a configuration, once it is known to be Keras' own.

    Raises:
        InputError: Naming the first that is not.
    """
    left = [config]
    while left:
        entry = left.pop()
        if isinstance(entry, dict):
            left += entry.values()
            if "class_name" in entry:
                yield _identity(path, entry)
        elif isinstance(entry, list):
            left += entry


def _identity(path: Path, entry: dict[str, Any]) -> tuple[str, str]:
    kind, module, registered = (entry.get(key) for key in ("class_name", "module", "registered_name"))
    if not isinstance(kind, str) or not isinstance(module or "", str):
        raise InputError(path, field="class_name", expected="a class of Keras' own", found=_shown(kind))
    settings = entry.get("config")
    name = settings.get("name") if isinstance(settings, dict) else None
    field = f"layer {_shown(name)}" if isinstance(name, str) else "network"
    if kind in _CODE:
        found, hint = f"a {kind}, which holds code", "code from a file is not run; Rescaling and the like do without"
        raise InputError(path, field=field, expected="layers of Keras' own", found=found, hint=hint)
    if kind in _LOADING:
        raise InputError(path, field=field, expected="layers that need nothing but this file", found=f"a {kind}")
    if kind == "function" and isinstance(settings, str):  # its config is its name
        kind, registered = settings, None
        module = "keras.activations" if module == "builtins" else module
    outside = bool(module) and str(module).split(".")[0] != "keras"
    if outside or ">" in kind or (registered is not None and registered != kind):
        where = f" of module {printable(str(module))}" if outside else f", registered as {_shown(registered or kind)}"
        found = f"the custom class {printable(kind)}{where}"
        hint = "a network of Keras' own layers does without; or make the features yourself, and features.convert them"
        raise InputError(path, field=field, expected="layers of Keras' own", found=found, hint=hint)
    return module or "", kind


def _layers(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers of a model's configuration, in the order in which data passes them."""
    settings = config.get("config")
    layers = settings.get("layers") if isinstance(settings, dict) else settings  # a list, of the oldest Sequentials
    return [layer for layer in layers or [] if isinstance(layer, dict) and isinstance(layer.get("config"), dict)]


def _input_shape(config: dict[str, Any]) -> tuple[int | None, ...] | None:
    for layer in _layers(config)[:1]:
        if layer.get("class_name") in _MODELS:
            return _input_shape(layer)
        shape = layer["config"].get("batch_shape") or layer["config"].get("batch_input_shape")
        if isinstance(shape, list) and all(side is None or type(side) is int for side in shape):
            return tuple(shape[1:])
    return None


def _rescales(config: dict[str, Any]) -> bool | None:
    """Whether the first layer that is of consequence scales; None where there is none."""
    for layer in _layers(config):
        kind = layer.get("class_name")
        if kind in _MODELS:
            if (found := _rescales(layer)) is not None:
                return found
        elif kind in _SCALING:
            return True
        elif kind not in _BEFORE_SCALING:
            return False
    return None


def _shown(value: Any) -> str:
    return shortened(printable(value if isinstance(value, str) else repr(value)), 60)
