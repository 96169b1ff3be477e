"""The built-in demonstration: generated OCT-like scans, so that a search can be tried without data or download.

The scans are drawn from a few numbers for each patient: the retina's place, tilt, curvature, thickness and brightness,
and the noise of the device. The disease is drawn into them, from plain to hardly visible. They resemble B-scans and
are no substitute for them: a head found here says nothing about real scans.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from features.extraction.options import ExtractionOptions
from features.runtime.errors import InputError
from features.runtime.files import disk_error, write_json
from features.runtime.json_files import read_json
from features.runtime.lock import WriterLock
from features.runtime.portable import sync_folder
from features.runtime.progress import OnProgress, unwatched
from features.store.reader import FeatureStore

PER_CLASS = 160
IMAGES_PER_PATIENT = 2
SIZE = 160
"""Side of a scan in pixels."""
DEMONSTRATION = ExtractionOptions(backbone="densenet121", weights="random:0", image_size="96", views="identity")
"""Needs no download. Of untrained networks a DenseNet tells most: what its first layers see reaches its last maps."""
RECIPE = ".recipe.json"
"""Says, in the folder of the scans, what they were made from."""
Curve = npt.NDArray[np.float64]
"""(size,) a depth for each column: 0 for the upper edge of the scan, 1 for the lower."""
Scan = npt.NDArray[np.float64]
"""(size, size) brightness: 0 for black, 1 for white."""

_LAYERS = np.array(
    [  # depth between the retina's inner surface (0) and its pigment epithelium (1), brightness
        (0.00, 0.50),
        (0.08, 0.55),
        (0.13, 0.40),
        (0.36, 0.38),
        (0.41, 0.24),
        (0.51, 0.24),
        (0.55, 0.38),
        (0.60, 0.34),
        (0.64, 0.17),
        (0.82, 0.17),
        (0.86, 0.55),
        (0.90, 0.30),
        (0.95, 0.75),
        (1.00, 0.85),
    ]
)


@dataclass(frozen=True)
class _Patient:
    """What the scans of one patient have in common.

    Attributes:
        depth: Of the pigment epithelium; this and all lengths in shares of the scan's side.
        tilt: How much lower the right edge lies than the left.
        curvature: Factor of the squared distance from the middle.
        thickness: Of the retina.
        pit: Share of the thickness that is missing in the fovea.
        pit_place: Column of the fovea.
        wave: Height of the epithelium's waves.
        phase: Of these waves, in radians.
        brightness: Factor of all tissue.
        decay: Depth in which the light under the retina falls to 1/e.
        noise: Deviation of the device's noise, in shares of white.
        grain: Shape of the gamma-distributed speckle: the more, the smoother.
        severity: Of the disease, 0 to about 1.
        place: Column of the disease's centre.
    """

    depth: float
    tilt: float
    curvature: float
    thickness: float
    pit: float
    pit_place: float
    wave: float
    phase: float
    brightness: float
    decay: float
    noise: float
    grain: float
    severity: float
    place: float

    @classmethod
    def draw(cls, generator: np.random.Generator) -> _Patient:
        uniform = generator.uniform
        return cls(
            depth=uniform(0.63, 0.70),
            tilt=uniform(-0.06, 0.06),
            curvature=uniform(0.0, 0.12),
            thickness=uniform(0.30, 0.36),
            pit=uniform(0.3, 0.55),
            pit_place=uniform(0.4, 0.6),
            wave=uniform(0.0, 0.006),
            phase=uniform(0, 2 * np.pi),
            brightness=uniform(0.9, 1.1),
            decay=uniform(0.10, 0.16),
            noise=uniform(0.015, 0.03),
            grain=uniform(16.0, 28.0),
            severity=uniform(0.45, 1.0),
            place=uniform(0.35, 0.65),
        )

    def another_scan(self, generator: np.random.Generator) -> _Patient:
        """The same eye, scanned a little further on."""
        normal = generator.normal
        return replace(
            self,
            depth=self.depth + normal(0, 0.012),
            tilt=self.tilt + normal(0, 0.015),
            pit=self.pit * generator.uniform(0.6, 1.2),
            phase=self.phase + normal(0, 0.4),
            brightness=self.brightness * generator.uniform(0.93, 1.07),
            severity=self.severity * generator.uniform(0.75, 1.2),
            place=self.place + normal(0, 0.05),
        )


class _Eye:
    """One scan before it is noisy: three curves, and what lies between them.

    Attributes:
        x: (size,) place of each column, 0 to 1.
        y: (size, 1) depth of each row.
        inner: The retina's inner surface.
        outer: Its pigment epithelium, which drusen and vessels lift.
        membrane: The membrane under it, which stays in its place.
        fluid: (size, size) share of fluid, 0 to 1.
        filling: Brightness between ``outer`` and ``membrane``.
    """

    def __init__(self, patient: _Patient, size: int) -> None:
        self.x = (np.arange(size) + 0.5) / size
        self.y = self.x[:, None]
        middle = self.x - 0.5
        wave = patient.wave * np.sin(9 * self.x + patient.phase)
        self.membrane: Curve = patient.depth + patient.tilt * middle - patient.curvature * middle**2 + wave
        pit = 1 - patient.pit * _bump(self.x, patient.pit_place, 0.08)
        self.inner: Curve = self.membrane - patient.thickness * pit * (1 - 0.5 * middle**2)
        self.outer: Curve = self.membrane.copy()
        self.fluid: Scan = np.zeros((size, size))
        self.filling = 0.4

    def lift(self, heights: Curve, *, inner: float) -> None:
        """Raises the epithelium by ``heights``, and the inner surface by a share of them."""
        self.outer = self.outer - heights
        self.inner = self.inner - inner * heights

    def render(self, patient: _Patient) -> Scan:
        """Returns the scan without shadows and noise."""
        depth = (self.y - self.inner) / np.maximum(self.outer - self.inner, 0.02)
        scan = np.interp(depth, _LAYERS[:, 0], _LAYERS[:, 1], left=0.02, right=0.0)
        scan *= 1 - 0.9 * self.fluid
        below = self.y - self.membrane
        choroid = 0.42 * np.exp(-np.maximum(below, 0) / patient.decay)
        scan = np.where(depth > 1, np.where(below > 0, choroid, self.filling), scan)
        line = np.exp(-(((self.y - self.outer) / 0.010) ** 2))
        return np.maximum(scan, 0.9 * line)


def _bump(x: Curve, place: float, width: float) -> Curve:
    bump: Curve = np.exp(-(((x - place) / width) ** 2))
    return bump


def _normal(eye: _Eye, patient: _Patient, generator: np.random.Generator) -> None:
    """Nothing, but an old eye has a small druse now and then."""
    if patient.severity < 0.5:
        eye.lift(0.02 * _bump(eye.x, patient.place, 0.03), inner=0.1)


def _drusen(eye: _Eye, patient: _Patient, generator: np.random.Generator) -> None:
    """Small deposits under the epithelium."""
    heights = np.zeros_like(eye.x)
    for _ in range(generator.integers(3, 5 + round(5 * patient.severity))):
        place = patient.place + generator.normal(0, 0.16)
        height = patient.severity * generator.uniform(0.05, 0.11)
        heights = np.maximum(heights, height * _bump(eye.x, place, generator.uniform(0.02, 0.05)))
    eye.lift(heights, inner=0.15)


def _oedema(eye: _Eye, patient: _Patient, generator: np.random.Generator) -> None:
    """Pockets of fluid within a retina that they thicken."""
    swelling = patient.severity * generator.uniform(0.03, 0.14) * _bump(eye.x, patient.place, 0.2)
    eye.inner = eye.inner - swelling
    for _ in range(generator.integers(1, 3 + round(5 * patient.severity))):
        place = patient.place + generator.normal(0, 0.09)
        column = int(np.clip(place, 0, 0.999) * len(eye.x))
        thickness = eye.outer[column] - eye.inner[column]
        depth = eye.inner[column] + thickness * generator.uniform(0.3, 0.72)
        radius = thickness * (0.06 + 0.22 * patient.severity * generator.uniform(0.3, 1))
        _pocket(eye, place, depth, width=radius * generator.uniform(0.6, 1.6), height=radius)


def _neovascularisation(eye: _Eye, patient: _Patient, generator: np.random.Generator) -> None:
    """New vessels that lift the epithelium: a bright, ragged mass, often with fluid beside it."""
    width = generator.uniform(0.12, 0.22)
    height = patient.severity * generator.uniform(0.11, 0.24)
    ragged = 1 + 0.35 * np.sin(generator.uniform(30, 70) * eye.x + patient.phase) * generator.uniform(0.3, 1)
    eye.lift(height * _bump(eye.x, patient.place, width) * ragged, inner=generator.uniform(0.3, 0.8))
    eye.filling = generator.uniform(0.55, 0.8)
    if generator.random() < 0.8:
        place = patient.place + generator.choice([-1, 1]) * width
        column = int(np.clip(place, 0, 0.999) * len(eye.x))
        size = patient.severity * generator.uniform(0.02, 0.05)
        _pocket(eye, place, eye.outer[column] - size, width=2.5 * size, height=size)


def _pocket(eye: _Eye, place: float, depth: float, *, width: float, height: float) -> None:
    distance = ((eye.x - place) / width) ** 2 + ((eye.y - depth) / height) ** 2
    eye.fluid = np.maximum(eye.fluid, 1 / (1 + np.exp(np.minimum(6 * (distance - 1), 50))))


DISEASES: dict[str, Callable[[_Eye, _Patient, np.random.Generator], None]] = {
    "CNV": _neovascularisation,
    "DME": _oedema,
    "DRUSEN": _drusen,
    "NORMAL": _normal,
}


def make_demonstration(
    folder: Path, *, seed: int, per_class: int = PER_CLASS, on_progress: OnProgress = unwatched
) -> Path:
    """Makes the demonstration's feature store, or returns the one that an earlier call has finished.

    Args:
        folder: Gets ``scans/`` and ``features.h5``.
        seed: Decides the scans; the backbone is always the same.
        per_class: Scans of each class.
        on_progress: Told how many of how many scans went through the backbone.

    Returns:
        The store: bottlenecks of 3 x 3 x 1024, one view.

    Raises:
        InputError: ``folder`` holds a demonstration of other scans.
        BottleneckError: The disk is full, or another process makes the same demonstration.
    """
    from features.extraction.extraction import extract_store

    scans, store = folder / "scans", folder / "features.h5"
    make_scans(scans, seed=seed, per_class=per_class)
    if not (store.exists() and FeatureStore(store).complete):
        extract_store(scans, store, DEMONSTRATION, on_progress=on_progress)
    return store


def make_scans(folder: str | os.PathLike[str], *, seed: int, per_class: int = PER_CLASS, size: int = SIZE) -> None:
    """Writes scans as ``<CLASS>/<CLASS>-<patient>-<image>.png``; complete or absent, and nothing where they are there.

    Args:
        folder: The image folder to make.
        seed: Decides every scan.
        per_class: Scans of each class, ``IMAGES_PER_PATIENT`` of each patient.
        size: Side of a scan in pixels.

    Raises:
        InputError: ``folder`` is there and holds something else, or a number is none that scans can be made of.
        BottleneckError: The disk is full, or another process writes the same scans.
    """
    folder = Path(folder)
    for name, value, least in (("seed", seed, 0), ("per_class", per_class, 1), ("size", size, 1)):
        if not isinstance(value, int) or value < least:
            raise InputError(name, expected=f"a whole number of at least {least}", found=repr(value))
    recipe = {"generator": 1, "seed": seed, "per_class": per_class, "size": size}
    with WriterLock(folder):
        if folder.exists():
            _check_recipe(folder, recipe)
            return
        temporary = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            for path, scan in draw_scans(seed=seed, per_class=per_class, size=size):
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(scan).save(temporary / path)
            write_json(temporary / RECIPE, recipe)
            temporary.rename(folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise disk_error(folder, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _check_recipe(folder: Path, recipe: dict[str, int]) -> None:
    expected_folder = "no such folder, or the demonstration's scans"
    try:
        found = read_json(folder / RECIPE, expected_folder)
    except InputError as error:
        raise InputError(folder, expected=expected_folder, found="another") from error
    if not isinstance(found, dict):
        raise InputError(folder, expected=expected_folder, found="another")
    for name, expected in recipe.items():
        if found.get(name) != expected:
            hint = "choose another folder, or remove this one"
            raise InputError(folder, field=name, expected=str(expected), found=found.get(name), hint=hint)


def draw_scans(*, seed: int, per_class: int, size: int) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Yields the path and the picture, (size, size), of every scan; a patient's do not depend on the other patients."""
    for label, disease in enumerate(DISEASES):
        for number in range(per_class):
            who, image = divmod(number, IMAGES_PER_PATIENT)
            patient = _Patient.draw(np.random.default_rng([seed, label, who]))
            generator = np.random.default_rng([seed, label, who, image + 1])
            name = f"{disease}-{1000 * (label + 1) + who}-{image + 1}.png"
            yield f"{disease}/{name}", draw_scan(disease, patient.another_scan(generator), generator, size)


def draw_scan(disease: str, patient: _Patient, generator: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:
    """Draws one scan, (size, size) uint8."""
    eye = _Eye(patient, size)
    DISEASES[disease](eye, patient, generator)
    scan = patient.brightness * eye.render(patient)
    shadows = 1 - 0.35 * generator.random() * _bump(eye.x, generator.random(), 0.02)
    scan = np.where(eye.y > eye.inner + 0.04, scan * shadows, scan)
    scan = scan * generator.gamma(patient.grain, 1 / patient.grain, scan.shape)
    scan += np.abs(generator.normal(0, patient.noise, scan.shape))
    return np.rint(255 * np.clip(scan, 0, 1)).astype(np.uint8)
