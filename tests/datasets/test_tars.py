"""Images in tar files: the same as those in a folder, whatever is wrong with the rest."""

import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image
from samples import noisy_photo
from tar_files import encoded, write_tar

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.dataset import NO_LABEL, Sample, Unreadable
from vitrail.datasets.open import open_dataset
from vitrail.datasets.tars import expand_braces, find_tars, read_tars


def pixels(image: Image.Image):
    import torch

    return torch.from_numpy(np.array(image))


@pytest.fixture
def shards(tmp_path):
    """Three tar files with two images each, their classes and other files."""
    for i in range(3):
        members = [("./README.md", b"read me"), (".hidden/9.png", b"x")]
        for j in (2 * i, 2 * i + 1):
            members += [(f"{j}.png", encoded(j)), (f"{j}.mask.png", b"a mask"), (f"{j}.cls", str(j % 3).encode())]
        write_tar(tmp_path / "shards" / f"{i:03}.tar", *members)
    return tmp_path / "shards"


def test_a_folder_of_tar_files(shards):
    images = open_dataset(shards, pixels)
    assert [images.name(index) for index in range(len(images))] == [f"{shards}/{i // 2:03}.tar/{i}.png" for i in range(6)]
    assert (list(images.labels), list(images.class_names)) == ([0, 1, 2, 0, 1, 2], ["0", "1", "2"])
    for index, sample in enumerate(images):
        assert np.array_equal(sample.image.numpy(), np.array(noisy_photo(index)))
        with tarfile.open(shards / f"{index // 2:03}.tar") as tar:
            assert images.num_bytes(index) == tar.getmember(f"{index}.png").size
    part = pickle.loads(pickle.dumps(images.subset([4, 1]).subset([1])))
    assert (part.name(0), list(part.labels)) == (images.name(1), [1])
    assert part[0].image.equal(images[1].image)


def test_hidden_tar_files_are_not_read(shards):
    (shards / "._000.tar").write_bytes(b"metadata of another file system")
    assert len(open_dataset(shards, pixels)) == 6


def test_different_classes_beside_tar_files_are_refused(shards):
    for folder, names in (("one", "a\nb\nc"), ("two", "b\na\nc")):
        (shards / folder).mkdir()
        (shards / folder / "000.tar").write_bytes((shards / "000.tar").read_bytes())
        (shards / folder / "classes.txt").write_text(names)
    with pytest.raises(InvalidInputError, match=r"expected the same classes\.txt beside all tar files"):
        open_dataset(shards / "{one,two}" / "000.tar", pixels)


def test_tar_files_by_pattern(shards):
    for pattern in ("{000..001}.tar", "00{0,1}.tar", "00[01].tar"):
        assert find_tars(shards / pattern) == [shards / "000.tar", shards / "001.tar"]
        assert len(open_dataset(shards / pattern, pixels)) == 4
    assert len(open_dataset(shards / "002.tar", pixels)) == 2
    with pytest.raises(InvalidInputError, match=r"no such tar file: .*/003\.tar \(of .*\{000\.\.003\}\.tar\)$"):
        open_dataset(shards / "{000..003}.tar", pixels)
    with pytest.raises(InvalidInputError, match=r"no such tar file: .*x\*\.tar$"):
        open_dataset(shards / "x*.tar", pixels)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{a,b}{1..2}", ["a1", "a2", "b1", "b2"]),
        ("{a}{}{2..1}", ["{a}{}{2..1}"]),
    ],
)
def test_braces_are_expanded_as_by_a_shell(pattern, expected):
    assert expand_braces(pattern) == expected


def test_too_many_files_are_refused():
    for pattern in ("{0..999999999999}", "{0..9999}{0..9999}"):
        with pytest.raises(InvalidInputError, match="expected at most 1,000,000 tar files"):
            expand_braces(pattern)


