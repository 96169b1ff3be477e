"""Artifacts of trials, as the dashboard offers them: each while what it was made of is there and as it was."""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from features.runtime.files import disk_error, identity
from search.review.overlay import Overlay
from search.setup.optuna_internals import attribute_of_artifact

Place = tuple[int, str]
"""Number of a trial, and the name of a file."""
_ANY = "application/octet-stream"


@dataclass(frozen=True)
class _Pin:
    """An artifact that is there.

    Attributes:
        trial_id: Of its trial, in the storage.
        key: Of the attribute that says so.
        artifact: Its name in the store.
        made_of: The text of a picture; of a file what tells it from a later one.
    """

    trial_id: int
    key: str
    artifact: str
    made_of: object


class Pins:
    """What is pinned on the trials of a study.

    Attributes:
        store: Holds the copies.
    """

    def __init__(self, overlay: Overlay, folder: Path) -> None:
        """Begins without any.

        Args:
            overlay: Where artifacts are noted.
            folder: For the copies, which nobody else uses.
        """
        self.store = FileSystemArtifactStore(str(folder))
        self._folder = folder
        self._overlay = overlay
        self._pinned: dict[Place, _Pin] = {}

    def become(self, study_id: int, wanted: Mapping[Place, Path | str]) -> None:
        """Pins what is not there yet, or is there as it was made before, and lets go of what is not wanted any more.

        Args:
            study_id: The study's number in the storage.
            wanted: Files, left out where there are none, and the texts of pictures.

        Raises:
            BottleneckError: There is no room for the copies.
        """
        made_of = {place: identity(one) if isinstance(one, Path) else one for place, one in wanted.items()}
        for place in [place for place, pin in self._pinned.items() if pin.made_of != made_of.get(place)]:
            self._let_go(self._pinned.pop(place))
        for place, one in wanted.items():
            if place not in self._pinned and made_of[place] is not None:
                trial_id = self._overlay.get_trial_id_from_study_id_trial_number(study_id, place[0])
                self._pinned[place] = self._pin(trial_id, place[1], one, made_of[place])

    def _pin(self, trial_id: int, name: str, content: Path | str, made_of: object) -> _Pin:
        """Copies first and notes then: what could not be copied is no artifact."""
        artifact = str(uuid4())
        kind, encoding = mimetypes.guess_type(name)
        key, value = attribute_of_artifact(ArtifactMeta(artifact, name, kind or _ANY, encoding))
        with content.open("rb") if isinstance(content, Path) else io.BytesIO(content.encode()) as source:
            try:
                self.store.write(artifact, source)
            except OSError as error:
                self._remove(artifact)
                raise disk_error(self._folder, error) from error
        self._overlay.set_trial_system_attr(trial_id, key, value)
        return _Pin(trial_id, key, artifact, made_of)

    def _let_go(self, pin: _Pin) -> None:
        self._overlay.let_go_of_trial_system_attr(pin.trial_id, pin.key)
        self._remove(pin.artifact)

    def _remove(self, artifact: str) -> None:
        with suppress(ArtifactNotFound):
            self.store.remove(artifact)
