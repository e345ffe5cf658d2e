"""Photos, methods and targets in all forms that `vitrail.explain` takes."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from samples import CLASS_NAMES, noisy_photo
from torch.utils.data import DataLoader, Dataset, TensorDataset

import vitrail
from vitrail.core.errors import ImageError, InvalidInputError, UnknownNameError

pytest_plugins = ("tiny",)


@pytest.fixture
def classifier(tiny_model_file):
    return vitrail.load(tiny_model_file, device="cpu")


def encode(photo):
    buffer = BytesIO()
    photo.save(buffer, "png")
    return buffer.getvalue()


class Photos(Dataset):
    """A data set without __iter__."""

    def __getitem__(self, index):
        if index >= 3:
            raise IndexError
        return noisy_photo(index), index


FORMS = {
    "opened": lambda photo, path, images: photo,
    "array": lambda photo, path, images: np.asarray(photo),
    "batch of arrays": lambda photo, path, images: np.asarray(photo)[None],
    "pixels": lambda photo, path, images: torch.from_numpy(np.array(photo)).permute(2, 0, 1),
    "batch of pixels": lambda photo, path, images: torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None],
    "bytes": lambda photo, path, images: encode(photo),
    "BytesIO": lambda photo, path, images: BytesIO(encode(photo)),
    "path": lambda photo, path, images: path,
    "text": lambda photo, path, images: str(path),
    "generator": lambda photo, path, images: (one for one in [photo]),
    "normalized": lambda photo, path, images: images[0],
    "batch": lambda photo, path, images: images,
    "pixel values": lambda photo, path, images: {"pixel_values": images, "labels": torch.tensor([3])},
    "loader": lambda photo, path, images: DataLoader(TensorDataset(images, torch.tensor([3])), batch_size=2),
    "loader without labels": lambda photo, path, images: DataLoader(TensorDataset(images)),
    "labeled": lambda photo, path, images: [(photo, "a label")],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_photo_of_any_form_is_seen_alike(form, classifier, tmp_path):
    photo = noisy_photo(0)
    photo.save(tmp_path / "photo.png")
    images = classifier.prepare(photo)
    explanation = vitrail.explain(classifier, FORMS[form](photo, tmp_path / "photo.png", images))
    with torch.no_grad():
        expected = classifier.logits(images)
    torch.testing.assert_close(explanation.logits, expected)
    assert explanation.relevance.shape == (1, 4, 4)
    assert len(explanation.photos) == 1


def test_an_open_file_is_a_photo_and_names_its_source(classifier, make_photo, tmp_path):
    path = make_photo(tmp_path / "photo.png")
    with path.open("rb") as file:
        explanation = vitrail.explain(classifier, file)
    assert explanation.sources == (str(path),)
    with path.with_suffix(".txt").open("w+") as text, pytest.raises(InvalidInputError, match="binary mode"):
        vitrail.explain(classifier, text)


def test_a_list_mixes_forms_and_keeps_its_order(classifier, make_photo, tmp_path):
    photos = [noisy_photo(i) for i in range(5)]
    mixed = [
        photos[0],
        classifier.prepare(photos[1]),
        np.asarray(photos[2]),
        make_photo(tmp_path / "3.png", seed=3),
        BytesIO(encode(photos[4])),
    ]
    explanation = vitrail.explain(classifier, mixed)
    with torch.no_grad():
        expected = torch.cat([classifier.logits(classifier.prepare(photo)) for photo in photos])
    torch.testing.assert_close(explanation.logits, expected, rtol=1e-4, atol=1e-5)
    assert explanation.sources == ("", "", "", str(tmp_path / "3.png"), "")


def test_a_data_set_of_pairs_is_a_list_of_photos(classifier):
    explanation = vitrail.explain(classifier, Photos())
    expected = vitrail.explain(classifier, [noisy_photo(i) for i in range(3)])
    assert torch.equal(explanation.relevance, expected.relevance)


def test_groups_of_files_lose_none(classifier, make_photo, tmp_path):
    paths = [make_photo(tmp_path / f"{i}.png", seed=i) for i in range(4)]
    explanation = vitrail.explain(classifier, [tuple(paths[:2]), [str(path) for path in paths[2:]]])
    assert explanation.sources == tuple(map(str, paths))


def test_batches_of_a_loader_follow_each_other(classifier):
    images = torch.cat([classifier.prepare(noisy_photo(i)) for i in range(5)])
    explanation = vitrail.explain(
        classifier, DataLoader(TensorDataset(images, torch.arange(5)), batch_size=2), target=[0, 1, 2, 3, 4]
    )
    whole = vitrail.explain(classifier, images, target=torch.arange(5))
    torch.testing.assert_close(explanation.relevance, whole.relevance, rtol=1e-4, atol=1e-5)
    assert (explanation.sources, len(explanation.photos)) == ((), 5)


def test_photos_of_a_generator_are_opened_batch_by_batch(classifier):
    opened, explained = [], []

    def photos():
        for i in range(40):
            opened.append(i)
            yield noisy_photo(i)

    hook = classifier.module.register_forward_hook(lambda *_: explained.append(len(opened)))
    vitrail.explain(classifier, photos(), "random")
    hook.remove()
    assert min(explained) <= 17


# Refused.


@pytest.mark.parametrize("scale", [torch.float32, torch.float64, torch.float16])
def test_floats_from_0_to_255_are_refused(scale, classifier):
    images = (torch.rand(1, 3, 16, 16) * 255).to(scale)
    with pytest.raises(
        InvalidInputError, match=r"expected a normalized batch, got floats from .* which look like pixels; give pixels as uint8"
    ):
        vitrail.explain(classifier, images)


def test_strong_but_normalized_floats_are_not_refused(classifier, caplog):
    vitrail.explain(classifier, torch.randn(1, 3, 16, 16) * 20)
    assert caplog.messages == []


@pytest.mark.parametrize(("mean", "count"), [((0.5,) * 3, 1), ((0.0,) * 3, 0)])
def test_floats_from_0_to_1_are_noticed(classifier, mean, count, caplog):
    """Unless the network takes them as they are."""
    classifier = replace(classifier, preprocessing=replace(classifier.preprocessing, mean=mean))
    vitrail.explain(classifier, torch.rand(1, 3, 16, 16))
    assert len(caplog.messages) == count
    assert all("look like pixels that are not normalized" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        (np.random.rand(16, 16, 3), r"got float64 from \S+ to \S+; convert it by array.astype"),
        (np.zeros((3, 16, 17), np.uint8), r"got \(3, 16, 17\); move the channels last by array.transpose\(1, 2, 0\)"),
        (np.zeros((0, 16, 3), np.uint8), r"got \(0, 16, 3\)"),
        (np.zeros(5, np.uint8), r"got \(5,\)"),
        (torch.zeros(16, 17, 3, dtype=torch.uint8), r"move the channels by permute\(2, 0, 1\)"),
        (torch.zeros(2, 16, 17, 3, dtype=torch.uint8), r"move the channels by permute\(0, 3, 1, 2\)"),
        (torch.zeros(3), r"got a tensor \(3,\)"),
        ({"image": 1}, "the key 'pixel_values', got the keys 'image'"),
        ([7], "got int"),
        ([[]], "at least one photo"),
    ],
    ids=["floats", "channels-first", "empty", "flat", "hwc-tensor", "nhwc-tensor", "vector", "keys", "number", "nothing"],
)
def test_other_things_are_refused_in_a_sentence(photos, message, classifier):
    with pytest.raises(InvalidInputError, match=message):
        vitrail.explain(classifier, photos)


def test_a_folder_is_refused_with_the_function_for_folders(classifier, tmp_path):
    for folder in (tmp_path, str(tmp_path)):
        with pytest.raises(
            ImageError, match=r"got the folder .*; explain its photos by vitrail.explain_files\(\[folder\], \.\.\.\)"
        ):
            vitrail.explain(classifier, folder)


def test_a_damaged_file_in_memory_is_refused(classifier):
    with pytest.raises(ImageError, match="BytesIO"):
        vitrail.explain(classifier, BytesIO(b"no image"))
    with pytest.raises(ImageError, match="0 bytes"):
        vitrail.explain(classifier, b"")


# Methods and targets.


def test_a_list_of_methods_gives_a_dictionary(classifier):
    found = vitrail.explain(classifier, noisy_photo(0), ["hit", "random"], method_options={"random": {"seed": 3}})
    assert list(found) == ["hit", "random"]
    assert torch.equal(found["hit"].relevance, vitrail.explain(classifier, noisy_photo(0), "hit").relevance)
    assert torch.equal(found["random"].relevance, vitrail.explain(classifier, noisy_photo(0), "random", seed=3).relevance)
    assert list(vitrail.explain(classifier, noisy_photo(0), ["hit"])) == ["hit"]


def test_a_generator_serves_several_methods(classifier):
    found = vitrail.explain(classifier, (noisy_photo(i) for i in range(3)), ["hit", "random"])
    assert [len(explanation) for explanation in found.values()] == [3, 3]


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        ([], {}, "at least one method"),
        (["random", "random"], {}, "each once"),
        (["hit", "random"], {"seed": 1}, "options of several methods by method, got seed"),
        (["hit"], {"method_options": {"random": {}}}, "options of 'random'"),
    ],
)
def test_bad_lists_of_methods_are_refused(methods, options, message, classifier):
    with pytest.raises(InvalidInputError, match=message):
        vitrail.explain(classifier, noisy_photo(0), methods, **options)


@pytest.mark.parametrize(
    "photos", [noisy_photo(0), [noisy_photo(0)], np.asarray(noisy_photo(0))], ids=["bare", "list", "array"]
)
@pytest.mark.parametrize(
    "target", [["amber", 2, "6"], [0, 2, 6], [[0, 2, 6]], torch.tensor([[0, 2, 6]]), np.array([0, 2, 6])], ids=str
)
def test_a_list_of_targets_of_one_photo_gives_a_map_each(target, photos, classifier):
    explanation = vitrail.explain(classifier, photos, target=target)
    assert explanation.targets.tolist() == [0, 2, 6]
    for i, index in enumerate([0, 2, 6]):
        alone = vitrail.explain(classifier, noisy_photo(0), target=index)
        torch.testing.assert_close(explanation.relevance[i], alone.relevance[0], rtol=1e-4, atol=1e-5)
    assert (explanation.photos[0] == explanation.photos[2]).all()


def test_lists_of_targets_follow_their_photos(classifier):
    explanation = vitrail.explain(classifier, [noisy_photo(i) for i in range(3)], target=[["amber", "blue"], "green", [2]])
    assert [CLASS_NAMES[i] for i in explanation.targets] == ["amber", "blue", "green", "crimson"]
    assert torch.equal(explanation.logits[0], explanation.logits[1])
    alone = vitrail.explain(classifier, noisy_photo(1), target="green")
    torch.testing.assert_close(explanation.relevance[2], alone.relevance[0], rtol=1e-4, atol=1e-5)


def test_many_targets_are_explained_in_batches(classifier):
    targets = [i % 7 for i in range(50)]
    assert vitrail.explain(classifier, noisy_photo(0), "random", target=targets).targets.tolist() == targets


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([[0], []], InvalidInputError, "at least one class per photo"),
        ([[0]], InvalidInputError, "expected 2 targets, one per photo"),
        ([0, 1, 2], InvalidInputError, "expected 2 targets, one per photo"),
        (["amber", "ambr"], UnknownNameError, "did you mean 'amber'"),
        ([0.5, 1.0], InvalidInputError, "whole numbers or names, got 0.5"),
        ([True, False], InvalidInputError, "whole numbers or names, got True"),
        (1.5, InvalidInputError, "got 1.5"),
    ],
)
def test_bad_lists_of_targets_are_refused(target, error, message, classifier):
    with pytest.raises(error, match=message):
        vitrail.explain(classifier, [noisy_photo(0), noisy_photo(1)], target=target)
    if isinstance(target, list) and len(target) == 1:
        with pytest.raises(error):
            vitrail.explain(classifier, (noisy_photo(i) for i in range(2)), target=target)


# What is kept for pictures.


def test_the_kept_photo_is_what_the_network_sees(classifier):
    photo = noisy_photo(0, (200, 100))
    (kept,) = vitrail.explain(classifier, photo).photos
    left, top, right, bottom = classifier.preprocessing.visible_box(100, 200)
    assert kept.dtype == np.uint8
    assert kept.shape == (round(bottom - top), round(right - left), 3)
    # Colors of the corners: the photo has 4x4 fields.
    for row, col in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        x, y = int(left if col == 0 else right - 1), int(top if row == 0 else bottom - 1)
        np.testing.assert_allclose(kept[row, col], photo.getpixel((x, y)), atol=12)


def test_a_normalized_image_is_kept_as_pixels(classifier):
    images = classifier.prepare(noisy_photo(0))
    (kept,) = vitrail.explain(classifier, images).photos
    mean, std = (np.array(numbers) for numbers in (classifier.preprocessing.mean, classifier.preprocessing.std))
    expected = (images[0].permute(1, 2, 0).numpy() * std + mean) * 255
    np.testing.assert_allclose(kept, expected, atol=0.51)


def test_large_photos_are_kept_small(classifier):
    (kept,) = vitrail.explain(classifier, noisy_photo(0, (3000, 2000))).photos
    assert max(kept.shape) <= 336


def test_photos_are_not_kept_on_request_and_not_saved(classifier, tmp_path):
    assert vitrail.explain(classifier, noisy_photo(0), keep_photos=False).photos == ()
    kept = vitrail.explain(classifier, [noisy_photo(0), noisy_photo(1)])
    assert len(kept[1:].photos) == len(kept.to("cpu")[0].photos) == 1
    assert (vitrail.Explanation.concatenate([kept[1], kept[0]]).photos[0] == kept.photos[1]).all()
    kept.save(tmp_path / "e.npz")
    assert vitrail.Explanation.load(tmp_path / "e.npz").photos == ()
    mixed = vitrail.Explanation.concatenate([replace(kept, sources=()), vitrail.Explanation.load(tmp_path / "e.npz")])
    assert (len(mixed), mixed.photos) == (4, ())


def test_an_explanation_is_one_line(classifier):
    both = vitrail.explain(classifier, [noisy_photo(0), noisy_photo(1)], target="amber")
    assert repr(both) == "Explanation(hit of tiny: 2 images, 4x4 cells)"
    assert repr(both[0]) == "Explanation(hit of tiny: 'amber', 4x4 cells)"


def test_a_picture_of_an_explained_photo(classifier, tmp_path):
    vitrail.explain(classifier, noisy_photo(0)).save_png(tmp_path / "cat.png")
    assert Image.open(tmp_path / "cat.png").mode == "RGB"


def test_a_notebook_shows_the_pictures_of_all_methods(classifier):
    found = vitrail.explain(classifier, noisy_photo(0), ["hit", "random"])
    html = found._repr_html_()
    assert list(found) == ["hit", "random"]
    assert html.count("<img") == 2
    assert html.index("hit") < html.index("random")
