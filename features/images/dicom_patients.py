"""Who is on a DICOM image, where nothing else says it: the file's PatientID, as a hash that is not turned back.

A hash tells the same patient in two files, which is all that a split needs, and is the same in every store, so that
patients in two stores are seen. It is slow to compute, so that trying every number that a hospital may give takes its
time; but who has a number can ask whether it is there. It is a pseudonym, and does not make a data set anonymous.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from features.images import dicom
from features.images.dicom_pixels import HEAD
from features.images.entries import IMAGE_SUFFIXES
from features.images.patients import Patients
from features.images.reading import open_file
from features.images.walk import File
from features.runtime.portable import cpu_count
from features.runtime.text import composed, counted, printable

SOURCE = "the DICOM files' PatientID, as a hash"
_ROUNDS, _BYTES = 20_000, 8
_SALT = b"bottleneck-search patient"
_OTHERS = IMAGE_SUFFIXES.difference(dicom.SUFFIXES)


def with_dicom_patients(folder: Path, files: Sequence[File], patients: Patients) -> Patients:
    """Returns the patients with those added that only the DICOM files tell.

    One id for all of several files is that of nobody: where names were taken out, files often keep a word instead.

    Args:
        folder: The image folder.
        files: The images in it.
        patients: What names, folders or a table tell of them.
    """
    rows = [
        row
        for row, file in enumerate(files)
        if not patients.names[row] and Path(file.path).suffix.lower() not in _OTHERS
    ]
    if not dicom.CAN_READ or not rows:
        return patients
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="patients") as pool:
        told = [*pool.map(_patient, (folder / files[row].path for row in rows))]
    found = {row: who for row, who in zip(rows, told, strict=True) if who}
    if not found:
        return patients
    if len(found) > 1 and len(set(found.values())) == 1:
        remark = f"{counted(len(found), 'DICOM file')} with one PatientID for all: not taken for a patient"
        return replace(patients, remarks=(*patients.remarks, remark))
    names = [found.get(row, who) for row, who in enumerate(patients.names)]
    row, who = next(iter(found.items()))
    source = f"{SOURCE}, e.g. {who} of {printable(files[row].path)}"
    return Patients(tuple(names), "; ".join(filter(None, (patients.source, source))), patients.remarks)


def _patient(path: Path) -> str:
    try:
        with open_file(path) as file:
            start = file.read(HEAD)
            told = dicom.patient_id(file) if dicom.is_dicom(start) or dicom.may_be_dicom(start) else ""
    except Exception:  # whatever is wrong with it is said where it is decoded
        return ""
    return hashed(told) if told else ""


@lru_cache(maxsize=1 << 16)
def hashed(patient: str) -> str:
    """Returns what stands for a patient's id: 16 hexadecimal digits, the same wherever and whenever."""
    text = composed(patient).encode(errors="surrogatepass")
    return hashlib.pbkdf2_hmac("sha256", text, _SALT, _ROUNDS, _BYTES).hex()