def test_by_name_with_the_options_of_the_stream(shards):
    images = open_dataset(shards, pixels, "webdataset", "train", shards="*1.tar", num_classes=5)
    assert (list(images.labels), list(images.class_names)) == ([2, 0], ["0", "1", "2", "3", "4"])
    (shards / "classes.txt").write_text("ant\nbee\nwasp\n")
    assert list(open_dataset(shards, pixels).class_names) == ["ant", "bee", "wasp"]
    (shards / "classes.txt").write_text("ant\n")
    with pytest.raises(InvalidInputError, match=r"expected classes from 0 to 0 in .*, got 2"):
        open_dataset(shards, pixels)


def test_classes_in_json(tmp_path):
    members = [
        ("1.png", encoded(1)),
        ("1.json", b'{"kind": 4}'),
        ("2.png", encoded(2)),
        ("2.json", b"damaged"),
        ("3.png", encoded(3)),
    ]
    images = read_tars([write_tar(tmp_path / "a.tar", *members)], pixels, label="kind")
    assert list(images.labels) == [4, NO_LABEL, NO_LABEL]


def test_names_of_any_kind_and_two_of_one_name(tmp_path):
    names = ["../../etc/1.png", "/abs/2.png", "new\nline 3.png", "a//b/./4.png", "v1.2.5.png"]
    members = [(name, encoded(i)) for i, name in enumerate(names)]
    tar = write_tar(tmp_path / "a.tar", ("twice.png", encoded(7)), *members, ("twice.png", encoded(8)))
    with tarfile.open(tar, "a") as file:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("link.png")
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
    images = open_dataset(tar, pixels)
    found = [images.name(index).removeprefix(f"{tar}/") for index in range(len(images))]
    assert found == ["twice.png", "../../etc/1.png", "abs/2.png", "new\nline 3.png", "a/b/4.png", "v1.2.5.png"]
    twice, *others = images
    assert twice.reason == f"expected one file of this name in the tar file, found 2: {tar}/twice.png"
    assert [np.array_equal(sample.image.numpy(), np.array(noisy_photo(i))) for i, sample in enumerate(others)] == [True] * 5


@pytest.mark.parametrize("cut", ["inside an image", "inside a header", "before the end"])
def test_a_tar_file_that_is_cut_short(cut, tmp_path):
    tar = write_tar(tmp_path / "a.tar", *((f"{i}.png", encoded(i)) for i in range(3)))
    with tarfile.open(tar) as file:
        last, end = file.getmember("2.png"), file.offset
    tar.write_bytes(
        tar.read_bytes()[: {"inside an image": last.offset_data + 9, "inside a header": last.offset + 99}.get(cut, end)]
    )
    images = list(open_dataset(tar, pixels))
    num_whole = 3 if cut == "before the end" else 2
    assert [type(sample) for sample in images[:num_whole]] == [Sample] * num_whole
    assert {type(sample) for sample in images[num_whole:]} == {Unreadable}
    assert images[-1].path == str(tar)
    if cut == "inside an image":
        assert "since the tar file is cut short" in images[2].reason


def test_unreadable_images_and_files_that_are_no_tar_files(tmp_path):
    write_tar(tmp_path / "a.tar", ("bad.png", b"no picture"), ("good.jpg", encoded(1, "JPEG")), ("empty.png", b""))
    (tmp_path / "b.tar").write_bytes(b"no tar file" * 100)
    bad, good, empty, damaged = open_dataset(tmp_path, pixels)
    assert "got something else" in bad.reason
    assert isinstance(good, Sample)
    assert "empty one (0 bytes)" in empty.reason
    assert damaged.path == str(tmp_path / "b.tar")
    assert "expected an uncompressed tar file" in damaged.reason
    with pytest.raises(InvalidInputError, match=r"expected images .* in .*c\.tar, found none"):
        open_dataset(write_tar(tmp_path / "c.tar", ("1.txt", b"text")), pixels)


def test_a_folder_of_images_with_a_tar_file_is_a_folder(tmp_path, shards):
    noisy_photo(1).save(tmp_path / "photo.png")
    (tmp_path / "deep").mkdir()
    noisy_photo(1).save(tmp_path / "deep" / "photo.png")
    (shards / "000.tar").rename(tmp_path / "deep" / "x.tar")
    for folder, expected in ((tmp_path / "deep", "photo.png"), (tmp_path, "photo.png")):
        assert open_dataset(folder, pixels, labeled=False).paths[-1].name == expected
