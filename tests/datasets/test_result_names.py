"""Names of result files: unique, compatible with each other on disk, and short enough for a file system."""

from pathlib import Path

import pytest

from vitrail.datasets.photos import MAX_NAME_BYTES, list_photos, relative_name, result_names

SUFFIXES = (".npz", ".json", ".png")


def choose_names(*names, suffixes=SUFFIXES):
    results = result_names([Path("data") / name for name in names], Path("data"), suffixes)
    assert list(results) == [Path("data") / name for name in names]
    return list(results.values())


def write_all(folder, names, suffixes=SUFFIXES):
    """Write the files of a run, which fails if two names are incompatible."""
    for name in names:
        for suffix in suffixes:
            path = folder / f"{name}{suffix}"
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
def test_a_folder_named_like_a_result(tmp_path, names, expected):
    assert choose_names(*names) == expected
    write_all(tmp_path, expected)


@pytest.mark.parametrize("suffixes", [SUFFIXES, (".png", ".safetensors")])
@pytest.mark.parametrize("letter", ["n", "é", "字", "\udce9"])
@pytest.mark.parametrize("num_bytes", [200, 243, 247, 250, 251, 255])
def test_long_names_are_shortened_and_stay_unique(tmp_path, suffixes, letter, num_bytes):
    width = len(letter.encode("utf-8", "surrogateescape"))
    names = [first + letter * ((num_bytes - 5) // width) + ".png" for first in "ab"]
    # This name differs from the first one only at its end.
    names += [names[0][:-5] + "z.png"]
    results = choose_names(*(f"deep/{name}" for name in names), suffixes=suffixes)
    write_all(tmp_path, results, suffixes)
    for result, name in zip(results, names, strict=True):
        stem = name.removesuffix(".png")
        fits = len(stem.encode("utf-8", "surrogateescape")) + max(map(len, suffixes)) <= MAX_NAME_BYTES
        assert (result == f"deep/{stem}") == fits
        assert letter == "\udce9" or result.isprintable()
    assert results == choose_names(*(f"deep/{name}" for name in names), suffixes=suffixes)


def test_list_photos_shortens_names(tmp_path):
    paths = [tmp_path / folder / f"{'n' * 251}.png" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        path.touch()
    results = [photo.result_name for photo in list_photos(paths)]
    assert len(set(results)) == 2
    write_all(tmp_path / "out", results)


def test_relative_names_are_not_shortened():
    path = Path("data") / ("n" * 251 + ".png")
    assert relative_name(path, Path("data")) == path.name
