"""How images are predicted: the options that the command and the Python door share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter, signature
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from features.images.views import View, parse_views
from features.runtime.errors import InputError
from heads.files.backbone import NamedBackbone
from heads.files.metadata import HeadMetadata

MAX_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class PredictOptions(NamedBackbone):
    """How images are predicted. A field is an option of ``heads.predict`` and a keyword of ``LoadedHead``'s methods.

    Attributes:
        views: Names of the views of each image to average over, with commas between; else those of the head.
        batch_size: Images in a forward pass.
    """

    views: Annotated[
        str | None, typer.Option(help="Views to average over, e.g. identity,flip; else the head's.", show_default=False)
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, max=MAX_BATCH, help="Images in a forward pass.")] = 32

    def __post_init__(self) -> None:
        if type(self.batch_size) is not int or not 1 <= self.batch_size <= MAX_BATCH:
            expected = f"a whole number from 1 to {MAX_BATCH}"
            raise InputError("batch_size", expected=expected, found=self.batch_size)

    def views_for(self, metadata: HeadMetadata) -> Sequence[View]:
        """Returns the views to average over.

        Raises:
            InputError: There is no such view.
        """
        return parse_views(",".join(metadata.views) if self.views is None else self.views)


Method = TypeVar("Method", bound=Callable[..., Any])


def takes_options(method: Method) -> Method:
    """Shows the fields of ``PredictOptions`` in a method's signature in place of its ``**options``, as help has it."""
    hints = get_type_hints(PredictOptions)
    own = [one for one in signature(method).parameters.values() if one.kind is not one.VAR_KEYWORD]
    named = [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in fields(PredictOptions)
    ]
    method.__signature__ = signature(method).replace(parameters=[*own, *named])  # type: ignore[attr-defined]
    return method
