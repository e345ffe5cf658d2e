"""Tar files of tiny images."""

import io
import tarfile
from pathlib import Path

from samples import noisy_photo


def encoded(seed: int, kind: str = "PNG") -> bytes:
    """The bytes of a photo of colored noise."""
    file = io.BytesIO()
    noisy_photo(seed).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, *members: tuple[str, bytes]) -> Path:
    """Write a tar file; names may occur twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
