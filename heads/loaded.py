"""A head for Python and notebooks: ``load_head("best.hdf5")`` predicts, explains and evaluates, as the commands do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from features.extraction.backbone_spec import BackboneSpec
from features.images.pillow_internals import raise_pixel_limit
from features.images.reading import ImageFile
from features.runtime.arithmetic import with_default_errstate
from features.runtime.backend import start_backend, use_backend
from features.runtime.command import bars, say
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import from_here, identity
from features.runtime.keras_settings import python_random_restored
from features.runtime.options import checked, takes_options
from features.runtime.stopping import heeding_stops
from features.runtime.text import printable
from features.store.display import table_of
from features.store.intensity import parse_intensity
from features.store.kind import EIGHT_BITS, SQUASH, UNKNOWN
from features.store.reader import FeatureStore
from features.store.source import FeatureSource
from heads.evaluation.evaluation import ChosenRows, Evaluation
from heads.evaluation.rows import Part, require_same_kind
from heads.files.backbone import backbone_spec, rebuild_backbone
from heads.files.facts import facts_of
from heads.files.head_file import Head, read_head, read_metadata
from heads.files.metadata import HeadMetadata
from heads.files.projected import for_features_of, what_is_lost
from heads.metrics.classification import Metrics
from heads.prediction.named import Images, listed_images, texts_of
from heads.prediction.options import PredictOptions
from heads.prediction.prediction import Draw, Prediction, Predictions, predict
from heads.prediction.sources import find_sources
from heads.prediction.stored import check_needs_no_image, predict_stored, store_among

if TYPE_CHECKING:
    import keras
    import pandas as pd
    from PIL import Image

    from features.extraction.backbones import Backbone
    from heads.prediction.maps import MapMaker, PredictedImage

_building = RLock()
"""Held by the thread that builds a model or a backbone: a second one would build it again, for nothing."""
_ANY = (EIGHT_BITS, UNKNOWN)
"""Intensities of a head that say nothing of images of more than 8 bits."""


class LoadedHead:
    """A head that was read from a file, with the backbone that it needs, built when it is first asked for.

    Keywords of the methods that take ``**options`` are the fields of ``heads.PredictOptions``: ``backbone``, ``layer``,
    ``weights``, ``alpha``, ``image_size``, ``preprocessing`` and ``resize`` where the file does not say them;
    ``views``, ``batch_size``, ``intensity``, ``pages`` and ``max_pixels``. An image that is to be explained is one file
    or address; of a file with several pages the first, or, as ``scan.tif#2``, another.

    Args:
        path: The head's file. What it says of itself is read and checked now, its weights when they are needed.
        classes: Names of its classes, where the file has none.

    Raises:
        InputError: It is no head, or is damaged, or the names do not fit.
    """

    def __init__(self, path: Path, classes: str | Iterable[str] | None = None) -> None:
        self.path = path
        self._absolute = path.absolute()
        self._opened = identity(path)
        self._told = classes if classes is None or isinstance(classes, str) else tuple(classes)
        self.metadata: HeadMetadata = read_metadata(path, self._told)
        self._head: Head | None = None
        self._built: tuple[BackboneSpec, Backbone] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        return self.metadata.classes

    @property
    def model(self) -> keras.Model:
        """Uncompiled, from features (batch, height, width, channels) to probabilities (batch, classes), as ``head``."""
        return self.head.model

    @property
    def head(self) -> Head:
        """Model and metadata; starts the backend.

        Raises:
            InputError: The file's weights do not fit its layers, or it is another one than was opened.
        """
        with _building, python_random_restored():
            if self._head is None:
                start_backend()
                place = from_here(self.path, self._absolute)  # a notebook may work elsewhere by now
                head = read_head(place, self._told)
                if identity(place) != self._opened:
                    found, hint = "one that has changed since it was opened", "open it again"
                    raise InputError(self.path, expected="the head that was opened", found=found, hint=hint)
                self._head = head
            return self._head

    def predict(self, images: Images, *, progress: bool = True, **options: Any) -> pd.DataFrame:
        """Predicts the class of images, or of the rows of a store.

        Args:
            images: An image, a folder, an address, or several of these; or a store, of which no row's label is used.
            progress: Whether a bar shows how far it is, and what is to be noted is said.
            options: Fields of ``PredictOptions``.

        Returns:
            ``path``, ``class``, one column per class with its probability, and ``error``: '' or why an image could not
            be used.

        Raises:
            InputError: An option does not fit the head, no image is named, or what is no name of one.
            BottleneckError: The backbone's features are not finite, or memory is short.
        """
        predictions = self.predict_each(images, self._options(options), progress=progress)
        for note in predictions.notes if progress else ():
            say(f"note: {note}")
        if predictions.problem:
            raise predictions.problem
        return predictions.to_frame()

    @with_default_errstate
    def predict_each(
        self,
        images: Images,
        options: PredictOptions,
        *,
        maps: Path | None = None,
        occlusion: bool = False,
        progress: bool = True,
    ) -> Predictions:
        """Predicts images, and draws their maps: what ``predict`` and the command do.

        Args:
            images: As for ``predict``.
            options: How.
            maps: A folder that exists, for a heat map of each image.
            occlusion: Whether occlusion maps are drawn, too.
            progress: Whether a bar shows how far it is.

        Returns:
            What was predicted; where features were not finite or memory was short, up to there, and why.

        Raises:
            InputError: As ``predict``; or a store does not fit the head.
            BottleneckError: No backbone can be built, or no map be written.
        """
        named = listed_images(images)  # once: they may come from a generator
        if (store := store_among(named)) is not None:
            return self._predict_stored(store, options, drawn="--heatmaps" if maps else None, progress=progress)
        rows: list[Prediction] = []
        noted: list[str] = []
        problem: BottleneckError | None = None
        backbone, reading = self.backbone(options), options.reading_for(self.metadata)
        draw = None if maps is None else self._drawing(maps, options, occlusion=occlusion)
        shown = bars("images", shown=progress)
        with TemporaryDirectory(prefix="predict-") as downloads, shown as bar, heeding_stops(at_once=True) as stop:
            raise_pixel_limit(options.max_pixels)
            sources = find_sources(texts_of(named), Path(downloads), leave_out=maps, pages=options.pages, notes=noted)
            made = predict(
                self.head,
                backbone,
                options.views_for(self.metadata),
                sources,
                batch_size=options.batch_size,
                reading=reading,
                on_progress=bar("predicting"),
                draw=draw,
            )
            try:
                for row in made:
                    rows.append(row)
                    stop.take_effect()
            except BottleneckError as error:
                problem = error  # what was predicted until then is told all the same
        chosen = reading.intensity == parse_intensity(self.metadata.intensity) and self.metadata.intensity not in _ANY
        noted += reading.tally.notes(reading.intensity, chosen=chosen)
        return Predictions(self.classes, tuple(rows), problem, tuple(noted))

    @staticmethod
    def store_of(images: Images) -> FeatureStore | None:
        """Returns the store that is named in the place of images, None where there are images.

        Raises:
            InputError: What is named is neither.
        """
        return store_among(listed_images(images))

    def _predict_stored(
        self, store: FeatureStore, options: PredictOptions, *, drawn: str | None, progress: bool
    ) -> Predictions:
        check_needs_no_image(store, options, drawn=drawn)
        store.require_complete()
        require_same_kind(self.path, self.metadata, store)
        model = self.model_for(store)
        with bars("rows", shown=progress) as bar:
            made = predict_stored(model, self.metadata, store, on_progress=bar("predicting"))
            lost = what_is_lost(self.metadata, store.header)
            return Predictions(self.classes, tuple(made), notes=(f"{store.path}: {lost}",) if lost else ())

    def check_options(self, options: PredictOptions) -> BackboneSpec:
        """Makes sure, before anything is built, that options fit the head; returns the backbone that it needs.

        Raises:
            InputError: Something is not known and not named, or named otherwise than the file says.
        """
        spec = backbone_spec(self.path, self.metadata, options)
        options.views_for(self.metadata)
        options.reading_for(self.metadata)
        return spec

    def describe(self, options: PredictOptions, store: FeatureStore | None = None) -> str:
        """Says what is done to each image and to its probabilities: what the file decides, and the options.

        Args:
            options: How.
            store: What is predicted, where that is the rows of a store.

        Raises:
            InputError: As ``check_options``.
        """
        if store is not None:
            views, shown = list(store.header.views), f"the features in {store.path}"
        else:
            spec = self.check_options(options)
            views = [view.name for view in options.views_for(self.metadata)]
            resize = options.reading_for(self.metadata).resize
            told = f" ({resize})" if resize != SQUASH else ""
            layer = f", layer {spec.layer}," if spec.layer else ""
            shown = f"{spec.title}{layer} at {spec.size} pixels{told}, preprocessing {spec.preprocessing}"
        averaged = f"{', '.join(views)} averaged" if len(views) > 1 else views[0]
        temperature = self.metadata.temperature
        calibrated = (
            f"calibrated, temperature {temperature:.4g}" if temperature is not None else "as the head gives them"
        )
        return f"{shown}; views: {averaged}; probabilities: {calibrated}"

    def backbone(self, options: PredictOptions | None = None) -> Backbone:
        """Returns the backbone whose features the head takes: built once, and anew where options ask for another.

        Raises:
            InputError: It is not known, or is not the head's.
        """
        spec = self.check_options(options or PredictOptions())
        with _building, python_random_restored():
            start_backend()  # again: a notebook may have set Keras otherwise since the head was read
            head = self.head
            if self._built is None or self._built[0] != spec:
                self._built = spec, rebuild_backbone(self.path, head.metadata, spec)
            return self._built[1]

    @with_default_errstate
    def heatmap(
        self, image: str | os.PathLike[str], class_name: str | None = None, **options: Any
    ) -> npt.NDArray[np.float32]:
        """Computes where the head sees what speaks for a class (Grad-CAM).

        Args:
            image: A file or an address.
            class_name: The class; by default the one that the head calls.
            options: Fields of ``PredictOptions``.

        Returns:
            (height, width) of the head's own map, in [0, 1].

        Raises:
            InputError: There is no such class, or the image cannot be used.
        """
        with self._seen(image, class_name, options) as (maker, seen, index):
            return maker.heatmap(seen, index).values

    @with_default_errstate
    def draw_heatmap(self, image: str | os.PathLike[str], class_name: str | None = None, **options: Any) -> Image.Image:
        """Draws ``heatmap`` over the image, in its own resolution, with a caption: the command's picture."""
        with self._seen(image, class_name, options) as (maker, seen, index):
            return maker.heatmap(seen, index).picture(maker.original(seen.path))

    @with_default_errstate
    def occlusion(
        self, image: str | os.PathLike[str], class_name: str | None = None, **options: Any
    ) -> npt.NDArray[np.float32]:
        """Computes by how much the probability of a class falls where a patch covers the image; takes its time.

        Args:
            image: A file or an address.
            class_name: The class; by default the one that the head calls.
            options: Fields of ``PredictOptions``.

        Returns:
            (rows, columns) in [-1, 1].

        Raises:
            InputError: There is no such class, or the image cannot be used.
        """
        with self._seen(image, class_name, options) as (maker, seen, index):
            return maker.occlusion(seen, index).values

    @with_default_errstate
    def draw_occlusion(
        self, image: str | os.PathLike[str], class_name: str | None = None, **options: Any
    ) -> Image.Image:
        """Draws ``occlusion`` over the image, in its own resolution, with a caption: the command's picture."""
        with self._seen(image, class_name, options) as (maker, seen, index):
            return maker.occlusion(seen, index).picture(maker.original(seen.path))

    def evaluate(
        self, store: str | os.PathLike[str] | FeatureStore, part: str = "all", *, progress: bool = True
    ) -> Metrics:
        """Scores the head on rows of a feature store, averaged over the store's views.

        Args:
            store: A store, or its file.
            part: ``all``, or ``train``, ``validation`` or ``test``: as the head's study split this very store, or as
                the store itself says where it is another.
            progress: Whether a bar shows how far it is, and a line what has to be known of the rows.

        Raises:
            InputError: The store does not fit the head, or cannot be split as it was.
        """
        chosen = self.choose_rows(store, part)
        if progress and chosen.caveat:
            say(f"{chosen.store.path}: {chosen.caveat}")
        return self.score(chosen, progress=progress).metrics

    def choose_rows(self, store: str | os.PathLike[str] | FeatureStore, part: str = "all") -> ChosenRows:
        """Opens a store, makes sure that it fits, and chooses the rows that ``evaluate`` scores.

        Raises:
            InputError: There is no such part; or as ``evaluate``.
        """
        if part not in tuple(Part):
            raise InputError("part", expected=f"one of {', '.join(Part)}", found=part)
        opened = store if isinstance(store, FeatureStore) else FeatureStore(Path(store))
        return ChosenRows.of(Part(part), self.path, self.metadata, opened)

    def model_for(self, store: FeatureSource) -> keras.Model:
        """The model as it takes the features of a store: of a compressed one, those of its few directions.

        Raises:
            InputError: It needs the backbone's own channels, which a compressed store has not; or as ``head``.
        """
        start_backend()  # as for ``backbone``
        with python_random_restored():
            return for_features_of(self.path, self.model, store.header)

    @with_default_errstate
    def score(self, chosen: ChosenRows, *, progress: bool = True) -> Evaluation:
        """Scores the head on chosen rows.

        Raises:
            InputError: As ``model_for``.
        """
        model = self.model_for(chosen.store)
        with bars("rows", shown=progress) as bar:
            return chosen.evaluate(model, self.metadata.temperature, bar("scoring"))

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in facts_of(self.metadata).items())
        return f"<head {printable(str(self.path))}: {facts}>"

    def _repr_html_(self) -> str:
        return table_of(self.path, facts_of(self.metadata))

    @staticmethod
    def _options(named: dict[str, Any]) -> PredictOptions:
        return checked(PredictOptions, named, of="a prediction")

    def _maker(self, options: PredictOptions) -> MapMaker:
        backbone = self.backbone(options)
        from heads.prediction.maps import MapMaker

        reading = options.reading_for(self.metadata)
        return MapMaker(self.head, backbone, options.views_for(self.metadata), options.batch_size, reading)

    def _drawing(self, folder: Path, options: PredictOptions, *, occlusion: bool) -> Draw:
        maker = self._maker(options)
        from heads.prediction.maps import MapFolder

        return MapFolder(folder, maker, occlusion=occlusion).draw

    @contextmanager
    def _seen(
        self, image: str | os.PathLike[str], class_name: str | None, named: dict[str, Any]
    ) -> Iterator[tuple[MapMaker, PredictedImage, int]]:
        """Predicts one image; what makes its maps, the image, and the class to explain, while its content is there."""
        if class_name is not None and class_name not in self.classes:
            raise InputError("class_name", expected=f"one of {', '.join(self.classes)}", found=class_name)
        options = self._options(named)
        maker = self._maker(options)
        from heads.prediction.maps import PredictedImage

        seen: list[PredictedImage] = []

        def note(name: str, path: ImageFile, *found: Any) -> dict[str, str]:
            seen.append(PredictedImage(path, *found))
            return {}

        with TemporaryDirectory(prefix="explain-") as downloads:
            raise_pixel_limit(options.max_pixels)
            sources = find_sources(texts_of(listed_images(image)), Path(downloads), pages=options.pages)
            if len(sources) != 1:
                hint = "FILE#2 is the second page of FILE" if options.pages == "all" else None
                raise InputError(image, expected="one image", found=f"{len(sources)} images", hint=hint)
            (row,) = predict(
                self.head, maker.backbone, maker.views, sources, batch_size=1, reading=maker.reading, draw=note
            )
            if row.reason:
                raise InputError(image, expected="an image that can be used", found=row.reason)
            yield maker, seen[0], seen[0].called if class_name is None else self.classes.index(class_name)


for _method in ("predict", "heatmap", "draw_heatmap", "occlusion", "draw_occlusion"):
    takes_options(getattr(LoadedHead, _method), PredictOptions)


def load_head(
    path: str | os.PathLike[str], *, backend: str | None = None, classes: str | Iterable[str] | None = None
) -> LoadedHead:
    """Opens a head: one of a study, an ensemble, or a plain Keras file such as the article's.

    Args:
        path: The file: ``.hdf5``, ``.h5`` or ``.keras``.
        backend: ``tensorflow`` or ``jax``; by default the one that Keras already runs on, else ``KERAS_BACKEND``, else
            what is installed. A process has one.
        classes: Names of its classes in the order of its outputs, for a plain Keras file, which has none; a list, or a
            text with commas between. Without them they are ``class-0``, ``class-1``, ...; of a head that takes what the
            article's does and has four outputs, the article's.

    Raises:
        InputError: It is no head, the names are not as many as its outputs or it has its own, or another backend is
            already in use.
    """
    use_backend(backend)
    return LoadedHead(Path(path), classes)
