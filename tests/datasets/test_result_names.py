"""Names of results: unlike each other, beside each other on disk, and short enough for a file system."""

from pathlib import Path

import pytest

from vitrail.datasets.photos import MAX_NAME, list_photos, relative_name, result_labels

SUFFIXES = (".npz", ".json", ".png")


def labels(*names, suffixes=SUFFIXES):
    found = result_labels([Path("data") / name for name in names], Path("data"), suffixes)
    assert list(found) == [Path("data") / name for name in names]
    return list(found.values())


def write_all(folder, found, suffixes=SUFFIXES):
    """What a run writes: fails where two names cannot be beside each other."""
    for label in found:
        for suffix in suffixes:
            path = folder / f"{label}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x"):
                pass


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.jpg", "b/a.jpg"], ["a", "b/a"]),
        (["a.jpg", "a.png"], ["a.jpg", "a.png"]),
        (["a.jpg", "a.png/b.png"], ["a.jpg", "a.png/b"]),
        (["a.jpg", "A.PNG/b.png"], ["a.jpg", "A.PNG/b"]),
        (["a.jpg", "a.npz/b.png", "a.jpg.json/c.png"], ["a.jpg-2", "a.npz/b", "a.jpg.json/c"]),
        (["c/a.jpg", "c/a.json/b/d.png"], ["c/a.jpg", "c/a.json/b/d"]),
        (["a.txt/b.png", "a.jpg"], ["a.txt/b", "a"]),
    ],
)
def test_a_folder_called_like_a_result(tmp_path, names, expected):
    assert labels(*names) == expected
    write_all(tmp_path, expected)


@pytest.mark.parametrize("suffixes", [SUFFIXES, (".png", ".safetensors")])
@pytest.mark.parametrize("letter", ["n", "é", "字", "\udce9"])
@pytest.mark.parametrize("num_bytes", [200, 243, 247, 250, 251, 255])
def test_long_names(tmp_path, suffixes, letter, num_bytes):
    width = len(letter.encode("utf-8", "surrogateescape"))
    names = [first + letter * ((num_bytes - 5) // width) + ".png" for first in "ab"]
    # As some alike in all that is left of them.
    names += [names[0][:-5] + "z.png"]
    found = labels(*(f"deep/{name}" for name in names), suffixes=suffixes)
    write_all(tmp_path, found, suffixes)
    for label, name in zip(found, names, strict=True):
        stem = name.removesuffix(".png")
        fits = len(stem.encode("utf-8", "surrogateescape")) + max(map(len, suffixes)) <= MAX_NAME
        assert (label == f"deep/{stem}") == fits
        assert letter == "\udce9" or label.isprintable()
    assert found == labels(*(f"deep/{name}" for name in names), suffixes=suffixes)


def test_named_photos_have_short_names_too(tmp_path):
    paths = [tmp_path / folder / f"{'n' * 251}.png" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        path.touch()
    found = [photo.label for photo in list_photos(paths)]
    assert len(set(found)) == 2
    write_all(tmp_path / "out", found)


def test_sources_stay_whole():
    path = Path("data") / ("n" * 251 + ".png")
    assert relative_name(path, Path("data")) == path.name
