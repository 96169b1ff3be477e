"""The frozen networks of keras.applications that turn images into bottlenecks: size, preprocessing, weights, hash."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import socket
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from features.errors import BottleneckError, InputError

PREPROCESSINGS = ("backbone", "unit")
IMAGENET = "imagenet"
_LARGEST_SIZE = 4096
_RANDOM = re.compile(r"random(?::(?P<seed>\d{1,9}))?")
_DOWNLOAD_TIMEOUT_S = 10
_CALIBRATION_IMAGES = 32
_CALIBRATION_PIXELS = 2**19
"""Pixels that go through the network at once: about 1 GB of activations."""
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, as keras.applications has them."""
_CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Of blue, green and red."""


@dataclass(frozen=True)
class Architecture:
    """One network of keras.applications.

    Attributes:
        factory: Its function in ``keras.applications``.
        image_size: Side in pixels that its ImageNet weights were trained with.
        smallest: The least side that it accepts.
        mode: Its ``preprocess_input``: ``tf`` (-1 to 1), ``torch`` (0 to 1, then standardised), ``caffe`` (BGR, means
            subtracted) or ``none`` (the network does it itself).
        alphas: Width multipliers that have ImageNet weights; none where the network has no multiplier.
    """

    factory: str
    image_size: int
    smallest: int
    mode: str
    alphas: tuple[float, ...] = ()


BACKBONES: Mapping[str, Architecture] = MappingProxyType(
    {
        "inception_v3": Architecture("InceptionV3", 299, 75, "tf"),
        "xception": Architecture("Xception", 299, 71, "tf"),
        "mobilenet": Architecture("MobileNet", 224, 32, "tf", (0.25, 0.5, 0.75, 1.0)),
        "mobilenet_v2": Architecture("MobileNetV2", 224, 32, "tf", (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)),
        "resnet50": Architecture("ResNet50", 224, 32, "caffe"),
        "resnet101": Architecture("ResNet101", 224, 32, "caffe"),
        "resnet50_v2": Architecture("ResNet50V2", 224, 32, "tf"),
        "densenet121": Architecture("DenseNet121", 224, 32, "torch"),
        "densenet169": Architecture("DenseNet169", 224, 32, "torch"),
        "vgg16": Architecture("VGG16", 224, 32, "caffe"),
        "vgg19": Architecture("VGG19", 224, 32, "caffe"),
        "efficientnet_b0": Architecture("EfficientNetB0", 224, 32, "none"),
        "efficientnet_b1": Architecture("EfficientNetB1", 240, 32, "none"),
        "efficientnet_b2": Architecture("EfficientNetB2", 260, 32, "none"),
        "efficientnet_b3": Architecture("EfficientNetB3", 300, 32, "none"),
    }
)
"""What ``--backbone`` accepts."""


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Which backbone, with which weights, shown what.

    Attributes:
        name: One of ``BACKBONES``.
        weights: ``imagenet`` (downloaded by Keras), ``random``, ``random:SEED``, or a file (.h5, .weights.h5).
        image_size: Side in pixels of the square that it is shown; its own size where None.
        alpha: Width multiplier, for a backbone that has one.
        preprocessing: ``backbone`` for what keras.applications defines, ``unit`` for x / 255.
    """

    name: str = "inception_v3"
    weights: str = IMAGENET
    image_size: int | None = None
    alpha: float | None = None
    preprocessing: str = "backbone"

    def __post_init__(self) -> None:
        if self.name not in BACKBONES:
            raise InputError("--backbone", expected=f"one of {', '.join(BACKBONES)}", found=self.name)
        self._check_alpha()
        smallest = self.architecture.smallest
        if not smallest <= self.size <= _LARGEST_SIZE:
            expected = f"{smallest} to {_LARGEST_SIZE} pixels for {self.name}"
            raise InputError("--image-size", expected=expected, found=self.size)
        if self.preprocessing not in PREPROCESSINGS:
            raise InputError("--preprocessing", expected=" or ".join(PREPROCESSINGS), found=self.preprocessing)
        if self.preprocessing == "unit" and self.architecture.mode == "none":
            hint = "it would see almost the same for every image"
            raise InputError(
                "--preprocessing", expected=f"backbone: {self.name} rescales its input itself", found="unit", hint=hint
            )
        if self.seed is None and self.weights != IMAGENET and not Path(self.weights).is_file():
            expected = "imagenet, random, random:SEED or a file (.h5, .weights.h5)"
            raise InputError("--weights", expected=expected, found=f"{self.weights!r}, no such file")

    def _check_alpha(self) -> None:
        alphas = self.architecture.alphas
        if self.alpha is None:
            return
        if not alphas:
            having = ", ".join(name for name, architecture in BACKBONES.items() if architecture.alphas)
            raise InputError("--alpha", expected=f"a backbone with a width multiplier ({having})", found=self.name)
        if self.weights == IMAGENET and self.alpha not in alphas:
            shown = ", ".join(f"{alpha:g}" for alpha in alphas)
            raise InputError("--alpha", expected=f"one of {shown} for {self.name}'s imagenet weights", found=self.alpha)
        if not 0 < self.alpha <= 4:
            raise InputError("--alpha", expected="a number above 0, at most 4", found=self.alpha)

    @property
    def architecture(self) -> Architecture:
        """The entry of ``BACKBONES``."""
        return BACKBONES[self.name]

    @property
    def size(self) -> int:
        """Side in pixels of the square that the backbone is shown."""
        return self.architecture.image_size if self.image_size is None else self.image_size

    @property
    def seed(self) -> int | None:
        """Seed of random weights; None where the weights are others."""
        match = _RANDOM.fullmatch(self.weights)
        return int(match["seed"] or 0) if match else None

    @property
    def weights_name(self) -> str:
        """``imagenet``, ``random:SEED`` or the file's name."""
        return Path(self.weights).name if self.seed is None else f"random:{self.seed}"


