"""Properties of single data sets: folders, boxes, levels, arrays and missing packages."""

import gzip
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from official_layouts import LAYOUTS, middle, photo, text

from vitrail.core.errors import InvalidInputError, MissingExtraError
from vitrail.datasets.open import read_data

MNIST = Path(__file__).parents[4] / "shared" / "data" / "MNIST"


@pytest.fixture
def root(request, tmp_path):
    """The folder of a tiny copy of the data set `name`."""
    LAYOUTS[request.getfixturevalue("name")].write(tmp_path)
    return tmp_path


# folder, imagenet


@pytest.mark.parametrize("name", ["folder"])
def test_folders_with_other_names(name, root):
    (root / "train").rename(root / "training set")
    by_option = read_data("folder", root, "train", middle, train="training set")
    by_split = read_data("folder", root, "training set", middle)
    assert [sample.path for sample in by_option] == [sample.path for sample in by_split]
    with pytest.raises(InvalidInputError, match=rf"no such file or folder: {re.escape(str(root))}/train\n"):
        read_data("folder", root, "train", middle)


def test_unsorted_validation_images_of_imagenet_are_refused(tmp_path):
    photo(tmp_path / "val" / "ILSVRC2012_val_00000293.JPEG")
    with pytest.raises(InvalidInputError, match=r"found 1 images without a class; sort them: .*torchvision.datasets.ImageNet"):
        read_data("imagenet", tmp_path, "val", middle)


# boxes


@pytest.mark.parametrize("name", ["cub-200-2011"])
def test_boxes_of_birds(name, root):
    images = read_data(name, root, "train", middle)
    assert [images.box(i) for i in range(2)] == [(1, 2, 3, 5), (1, 2, 4, 5)]
    assert images.open(0).size == (8, 8)
    birds = read_data(name, root, "train", middle, crop_to_box=True)
    assert [birds.open(i).size for i in range(2)] == [(2, 3), (3, 3)]
    assert birds.box(0) is None


@pytest.mark.parametrize("name", ["stanford-cars"])
def test_boxes_of_cars_are_converted_to_zero_based_exclusive_edges(name, root):
    images = read_data(name, root, "test", middle)
    assert images.box(1) == (1, 2, 6, 8)
    assert read_data(name, root, "test", middle, crop_to_box="yes").open(1).size == (5, 6)


@pytest.mark.parametrize("name", ["mnist", "oxford-pets"])
def test_data_sets_without_boxes(name, root):
    assert read_data(name, root, "train", middle).box(0) is None


# levels


@pytest.mark.parametrize("name", ["inaturalist-2018", "inaturalist-2019"])
def test_levels_of_inaturalist(name, root):
    images = read_data(name, root, "train", middle, level="genus")
    assert list(images.class_names) == ["Bellis", "Parus"]
    assert list(images.labels) == [1, 0, 1]
    assert list(read_data(name, root, "val", middle, level="class").labels) == [0]
    with pytest.raises(
        InvalidInputError, match=r"expected level to be one of name, genus, class, as in .*train20.*, got 'family'"
    ):
        read_data(name, root, "train", middle, level="family")


@pytest.mark.parametrize("name", ["inaturalist-2018"])
def test_real_names_replace_obfuscated_names(name, root):
    text(root / "categories.json", ['[{"id": 5, "name": "Daisy"}, {"id": 12, "name": "Tit"}, {"id": 20, "name": "Tit"}]'])
    images = read_data(name, root, "train", middle)
    assert list(images.class_names) == ["Daisy", "Tit (12)", "Tit (20)"]
    assert list(images.labels) == [1, 0, 2]


@pytest.mark.parametrize("name", ["fgvc-aircraft"])
def test_levels_of_aircraft(name, root):
    images = read_data(name, root, "test", middle, level="family")
    assert (list(images.class_names), list(images.labels)) == (["Boeing 707", "Cessna 172"], [0])
    with pytest.raises(InvalidInputError, match=r"no such file or folder: .*images_family_trainval\.txt"):
        read_data(name, root, "train", middle, level="family")


@pytest.mark.parametrize("name", ["cifar100"])
def test_levels_of_cifar100(name, root):
    images = read_data(name, root, "train", middle, level="coarse")
    assert (list(images.class_names), list(images.labels)) == (["animal", "fruit"], [1, 0])


# arrays


@pytest.mark.parametrize("name", ["cifar10"])
def test_pixels_of_cifar10(name, root):
    with (root / "cifar-10-batches-py" / "test_batch").open("rb") as file:
        rows = pickle.load(file)["data"]
    opened = np.asarray(read_data(name, root, "test", middle).open(1))
    np.testing.assert_array_equal(opened, rows[1].reshape(3, 32, 32).transpose(1, 2, 0))


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("name", ["cifar10"])
def test_cifar10_in_every_pickle_protocol(name, root, protocol):
    path = root / "cifar-10-batches-py" / "test_batch"
    pixels = np.arange(3072, dtype=np.uint8)[None]
    path.write_bytes(pickle.dumps({"data": pixels, "labels": [1]}, protocol=protocol))
    assert read_data(name, root, "test", middle).open(0).getpixel((1, 0)) == (1, 1, 1)


