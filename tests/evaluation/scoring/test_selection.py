"""The images of a run and their answers: in the model's classes and in the pixels that the model sees."""

import numpy as np
import pytest
import torch
from PIL import Image
from scored import LOGIT, Exact, additive, gray_photos

from vitrail.adapters import Classifier, Preprocessing
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.dataset import LabeledArrays, LabeledFiles
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.ground_truth import GroundTruthImages
from vitrail.datasets.synthetic.mosaics import Mosaics
from vitrail.evaluation.scoring import Plan, score
from vitrail.evaluation.scoring.selection import LABEL, Selection
from vitrail.explainers import make_explainer
from vitrail.metrics import METRICS

COLORS = {"white": (255, 255, 255), "red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0)}
"""In the order of the model's classes, which is not that of the alphabet."""


class Colors(Classifier):
    """Says which color an image is most of."""

    num_classes = 4

    def grid_size(self, images):
        return 2, 2

    def logits(self, images):
        wanted = torch.tensor(list(COLORS.values())) / 127.5 - 1
        return 10 * images.mean((2, 3)).mul(2).sub(1) @ wanted.T * self.module.weight[0, 0]


@pytest.fixture
def classifier():
    module = torch.nn.Linear(1, 1)
    torch.nn.init.ones_(module.weight)
    seen = Preprocessing((8, 8), 1.0, "squash", "nearest", (0.0,) * 3, (1.0,) * 3)
    return Colors(module, seen, tuple(COLORS), "colors")


@pytest.fixture
def photos(tmp_path):
    """Three photos of each color, with something of their own in a corner, and one of another color than its folder says."""
    for name, color in COLORS.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((16, 16, 3), color, dtype=np.uint8)
            pixels[0, number] = 90
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    Image.new("RGB", (16, 16), COLORS["red"]).save(tmp_path / "photos" / "blue" / "wrong.png")
    return tmp_path / "photos"


@pytest.fixture
def images(photos, classifier):
    return ImageFolder.scan(photos, classifier.preprocessing)


PLAN = Plan.create({"logit": LOGIT})
ASKING = Plan.create((), [name for name, metric in METRICS.items() if metric.needs_ground_truth][:1])


def test_folders_are_in_another_order_than_the_model(images, classifier):
    """What the tests below rely on."""
    assert images.class_names == sorted(COLORS) != list(classifier.class_names)


def test_labels_and_ground_truth_of_mosaics_use_classes_of_the_model(images, classifier):
    choice = Selection(mosaic=2)
    chosen = choice.apply(images, classifier, ASKING)
    assert isinstance(chosen, Mosaics)
    assert len(chosen) == 12
    assert choice.explained == LABEL
    for i in range(len(chosen)):
        sample = chosen[i]
        rows, columns = np.nonzero(sample.ground_truth.numpy())
        assert sample.ground_truth.sum() == 16
        asked = sample.image[None, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert asked.shape == (1, 3, 4, 4)
        assert int(classifier.logits(asked).argmax()) == sample.label
        cells = [sample.image[None, :, top : top + 4, left : left + 4] for top in (0, 4) for left in (0, 4)]
        assert sorted(int(classifier.logits(cell).argmax()) for cell in cells) == [0, 1, 2, 3]
        assert "wrong" not in chosen.name(i)


def test_scores_of_mosaics_explain_the_asked_class(images, classifier):
    choice = Selection(mosaic=2, limit=6)
    chosen = choice.apply(images, classifier, ASKING)
    assert len(chosen) == 6
    found = score(classifier, chosen, [make_explainer("occlusion", classifier)], ASKING, choice.explained, batch_size=4)
    assert found.targets.tolist() == [chosen[i].label for i in range(6)]
    assert list(found.target_names) == [list(COLORS)[target] for target in found.targets]
    assert not np.isnan(found.values).all()


def test_the_label_is_the_models_class(images, classifier):
    chosen = Selection(target=LABEL).apply(images, classifier, PLAN)
    for i in range(len(chosen)):
        assert list(COLORS)[chosen.labels[i]] == chosen.name(i).split("/")[-2]
    found = score(classifier, chosen, [make_explainer("random", classifier)], PLAN, LABEL)
    assert list(found.target_names) == [path.split("/")[-2] for path in found.paths]


def test_a_limit_gives_every_class_its_share(images, classifier):
    chosen = Selection(limit=8).apply(images, classifier, PLAN)
    names = [chosen.name(i).split("/")[-2] for i in range(len(chosen))]
    assert set(names) == set(COLORS)
    assert len(names) == 8
    assert max(map(names.count, COLORS)) <= 3
    assert len(Selection(limit=500).apply(images, classifier, PLAN)) == len(images)


def write_masks(folder, images, root):
    """Of every image a mask of its lower right quarter, but for a stripe that depends on the image."""
    for i, path in enumerate(images.paths):
        mask = np.zeros((16, 16), dtype=np.uint8)
        mask[8:, 8:] = 255
        mask[:, 2 * (i % 4) : 2 * (i % 4) + 2] = 255
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(target)


def test_masks_are_resized_and_cropped_like_their_photos(images, photos, classifier, tmp_path):
    write_masks(tmp_path / "masks", images, photos)
    chosen = Selection(masks=tmp_path / "masks", root=photos, limit=5).apply(images, classifier, ASKING)
    assert isinstance(chosen, GroundTruthImages)
    assert len(chosen) == 5
    places = {images.name(i): i for i in range(len(images))}
    for i in range(5):
        answer = chosen[i].ground_truth.numpy()
        assert answer.shape == (8, 8)
        assert answer[4:, 4:].all()
        assert np.flatnonzero(answer[0]).tolist() == [places[chosen.name(i)] % 4]
    found = score(classifier, chosen, [make_explainer("random", classifier)], ASKING)
    assert len(found) == 5


def test_masks_that_are_missing_are_refused(images, photos, classifier, tmp_path):
    write_masks(tmp_path / "masks", images, photos)
    (tmp_path / "masks" / "red" / "1.png").unlink()
    with pytest.raises(InvalidInputError, match=r"none for 1 of 13 .*1\.png"):
        Selection(masks=tmp_path / "masks", root=photos).apply(images, classifier, PLAN)
    with pytest.raises(InvalidInputError, match="no such folder"):
        Selection(masks=tmp_path / "nowhere", root=photos).apply(images, classifier, PLAN)


def test_boxes_are_transformed_like_their_photos(images, classifier):
    boxes = [(4.0, 8.0, 12.0, 16.0)] * len(images)
    known = LabeledFiles(images.paths, images.labels, images.class_names, images.transform, boxes)
    chosen = Selection(boxes=True).apply(known, classifier, ASKING)
    expected = np.zeros((8, 8), dtype=bool)
    expected[4:8, 2:6] = True
    for i in range(len(chosen)):
        np.testing.assert_array_equal(chosen[i].ground_truth.numpy(), expected)
    with pytest.raises(InvalidInputError, match="box"):
        Selection(boxes=True).apply(images, classifier, ASKING)


def test_a_metric_that_needs_ground_truth_is_refused_without_it(images, classifier):
    with pytest.raises(InvalidInputError, match="--masks, --boxes or --mosaic"):
        Selection().apply(images, classifier, ASKING)
    assert not isinstance(Selection().apply(images, classifier, PLAN), GroundTruthImages)


@pytest.mark.parametrize(
    "fields",
    [
        {"masks": "masks", "boxes": True},
        {"masks": "masks", "mosaic": 2},
        {"boxes": True, "mosaic": 2},
        {"masks": "masks", "boxes": True, "mosaic": 3},
    ],
)
def test_one_source_of_ground_truth_at_a_time(fields, tmp_path):
    if "masks" in fields:
        fields = {**fields, "masks": tmp_path}
    with pytest.raises(InvalidInputError, match=" and ".join(fields)):
        Selection(**fields)


@pytest.mark.parametrize("target", [0, 3, "red"])
def test_mosaics_ask_for_their_own_class(target):
    with pytest.raises(InvalidInputError, match="no target for mosaics"):
        Selection(mosaic=2, target=target)
    assert Selection(mosaic=2, target=LABEL).explained == Selection(mosaic=2).explained == LABEL


@pytest.mark.parametrize("cells", [0, 1, 3])
def test_mosaics_that_cannot_be_made_are_refused(cells, images, classifier):
    """One cell is no mosaic, and nine classes there are not."""
    with pytest.raises(InvalidInputError, match="cells"):
        Selection(mosaic=cells).apply(images, classifier, PLAN)


def test_photos_without_a_class_have_no_label_to_ask_for(tmp_path):
    classifier = additive()
    images = ImageFolder.scan(gray_photos(tmp_path), classifier.preprocessing)
    for choice in (Selection(target=LABEL), Selection(mosaic=2)):
        with pytest.raises(InvalidInputError, match="class"):
            choice.apply(images, classifier, PLAN)
    assert len(Selection().apply(images, classifier, PLAN)) == len(images)
    assert len(score(classifier, Selection(limit=2).apply(images, classifier, PLAN), [Exact(classifier)], PLAN)) == 2


def test_masks_want_files(classifier, tmp_path):
    arrays = LabeledArrays(np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 2, 3], list(COLORS), classifier.preprocessing, "made")
    (tmp_path / "masks").mkdir()
    with pytest.raises(InvalidInputError, match="expected image files"):
        Selection(masks=tmp_path / "masks", root=tmp_path).apply(arrays, classifier, PLAN)


def test_a_selection_is_described_with_absolute_paths(tmp_path):
    described = Selection(limit=3, masks=tmp_path / "x" / ".." / "masks").describe()
    assert described == {"limit": 3, "masks": str(tmp_path / "masks"), "boxes": False, "mosaic": None}
    assert Selection(mosaic=3).explained == LABEL
