"""The backbone that a head's features came from, built again from what the head's file says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from features.extraction.backbone_spec import IMAGENET, BackboneSpec, recorded_options
from features.extraction.backbones import Backbone, build_backbone
from features.extraction.network_file import read_network
from features.runtime.errors import InputError
from features.runtime.files import why_no_file
from features.runtime.options import option_name, text_of
from features.runtime.text import printable
from features.store.kind import DRAWN_OTHERWISE
from heads.files.metadata import HeadMetadata

_WITHOUT_FILE = re.compile(r"imagenet|random(:\d+)?")


class NamedBackbone(BaseModel):
    """What a user says of a head's backbone, where the head's file does not say it; the options of a command.

    Attributes:
        backbone: Its name in keras.applications, or the file that it is in; a head's file records only the file's name.
        layer: Whose output the features are, where that is not the backbone's own.
        weights: ``imagenet``, ``random:SEED`` or a file; a head's file records only the name of a file.
        alpha: Width multiplier.
        image_size: Side in pixels of the square that it is shown.
        preprocessing: One of ``features.extraction.backbone_spec.PREPROCESSINGS``.
        resize: How images become squares: ``squash``, ``pad`` or ``crop``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Annotated[str | None, BeforeValidator(text_of)] = Field(
        default=None, description="Backbone, where the head's file does not name it; the file, where it is in a file."
    )
    layer: str | None = Field(default=None, description="Its layer, where that is not its own output.")
    weights: Annotated[str | None, BeforeValidator(text_of)] = Field(
        default=None, description="Its weights; the file, where they came from a file."
    )
    alpha: float | None = Field(default=None, description="Its width multiplier.")
    image_size: int | None = Field(default=None, description="Side in pixels of what it is shown.")
    preprocessing: str | None = Field(default=None, description="backbone, unit (x / 255), tf, torch, caffe or none.")
    resize: Literal["squash", "pad", "crop"] | None = Field(
        default=None, description="squash, pad or crop, where the head's file does not say how images become squares."
    )


def backbone_spec(head: Path, metadata: HeadMetadata, named: NamedBackbone | None = None) -> BackboneSpec:
    """Returns which backbone a head needs: as its file says, or as named where the file does not say.

    Args:
        head: The head's file, for messages; a backbone's file may lie beside it.
        metadata: What it says of itself.
        named: What the user says; nothing by default.

    Raises:
        InputError: Something is not known and not named, or named otherwise than the file says; or the backbone's file
            is not found, or another one.
    """
    recorded = recorded_options(metadata)
    given = named or NamedBackbone()
    if metadata.backbone_sha256:
        found = _backbone_file(head, metadata, given.backbone)
        recorded |= {"name": found, "weights": None}
        given = given.model_copy(update={"backbone": found})
    chosen: dict[str, Any] = {}
    for name in ("name", "layer", "alpha", "image_size", "preprocessing"):
        option, says = _option(name), recorded[name]
        value = getattr(given, "backbone" if name == "name" else name)
        unsaid = says is None and recorded["name"] is not None
        if unsaid and name in ("alpha", "layer") and value not in (None, "", 1.0):
            raise InputError(option, expected=f"none, as {head} says", found=value)
        if None not in (says, value) and says != value:
            raise InputError(option, expected=f"{says}, as {head} says", found=value)
        chosen[name] = value if says is None else says
    if metadata.image_size and given.resize not in (None, metadata.resize):
        raise InputError("--resize", expected=f"{metadata.resize}, as {head} says", found=given.resize)
    if chosen["name"] is None and metadata.feature_shape[:2] == (1, 1):
        hint = "heads.predict and heads.evaluate take a store of such vectors; there is no image to show or to explain"
        found = "none: it was trained on vectors that were made elsewhere"
        raise InputError(head, field="backbone", expected="one that makes features of images", found=found, hint=hint)
    chosen["layer"] = chosen["layer"] or ""
    for name in ("name", "preprocessing"):
        if chosen[name] is None:
            hint = "the head's file does not say; features of another kind would give meaningless classes"
            raise InputError(_option(name), expected=f"the one that {head} was trained with", found="none", hint=hint)
    return BackboneSpec(weights=given.weights or _recorded_weights(recorded["weights"]), **chosen)


def _option(name: str) -> str:
    """The option that names a field of ``BackboneSpec``."""
    return option_name("backbone" if name == "name" else name)


def _backbone_file(head: Path, metadata: HeadMetadata, given: str | None) -> str:
    """The file that a head's backbone is in: as it is told, or by its name here or beside the head."""
    name = metadata.backbone
    places = [Path(given)] if given else [Path(name), head.parent / name]
    hashes = {path: read_network(path).sha256 for path in places if not why_no_file(path)}
    if not hashes:
        missing = f"{given!r}, no such file" if given else "none"
        raise InputError("--backbone", expected=f"where the file {printable(name)} is", found=missing)
    for path, sha256 in hashes.items():
        if sha256 == metadata.backbone_sha256:
            return str(path)
    path, sha256 = next(iter(hashes.items()))
    expected = f"{metadata.backbone_sha256[:16]}, the {printable(name)} that {head} was trained with"
    raise InputError(path, field="sha256", expected=expected, found=sha256[:16])


def _recorded_weights(name: str | None) -> str:
    if name is None:
        return IMAGENET
    if not _WITHOUT_FILE.fullmatch(name) and why_no_file(Path(name)):
        raise InputError("--weights", expected=f"where the file {name} is", found="none")
    return name


def rebuild_backbone(head: Path, metadata: HeadMetadata, spec: BackboneSpec) -> Backbone:
    """Builds the backbone and makes sure that it is the head's.

    Raises:
        InputError: Its weights are not those that the head's file names by their hash, or its features have another
            shape than the head takes.
    """
    backbone = build_backbone(spec)
    if backbone.feature_shape != metadata.feature_shape:
        expected = f"a backbone with features {metadata.feature_shape}, as {head} takes"
        found = f"{backbone.feature_shape} of {spec.title} at {spec.size} pixels"
        raise InputError("--backbone", expected=expected, found=found)
    if metadata.weights_sha256 and backbone.weights_sha256 != metadata.weights_sha256:
        expected = f"{metadata.weights} with hash {metadata.weights_sha256[:16]}, as {head} says"
        found = f"{backbone.weights_name} with hash {backbone.weights_sha256[:16]}"
        hint = f"{DRAWN_OTHERWISE}: take that of the features" if metadata.drawn else None
        raise InputError("--weights", expected=expected, found=found, hint=hint)
    return backbone
