"""Several stores of the same images in one go: which backbones at which sizes, and what each store is called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from features.extraction.applications import BACKBONES
from features.extraction.backbone_spec import IMAGENET, RANDOM, BackboneSpec
from features.runtime.errors import InputError
from features.runtime.text import composed

SUFFIX = ".h5"
"""Of a store that is called after what it was made with."""
_SIZE = re.compile(r"-?\d{1,9}", re.ASCII)
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


def backbones_of(told: str) -> tuple[str, ...]:
    """Returns the backbones that ``--backbone`` names; a file's name may have a comma in it.

    Raises:
        InputError: There is nothing between two commas.
    """
    if "," not in told or told in BACKBONES or _is_file(told):
        return (told,)
    parts = _parts(told)
    if "" in parts:
        raise InputError("--backbone", expected="names joined by commas", found=repr(told))
    return tuple(parts)


def sizes_of(told: str | None) -> tuple[int | None, ...]:
    """Returns the sizes that ``--image-size`` names; None for the backbone's own.

    Raises:
        InputError: One is no whole number, or is there twice.
    """
    if told is None:
        return (None,)
    sizes: list[int] = []
    for part in map(str.strip, told.split(",")):
        if not _SIZE.fullmatch(part):
            raise InputError(
                "--image-size", expected="a whole number of pixels, or several joined by commas", found=repr(part)
            )
        if int(part) in sizes:
            raise InputError("--image-size", expected="every size once", found=f"{int(part)} twice")
        sizes.append(int(part))
    return tuple(sizes)


def combined(
    backbone: str, image_size: str | None, *, layer: str, weights: str, alpha: float | None, preprocessing: str
) -> dict[str, BackboneSpec]:
    """Returns every backbone at every size, by the names of their stores.

    Args:
        backbone: As ``--backbone`` has it: one, or several joined by commas.
        image_size: As ``--image-size`` has it: the same.
        layer: '', or for several backbones as many, with nothing for a backbone's own output.
        weights: For several backbones as many, or one that is no file; nothing stands for what a backbone has itself.
        alpha: Of all.
        preprocessing: For several backbones as many, or one.

    Raises:
        InputError: A backbone or an option does not fit, or two stores would have the same name.
    """
    names, sizes = backbones_of(backbone), sizes_of(image_size)
    layers = _for_each("--layer", layer, len(names), for_all=not layer)
    loaded = _for_each("--weights", weights, len(names), for_all=weights == IMAGENET or bool(RANDOM.fullmatch(weights)))
    modes = _for_each("--preprocessing", preprocessing, len(names), for_all=True)
    _refuse_twice(names, layers)
    made: dict[str, BackboneSpec] = {}
    for name, layer_of, weights_of, mode in zip(names, layers, loaded, modes, strict=True):
        for size in sizes:
            spec = BackboneSpec(
                name=name,
                layer=layer_of,
                weights=weights_of or IMAGENET,
                image_size=size,
                alpha=alpha,
                preprocessing=mode or BackboneSpec.preprocessing,
            )
            title = _title(spec)
            if (other := _alike(title, made)) is not None:
                expected = "names that differ, as each store is called after its backbone"
                found = f"{other.name} and {name}, both {title}{SUFFIX}"
                raise InputError("--backbone", expected=expected, found=found)
            made[title] = spec
    return made


def places_in(folder: Path, specs: Mapping[str, BackboneSpec]) -> dict[Path, BackboneSpec]:
    """Returns where in a folder the stores are, or will be.

    Raises:
        InputError: It is a file, or called as one.
    """
    expected = f"a folder, for {len(specs)} stores, one for each backbone and size"
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, expected=expected, found="a file")
    if folder.suffix.lower() in (SUFFIX, ".hdf5") and not folder.exists():
        raise InputError(folder, expected=expected, found="the name of a file")
    return {folder / f"{name}{SUFFIX}": spec for name, spec in specs.items()}


def _title(spec: BackboneSpec) -> str:
    """``mobilenet_v2-224``, with the layer where it is cut: ``mobilenet_v2-block_13_expand_relu-224``."""
    words = (
        spec.name if spec.file is None else spec.file.path.stem,
        _NOT_IN_NAMES.sub("_", spec.layer),
        str(spec.size),
    )
    return "-".join(word for word in words if word)


def _alike(title: str, made: Mapping[str, BackboneSpec]) -> BackboneSpec | None:
    """The one among ``made`` whose store some file systems take for the same."""
    same = (spec for name, spec in made.items() if composed(name).casefold() == composed(title).casefold())
    return next(same, None)


def _refuse_twice(names: tuple[str, ...], layers: tuple[str, ...]) -> None:
    met: set[tuple[str, str]] = set()
    for name, layer in zip(names, layers, strict=True):
        if (name, layer) in met:
            found = f"{name}{f' cut at {layer}' if layer else ''} twice"
            raise InputError("--backbone", expected="every backbone once", found=found)
        met.add((name, layer))


def _for_each(option: str, told: str, count: int, *, for_all: bool) -> tuple[str, ...]:
    """What an option says of each backbone; with one backbone it is not taken apart."""
    if count == 1 or (for_all and "," not in told):
        return (told,) * count
    parts = _parts(told)
    if len(parts) != count:
        expected = f"{count} joined by commas, one for each backbone"
        raise InputError(option, expected=expected, found=f"{len(parts)}: {told}")
    return tuple(parts)


def _parts(told: str) -> list[str]:
    """What stands between the commas, but for those in the name of a file."""
    return [*_taken_apart(told.split(","))]


def _taken_apart(pieces: list[str]) -> Iterator[str]:
    start = 0
    while start < len(pieces):
        ends = range(len(pieces), start + 1, -1)
        end = next((end for end in ends if _is_file(",".join(pieces[start:end]).strip())), start + 1)
        yield ",".join(pieces[start:end]).strip()
        start = end


def _is_file(path: str) -> bool:
    with suppress(OSError, ValueError):  # as of a name that is too long for one
        return Path(path).is_file()
    return False
