"""Lists of files: what is listed, in which order, and what is wrong with a list."""

import io
import logging
import os
from pathlib import Path

import pytest
from official_layouts import middle, photo

from vitrail.core.errors import InvalidInputError
from vitrail.datasets import lists
from vitrail.datasets.dataset import NO_LABEL, Sample, Unreadable
from vitrail.datasets.open import detect_kind, open_dataset


@pytest.fixture
def write(tmp_path):
    """A function that writes a list beside two photos."""
    photo(tmp_path / "a b" / "1.png")
    photo(tmp_path / "2.png")

    def list_file(content, name="list.txt"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return list_file


@pytest.mark.parametrize("content", ["a b/1.png\n2.png\n", "\ufeffa b/1.png\r\n\r\n2.png", b"a b/1.png\x002.png\x00"])
def test_paths_are_relative_to_the_list(content, write, tmp_path):
    images = open_dataset(write(content), middle)
    assert images.paths == [tmp_path / "a b" / "1.png", tmp_path / "2.png"]
    assert (list(images.labels), images.class_names) == ([NO_LABEL] * 2, [])
    assert all(isinstance(sample, Sample) for sample in images)


def test_absolute_paths_links_outside_and_names_that_are_no_utf8(write, tmp_path):
    name = os.fsdecode(b"\xe9.png")
    photo(tmp_path / "plain.png").rename(tmp_path / name) if False else (tmp_path / "2.png").rename(tmp_path / name)
    images = open_dataset(
        write(b"\xe9.png\n../" + tmp_path.name.encode() + b"/a b/1.png\n" + os.fsencode(tmp_path) + b"/gone.png"), middle
    )
    assert [Path(images.name(index)) for index in range(3)] == [
        tmp_path / name,
        tmp_path / ".." / tmp_path.name / "a b" / "1.png",
        tmp_path / "gone.png",
    ]
    assert [type(sample) for sample in images] == [Sample, Sample, Unreadable]


def test_missing_files_and_folders_are_unreadable(write):
    first, second, third = open_dataset(write("gone.png\na b\n2.png\n"), middle)
    assert first.reason.startswith("no such image file: ")
    assert second.reason.startswith("expected an image file, got the folder ")
    assert isinstance(third, Sample)


def test_repeated_lines_count_once(write, caplog):
    with caplog.at_level(logging.WARNING, logger="vitrail"):
        images = open_dataset(write("2.png\n./2.png\na b/1.png\na b/../2.png\n"), middle)
    assert [path.name for path in images.paths] == ["2.png", "1.png"]
    assert "skipped 2 repeated lines" in caplog.text


@pytest.mark.parametrize("content", ["", "\n \n", b"\x00"])
def test_empty_lists_are_refused(content, write):
    with pytest.raises(InvalidInputError, match="expected the paths of images, one per line, got an empty list"):
        open_dataset(write(content), middle)


def test_standard_input_is_read_once(monkeypatch, tmp_path):
    photo(tmp_path / "2.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"2.png\nno.png\n")))
    lists._read_standard_input.cache_clear()
    try:
        for _ in range(2):
            assert open_dataset("-", middle).paths == [Path("2.png"), Path("no.png")]
    finally:
        lists._read_standard_input.cache_clear()


def test_a_photo_and_a_folder_are_no_lists(tmp_path):
    photo(tmp_path / "x.txt" / "1.png")
    assert [detect_kind(path) for path in (tmp_path / "x.txt", tmp_path / "x.txt" / "1.png", tmp_path / "no.txt")] == [
        "folder"
    ] * 3
