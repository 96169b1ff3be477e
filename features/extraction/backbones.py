"""The frozen networks that turn images into bottlenecks: size, preprocessing, weights, hash."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from features.extraction.applications import BACKBONES
from features.extraction.backbone_spec import IMAGENET, BackboneSpec
from features.extraction.network import NetworkLayer, as_map, cut, layers_of, load_network
from features.extraction.network_file import is_network_file, read_network
from features.extraction.preprocessing import Preprocessing
from features.extraction.random_weights import randomise
from features.hdf5.door import opened
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import temporary_folder
from features.runtime.keras_settings import layer_names_from_zero, nothing_drawn
from features.runtime.portable import give_name
from features.runtime.text import shortened
from features.runtime.unseen import keras_unseen, warnings_unseen

_DOWNLOAD_TIMEOUT_S = 10
_timing = Lock()


class Backbone:
    """A frozen network with its preprocessing, cut at a layer where one is named.

    Attributes:
        spec: What it was built from.
        model: keras.Model from preprocessed images (batch, size, size, channels) float32 to what it says of them; not
            trainable.
        image_size: Side in pixels of the square that it is shown.
        feature_shape: (height, width, channels) of one bottleneck.
        weights_name: ``imagenet``, ``random:SEED`` or the file's name.
        weights_sha256: Hash over the weight arrays and their shapes, in the order of the network as it was before it
            was cut.
        remark: What the user should know of how the output became a map; '' for nothing.
    """

    def __init__(self, spec: BackboneSpec, model: Any) -> None:
        import keras

        model.trainable = False
        self.spec = spec
        self.model = cut(model, spec.layer) if spec.layer else model
        self.image_size = spec.size
        self.weights_name = spec.weights_name
        self.weights_sha256 = _sha256_of(model, spec.title)
        self._preprocessing = Preprocessing.of(spec, model)
        self._program, self.remark = self._with_preprocessing("uint8")
        height, width, channels = self._program.output_shape[1:]
        self.feature_shape: tuple[int, int, int] = (height, width, channels)
        # Asked for, XLA compiles for the CPU 14 times slower depthwise convolutions than TensorFlow's own kernels;
        # JAX always compiles with XLA.
        self._program.compile(jit_compile=keras.backend.backend() == "jax")

    def features(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Computes bottlenecks in one compiled program for each batch size that it meets.

        Args:
            images: (batch, size, size, 3), RGB.

        Returns:
            (batch, height, width, channels).

        Raises:
            BottleneckError: The batch does not fit into memory.
        """
        try:
            return np.asarray(self._program.predict_on_batch(images), np.float32)
        except Exception as error:
            if not _out_of_memory(error):
                raise
            raise BottleneckError(
                f"{self.spec.title}: not enough memory for {len(images)} images of {self.image_size} x"
                f" {self.image_size} pixels at once: use a smaller --batch-size"
            ) from error

    def image_model(self) -> Any:
        """Returns a plain keras.Model from RGB images (batch, size, size, 3) float32, 0 to 255, to features."""
        return self._with_preprocessing("float32")[0]

    def _with_preprocessing(self, dtype: str) -> tuple[Any, str]:
        import keras

        images = keras.Input((self.image_size, self.image_size, 3), dtype=dtype, name="images")
        what = f"the output of {self.spec.layer or self.spec.title}"
        features, remark = as_map(self.model(self._preprocessing.apply(images)), what)
        name = self.spec.name if self.spec.file is None else self.model.name
        return keras.Model(images, features, name=f"{name}_on_images"), remark


