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

ArtifactKey = tuple[int, str]
"""Number of a trial, and the name that its artifact goes by."""
_ANY = "application/octet-stream"


@dataclass(frozen=True)
class _Pin:
    """An artifact that is there.

    Attributes:
        trial_id: Of its trial, in the storage.
        attribute: Key of the trial's attribute that says so.
        artifact_id: Its name in the store.
        made_of: The text of a picture; of a file what tells it from a later one.
    """

    trial_id: int
    attribute: str
    artifact_id: str
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
        self._pinned: dict[ArtifactKey, _Pin] = {}

    def sync(self, study_id: int, wanted: Mapping[ArtifactKey, Path | str]) -> None:
        """Pins what is not there yet, or is there as it was made before, and lets go of what is not wanted any more.

        Args:
            study_id: The study's number in the storage.
            wanted: Files, left out where there are none, and the texts of pictures.

        Raises:
            BottleneckError: There is no room for the copies.
        """
        made_of = {key: identity(content) if isinstance(content, Path) else content for key, content in wanted.items()}
        for key in [key for key, pin in self._pinned.items() if pin.made_of != made_of.get(key)]:
            self._let_go(self._pinned.pop(key))
        for key, content in wanted.items():
            if key not in self._pinned and made_of[key] is not None:
                number, name = key
                trial_id = self._overlay.get_trial_id_from_study_id_trial_number(study_id, number)
                self._pinned[key] = self._pin(trial_id, name, content, made_of[key])

    def _pin(self, trial_id: int, name: str, content: Path | str, made_of: object) -> _Pin:
        """Copies first and notes then: what could not be copied is no artifact."""
        artifact_id = str(uuid4())
        kind, encoding = mimetypes.guess_type(name)
        attribute, value = attribute_of_artifact(ArtifactMeta(artifact_id, name, kind or _ANY, encoding))
        with content.open("rb") if isinstance(content, Path) else io.BytesIO(content.encode()) as source:
            try:
                self.store.write(artifact_id, source)
            except OSError as error:
                self._remove(artifact_id)
                raise disk_error(self._folder, error) from error
        self._overlay.set_trial_system_attr(trial_id, attribute, value)
        return _Pin(trial_id, attribute, artifact_id, made_of)

    def _let_go(self, pin: _Pin) -> None:
        self._overlay.let_go_of_trial_system_attr(pin.trial_id, pin.attribute)
        self._remove(pin.artifact_id)

    def _remove(self, artifact_id: str) -> None:
        with suppress(ArtifactNotFound):
            self.store.remove(artifact_id)
