"""Images to bottlenecks: the feature store and how it is filled and read.

What Python code imports from here; each name is loaded when it is first asked for, and none of them loads Keras.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from features.runtime.lazy import loaded_when_asked_for
from features.runtime.starting import end_if_interrupted

end_if_interrupted(__name__)

if TYPE_CHECKING:
    from features.compression.door import compress
    from features.compression.options import CompressionOptions
    from features.extraction.demonstration import make_scans
    from features.extraction.door import extract, extract_several, network_layers
    from features.extraction.options import ExtractionOptions
    from features.runtime.errors import BottleneckError, InputError
    from features.store.conversion import convert
    from features.store.conversion_options import ConversionOptions
    from features.store.kind import FeatureKind
    from features.store.reader import FeatureStore
    from features.store.source import FeatureSource

__all__ = [
    "BottleneckError",
    "CompressionOptions",
    "ConversionOptions",
    "ExtractionOptions",
    "FeatureKind",
    "FeatureSource",
    "FeatureStore",
    "InputError",
    "compress",
    "convert",
    "extract",
    "extract_several",
    "make_scans",
    "network_layers",
]

_HOMES = {
    "BottleneckError": "features.runtime.errors",
    "CompressionOptions": "features.compression.options",
    "ConversionOptions": "features.store.conversion_options",
    "ExtractionOptions": "features.extraction.options",
    "FeatureKind": "features.store.kind",
    "FeatureSource": "features.store.source",
    "FeatureStore": "features.store.reader",
    "InputError": "features.runtime.errors",
    "compress": "features.compression.door",
    "convert": "features.store.conversion",
    "extract": "features.extraction.door",
    "extract_several": "features.extraction.door",
    "make_scans": "features.extraction.demonstration",
    "network_layers": "features.extraction.door",
}


__getattr__, __dir__ = loaded_when_asked_for(__name__, _HOMES)


class _Package(ModuleType):
    """This package, whose functions stay when somebody imports the commands that are called like them."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
