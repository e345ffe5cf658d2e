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
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.image_io import open_image
from vitrail.datasets.synthetic.counting import ColorCounting
from vitrail.datasets.synthetic.generation import has_ground_truth, read_generated_mask, write_synthetic
from vitrail.evaluation import Plan, score
from vitrail.evaluation.scoring.selection import Selection
from vitrail.evaluation.scoring.sheets import write_sheets
from vitrail.explainers import Attribution, Explainer, make_explainer
from vitrail.explainers.diffmask import VisionDiffMask
from vitrail.metrics.masks import MEASURES, threshold_relevance
from vitrail.models.diffmask import DiffMask, DiffMaskConfig, TrainedMask

pytest_plugins = ("tiny",)

TASK = ColorCounting(grid_size=4, patch_size=4)
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
    write_synthetic(TASK, folder, {"test": 17})
    return folder / "test"


def scan(folder):
    return ImageFolder.scan(folder, WHOLE)


def plan_of(threshold=None):
    options = None if threshold is None else {"masks": {"threshold": threshold}}
    return Plan.create(metrics=["masks"], options=options)


def chosen(classifier, images):
    """With the answers beside them."""
    return Selection().apply(images, classifier, plan_of())


def score_masks(classifier, images, explainers, threshold=None, **options):
    return score(classifier, chosen(classifier, images), explainers, plan_of(threshold), **options)


def method_values(scores, method):
    """Every measure of a method, a number an image; NaN where it is undefined, also for all."""
    names = [column.name for column in scores.columns]
    place = scores.methods.index(method)
    missing = np.full(len(scores), np.nan)
    return {name: scores.column(f"masks.{name}")[place] if f"masks.{name}" in names else missing for name in MEASURES}


def num_empty(scores):
    return int((method_values(scores, scores.methods[0])["ground_truth"] == 0).sum())


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """A function from scores to the rows of the sheet of their masks."""
    drawn = {}
    monkeypatch.setattr(
        "vitrail.evaluation.scoring.sheets.contact_sheet", lambda rows, path: drawn.update({path.name: list(rows)})
    )

    def rows(scores, classifier, images, explainers, threshold=None):
        write_sheets(tmp_path, scores, plan_of(threshold), chosen(classifier, images), explainers)
        return drawn["masks.png"]

    return rows


@dataclass(frozen=True, eq=False)
class Redness(Explainer):
    """The oracle of the task: how red every patch is, between 0 and `scale`."""

    scale: float = 1.0
    name = "redness"

    def attribution(self, images, choose):
        logits = self.model.logits(images)
        red, green, blue = self.model.preprocessing.denormalize(images).unbind(1)
        redness = torch.nn.functional.avg_pool2d(red * (1 - green) * (1 - blue), 4)
        return Attribution(logits, choose(logits), self.scale * redness)


