"""Images found below a folder, and the warnings about everything that is skipped."""

import os
import socket
import sys

import pytest
from PIL import Image

from vitrail.core.errors import InvalidInputError
from vitrail.datasets import file_search
from vitrail.datasets.file_search import find_images, images_below
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.photos import list_photos


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2)).save(path, "PNG")
    return path


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def list_by_command(root):
    """The images of a folder, as each command lists them."""
    yield "explain", [photo.path for photo in list_photos([root])]
    yield "explain --data, queries", images_below(root)
    yield "score, test, train", list(ImageFolder.scan(root, lambda image: image).paths)


@pytest.mark.parametrize(
    "suffix", ["jfif", "jpe", "gif", "GIF", "apng", "mpo", "pbm", "pnm", "dib", "avif", "JPG", "tiff", "webp"]
)
def test_every_supported_suffix_is_found(tmp_path, suffix):
    photo(tmp_path / "ant" / f"a.{suffix}")
    for command, paths in list_by_command(tmp_path):
        assert names(paths, tmp_path) == [f"ant/a.{suffix}"], command


@pytest.mark.parametrize("command", ["explain", "explain --data, queries", "score, test, train"])
def test_files_that_are_not_images_are_counted_and_named(tmp_path, caplog, command):
    photo(tmp_path / "ant" / "a.png")
    for name in ("notes.txt", "ant/b.heic", "ant/c", "ant/d.jpg.part", ".DS_Store", "ant/.hidden.txt", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    dict(list_by_command(tmp_path))
    caplog.clear()
    assert names(next(paths for name, paths in list_by_command(tmp_path) if name == command), tmp_path) == ["ant/a.png"]
    message = next(line for line in caplog.messages if line.startswith("skipped 3"))
    assert message == f"skipped 3 in {tmp_path} (no suffix of an image): ant/c, ant/d.jpg.part, notes.txt"
    assert f"skipped 1 in {tmp_path} (HEIC: export as JPEG): ant/b.heic" in caplog.messages


def test_only_the_first_skipped_files_are_named(tmp_path, caplog):
    photo(tmp_path / "a.png")
    for i in range(20):
        (tmp_path / f"{i:02}.txt").touch()
    images_below(tmp_path)
    [message] = caplog.messages
    assert message.startswith("skipped 20 in ")
    assert message.endswith("00.txt, 01.txt, 02.txt, 03.txt, 04.txt, 05.txt, 06.txt, 07.txt, ...")


def test_a_folder_with_only_images_gives_no_warning(tmp_path, caplog):
    photo(tmp_path / "ant" / "a.png")
    for _ in list_by_command(tmp_path):
        pass
    assert not caplog.messages


def test_every_command_follows_links(tmp_path):
    photo(tmp_path / "elsewhere" / "deep" / "a.png")
    photo(tmp_path / "data" / "ant" / "b.png")
    (tmp_path / "data" / "bee").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "ant" / "more").symlink_to(tmp_path / "elsewhere" / "deep")
    (tmp_path / "data" / "ant" / "c.png").symlink_to(tmp_path / "elsewhere" / "deep" / "a.png")
    expected = ["ant/b.png", "ant/c.png", "ant/more/a.png", "bee/deep/a.png"]
    for command, paths in list_by_command(tmp_path / "data"):
        assert names(paths, tmp_path / "data") == expected, command


def test_links_to_parent_folders_and_broken_links_are_skipped(tmp_path, caplog):
    photo(tmp_path / "ant" / "deep" / "a.png")
    (tmp_path / "ant" / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "ant" / "self").symlink_to("self")
    (tmp_path / "ant" / "gone.png").symlink_to("nowhere")
    for command, paths in list_by_command(tmp_path):
        assert names(paths, tmp_path) == ["ant/deep/a.png"], command
    assert f"skipped 1 in {tmp_path} (links to folders that are searched anyway): ant/deep/up" in caplog.messages
    assert f"skipped 1 in {tmp_path} (broken links): ant/gone.png" in caplog.messages
    assert any("ant/self" in message for message in caplog.messages)


