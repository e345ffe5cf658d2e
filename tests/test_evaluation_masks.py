"""Masks over a folder: agreement against a loop of its own, answers through the model's eyes, batches and processes."""

import shutil
import textwrap
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from processes import run_together
from vitrail.adapters import Preprocessing, load
from vitrail.data.counting import ColourCounting
from vitrail.data.folders import ImageFolder
from vitrail.data.generating import has_answer, read_answer, write_task
from vitrail.data.images import open_image
from vitrail.errors import ImageError, InvalidInputError
from vitrail.evaluation import score_masks
from vitrail.explainers import Explainer, make_explainer
from vitrail.explainers.diffmask import VisionDiffMask
from vitrail.metrics.masks import cut
from vitrail.models.diffmask import DiffMask, DiffMaskConfig, TrainedMask

pytest_plugins = ("tiny",)

TASK = ColourCounting(grid_size=4, patch_size=4)
WHOLE = Preprocessing((16, 16), crop_fraction=1.0)
COMPARED = ("iou", "iou_at_size", "pointing")


@pytest.fixture
def classifier(tiny_model_file):
    """4x4 patches of 4 pixels, and all of a photo."""
    return replace(load(tiny_model_file, device="cpu"), preprocessing=WHOLE)


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """One image of each of the 17 classes; the answer of the first is empty."""
    folder = tmp_path_factory.mktemp("counting") / "data"
    write_task(TASK, folder, {"test": 17})
    return folder / "test"


def scan(folder):
    return ImageFolder.scan(folder, WHOLE)


@dataclass(frozen=True, eq=False)
class Redness(Explainer):
    """The oracle of the task: how red every patch is, between 0 and `scale`."""

    scale: float = 1.0
    name = "redness"

    def relevance(self, images, targets):
        red, green, blue = self.model.preprocessing.denormalise(images).unbind(1)
        return self.scale * torch.nn.functional.avg_pool2d(red * (1 - green) * (1 - blue), 4)


