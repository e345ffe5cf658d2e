"""Photos of any number of channels: reading, preprocessing, drawing, refusing."""

import copy
import pickle

import networks
import numpy as np
import pytest
import torch
from PIL import Image

import vitrail
from vitrail.adapters import Preprocessing
from vitrail.adapters.spectral_photo import SpectralPhoto
from vitrail.core.baselines import baseline_names
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.file_search import find_images
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.image_io import open_image
from vitrail.datasets.photos import list_photos
from vitrail.datasets.rgb import to_rgb


def samples(channels=6, size=(40, 56), seed=0):
    return np.random.default_rng(seed).random((channels, *size), dtype=np.float32)


def save(tmp_path, array):
    np.save(tmp_path / "photo.npy", array)
    return tmp_path / "photo.npy"


@pytest.mark.parametrize("layout", ["chw", "hwc"])
@pytest.mark.parametrize(
    ("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (np.float64, 1), (">u2", 65535)]
)
def test_arrays_are_read_in_either_layout_and_every_type(tmp_path, layout, dtype, white):
    stored = (samples() * white).astype(dtype)
    photo = open_image(save(tmp_path, stored if layout == "chw" else stored.transpose(1, 2, 0)))
    assert photo.size == (56, 40)
    np.testing.assert_allclose(photo.samples, stored.astype(np.float64) / white, atol=1e-6)


def test_the_picture_shows_the_first_three_channels_or_the_first():
    values = samples()
    shown = np.asarray(SpectralPhoto(values).convert("RGB"))
    np.testing.assert_array_equal(shown, (values[:3] * 255).round().astype(np.uint8).transpose(1, 2, 0))
    gray = np.asarray(SpectralPhoto(values[:2]))
    np.testing.assert_array_equal(gray[..., 0], gray[..., 2])


def test_photos_are_pickled_with_their_samples_and_edited_without():
    photo = SpectralPhoto(samples())
    for again in (pickle.loads(pickle.dumps(photo)), copy.deepcopy(photo), to_rgb(photo)):
        np.testing.assert_array_equal(again.samples, photo.samples)
        assert again.tobytes() == photo.tobytes()
    assert not isinstance(photo.resize((8, 8)), SpectralPhoto)


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_three_channels_are_prepared_like_a_picture(mode):
    pixels = np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)).resize((112, 80)))
    preprocessing = Preprocessing((32, 32), 0.875, mode, "bilinear", (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    expected = preprocessing(Image.fromarray(pixels))
    found = preprocessing(SpectralPhoto(pixels.transpose(2, 0, 1).astype(np.float32) / 255))
    torch.testing.assert_close(found, expected, rtol=0, atol=2 / 255 / 0.5)  # Pictures are rounded to 8 bits.


def test_values_stay_between_0_and_1_under_bicubic_interpolation():
    edges = np.zeros((5, 40, 40), dtype=np.float32)
    edges[:, :, 20:] = 1
    found = Preprocessing.unnormalized(5, (64, 64))(SpectralPhoto(edges))
    assert (float(found.min()), float(found.max())) == (0.0, 1.0)


@pytest.fixture(scope="module")
def classifier():
    preprocessing = Preprocessing((32, 32), 1.0, mean=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), std=(0.5,) * 6)
    return vitrail.adapt(networks.timm_vit(in_chans=6), name="six", preprocessing=preprocessing)


@pytest.mark.parametrize("baseline", baseline_names())
def test_all_baselines_explain_six_channels(classifier, tmp_path, baseline):
    photo = save(tmp_path, samples())
    explanation = vitrail.explain(classifier, photo, method="integrated-gradients", baseline=baseline, num_steps=48)
    assert explanation.relevance.shape == (1, 4, 4)
    assert explanation.completeness_error() < 0.05


def test_files_of_the_command_line(classifier, tmp_path):
    [photo] = list_photos([save(tmp_path, samples())])
    assert classifier.prepare(photo.open(classifier.preprocessing)).shape == (1, 6, 32, 32)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_tiff_files_with_a_page_per_channel(classifier, tmp_path, dtype, white):
    stored = (samples() * white).astype(dtype)
    pages = [Image.fromarray(page) for page in stored]
    pages[0].save(tmp_path / "photo.tiff", save_all=True, append_images=pages[1:])
    photo = open_image(tmp_path / "photo.tiff", 6)
    np.testing.assert_allclose(photo.samples, stored.astype(np.float64) / white, atol=1e-6)
    assert not isinstance(open_image(tmp_path / "photo.tiff"), SpectralPhoto)
    with pytest.raises(ImageError, match="expected a file of 5 pages, one per channel of the network, got 6"):
        open_image(tmp_path / "photo.tiff", 5)


def test_other_numbers_of_channels_are_refused(classifier):
    with pytest.raises(InvalidInputError, match="expected a photo of 6 channels, as the network's preprocessing, got 5"):
        classifier.prepare(SpectralPhoto(samples(5)))
    with pytest.raises(InvalidInputError, match=r"expected a photo of 6 channels, .* got one of 1 or 3; save it as \.npy"):
        classifier.prepare(Image.new("RGB", (40, 40)))
    with pytest.raises(InvalidInputError, match="expected an interpolation of bicubic, bilinear, nearest, nearest-exact"):
        Preprocessing.unnormalized(6, interpolation="lanczos")(SpectralPhoto(samples()))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (samples() * 2, "between 0 .black. and 1"),
        (np.full((3, 8, 9), np.nan, dtype=np.float32), "between 0 .black. and 1"),
        (np.zeros((3, 8, 9), dtype=np.int16), "got int16"),
        (np.zeros((3, 8, 9), dtype=bool), "got bool"),
        (np.zeros(9, dtype=np.uint8), r"got shape \(9,\)"),
        (np.zeros((4, 9, 4), dtype=np.uint8), r"got shape \(4, 9, 4\)"),
        (np.zeros((0, 9), dtype=np.uint8), r"got shape \(0, 9\)"),
        (np.array([{}], dtype=object), "damaged or truncated array"),
    ],
)
def test_arrays_that_are_no_photos(tmp_path, array, message):
    with pytest.raises(ImageError, match=message):
        open_image(save(tmp_path, array))