@dataclass(frozen=True, eq=False)
class Gates(Redness):
    """The same as probabilities, with a replacement of its own: the picture turned upside down."""

    name = "gates"
    gives_probabilities: ClassVar[bool] = True

    def placeholder_logits(self, images, keep):
        mask = keep.unflatten(1, (4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
        with torch.no_grad():
            return self.model.logits(torch.where(mask, images, images.flip(2)))


@dataclass(frozen=True, eq=False)
class Coarse(Explainer):
    """One number for four patches."""

    name = "coarse"

    def attribution(self, images, choose):
        logits = self.model.logits(images)
        return Attribution(logits, choose(logits), torch.tensor([[0.0, 1.0], [0.2, 0.7]]).expand(len(images), 2, 2))


def test_the_oracle_finds_the_ground_truth(classifier, counted):
    scores = score_masks(classifier, scan(counted), [Redness(classifier, 7.0), make_explainer("random", classifier)])
    oracle, random = method_values(scores, "redness"), method_values(scores, "random")
    assert num_empty(scores) == 1
    for name in COMPARED:
        assert np.isnan(oracle[name]).tolist() == [True] + [False] * 16
        assert (oracle[name][1:] == 1).all()
        assert np.nanmean(random[name]) < 0.9
    np.testing.assert_allclose(oracle["ground_truth"], np.arange(17) / 16)
    # No red and all red are constant maps, which keep all.
    np.testing.assert_allclose(oracle["kept"], [1, *(np.arange(1, 17) / 16)])
    np.testing.assert_allclose(oracle["pointing_chance"][1:], np.arange(1, 17) / 16)
    assert not any(np.isnan(oracle[name]).any() for name in ("kept", "agreement", "kl"))
    assert (oracle["agreement"][[0, 16]].tolist(), np.isnan(oracle["agreement_own"]).all()) == ([1, 1], True)
    # No column for what is defined nowhere: neither method replaces anything.
    assert [column.name for column in scores.columns] == [f"masks.{name}" for name in MEASURES if not name.endswith("_own")]
    means = scores.means()["redness"]
    assert means["masks.iou"] == 1
    assert means["masks.kept"] == pytest.approx((1 + sum(range(17)) / 16) / 17)


def test_decisions_are_those_of_a_loop_in_pixel_space(classifier, counted):
    random = make_explainer("random", classifier)
    scores = score_masks(classifier, scan(counted), [random, Gates(classifier)], threshold=0.4)
    agreed = dict.fromkeys(("random", "gates", "own"), 0)
    for i, path in enumerate(scores.paths):
        image = classifier.preprocessing(open_image(path))[None]
        shuffled = random.explain(image).relevance[0]
        spread = shuffled.max() - shuffled.min()
        answer = read_generated_mask(path)
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
            found = {name: float(values[i]) for name, values in method_values(scores, method).items()}
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


def test_an_image_has_the_same_measures_in_any_batch(classifier, counted, shown):
    explainers = [make_explainer(name, classifier) for name in ("hit", "random")] + [Gates(classifier)]
    whole, small, alone = (
        score_masks(classifier, images, explainers, batch_size=size)
        for images, size in ((scan(counted), 17), (scan(counted), 3), (scan(counted / "05"), 1))
    )
    for method in ("hit", "random", "gates"):
        few, one = method_values(small, method), method_values(alone, method)
        for name, values in method_values(whole, method).items():
            np.testing.assert_allclose(few[name], values, rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(one[name][0], values[5], rtol=1e-3, atol=1e-5)
    assert whole.paths == small.paths
    rows = shown(whole, classifier, scan(counted), explainers)
    assert len(rows) == 12
    assert [row.title for row in rows] == [row.title for row in shown(small, classifier, scan(counted), explainers)]
    assert len({row.title.split("/")[0] for row in rows}) == 12
    (row,) = shown(alone, classifier, scan(counted / "05"), explainers)
    assert row.ground_truth.sum() == 5 * 16


def test_the_masks_of_diffmask_are_neither_scaled_nor_replaced_by_zero_alone(classifier, counted, shown):
    network = DiffMask(DiffMaskConfig(width=12, depth=2, add_activation=2.5))
    explainer = VisionDiffMask(classifier, TrainedMask(network), check_weights=False)
    explainers = [explainer, make_explainer("random", classifier)]
    scores = score_masks(classifier, scan(counted), explainers, threshold=0.6)
    images = torch.stack([classifier.preprocessing(open_image(path)) for path in scores.paths])
    found, kept = method_values(scores, "diffmask"), explainer.explain(images).relevance >= 0.6
    assert 0 < kept.float().mean() < 1
    np.testing.assert_allclose(found["kept"], kept.float().mean((1, 2)))
    # What is shown is what was measured.
    masks = {str(Path(*Path(path).parts[-2:])): mask.float() for path, mask in zip(scores.paths, kept, strict=True)}
    rows = shown(scores, classifier, scan(counted), explainers, 0.6)
    assert len(rows) == 12
    for row in rows:
        assert list(row.kept) == [explanation.method for explanation in row.explanations] == ["diffmask", "random"]
        assert torch.equal(row.kept["diffmask"], masks[row.title])
        assert torch.equal(row.kept["random"], threshold_relevance(row.explanations[1].relevance, 0.6)[0].float())
    with torch.no_grad():
        own, whole = explainer.placeholder_logits(images, kept.flatten(1)), classifier.logits(images)
    assert found["agreement_own"].tolist() == (own.argmax(1) == whole.argmax(1)).float().tolist()
    expected = torch.nn.functional.kl_div(own.log_softmax(1), whole.softmax(1), reduction="none").sum(1)
    np.testing.assert_allclose(found["kl_own"], expected, rtol=1e-3, atol=1e-5)
    assert not np.allclose(found["kl_own"], found["kl"], rtol=0.01)
    assert np.isnan(method_values(scores, "random")["agreement_own"]).all()


def test_a_coarse_map_is_measured_on_its_own_cells(classifier, counted):
    scores = score_masks(classifier, scan(counted / "01"), [Coarse(classifier)])
    found = {name: float(values[0]) for name, values in method_values(scores, "coarse").items()}
    answer = read_generated_mask(scores.paths[0]).reshape(2, 8, 2, 8).any((1, 3))
    assert found["kept"] == 0.5
    assert found["ground_truth"] == answer.mean() == 0.25
    assert found["iou"] == (0.5 if answer[:, 1].any() else 0)
    assert found["iou_at_size"] == answer[0, 1]


def test_photos_without_masks_have_no_ground_truth(classifier, make_photo, shown, tmp_path):
    photos = [make_photo(tmp_path / "photos" / f"{i}.png", seed=i) for i in range(2)]
    assert not any(map(has_ground_truth, [*photos, "x.png", "/x.png"]))
    for images in (scan(photos[0].parent), scan(photos[0])):
        scores = score_masks(classifier, images, [Redness(classifier)])
        assert [column.name for column in scores.columns] == ["masks.kept", "masks.agreement", "masks.kl"]
        assert shown(scores, classifier, images, [Redness(classifier)])[0].ground_truth is None


def test_masks_for_some_images_only_are_an_error(classifier, counted, tmp_path):
    shutil.copytree(counted.parent, tmp_path / "data")
    (tmp_path / "data" / "masks" / "answer" / "test" / "03" / "000003.png").unlink()
    images = scan(tmp_path / "data" / "test")
    with pytest.raises(InvalidInputError, match=r"found none for 1 of 17 images, the first .*03.000003\.png"):
        score_masks(classifier, images, [Redness(classifier)])


def test_images_with_unusable_masks_are_skipped(classifier, counted, tmp_path):
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
def test_masks_are_transformed_like_photos(classifier, tmp_path, fraction, mode, cells):
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
    found = method_values(seen, "redness")
    assert (16 * found["ground_truth"]).tolist() == [*cells, *cells]
    assert num_empty(seen) == 2 * cells.count(0)
    for name in ("iou", "iou_at_size", "pointing"):
        assert all(
            value == 1 or (share == 0 and np.isnan(value))
            for value, share in zip(found[name], found["ground_truth"], strict=True)
        )


def test_methods_are_asked_for_once(classifier, counted):
    twice = [make_explainer("random", classifier, seed=seed) for seed in (0, 1)]
    for explainers in ([], twice):
        with pytest.raises(InvalidInputError, match="at least one method, each once"):
            score_masks(classifier, scan(counted), explainers)
    with pytest.raises(InvalidInputError, match="threshold between 0 and 1"):
        score_masks(classifier, scan(counted), twice[:1], threshold=2.0)


def test_a_threshold_is_a_number_and_the_only_option():
    assert plan_of().options["masks"] == {"threshold": 0.5}
    assert plan_of("0.3").metrics["masks"].threshold == 0.3
    with pytest.raises(InvalidInputError, match=r"cannot use 'much' for masks\.threshold"):
        plan_of("much")
    with pytest.raises(InvalidInputError, match="has no option treshold; its options: threshold"):
        Plan.create(metrics=["masks"], options={"masks": {"treshold": 0.3}})


class SentError(Exception):
    """What a process sends to the others."""


@pytest.mark.parametrize("folder", ["", "05"], ids=["unequal shares", "an empty share"])
def test_results_of_two_processes_are_gathered(folder, classifier, counted, monkeypatch):
    """One process after the other, and what they send carried by hand."""

    def send(items):
        if items != [None]:  # They only wait for each other.
            raise SentError(items)

    explainers = [make_explainer(name, classifier) for name in ("hit", "random")]
    measure = partial(score_masks, classifier, scan(counted / folder), explainers, batch_size=4)
    alone, shares = measure(), []
    engine = "vitrail.runs.loop"
    monkeypatch.setattr(f"{engine}.world_size", lambda: 2)
    monkeypatch.setattr(f"{engine}.gather", send)
    for number in (0, 1):
        monkeypatch.setattr(f"{engine}.rank", lambda number=number: number)
        with pytest.raises(SentError) as sent:
            measure()
        shares.append(sent.value.args[0])
    # Batches of four, dealt out in turn.
    assert [[len(part.indices) for _, part in share] for share in shares] == ([[1], []] if folder else [[4, 4, 1], [4, 4]])
    monkeypatch.setattr(f"{engine}.gather", lambda items: items if items == [None] else shares[0] + shares[1])
    assert_the_same(measure(), alone)


def assert_the_same(found, expected):
    """To the last bit: batches are the same, whoever measures them."""
    assert (found.paths, found.methods, found.columns) == (expected.paths, expected.methods, expected.columns)
    np.testing.assert_array_equal(found.targets, expected.targets)
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.slow
def test_two_processes_find_the_measures_of_one(tiny_model_file, counted, tmp_path):
    """17 images and one, so that the shares are unequal, and one is empty; with a folder and without."""
    code = f"""
        import numpy as np
        from vitrail.adapters import load
        from vitrail.datasets.folder import ImageFolder
        from vitrail.core.distributed import process_group, rank, world_size
        from vitrail.evaluation import Plan, score
        from vitrail.evaluation.scoring.selection import Selection
        from vitrail.explainers import make_explainer
        from pathlib import Path

        classifier = load({str(tiny_model_file)!r}, device="cpu")
        explainers = [make_explainer(name, classifier) for name in ("hit", "random")]
        plan = Plan.create(["diffmask"], ["masks"])

        def found(name, folder=None):
            images = ImageFolder.scan({str(counted)!r} + name, classifier.preprocessing)
            images = Selection().apply(images, classifier, plan)
            return score(classifier, images, explainers, plan, batch_size=4, folder=folder)

        alone = [found(name) for name in ("", "/05")] * 2
        with process_group():
            assert world_size() == 2
            together = [found(name) for name in ("", "/05")]
            together += [found(name, Path({str(tmp_path)!r}) / f"out{{i}}") for i, name in enumerate(("", "/05"))]
        for one, other, count in zip(alone, together, (17, 1, 17, 1), strict=True):
            assert (one.paths, len(one.paths)) == (other.paths, count)
            assert "masks.iou" in [column.name for column in one.columns]
            np.testing.assert_array_equal(one.targets, other.targets)
            np.testing.assert_array_equal(one.values, other.values)
            for method in ("hit", "random"):
                curves, others = (each.curves("diffmask")[method] for each in (one, other))
                assert np.array_equal(curves.scores, others.scores)
                assert np.array_equal(curves.ends, others.ends, equal_nan=True)
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    code, _out, err = run_together(tmp_path / "program.py")
    assert code == 0, err
