"""Keys of images, and names of results that never leave the output folder."""

import os
from pathlib import Path

import pytest

from vitrail.datasets.keys import image_key, name_results
from vitrail.datasets.photos import result_names


@pytest.mark.parametrize(
    ("name", "root", "key"),
    [
        ("data/cats/7.jpg", "data", "cats/7.jpg"),
        ("data/7.jpg", "data/7.jpg", "7.jpg"),
        ("cifar10/test/7", "data", "cifar10/test/7"),
        ("lists/../7.jpg", "lists", "../7.jpg"),
        ("a/7.jpg", ".", "a/7.jpg"),
        ("/a/7.jpg", ".", "/a/7.jpg"),
        ("s/0.tar/../../7.jpg", "s", "0.tar/../../7.jpg"),
    ],
)
def test_keys(name, root, key):
    assert image_key(name, Path(root)) == key


def test_names_of_folders_are_those_of_before():
    names = [
        "a.jpg",
        "a.png",
        "b/a.jpg",
        "b/.c.d.jpg",
        "x" * 254,
        "y/" + "z" * 254 + ".png",
        "q" * 200 + "/" * 1 + "w.png",
        "-2.png",
    ]
    expected = result_names([Path("data") / name for name in names], Path("data"))
    assert name_results(names) == list(expected.values())


def test_names_stay_below_the_output_folder(tmp_path):
    keys = ["../../etc/passwd.jpg", "__/__/etc/passwd.jpg", "/etc/passwd.jpg", "etc/passwd.jpg", "..", "/", "a/./b//c.jpg"]
    keys += ["d" * 999 + "/e.jpg", "/".join(["f" * 99] * 99) + "/g.jpg", ".partial-abcdefgh.png", "new\nline.png", "\0.png"]
    names = name_results(keys)
    assert len(set(names)) == len(keys)
    for name in names:
        for suffix in (".npz", ".json", ".png"):
            path = tmp_path / f"{name}{suffix}"
            assert Path(os.path.realpath(path)).is_relative_to(tmp_path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
    assert not any(part.startswith(".partial") for name in names for part in name.split("/"))