class Backbone:
    """A frozen network with its preprocessing.

    Attributes:
        spec: What it was built from.
        model: keras.Model from preprocessed images (batch, size, size, 3) float32 to features; not trainable.
        image_size: Side in pixels of the square that it is shown.
        feature_shape: (height, width, channels) of one bottleneck.
        weights_name: ``imagenet``, ``random:SEED`` or the file's name.
        weights_sha256: Hash over the weight arrays and their shapes, in the model's order.
    """

    def __init__(self, spec: BackboneSpec, model: Any) -> None:
        import keras  # noqa: PLC0415  the command chooses the backend first

        model.trainable = False
        self.spec = spec
        self.model = model
        self.image_size = spec.size
        height, width, channels = model.output_shape[1:]
        self.feature_shape: tuple[int, int, int] = (height, width, channels)
        self.weights_name = spec.weights_name
        self.weights_sha256 = _sha256_of(model)
        self._preprocessing = _Preprocessing.of(spec, model)
        self._program = self._with_preprocessing("uint8")
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
                f"{self.spec.name}: not enough memory for {len(images)} images of {self.image_size} x"
                f" {self.image_size} pixels at once: use a smaller --batch-size"
            ) from error

    def image_model(self) -> Any:
        """Returns a plain keras.Model from RGB images (batch, size, size, 3) float32, 0 to 255, to features."""
        return self._with_preprocessing("float32")

    def _with_preprocessing(self, dtype: str) -> Any:
        import keras  # noqa: PLC0415

        images = keras.Input((self.image_size, self.image_size, 3), dtype=dtype, name="images")
        return keras.Model(images, self.model(self._preprocessing.apply(images)), name=f"{self.spec.name}_on_images")


