"""Images to class probabilities through a backbone and a head, in batches, whatever cannot be read named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.extraction.pipeline import FeatureMaker, bottlenecks
from features.images.decode import UndecodableError
from features.images.entries import is_text
from features.images.reading import ImageFile, Reading
from features.images.views import View
from features.runtime.errors import BottleneckError
from features.runtime.progress import OnProgress, unwatched
from features.runtime.text import told_apart
from heads.files.head_file import Head
from heads.metrics.calibration import with_temperature
from heads.metrics.scoring import mean_probabilities, predict_batch
from heads.prediction.sources import NamedImage

if TYPE_CHECKING:
    import pandas as pd

_IDENTITY = View("identity")
NOT_FINITE = "the head's probabilities are not finite"


class Shares(NamedTuple):
    """Probabilities (classes,) and the names that they belong to, which all rows share."""

    names: tuple[str, ...]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a head makes of one image.

    Attributes:
        image: Path or address.
        label: The most probable class; None where the image could not be used.
        shares: Probabilities of the classes; None where the image could not be used.
        reason: Why it could not be used, or ''.
        maps: Pictures that were drawn of it, by kind.
    """

    image: str
    label: str | None = None
    shares: Shares | None = None
    reason: str = ""
    maps: dict[str, str] = field(default_factory=dict)

    @property
    def probabilities(self) -> dict[str, float] | None:
        """``shares`` by class name, made when asked for: dicts of a thousand classes would take 100 KB an image."""
        return dict(zip(self.shares.names, self.shares.values.tolist(), strict=True)) if self.shares else None

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types: image, class, probabilities, error; and the path of each picture drawn, by kind."""
        return {
            "image": self.image,
            "class": self.label,
            "probabilities": self.probabilities,
            "error": self.reason or None,
            **self.maps,
        }


@dataclass(frozen=True)
class Predictions:
    """What came of some images.

    Attributes:
        classes: In label order.
        rows: One for each image, in order.
        problem: What ended the work before the last image; None where all were seen.
        notes: What was noticed of the images, or of the store, and should be known, a line each.
    """

    classes: tuple[str, ...]
    rows: tuple[Prediction, ...]
    problem: BottleneckError | None = None
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """Returns one row per image: ``path``, ``class``, one column per class with its probability, and ``error``.

        A class that is named like one of the other columns has its probability in ``p(NAME)``; see ``told_apart``.
        """
        import pandas as pd  # half a second that the command need not wait

        own = ("path", "class", "error")
        columns = list(told_apart(self.classes, own, "p({})").values())
        shares = np.full((len(self.rows), len(columns)), np.nan)
        for index, row in enumerate(self.rows):
            if row.shares:
                shares[index] = row.shares.values
        frame = pd.DataFrame(shares, columns=columns)
        frame.insert(0, "path", _texts([row.image for row in self.rows]))
        frame.insert(1, "class", [row.label for row in self.rows])
        frame["error"] = _texts([row.reason for row in self.rows])
        return frame


def _texts(texts: list[str]) -> list[str] | pd.Series[Any]:
    """A column; of Python's objects where a file's name is no UTF-8, which pandas refuses to take for text."""
    import pandas as pd

    return texts if all(map(is_text, texts)) else pd.Series(texts, dtype=object)


def json_lines(predictions: Sequence[Prediction]) -> Iterator[str]:
    """Yields the lines of a JSON list of predictions, one after the other, so that only one is text at a time."""
    if not predictions:
        yield "[]"
        return
    yield "["
    for index, prediction in enumerate(predictions, start=1):
        told = json.dumps(prediction.to_dict(), indent=2).replace("\n", "\n  ")
        yield f"  {told}," if index < len(predictions) else f"  {told}"
    yield "]"


@dataclass(frozen=True)
class _Outcome:
    """Probabilities (classes,) of an image and its features (height, width, channels), or the reason for none."""

    probabilities: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    features: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.float32))
    reason: str = ""


Draw = Callable[[str, ImageFile, npt.NDArray[np.float32], npt.NDArray[Any]], dict[str, str]]


def predict(
    head: Head,
    backbone: FeatureMaker,
    views: Sequence[View],
    sources: Sequence[NamedImage],
    *,
    batch_size: int,
    reading: Reading | None = None,
    on_progress: OnProgress = unwatched,
    draw: Draw | None = None,
) -> Iterator[Prediction]:
    """Yields the prediction of each source, in order; one that cannot be used has its reason and stops no other.

    Features are rounded to the dtype of the store that the head was trained on, so that an image gets the class here
    that it gets there.

    Args:
        head: The head.
        backbone: The one whose features it takes.
        views: Probabilities are averaged over these views of each image.
        sources: The images.
        batch_size: Images in a forward pass.
        reading: How image files are read; its tally is told what is noticed.
        on_progress: Told how many images of how many are predicted.
        draw: Draws maps of an image that could be used: given its name, its file, its probabilities (classes,) and the
            features of the image as it is, it returns the pictures' paths by kind.

    Raises:
        BottleneckError: The backbone gives features that are not finite.
    """
    usable = [source for source in sources if not source.reason]
    how = _How(views, batch_size, reading or Reading(), draw is not None)
    made = _outcomes(head, backbone, [source.path for source in usable], how)
    on_progress(0, len(sources))
    for done, source in enumerate(sources, start=1):
        outcome = _Outcome(reason=source.reason) if source.reason else next(made)
        on_progress(done, len(sources))
        if outcome.reason:
            yield Prediction(source.name, reason=outcome.reason)
            continue
        probabilities = outcome.probabilities
        shares = Shares(head.metadata.classes, probabilities)
        try:
            maps = draw(source.name, source.path, probabilities, outcome.features) if draw else {}
        except UndecodableError as error:  # it was decoded at a reduced scale before
            yield Prediction(source.name, reason=str(error))
            continue
        yield Prediction(source.name, head.metadata.classes[int(probabilities.argmax())], shares, maps=maps)


@dataclass(frozen=True)
class _How:
    """How images are shown to the backbone; where ``plain``, also as they are where that is none of the views."""

    views: Sequence[View]
    batch_size: int
    reading: Reading
    plain: bool


def _outcomes(head: Head, backbone: FeatureMaker, paths: Sequence[ImageFile], how: _How) -> Iterator[_Outcome]:
    """Yields what comes of each image; where ``plain``, with the features of the image as it is."""
    views = how.views
    shown = [*views, *([_IDENTITY] if how.plain and _IDENTITY not in views else [])]
    place = shown.index(_IDENTITY) if how.plain else 0
    size = max(1, min(how.batch_size, len(paths)))
    batches = [range(start, min(start + size, len(paths))) for start in range(0, len(paths), size)]
    for batch in bottlenecks(
        paths, backbone, shown, batches=batches, batch_size=size, dtype="float32", reading=how.reading
    ):
        with np.errstate(over="ignore"):
            features = batch.features.astype(head.metadata.dtype)
        finite = np.isfinite(features).all(axis=(1, 2, 3, 4))
        features[~finite] = 0
        seen = mean_probabilities([predict_batch(head.model, features[:, view], size) for view in range(len(views))])
        rows = with_temperature(seen, head.metadata.temperature)
        for index, row, fits, own in zip(batch.indices, rows, finite, features, strict=True):
            reason = batch.reasons.get(index, "")
            if not reason and not fits:
                reason = f"features too large for {head.metadata.dtype}"
            elif not reason and not np.isfinite(row).all():
                reason = NOT_FINITE
            yield _Outcome(row, own[place], reason)