def pickle_like_python_2(pixels: bytes, label: int) -> bytes:
    """A batch of one image, with the same bytes as in the official files."""
    return (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01M\x00\x0c\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T\x00\x0c\x00\x00" + pixels + b"tbU\x06labels]K" + bytes([label]) + b"au."
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["cifar10"])
def test_cifar10_as_pickled_by_python_2(name, root):
    pixels = bytes(range(256)) * 12
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle_like_python_2(pixels, 2))
    images = read_data(name, root, "test", middle)
    assert list(images.labels) == [2]
    assert images.open(0).getpixel((31, 1)) == (63, 63, 63)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("file", ["test_batch", "batches.meta"])
@pytest.mark.parametrize("name", ["cifar10"])
def test_code_in_a_pickle_is_not_run(name, root, file):
    touched = root / "touched"
    path = root / "cifar-10-batches-py" / file
    path.write_bytes(pickle.dumps({"data": Evil(touched), "label_names": Evil(touched), "labels": [1]}))
    with pytest.raises(InvalidInputError, match=rf"^damaged {re.escape(str(path))}: .*it contains .*, which is not plain data"):
        read_data(name, root, "test", middle)
    assert not touched.exists()


@pytest.mark.parametrize("name", ["cifar10"])
def test_an_array_of_objects_is_refused(name, root):
    path = root / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps({"data": np.array([[None]], object), "labels": [1]}, protocol=2))
    with pytest.raises(InvalidInputError, match=r"it contains an array of object, which are not numbers"):
        read_data(name, root, "test", middle)


@pytest.mark.parametrize(("name", "other"), [("cifar10", "airplane"), ("cifar100", "apple"), ("mnist", "7")])
@pytest.mark.parametrize("part", ["train", "test"])
def test_image_folders_instead_of_the_original_files_are_refused(name, other, part, tmp_path):
    photo(tmp_path / part / other / "1.png")
    with pytest.raises(InvalidInputError, match=rf"original files of {name} .*read them as the data set 'folder'$"):
        read_data(name, tmp_path, "train", middle)


@pytest.mark.parametrize("name", ["cifar10"])
def test_labels_out_of_range_are_refused(name, root):
    path = root / "cifar-10-batches-py" / "test_batch"
    for labels in ([3], [-1], ["bird"], [True, 1]):
        path.write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": labels}, protocol=2))
        with pytest.raises(InvalidInputError, match=rf"^damaged {re.escape(str(path))}"):
            read_data(name, root, "test", middle)


@pytest.mark.parametrize("name", ["mnist"])
def test_mnist_in_decompressed_files(name, root):
    import gzip

    before = [sample.label for sample in read_data(name, root, "test", middle)]
    for path in sorted((root / "MNIST" / "raw").iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert [sample.label for sample in read_data(name, root, "test", middle)] == before


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST in {MNIST}")
def test_the_real_mnist():
    images = read_data("mnist", MNIST, "test", middle)
    assert len(images) == 10_000
    assert images.labels[:5] == [7, 2, 1, 0, 4]
    assert images.open(0).size == (28, 28)
    assert images.open(0).mode == "RGB"
    assert np.bincount(images.subsample(100).labels).min() >= 8
    with pytest.raises(InvalidInputError, match=r"no such file or folder: .*train-images-idx3-ubyte\.gz"):
        read_data("mnist", MNIST, "train", middle)


# extras


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("stanford-dogs", "scipy", "matlab"), ("stanford-cars", "scipy", "matlab")]
)
def test_a_missing_package_is_named(name, package, extra, root, monkeypatch):
    monkeypatch.setitem(sys.modules, f"{package}.io", None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'vitrail\[{extra}\]'"):
        read_data(name, root, "train", middle)


@pytest.mark.parametrize(("extra", "message"), [(b"\0" * 5_000_000, "got more"), (None, "at most 4,000,000,000 bytes")])
def test_a_gzip_file_larger_than_announced_is_refused(tmp_path, extra, message):
    LAYOUTS["mnist"].write(tmp_path)
    path = next(tmp_path.rglob("train-images-idx3-ubyte.gz"))
    content = gzip.decompress(path.read_bytes())
    if extra is None:  # The header announces 12 GB, which must not be read.
        content = content[:4] + (12_000_000).to_bytes(4, "big") + (1000).to_bytes(4, "big") + (1).to_bytes(4, "big")
    path.write_bytes(gzip.compress(content + (extra or b"")))
    with pytest.raises(InvalidInputError, match=f"damaged .*{message}"):
        read_data("mnist", tmp_path, "train", middle)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_boxes_that_are_not_finite_are_refused(tmp_path, number):
    LAYOUTS["cub-200-2011"].write(tmp_path)
    path = next(tmp_path.rglob("bounding_boxes.txt"))
    path.write_text("\n".join(f"{line.rsplit(maxsplit=1)[0]} {number}" for line in path.read_text().splitlines()))
    with pytest.raises(InvalidInputError, match="expected boxes of finite numbers"):
        read_data("cub-200-2011", tmp_path, "train", middle)


def test_imagenette_of_a_size_that_is_not_there_is_refused(tmp_path):
    LAYOUTS["imagenette"].write(tmp_path)
    assert len(read_data("imagenette", tmp_path, "val", middle, size=320)) == 10
    with pytest.raises(InvalidInputError, match="imagenette2-160"):
        read_data("imagenette", tmp_path, "val", middle, size=160)


def test_other_classes_are_not_taken_for_imagenette(tmp_path):
    photo(tmp_path / "val" / "n01440764" / "1.png")
    with pytest.raises(InvalidInputError, match="expected the ten folders of Imagenette"):
        read_data("imagenette", tmp_path, "val", middle)