def _out_of_memory(error: Exception) -> bool:
    """TensorFlow has a class of its own for it, JAX a status in the message."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "ResourceExhaustedError"}) or "RESOURCE_EXHAUSTED" in str(error)


def build_backbone(spec: BackboneSpec) -> Backbone:
    """Builds a backbone and loads, downloads or draws its weights.

    Raises:
        InputError: The weights do not fit, or cannot be downloaded; the file holds what is not Keras' own; or there is
            no such layer, or it has no map.
    """
    if spec.file is not None:
        return Backbone(spec, load_network(spec.file))
    with layer_names_from_zero() if spec.layer else nullcontext():  # which is then one that --list-layers has said
        model = _construct(spec, IMAGENET if spec.weights == IMAGENET else None)
    if spec.seed is not None:
        randomise(model, spec, spec.seed)
    elif spec.weights != IMAGENET:
        _load(model, spec)
    return Backbone(spec, model)


def build_untrained(spec: BackboneSpec) -> Backbone:
    """Builds a backbone without weights, whichever are named: nothing is downloaded, read or drawn.

    It computes as long as with its weights, and nothing of use. One from a file has the file's weights.

    Raises:
        InputError: As ``build_backbone``, but for weights.
    """
    return Backbone(spec, _construct(spec, None) if spec.file is None else load_network(spec.file))


def list_layers(name: str, *, alpha: float | None = None, image_size: int | None = None) -> list[NetworkLayer]:
    """Returns the layers of a backbone that ``--layer`` can name.

    Args:
        name: As in ``BackboneSpec``; no weights are loaded for one of ``BACKBONES``.
        alpha: Width multiplier, for a backbone that has one.
        image_size: Side in pixels of the square that it is shown; its own size where None.

    Raises:
        InputError: There is no such backbone.
    """
    if name not in BACKBONES and is_network_file(name):
        return layers_of(load_network(read_network(Path(name))))
    spec = BackboneSpec(name=name, weights="random", alpha=alpha, image_size=image_size)
    with layer_names_from_zero():
        return layers_of(_construct(spec, None))


def _construct(spec: BackboneSpec, weights: str | None) -> Any:
    import keras

    options: dict[str, Any] = {} if spec.alpha is None else {"alpha": spec.alpha}
    factory = getattr(keras.applications, spec.architecture.factory)
    try:
        # Keras reports its download on standard output, and warns where a size is not one of its own
        with keras_unseen(), warnings_unseen(), nothing_drawn(), _download_timeout():
            return factory(include_top=False, weights=weights, input_shape=(spec.size, spec.size, 3), **options)
    except Exception as error:  # Keras raises a bare Exception where a download fails
        if weights is None:
            raise InputError("--backbone", expected=f"what {spec.name} can be built with", found=error) from error
        reason = str(error).rpartition(" -- ")[2]
        raise InputError(
            "--weights",
            expected=f"to download {spec.name}'s imagenet weights",
            found=f"no way to them ({reason})",
            hint=f"pass a file with --weights FILE.h5, e.g. a copy of {_url_in(str(error))}",
        ) from error


def _url_in(message: str) -> str:
    found = re.search(r"https://\S+\.h5", message)
    return found[0] if found else "the no_top file that keras.applications publishes"


@contextmanager
def _download_timeout() -> Iterator[None]:
    """A host that does not answer must not hold a command for minutes. The limit is all threads': one is within."""
    with _timing:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
        try:
            yield
        finally:
            socket.setdefaulttimeout(before)


def _load(model: Any, spec: BackboneSpec) -> None:
    path = Path(spec.weights)
    expected = f"the weights of {spec.name}" + ("" if spec.alpha is None else f" with alpha {spec.alpha:g}")
    expected += " without its top (include_top=False)"
    with opened(path, expected, locking=None) as file:  # as Keras opens it
        layered = "layer_names" in file.attrs or "model_weights" in file
    try:
        _load_weights(model, path, layered=layered)
    except BottleneckError:
        raise
    except Exception as error:  # a file that is no weights file makes Keras stumble anywhere
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(path, expected=expected, found=f"others ({shortened(lines[0].rstrip('.'), 160)})") from error
    if not all(np.isfinite(array).all() for array in model.get_weights()):
        raise InputError(path, expected=expected, found="weights that are not finite")


def _load_weights(model: Any, path: Path, *, layered: bool) -> None:
    """``load_weights`` tells its two formats by the ending alone; here the content decides."""
    endings = (".h5", ".hdf5") if layered else (".weights.h5",)
    if path.name.endswith(endings) and path.name.endswith(".weights.h5") != layered:
        model.load_weights(path)
        return
    with temporary_folder("weights-") as folder:
        alias = folder / f"alias{endings[0]}"
        give_name(path, alias)
        model.load_weights(alias)


def _sha256_of(model: Any, name: str) -> str:
    digest = hashlib.sha256()
    for array in model.get_weights():
        if not np.isfinite(array).all():
            raise BottleneckError(f"the weights of {name} are not finite")
        digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