def test_damaged_and_huge_arrays(tmp_path, monkeypatch):
    path = save(tmp_path, samples())
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(ImageError, match="damaged or truncated array"):
        open_image(path)
    path.write_bytes(content.replace(b"(6, 40, 56)", b"(6,4000,56)"))
    with pytest.raises(ImageError, match="damaged or truncated array"):
        open_image(path)
    path.write_bytes(b"not an array")
    with pytest.raises(ImageError, match="damaged or truncated array"):
        open_image(path)
    path.write_bytes(content)
    monkeypatch.setenv("VITRAIL_MAX_MEGAPIXELS", "0.001")
    with pytest.raises(ImageError, match="expected an image of at most 1,000 pixels"):
        open_image(path)
    monkeypatch.delenv("VITRAIL_MAX_MEGAPIXELS")
    monkeypatch.setattr("vitrail.datasets.spectral.MAX_BYTES", 1000)
    with pytest.raises(ImageError, match="expected at most 0 million samples"):
        open_image(path)


def test_folders_of_arrays(tmp_path):
    for name in ("a/0.npy", "b/1.npy"):
        (tmp_path / name).parent.mkdir()
        np.save(tmp_path / name, np.full((8, 8, 6), ord(name[0]), np.uint8))
    images = ImageFolder.scan(tmp_path, Preprocessing.unnormalized(6, (8, 8)))
    assert images.class_names == ["a", "b"]
    assert images[1].image.mean().item() == pytest.approx(ord("b") / 255)
    pages = [Image.new("L", (8, 8), 7 * page) for page in range(6)]
    pages[0].save(tmp_path / "a" / "0.tif", save_all=True, append_images=pages[1:])
    tiffs = ImageFolder.scan(tmp_path / "a", Preprocessing.unnormalized(6, (8, 8)))
    assert (tiffs[1].image[:, 0, 0] * 255).round().tolist() == [0, 7, 14, 21, 28, 35]
    (tmp_path / "a" / "0.tif").rename(tmp_path / "a" / "preview.tif")
    for num_channels, expected in ((3, ["preview.tif"]), (None, ["preview.tif"]), (6, ["0.npy", "preview.tif", "1.npy"])):
        found = find_images(tmp_path, num_channels)
        assert [path.name for path in found.paths] == expected
        assert len(found.skipped) == 3 - len(expected)
        assert all(entry.reason.startswith("arrays, which may be no photos") for entry in found.skipped)
    assert [path.name for path in find_images(tmp_path / "b", None).paths] == ["1.npy"]
    assert find_images(tmp_path / "b").paths == []
    with pytest.raises(InvalidInputError, match="expected images"):
        ImageFolder.scan(tmp_path / "b", Preprocessing())
    assert list_photos([tmp_path / "b" / "1.npy"], num_channels=3)[0].required  # The user's own choice.
    with pytest.raises(InvalidInputError, match=r"expected images in the folder .*, found none"):
        list_photos([tmp_path / "b"], num_channels=3)
    assert [photo.path.name for photo in list_photos([tmp_path / "b"], num_channels=6)] == ["1.npy"]