def test_the_search_of_folders_that_link_to_each_other_ends(tmp_path):
    for i in range(12):
        photo(tmp_path / f"{i}" / "a.png")
        for j in range(12):
            if i != j:
                (tmp_path / f"{i}" / f"to{j}").symlink_to(tmp_path / f"{j}")
    contents = find_images(tmp_path)
    assert len(contents.paths) < 500
    assert len({path for path in contents.paths if path.parent.parent == tmp_path}) == 12


@pytest.mark.slow
def test_folders_nested_deeper_than_the_recursion_limit(tmp_path):
    folders = [tmp_path]
    for _ in range(sys.getrecursionlimit() + 100):
        folders.append(folders[-1] / "d")
        folders[-1].mkdir()
    deepest = photo(folders[-1] / "a.png")
    assert find_images(tmp_path).paths == [deepest]
    deepest.unlink()
    for folder in reversed(folders[1:]):  # shutil.rmtree calls itself.
        folder.rmdir()


@pytest.fixture
def locked(monkeypatch):
    """A function that makes a folder unreadable, also for root."""
    paths, scandir = set(), os.scandir

    def scan(path):
        if str(path) in paths:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(file_search.os, "scandir", scan)
    return lambda path: paths.add(str(path))


def test_a_folder_without_permission_is_skipped_with_a_warning(tmp_path, caplog, locked):
    photo(tmp_path / "ant" / "a.png")
    photo(tmp_path / "ant" / "deep" / "b.png")
    locked(tmp_path / "ant" / "deep")
    for command, paths in list_by_command(tmp_path):
        assert names(paths, tmp_path) == ["ant/a.png"], command
    assert caplog.messages.count(f"skipped 1 in {tmp_path} (cannot be read: Permission denied): ant/deep") == 3


def test_a_class_folder_without_permission_is_an_error(tmp_path, locked):
    for name in ("ant", "bee", "cat"):
        photo(tmp_path / name / "a.png")
    locked(tmp_path / "bee")
    with pytest.raises(InvalidInputError, match=f"got {tmp_path / 'bee'} .cannot be read: Permission denied"):
        ImageFolder.scan(tmp_path, lambda image: image)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_real_permissions(tmp_path):
    photo(tmp_path / "ant" / "a.png")
    photo(tmp_path / "ant" / "b" / "b.png")
    for mode in (0o000, 0o100, 0o400):
        (tmp_path / "ant" / "b").chmod(mode)
        contents = find_images(tmp_path)
        assert len(contents.skipped) + len(contents.paths) == 2, oct(mode)
    (tmp_path / "ant" / "b").chmod(0o700)
    tmp_path.chmod(0o000)
    with pytest.raises(InvalidInputError, match=f"cannot read the folder {tmp_path}: Permission denied"):
        find_images(tmp_path)
    tmp_path.chmod(0o700)


def test_pipes_and_sockets_are_skipped(tmp_path, caplog):
    photo(tmp_path / "ant" / "a.png")
    os.mkfifo(tmp_path / "ant" / "pipe.png")
    if len(str(tmp_path)) < 90:
        with socket.socket(socket.AF_UNIX) as plug:
            plug.bind(str(tmp_path / "ant" / "plug.png"))
    for command, paths in list_by_command(tmp_path):
        assert names(paths, tmp_path) == ["ant/a.png"], command
    assert any("(not regular files): ant/pipe.png" in message for message in caplog.messages)


@pytest.mark.parametrize("kind", ["nothing", "pipe", "loop"])
def test_anything_but_a_file_or_folder_is_refused(tmp_path, kind):
    path = tmp_path / "data"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to("data")
    message = (
        "no such file or folder of images" if kind == "nothing" else "expected a file or folder of images, got something else"
    )
    with pytest.raises(InvalidInputError, match=f"^{message}: {path}$"):
        ImageFolder.scan(path, lambda image: image)