def _out_of_memory(error: Exception) -> bool:
    """TensorFlow has a class of its own for it, JAX a status in the message."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "ResourceExhaustedError"}) or "RESOURCE_EXHAUSTED" in str(error)


@dataclass(frozen=True)
class _Preprocessing:
    """Preprocessing as x * scale + offset for each channel, after the channels were put in the network's order."""

    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    bgr: bool = False

    @classmethod
    def of(cls, spec: BackboneSpec, model: Any) -> _Preprocessing:
        ones = np.ones(3)
        if spec.preprocessing == "unit":
            return cls(ones / 255, 0 * ones)
        match spec.architecture.mode:
            case "tf":
                return cls(ones / 127.5, -ones)
            case "torch":
                return cls(1 / (255 * np.array(_DEVIATION)), -np.array(_MEAN) / _DEVIATION)
            case "caffe":
                return cls(ones, -np.array(_CAFFE_MEAN), bgr=True)
        return cls._efficientnet(spec, model)

    @classmethod
    def _efficientnet(cls, spec: BackboneSpec, model: Any) -> _Preprocessing:
        """What a file of weights needs that ``weights="imagenet"`` builds into the network.

        There, and only there, Keras divides by sqrt(deviation) after its Normalization layer. Its weights come out of
        a file as they come out of the download, so the same factor k must act: (x / 255 - m) k = (x k + 255 m (1 - k))
        / 255 - m.
        """
        if spec.seed is not None or spec.weights == IMAGENET:
            return cls(np.ones(3), np.zeros(3))
        import keras  # noqa: PLC0415

        # not by its name, which Keras numbers when it builds a second one
        normalization = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
        mean = np.asarray(normalization.get_weights()[0], np.float64).reshape(3)
        factor = 1 / np.sqrt(_DEVIATION)
        return cls(factor, 255 * mean * (1 - factor))

    def on_array(self, images: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Preprocesses (batch, size, size, 3) outside of a network."""
        ordered = images[..., ::-1] if self.bgr else images
        return (ordered * self.scale + self.offset).astype(np.float32)

    def apply(self, images: Any) -> Any:
        """Adds plain Keras layers only, so that a saved model needs nothing of ours to load."""
        import keras  # noqa: PLC0415

        pixels = keras.layers.Rescaling(1.0, name="pixels")(images)  # bytes to floats
        if not self.bgr:
            scale, offset = self.scale.tolist(), self.offset.tolist()
            return keras.layers.Rescaling(scale, offset, name="preprocessing")(pixels)
        reorder = keras.layers.Conv2D(3, 1, trainable=False, name="preprocessing")
        preprocessed = reorder(pixels)
        kernel = np.eye(3)[::-1] * self.scale  # channel i of the output is channel 2 - i of the input
        reorder.set_weights([kernel[None, None].astype(np.float32), self.offset.astype(np.float32)])
        return preprocessed


def build_backbone(spec: BackboneSpec) -> Backbone:
    """Builds a backbone and loads, downloads or draws its weights.

    Raises:
        InputError: The weights do not fit, or cannot be downloaded.
    """
    model = _construct(spec)
    if spec.seed is not None:
        _randomise(model, spec, spec.seed)
    elif spec.weights != IMAGENET:
        _load(model, spec)
    return Backbone(spec, model)


def _construct(spec: BackboneSpec) -> Any:
    import keras  # noqa: PLC0415

    weights = IMAGENET if spec.weights == IMAGENET else None
    options: dict[str, Any] = {} if spec.alpha is None else {"alpha": spec.alpha}
    factory = getattr(keras.applications, spec.architecture.factory)
    try:
        # Keras reports its download on standard output, and warns where a size is not one of its own
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), _download_timeout():
            warnings.simplefilter("ignore")
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


@contextlib.contextmanager
def _download_timeout() -> Iterator[None]:
    """A host that does not answer must not hold a command for minutes."""
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
    if not h5py.is_hdf5(path):
        raise InputError(path, expected=expected, found="a file that is no HDF5")
    try:
        _load_weights(model, path)
    except Exception as error:  # a file that is no weights file makes Keras stumble anywhere
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(path, expected=expected, found=f"others ({lines[0][:160].rstrip('.')})") from error
    if not all(np.isfinite(array).all() for array in model.get_weights()):
        raise InputError(path, expected=expected, found="weights that are not finite")


def _load_weights(model: Any, path: Path) -> None:
    """``load_weights`` tells its two formats by the ending alone; here the content decides."""
    with h5py.File(path, "r") as file:
        layered = "layer_names" in file.attrs or "model_weights" in file
        endings = (".h5", ".hdf5") if layered else (".weights.h5",)
    if path.name.endswith(endings) and path.name.endswith(".weights.h5") != layered:
        model.load_weights(path)
        return
    import tempfile  # noqa: PLC0415  rarely needed

    with tempfile.TemporaryDirectory() as folder:
        alias = Path(folder) / f"alias{endings[0]}"
        alias.symlink_to(path.resolve())
        model.load_weights(alias)


def _randomise(model: Any, spec: BackboneSpec, seed: int) -> None:
    """Draws He-normal kernels from NumPy's generator (no global state) and sets the moving statistics.

    With statistics of 0 and 1 a random network in inference mode would shrink its activations layer by layer to
    nothing, or, on pixels of 0 to 255, blow them up; here every BatchNormalization takes its statistics from one
    seeded batch of noise that was preprocessed as images are.
    """
    generator = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if len(variable.shape) >= 2:
            depthwise = "depthwise" in variable.path
            inputs = int(np.prod(variable.shape[:2] if depthwise else variable.shape[:-1]))
            drawn = generator.standard_normal(tuple(variable.shape), np.float32)
            variable.assign(drawn * np.float32(np.sqrt(2 / inputs)))
    _calibrate(model, _Preprocessing.of(spec, model).on_array(_noise(generator, spec.size)))


def _noise(generator: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """Noise with the same energy in every octave, as photographs have it: (images, size, size, 3), 0 to 255."""
    images = np.tile(generator.standard_normal((_CALIBRATION_IMAGES, 1, 1, 3)), (1, size, size, 1))
    octaves = int(np.log2(size))
    for cells in 2 ** np.arange(octaves + 1):
        coarse = generator.standard_normal((_CALIBRATION_IMAGES, cells + 1, cells + 1, 3))
        at = np.arange(size) * cells / size
        low, part = at.astype(int), at % 1
        rows = coarse[:, low] * (1 - part)[:, None, None] + coarse[:, low + 1] * part[:, None, None]
        images += rows[:, :, low] * (1 - part)[:, None] + rows[:, :, low + 1] * part[:, None]
    return np.asarray(127.5 * (1 + np.tanh(images / np.sqrt(octaves))))


def _calibrate(model: Any, images: npt.NDArray[np.float32]) -> None:
    """Sets all moving statistics to their averages over the images.

    The images go through in parts, because Keras keeps every activation of a call in memory.
    """
    import keras  # noqa: PLC0415

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    drops = [(layer, layer.rate) for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    momenta = [layer.momentum for layer in norms]
    for layer, _ in drops:
        layer.rate = 0.0
    parts = -(-images[..., 0].size // _CALIBRATION_PIXELS)
    for number, part in enumerate(np.array_split(images, min(parts, len(images)))):
        for layer in norms:
            layer.momentum = number / (number + 1)
        model(part, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    for layer, rate in drops:
        layer.rate = rate


def _sha256_of(model: Any) -> str:
    digest = hashlib.sha256()
    for array in model.get_weights():
        if not np.isfinite(array).all():
            raise BottleneckError(f"the weights of {model.name} are not finite")
        digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
