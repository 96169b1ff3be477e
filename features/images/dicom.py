"""DICOM files as images: stored numbers rescaled, seen through the window that the file names, frames as pages.

pydicom reads them, an extra of this project. Only the elements that say how pixels are to be shown are asked for, and
what goes wrong is said in words of our own: pydicom's may quote what a file says of a patient.
"""

from __future__ import annotations

import io
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from PIL import Image, ImageFile

from features.images.dicom_frames import is_identity, shown_as, values_of
from features.images.dicom_pixels import DO_NOT_FIT, HEAD, MAGIC, DicomError, check_inflated, pixels_of, whole_number
from features.images.dicom_values import values_as_usual
from features.runtime.extras import extra_hint

SUFFIXES = (".dcm", ".dicom")
REMEDY = f"DICOM is read once pydicom is there: {extra_hint('dicom')}"
_TIFFS = (b"II*\0", b"MM\0*")
_FIRST_GROUPS = (b"\x02\0", b"\x08\0", b"\0\x08")
_TAGS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(
        f"{kind}{colour}PaletteColorLookupTable{what}"
        for kind, what in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
        for colour in ("Red", "Green", "Blue")
    ),
)


def _can_read() -> bool:
    """Whether there is a pydicom of the kind that decodes frames by themselves, which is that since 3."""
    try:
        return find_spec("pydicom") is not None and int(version("pydicom").partition(".")[0]) >= 3
    except (PackageNotFoundError, ValueError):
        return False


CAN_READ = _can_read()

# Whether a file can be used is decided here, not by a warning about one of its values; process-wide as for Pillow's.
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\.")


def is_dicom(start: bytes) -> bool:
    """Whether a file says that it is DICOM; one that is a TIFF as well is left to Pillow where DICOM is not read.

    Args:
        start: Its first ``HEAD`` bytes.
    """
    return start[HEAD - len(MAGIC) : HEAD] == MAGIC and (CAN_READ or not start.startswith(_TIFFS))


def may_be_dicom(start: bytes) -> bool:
    """Whether a file that is nothing else may be DICOM of an older kind, without a preamble."""
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return len(start) == HEAD and start.startswith(_FIRST_GROUPS) and (explicit or start[6:8] == b"\0\0")


class DicomImage(ImageFile.ImageFile):
    """A DICOM file, opened; its frames are loaded one at a time.

    Modes are ``L`` and ``RGB`` for what is ready to be seen. ``I`` and ``F`` are greys without a window of their own:
    rescaled numbers, of which ``inverted`` says whether the least is white.

    Raises:
        DicomError: It holds no image, one of a kind that is not read, or is damaged.
    """

    format = "DICOM"
    format_description = "DICOM"

    def _open(self) -> None:
        if not CAN_READ:
            raise DicomError(REMEDY)
        try:
            self._begin()
        except (DicomError, MemoryError, OSError):
            raise
        except Exception as error:  # pydicom raises whatever a damaged file makes it stumble over
            raise DicomError("a damaged DICOM file") from error

    @values_as_usual()
    def _begin(self) -> None:
        self._header = _read_header(self.fp)
        if not all(whole_number(self._header, name) for name in ("Rows", "Columns")):
            raise DicomError("a DICOM file without an image")
        self._size = (whole_number(self._header, "Columns"), whole_number(self._header, "Rows"))
        self.n_frames = _frame_count(self._header, _length(self.fp))
        self.is_animated = self.n_frames > 1
        self.seek(0)

    @values_as_usual()
    def seek(self, frame: int) -> None:
        """Goes to a frame.

        Raises:
            EOFError: There is no such frame.
        """
        if not 0 <= frame < self.n_frames:
            raise EOFError
        self._frame, self._loaded = frame, False
        self._shown = shown_as(self._header, frame)
        self._mode = self._shown.mode

    def tell(self) -> int:
        """Returns which frame this is."""
        return self._frame

    @property
    def inverted(self) -> bool:
        """Whether the least number is white."""
        return bool(self._header.PhotometricInterpretation == "MONOCHROME1")

    @property
    def has_window(self) -> bool:
        """Whether the file says what is black and what is white."""
        return self._shown.window is not None

    @property
    @values_as_usual()
    def bits(self) -> int | None:
        """How many bits of its numbers count, where they are taken as they are stored; else None."""
        return whole_number(self._header, "BitsStored") if is_identity(self._shown.modality) else None

    @values_as_usual()
    def load(self) -> Any:
        """Decodes the frame.

        Raises:
            DicomError: It is damaged, or compressed in a way that needs another package, which is named.
        """
        if not self._loaded:
            try:
                pixels = pixels_of(self.fp, self._header, self._frame)
                if pixels.shape[:2] != self.size[::-1]:
                    raise DicomError(DO_NOT_FIT)
                values = values_of(pixels, self._header, self._shown)
                self.im = Image.fromarray(values, self._mode if self._mode == "RGB" else None).im
            except (DicomError, MemoryError, OSError):
                raise
            except Exception as error:
                raise DicomError(DO_NOT_FIT) from error
            self._loaded = True
        return Image.Image.load(self)


@values_as_usual()
def patient_id(file: Any) -> str:
    """Returns whose image it is, as the file says it, without the spaces around; '' where it does not say.

    Args:
        file: Open, seekable.

    Raises:
        Exception: Whatever pydicom raises.
    """
    from pydicom import dcmread

    check_inflated(file)
    file.seek(0)
    header = dcmread(file, stop_before_pixels=True, force=True, specific_tags=["PatientID"])
    return str(header.get("PatientID") or "").strip(" \0")


def _read_header(file: Any) -> Any:
    from pydicom import dcmread  # an extra

    check_inflated(file)
    file.seek(0)
    return dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))


def _length(file: Any) -> int:
    return int(file.seek(0, io.SEEK_END))


def _frame_count(header: Any, length: int) -> int:
    """How many frames there are: not more than the file has room for, whatever it says."""
    told = max(1, int(header.get("NumberOfFrames") or 1))
    if told == 1:
        return 1
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and (syntax.is_encapsulated or syntax.is_deflated):
        return max(1, min(told, length // 8))
    samples = whole_number(header, "SamplesPerPixel") or 1
    bits = (
        whole_number(header, "Rows")
        * whole_number(header, "Columns")
        * samples
        * (whole_number(header, "BitsAllocated") or 8)
    )
    return max(1, min(told, length * 8 // max(1, bits)))
