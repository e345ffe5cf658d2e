"""A network without fixed input size: images differ in size, and no result depends on the other images of a batch."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from any_size import any_size
from matplotlib.figure import Figure
from PIL import Image
from samples import noisy_photo

import vitrail
from vitrail.adapters import Preprocessing, load
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.photos import list_photos
from vitrail.evaluation import Plan, evaluate, score
from vitrail.evaluation.scoring.sheets import write_sheets
from vitrail.explainers import make_explainer
from vitrail.explanation import Explanation
from vitrail.metrics import Protocol
from vitrail.runs.explain_folder import explain_folder
from vitrail.runs.explain_images import explain_images
from vitrail.runs.explain_photos import explain_photos_into

pytest_plugins = ("tiny", "score_runs")

SHAPES = [(60, 40), (40, 60), (30, 20), (50, 50), (20, 30), (21, 31), (64, 64)]
"""Width and height; preprocessing makes images of 32x48, 48x32, 32x48, 32x32, 48x32, 47x32 and 32x32 pixels."""
GRIDS = [(4, 6), (6, 4), (4, 6), (4, 4), (6, 4), (5, 4), (4, 4)]
QUICK = Plan.create(
    {"quick": Protocol(description="small", source="this test", num_steps=4, baselines=("zero",), scores=("logit",))}
)
MASKS = Plan.create(metrics=["masks"])


@pytest.fixture(scope="module")
def classifier():
    return any_size()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of different shapes in one folder, and a file that is not an image. Tests must not change them."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "2b.png").write_bytes(b"")
    paths = [folder / f"{i}.png" for i in range(len(SHAPES))]
    for seed, (path, size) in enumerate(zip(paths, SHAPES, strict=True)):
        noisy_photo(seed, size).save(path)
    return paths


@pytest.fixture(scope="module")
def expected(classifier, photos):
    """Each photo explained by itself."""
    return [vitrail.explain(classifier, photo, method="occlusion") for photo in photos]


@pytest.fixture
def blank_sheets(monkeypatch):
    """Contact sheets are laid out, but not drawn, which would take most of the time of a test."""
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).write_bytes(b"sheet"))


def occlusion(classifier):
    return make_explainer("occlusion", classifier)


def assert_close(explanation, expected):
    for name in ("relevance", "targets", "logits"):
        torch.testing.assert_close(getattr(explanation, name), getattr(expected, name), rtol=1e-4, atol=1e-5, msg=name)
    assert explanation.sources == expected.sources


def test_photos_have_the_sizes_and_grids_of_these_tests(classifier, photos, expected):
    assert [explanation.grid for explanation in expected] == GRIDS
    images = [classifier.prepare(Image.open(photo)) for photo in photos]
    assert [tuple(image.shape[-2:]) for image in images] == [
        (32, 48),
        (48, 32),
        (32, 48),
        (32, 32),
        (48, 32),
        (47, 32),
        (32, 32),
    ]
    # Padding would change the results.
    padded = torch.nn.functional.pad(images[0], (0, 0, 0, 16))
    assert (classifier.logits(padded) - classifier.logits(images[0])).abs().max() > 0.01


def test_photos_of_different_sizes_make_no_batch(classifier):
    with pytest.raises(
        InvalidInputError, match=r"got 2 sizes, among them 32x48 and 48x32 pixels; prepare photos of .* one by one"
    ):
        classifier.prepare([noisy_photo(0, (60, 40)), noisy_photo(1, (40, 60)), noisy_photo(2, (60, 40))])
    assert classifier.prepare([noisy_photo(0, (60, 40)), noisy_photo(1, (30, 20))]).shape == (2, 3, 32, 48)


def test_explanations_do_not_depend_on_the_other_images(classifier, photos, expected):
    images = [classifier.preprocessing(Image.open(photo)) for photo in photos]
    explanations = explain_images(occlusion(classifier), images, list(map(str, photos)))
    for explanation, single in zip(explanations, expected, strict=True):
        assert_close(explanation, single)


def test_photos_with_the_same_grid_are_explained_together_in_order():
    opened = [noisy_photo(i, (50 + i % 3, 50)) for i in range(20)]
    classifier = any_size((32, 33))  # 32x32 and 32x33 pixels: cells at the border are wider.
    sizes = {classifier.preprocessing.seen_size(photo.height, photo.width) for photo in opened}
    assert len(sizes) == 2
    targets = torch.arange(20) % 5
    together = vitrail.explain(classifier, opened, "occlusion", targets)
    assert together.targets.tolist() == targets.tolist()
    for i in (0, 1, 2, 17, 19):
        assert_close(together[i], vitrail.explain(classifier, opened[i], "occlusion", int(targets[i])))


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
def test_one_target_per_photo_as_list_array_or_tensor(form, classifier, unchecked):
    opened = [noisy_photo(i, SHAPES[i % 2]) for i in range(4)]
    images = [classifier.preprocessing(photo) for photo in opened]
    explanations = explain_images(occlusion(classifier), images, [""] * 4, form([3, 1, 4, 0]))
    assert [explanation.targets.tolist() for explanation in explanations] == [[3], [1], [4], [0]]


def test_relevance_of_different_grids_is_refused_as_one_explanation(classifier, photos):
    with pytest.raises(
        InvalidInputError, match=r"expected maps of one grid, got 4x6 and 6x4 cells, .* `vitrail explain --data`"
    ):
        vitrail.explain(classifier, photos, method="occlusion")


@pytest.mark.parametrize("batch_size", [3, 7])
def test_accuracy_equals_that_of_single_photos(batch_size, classifier, photos, expected, tmp_path):
    predicted = [int(explanation.targets) for explanation in expected]
    for i, (photo, name) in enumerate(zip(photos, ("ant", "bee", "cat", "dog", "emu", "ant", "bee"), strict=True)):
        (tmp_path / "labeled" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / "labeled" / name / f"{i}.png")
    images = ImageFolder.scan(tmp_path / "labeled", classifier.preprocessing)
    numbers = [int(path.stem) for path in images.paths]
    right = [predicted[number] == label for number, label in zip(numbers, images.labels, strict=True)]
    single, result = (evaluate(classifier, images, batch_size=size) for size in (1, batch_size))
    assert (result.num_images, result.top1) == (7, pytest.approx(sum(right) / 7))
    assert result.confidence == pytest.approx(single.confidence, abs=1e-6)


def test_curves_belong_to_their_photos(classifier, photos):
    images = ImageFolder.scan(photos[0].parent, classifier.preprocessing)
    explainers = [make_explainer(name, classifier) for name in ("occlusion", "random")]
    single, together = (score(classifier, images, explainers, QUICK, batch_size=size) for size in (1, 8))
    assert together.paths == single.paths == list(map(str, photos))
    assert [file.path for file in together.unreadable] == [str(photos[0].parent / "2b.png")]
    assert together.targets.tolist() == single.targets.tolist()
    for name in ("occlusion", "random"):
        both, one = (scores.curves("quick")[name] for scores in (together, single))
        torch.testing.assert_close(both.scores, one.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(both.ends, one.ends, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(together.method_values(name), single.method_values(name), rtol=1e-3, atol=1e-5)


def test_mask_scores_belong_to_their_photos(classifier, photos, tmp_path, monkeypatch):
    images = ImageFolder.scan(photos[0].parent, classifier.preprocessing)
    single, together = (score(classifier, images, [occlusion(classifier)], MASKS, batch_size=size) for size in (1, 8))
    assert together.paths == single.paths == list(map(str, photos))
    assert together.columns == single.columns
    np.testing.assert_allclose(together.values, single.values, rtol=1e-4, atol=1e-5)
    drawn = {}
    monkeypatch.setattr(
        "vitrail.evaluation.scoring.sheets.contact_sheet", lambda rows, path: drawn.update({path.name: list(rows)})
    )
    write_sheets(tmp_path, together, MASKS, images, [occlusion(classifier)])
    assert [row.explanations[0].grid for row in drawn["masks.png"]] == GRIDS


@pytest.mark.usefixtures("plain_pictures")
@pytest.mark.parametrize("batch_size", [pytest.param(2, marks=pytest.mark.slow), 16])
def test_explain_folder_writes_one_file_per_image(batch_size, classifier, photos, expected, tmp_path, blank_sheets):
    out = tmp_path / "out"
    explainers = [make_explainer(name, classifier) for name in ("occlusion", "random")]
    results = explain_folder(explainers, photos[0].parent, out, batch_size=batch_size)
    assert (results.num_images, len(results.unreadable)) == (7, 1)
    for photo, single in zip(photos, expected, strict=True):
        assert_close(Explanation.load(out / "occlusion" / f"{photo.stem}.npz"), single.with_sources([photo.name]))
        assert Explanation.load(out / "random" / f"{photo.stem}.npz").grid == single.grid
        with Image.open(out / "occlusion" / f"{photo.stem}.png") as picture, Image.open(photo) as own:
            # Above the notes, the overlay has the proportions of the photo.
            assert picture.height > 0.98 * (picture.width - 24) * own.height / own.width
    with (out / "images.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [photo.name for photo in photos]
    assert (out / "contact_sheet.png").exists()


@pytest.mark.usefixtures("plain_pictures")
def test_an_interrupted_run_resumes(classifier, photos, tmp_path, snapshot, blank_sheets):
    run = [occlusion(classifier)], photos[0].parent, tmp_path / "out"
    explain_folder(*run)
    before = snapshot(tmp_path / "out")
    (tmp_path / "out" / "occlusion" / "3.npz").unlink()
    assert explain_folder(*run).num_before == 6
    assert snapshot(tmp_path / "out") == before


@pytest.mark.usefixtures("plain_pictures")
def test_photos_of_different_grids_are_saved_one_by_one(classifier, photos, expected, tmp_path, blank_sheets):
    (tmp_path / "out").mkdir()
    files = list_photos([photos[0].parent])
    explanations, unreadable = explain_photos_into([occlusion(classifier)], files, None, tmp_path / "out", batch_size=3)
    assert len(unreadable) == 1
    for photo, explanation, single in zip(photos, explanations["occlusion"], expected, strict=True):
        assert_close(explanation, single)
        assert_close(Explanation.load(tmp_path / "out" / f"{photo.stem}.npz"), single)
    names = {f"{photo.stem}{suffix}" for photo in photos for suffix in (".npz", ".json", ".png")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"contact_sheet.png"}


def test_photos_of_the_same_grid_share_a_file(classifier, photos, tmp_path, blank_sheets):
    (tmp_path / "out").mkdir()
    explanations, _ = explain_photos_into([occlusion(classifier)], list_photos([photos[0], photos[2]]), None, tmp_path / "out")
    (saved,) = explanations["occlusion"]
    assert saved.sources == (str(photos[0]), str(photos[2]))
    assert {path.name for path in (tmp_path / "out").glob("*.npz")} == {"explanations.npz"}


@pytest.mark.parametrize("methods", ["occlusion", "occlusion,random"])
def test_the_command_reports_one_file_per_photo(methods, classifier, photos, run_vitrail, tmp_path, monkeypatch, blank_sheets):
    monkeypatch.setattr("vitrail.cli.model_options.load_model", lambda *_: classifier)
    out = tmp_path / "out"
    code, printed, err = run_vitrail("explain", *photos[:3], "--method", methods, "--out", out)
    assert code == 0, err
    assert ".npz and .json per photo" in printed
    names = [line.split(":")[0] for line in printed.splitlines() if line.startswith(str(photos[0].parent))]
    assert names == list(map(str, photos[:3]))
    assert len(list(out.rglob("*.npz"))) == 3 * len(methods.split(","))


def test_a_network_of_fixed_size_refuses_whole_photos(tiny_model_file, photos):
    classifier = load(tiny_model_file, device="cpu")
    whole = vitrail.adapt(classifier.module, preprocessing=Preprocessing((16, 24), 1.0, "whole"))
    with pytest.raises(InvalidInputError, match=r"expected images of 16x16 pixels .* for HiT, got 16x24"):
        vitrail.explain(whole, photos[0])


def test_load_sets_the_size_limits(tmp_path):
    classifier = vitrail.adapters.build(
        "timm:resnet18", num_classes=5, preprocessing=Preprocessing((32, 48), 1.0, "whole"), pretrained=False
    )
    vitrail.save(classifier, tmp_path / "any.safetensors")
    loaded = load(tmp_path / "any.safetensors", device="cpu", image_size=(48, 64))
    assert loaded.preprocessing == Preprocessing((48, 64), 1.0, "whole")
    assert loaded.prepare(noisy_photo(0, (40, 30))).shape == (1, 3, 48, 64)
