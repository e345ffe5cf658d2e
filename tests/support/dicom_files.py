"""DICOM files, written by pydicom."""

import io
import warnings
from typing import Any

import numpy as np


def dicom_file(
    samples: np.ndarray,
    bits: int = 12,
    syntax: str = "ExplicitVRLittleEndian",
    drop: tuple[str, ...] = (),
    encapsulated: bytes = b"",
    **fields: Any,
) -> bytes:
    """Return the bytes of a DICOM file.

    Args:
        samples: (height, width), (frames, height, width), or (height, width, 3) of uint8.
        bits: Bits that are used, of gray samples.
        syntax: Name of the transfer syntax.
        drop: Fields to leave out.
        encapsulated: A JPEG in place of the samples.
        fields: Further fields, or others in place of those of the samples.
    """
    import pytest

    pydicom = pytest.importorskip("pydicom", reason="needs the extra medical")
    is_color = samples.ndim == 3 and samples.shape[-1] == 3
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, pydicom.uid.generate_uid()
    dataset.Rows, dataset.Columns = samples.shape[:2] if is_color else samples.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if is_color else (1, "MONOCHROME2")
    dataset.BitsAllocated = 8 * samples.dtype.itemsize
    dataset.BitsStored = dataset.BitsAllocated if is_color else min(bits, dataset.BitsAllocated)
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(samples.dtype.kind == "i")
    if is_color:
        dataset.PlanarConfiguration = 0
    compressed = syntax == "RLELossless"
    dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, "ExplicitVRLittleEndian" if compressed else syntax)
    dataset.PixelData = samples.tobytes()
    if encapsulated:
        dataset.PixelData = pydicom.encaps.encapsulate([encapsulated])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    for name, value in fields.items():
        setattr(dataset, name, value)
    for name in drop:
        delattr(dataset, name)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if compressed:
            dataset.compress(getattr(pydicom.uid, syntax))
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()
