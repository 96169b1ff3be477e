"""What ``study.json`` says of the stores of a study: where each was, and what it is known again by."""

from __future__ import annotations

from pydantic import BaseModel, model_serializer


class StoreRef(BaseModel, frozen=True):
    """A store, as a study notes it.

    Attributes:
        path: Where it was.
        fingerprint: Of the store.
        content: Hash of what its images held; '' where that is not known.
    """

    path: str
    fingerprint: str
    content: str = ""

    @property
    def identity(self) -> dict[str, str]:
        """What ``FeatureSource.identity`` was: ``content`` only where it is known."""
        return {"fingerprint": self.fingerprint} | ({"content": self.content} if self.content else {})

    @model_serializer
    def _as_noted(self) -> dict[str, str]:
        return {"path": self.path, **self.identity}


class StudyStores(BaseModel, frozen=True, extra="forbid"):
    """The stores that the rows of a study are from. The fields are in the order of the file.

    Attributes:
        features: The one that is trained on.
        validation: Of the validation rows; None where these are split off, or there are folds.
        test: Of the test rows; None where these are split off, or there are none.
    """

    features: StoreRef
    validation: StoreRef | None = None
    test: StoreRef | None = None

    @property
    def by_part(self) -> dict[str, StoreRef | None]:
        """The stores by the names of the options that take them."""
        return {"features": self.features, "validation": self.validation, "test": self.test}

    @property
    def given(self) -> dict[str, StoreRef]:
        """Likewise those that there are."""
        return {part: store for part, store in self.by_part.items() if store is not None}