@dataclass(frozen=True, eq=False)
class Gates(Redness):
    """The same as probabilities, with a replacement of its own: the picture turned upside down."""

    name = "gates"
    gives_probabilities: ClassVar[bool] = True

    def logits_without(self, images, keep):
        mask = keep.unflatten(1, (4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
        with torch.no_grad():
            return self.model.logits(torch.where(mask, images, images.flip(2)))


@dataclass(frozen=True, eq=False)
class Coarse(Explainer):
    """One number for four patches."""

    name = "coarse"

    def relevance(self, images, targets):
        return torch.tensor([[0.0, 1.0], [0.2, 0.7]]).expand(len(images), 2, 2)


def test_the_oracle_of_a_task_finds_its_answers(classifier, counted):
    scores = score_masks(classifier, scan(counted), [Redness(classifier, 7.0), make_explainer("random", classifier)])
    oracle, random = scores.per_image["redness"], scores.per_image["random"]
    assert scores.answered
    assert scores.num_empty == 1
    for name in COMPARED:
        assert oracle[name].isnan().tolist() == [True] + [False] * 16
        assert (oracle[name][1:] == 1).all()
        assert float(random[name].nanmean()) < 0.9
    np.testing.assert_allclose(oracle["answer"], np.arange(17) / 16)
    # No red and all red are constant maps, which keep all.
    np.testing.assert_allclose(oracle["kept"], [1, *(np.arange(1, 17) / 16)])
    np.testing.assert_allclose(oracle["pointing_chance"][1:], np.arange(1, 17) / 16)
    assert not any(oracle[name].isnan().any() for name in ("kept", "agreement", "kl"))
    assert (oracle["agreement"][[0, 16]].tolist(), oracle["agreement_own"].isnan().all()) == ([1, 1], True)
    means = scores.means()["redness"]
    assert means["iou"] == 1
    assert means["kept"] == pytest.approx((1 + sum(range(17)) / 16) / 17)


def test_decisions_are_those_of_a_loop_in_pixel_space(classifier, counted):
    random = make_explainer("random", classifier)
    scores = score_masks(classifier, scan(counted), [random, Gates(classifier)], threshold=0.4)
    agreed = dict.fromkeys(("random", "gates", "own"), 0)
    for i, path in enumerate(scores.paths):
        image = classifier.preprocessing(open_image(path))[None]
        shuffled = random.explain(image).relevance[0]
        spread = shuffled.max() - shuffled.min()
        answer = read_answer(path)
        for method, kept in (
            ("random", (shuffled - shuffled.min()) >= 0.4 * spread),
            ("gates", torch.tensor(answer[::4, ::4])),
        ):
            pixels = image.clone()
            own = image.flip(2)
            for row in range(4):
                for col in range(4):
                    block = (..., slice(4 * row, 4 * row + 4), slice(4 * col, 4 * col + 4))
                    if kept[row, col]:
                        own[block] = image[block]
                    else:
                        pixels[block] = 0
            with torch.no_grad():
                whole, masked, replaced = (classifier.module(each).softmax(-1)[0] for each in (image, pixels, own))
            found = {name: float(values[i]) for name, values in scores.per_image[method].items()}
            assert found["kept"] == pytest.approx(float(kept.float().mean()))
            assert found["agreement"] == (whole.argmax() == masked.argmax())
            assert found["kl"] == pytest.approx(float((whole * (whole / masked).log()).sum()), rel=1e-3, abs=1e-5)
            agreed[method] += found["agreement"]
            if method == "gates":
                assert found["agreement_own"] == (whole.argmax() == replaced.argmax())
                assert found["kl_own"] == pytest.approx(float((whole * (whole / replaced).log()).sum()), rel=1e-3, abs=1e-5)
                agreed["own"] += found["agreement_own"]
        assert scores.targets[i] == whole.argmax()
    assert all(0 < count < 17 for count in agreed.values())  # Both outcomes were met.


def test_an_image_has_the_same_measures_in_any_batch(classifier, counted):
    explainers = [make_explainer(name, classifier) for name in ("hit", "random")] + [Gates(classifier)]
    whole, small, alone = (
        score_masks(classifier, images, explainers, batch_size=size)
        for images, size in ((scan(counted), 17), (scan(counted), 3), (scan(counted / "05"), 1))
    )
    for method in ("hit", "random", "gates"):
        for name, values in whole.per_image[method].items():
            torch.testing.assert_close(small.per_image[method][name], values, equal_nan=True, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(alone.per_image[method][name][0], values[5], equal_nan=True, rtol=1e-3, atol=1e-5)
    assert whole.paths == small.paths
    assert len(whole.shown) == 12
    assert [row.title for row in whole.shown] == [row.title for row in small.shown]
    assert len({row.title.split("/")[0] for row in whole.shown}) == 12
    assert alone.shown[0].answer.sum() == 5 * 16


def test_the_masks_of_diffmask_are_neither_scaled_nor_replaced_by_zero_alone(classifier, counted):
    network = DiffMask(DiffMaskConfig(width=12, depth=2, add_activation=2.5))
    explainer = VisionDiffMask(classifier, TrainedMask(network), check_weights=False)
    scores = score_masks(classifier, scan(counted), [explainer, make_explainer("random", classifier)], threshold=0.6)
    images = torch.stack([classifier.preprocessing(open_image(path)) for path in scores.paths])
    found, kept = scores.per_image["diffmask"], explainer.explain(images).relevance >= 0.6
    assert 0 < kept.float().mean() < 1
    torch.testing.assert_close(found["kept"], kept.float().mean((1, 2)))
    # What is shown is what was measured.
    masks = {str(Path(*Path(path).parts[-2:])): mask.float() for path, mask in zip(scores.paths, kept, strict=True)}
    assert len(scores.shown) == 12
    for row in scores.shown:
        assert list(row.kept) == [explanation.method for explanation in row.explanations] == ["diffmask", "random"]
        assert torch.equal(row.kept["diffmask"], masks[row.title])
        assert torch.equal(row.kept["random"], cut(row.explanations[1].relevance, 0.6)[0].float())
    with torch.no_grad():
        own, whole = explainer.logits_without(images, kept.flatten(1)), classifier.logits(images)
    assert torch.equal(found["agreement_own"], (own.argmax(1) == whole.argmax(1)).float())
    expected = torch.nn.functional.kl_div(own.log_softmax(1), whole.softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(found["kl_own"], expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(found["kl_own"], found["kl"], rtol=0.01)
    assert scores.per_image["random"]["agreement_own"].isnan().all()


def test_a_coarse_map_is_measured_on_its_own_cells(classifier, counted):
    scores = score_masks(classifier, scan(counted / "01"), [Coarse(classifier)])
    found = {name: float(values[0]) for name, values in scores.per_image["coarse"].items()}
    answer = read_answer(scores.paths[0]).reshape(2, 8, 2, 8).any((1, 3))
    assert found["kept"] == 0.5
    assert found["answer"] == answer.mean() == 0.25
    assert found["iou"] == (0.5 if answer[:, 1].any() else 0)
    assert found["iou_at_size"] == answer[0, 1]


def test_photos_without_masks_have_no_answers(classifier, make_photo, tmp_path):
    photos = [make_photo(tmp_path / "photos" / f"{i}.png", seed=i) for i in range(2)]
    assert not any(map(has_answer, [*photos, "x.png", "/x.png"]))
    for images in (scan(photos[0].parent), scan(photos[0])):
        scores = score_masks(classifier, images, [Redness(classifier)])
        assert not scores.answered
        assert scores.num_empty == 0
        assert all(scores.per_image["redness"][name].isnan().all() for name in COMPARED)
        assert scores.shown[0].answer is None


def test_answers_of_some_images_only_are_an_error(classifier, counted, tmp_path):
    shutil.copytree(counted.parent, tmp_path / "data")
    (tmp_path / "data" / "masks" / "answer" / "test" / "03" / "000003.png").unlink()
    images = scan(tmp_path / "data" / "test")
    with pytest.raises(InvalidInputError, match=r"found none for 1 of 17 images, the first .*03.000003\.png"):
        score_masks(classifier, images, [Redness(classifier)])


def test_images_whose_answer_cannot_be_used_are_left_out(classifier, counted, tmp_path):
    shutil.copytree(counted.parent, tmp_path / "data")
    masks = tmp_path / "data" / "masks" / "answer" / "test"
    (masks / "03" / "000003.png").write_bytes(b"no mask")
    Image.new("L", (20, 16)).save(masks / "04" / "000004.png")
    scores = score_masks(classifier, scan(tmp_path / "data" / "test"), [Redness(classifier)], batch_size=4)
    assert len(scores.paths) == 15
    damaged, other = scores.unreadable
    assert "cannot read the mask" in damaged.reason
    assert "as large as its image, 16x16 pixels, got 20x16" in other.reason
    with pytest.raises(ImageError, match="not one of 1 images"):
        score_masks(classifier, scan(tmp_path / "data" / "test" / "04"), [Redness(classifier)])


@pytest.mark.parametrize(
    ("fraction", "mode", "cells"),
    [
        (1.0, "center", (0, 4, 4, 0)),
        (0.5, "center", (0, 4, 4, 0)),
        (1.0, "squash", (2, 2, 2, 2)),
        (0.5, "squash", (0, 4, 4, 0)),
    ],
)
def test_answers_are_seen_as_the_photos_are(classifier, tmp_path, fraction, mode, cells):
    """Photos of 32x16 pixels with one red block of 8x8 in every place; the oracle is red where the model sees red.

    The whole height is seen and the middle half of the width; or the middle of that; or all, at half its width; or the middle of that.
    """
    preprocessing = Preprocessing((16, 16), fraction, mode)
    for top, left in ((top, left) for top in (0, 8) for left in (0, 8, 16, 24)):
        answer = np.zeros((16, 32), dtype=bool)
        answer[top : top + 8, left : left + 8] = True
        name = f"{top}-{left // 8}.png"
        for path, picture in (
            (tmp_path / "test" / "red" / name, np.where(answer[..., None], [255, 0, 0], [0, 0, 255])),
            (tmp_path / "masks" / "answer" / "test" / "red" / name, answer * 255),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.astype(np.uint8)).save(path)
    images = ImageFolder.scan(tmp_path / "test", preprocessing)
    seen = score_masks(replace(classifier, preprocessing=preprocessing), images, [Redness(classifier)], threshold=0.7)
    found = seen.per_image["redness"]
    assert (16 * found["answer"]).tolist() == [*cells, *cells]
    assert seen.num_empty == 2 * cells.count(0)
    for name in ("iou", "iou_at_size", "pointing"):
        assert all(
            value == 1 or (share == 0 and value.isnan()) for value, share in zip(found[name], found["answer"], strict=True)
        )


def test_methods_are_asked_for_once(classifier, counted):
    twice = [make_explainer("random", classifier, seed=seed) for seed in (0, 1)]
    for explainers in ([], twice):
        with pytest.raises(InvalidInputError, match="at least one method, each once"):
            score_masks(classifier, scan(counted), explainers)
    with pytest.raises(InvalidInputError, match="threshold between 0 and 1"):
        score_masks(classifier, scan(counted), twice[:1], threshold=2.0)


class SentError(Exception):
    """What a process sends to the others."""


@pytest.mark.parametrize("folder", ["", "05"], ids=["unequal shares", "an empty share"])
def test_the_shares_of_two_processes_are_brought_together(folder, classifier, counted, monkeypatch):
    """One process after the other, and what they send carried by hand."""

    def send(items):
        raise SentError(items)

    explainers = [make_explainer(name, classifier) for name in ("hit", "random")]
    score = partial(score_masks, classifier, scan(counted / folder), explainers, batch_size=4)
    alone, shares = score(), []
    monkeypatch.setattr("vitrail.evaluation.masks.world_size", lambda: 2)
    monkeypatch.setattr("vitrail.evaluation.masks.gather", send)
    for number in (0, 1):
        monkeypatch.setattr("vitrail.evaluation.masks.rank", lambda number=number: number)
        with pytest.raises(SentError) as sent:
            score()
        shares.append(sent.value.args[0])
    assert [len(share) for share in shares] == ([1, 0] if folder else [9, 8])
    gathered = iter([shares[0] + shares[1], []])  # what was found, and what could not be read
    monkeypatch.setattr("vitrail.evaluation.masks.gather", lambda items: next(gathered))
    both = score()
    assert both.paths == alone.paths
    assert torch.equal(both.targets, alone.targets)
    assert [row.title for row in both.shown] == [row.title for row in alone.shown]
    for method in ("hit", "random"):
        for name, values in alone.per_image[method].items():
            torch.testing.assert_close(both.per_image[method][name], values, equal_nan=True, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_find_the_measures_of_one(tiny_model_file, counted, tmp_path):
    """17 images and one, so that the shares are unequal, and one is empty."""
    code = f"""
        import torch
        from vitrail.adapters import load
        from vitrail.data.folders import ImageFolder
        from vitrail.distributed import process_group, world_size
        from vitrail.evaluation import score_masks
        from vitrail.explainers import make_explainer

        classifier = load({str(tiny_model_file)!r}, device="cpu")
        explainers = [make_explainer(name, classifier) for name in ("hit", "random")]

        def found(name):
            images = ImageFolder.scan({str(counted)!r} + name, classifier.preprocessing)
            return score_masks(classifier, images, explainers, batch_size=4)

        alone = [found(name) for name in ("", "/05")]
        with process_group():
            assert world_size() == 2
            together = [found(name) for name in ("", "/05")]
        for one, other, count in zip(alone, together, (17, 1), strict=True):
            assert (one.paths, len(one.paths)) == (other.paths, count)
            assert torch.equal(one.targets, other.targets)
            assert [row.title for row in one.shown] == [row.title for row in other.shown]
            for method in ("hit", "random"):
                for name, values in one.per_image[method].items():
                    torch.testing.assert_close(other.per_image[method][name], values, equal_nan=True, rtol=1e-3, atol=1e-5)
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    code, _out, err = run_together(tmp_path / "program.py")
    assert code == 0, err
