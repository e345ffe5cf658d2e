from dataclasses import dataclass, replace

import networks
import numpy as np
import pytest
import torch
from samples import CLASS_NAMES

from vitrail.adapters import Preprocessing, adapt, build, load
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.dataset import NO_LABEL
from vitrail.datasets.folder import ImageFolder
from vitrail.evaluation import Plan, evaluate, score, with_model_labels
from vitrail.explainers import Attribution, Explainer, make_explainer
from vitrail.metrics import PROTOCOLS

pytest_plugins = ("tiny",)

QUICK = Plan.create({"quick": replace(PROTOCOLS["hit"], num_steps=4)})
DIFFMASK = Plan.create(["diffmask"])


@pytest.fixture
def classifier(tiny_model_file):
    return load(tiny_model_file, device="cpu")


@pytest.fixture
def labeled(classifier, make_photo, tmp_path):
    """A function from class names to a folder with two photos of each."""

    def make(*names):
        for i, name in enumerate(names):
            for j in range(2):
                make_photo(tmp_path / "data" / name / f"{j}.png", seed=10 * i + j)
        return ImageFolder.scan(tmp_path / "data", classifier.preprocessing)

    return make


def test_labels_follow_the_names(classifier, labeled):
    images = with_model_labels(labeled("green", "blue"), classifier)
    assert images.labels == [1, 1, 6, 6]
    assert [path.parent.name for path in images.paths] == ["blue", "blue", "green", "green"]


def test_labels_follow_the_order_where_the_model_has_no_names(classifier, labeled):
    names = tuple("abcdefg")
    images = with_model_labels(labeled(*names), replace(classifier, class_names=()))
    assert images.labels == [i for i in range(7) for _ in range(2)]


def test_labels_follow_the_order_where_no_name_is_the_models(classifier, labeled):
    images = with_model_labels(labeled(*(f"n0{i}" for i in range(7))), classifier)
    assert images.labels == [i for i in range(7) for _ in range(2)]


def test_names_that_contradict_the_order_are_never_overruled_by_it(classifier, labeled):
    # By order, "blue" would be class 0, which the model calls amber.
    with pytest.raises(InvalidInputError, match="zamber"):
        with_model_labels(labeled("zamber", "blue", "crimson", "denim", "ecru", "fawn", "green"), classifier)


def test_class_folders_may_be_links(classifier, labeled, tmp_path):
    labeled("blue", "green")
    (tmp_path / "linked").mkdir()
    for name in ("blue", "green"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "data" / name)
    images = with_model_labels(ImageFolder.scan(tmp_path / "linked", classifier.preprocessing), classifier)
    assert images.labels == [1, 1, 6, 6]


def test_too_few_unknown_classes_are_refused(classifier, labeled):
    with pytest.raises(InvalidInputError, match="unknown among 2: purple"):
        with_model_labels(labeled("blue", "purple"), classifier)


def test_photos_without_a_class_are_refused(classifier, make_photo, tmp_path):
    images = ImageFolder.scan(make_photo(tmp_path / "a.png").parent, classifier.preprocessing)
    assert images.labels == [NO_LABEL]
    with pytest.raises(InvalidInputError, match="without a class"):
        evaluate(classifier, images)


def test_a_model_of_one_class_is_refused(make_photo, tmp_path):
    make_photo(tmp_path / "data" / "bird" / "0.png")
    alone = build("timm:resnet18", num_classes=1, image_size=(32, 32), class_names=["bird"])
    images = ImageFolder.scan(tmp_path / "data", alone.preprocessing)
    with pytest.raises(InvalidInputError, match=r"expected a model of at least two classes, got .*resnet18.* with one"):
        evaluate(alone, images)


def test_several_labels_are_right_by_the_largest_logit(make_photo, tmp_path):
    """Of logits beyond 17, sigmoids in single precision are all 1: their order would be lost."""
    for name in CLASS_NAMES:
        make_photo(tmp_path / "data" / name / "0.png")
    module = networks.hit(num_classes=len(CLASS_NAMES))
    with torch.no_grad():
        module.head.bias.add_(200 + 10 * torch.arange(len(CLASS_NAMES)))
    several = adapt(module, class_names=CLASS_NAMES, output="sigmoid", preprocessing=Preprocessing((16, 16)))
    found = evaluate(several, ImageFolder.scan(tmp_path / "data", several.preprocessing))
    assert found.confidence == 1
    assert found.top1 == pytest.approx(1 / len(CLASS_NAMES))
    assert found.top5 == pytest.approx(5 / len(CLASS_NAMES))


def test_logits_that_are_no_numbers_are_no_accuracy(make_photo, tmp_path):
    for name in CLASS_NAMES:
        make_photo(tmp_path / "data" / name / "0.png")
    module = networks.hit(num_classes=len(CLASS_NAMES))
    with torch.no_grad():
        module.head.bias[0] = torch.nan
    broken = adapt(module, class_names=CLASS_NAMES, preprocessing=Preprocessing((16, 16)))
    with pytest.raises(InvalidInputError, match="gave logits that are not finite"):
        evaluate(broken, ImageFolder.scan(tmp_path / "data", broken.preprocessing))


def test_accuracy_does_not_depend_on_the_batch_size(classifier, labeled):
    images = labeled("amber", "blue", "green")
    first = evaluate(classifier, images, batch_size=6)
    other = evaluate(classifier, images, batch_size=4)
    assert (other.top1, other.top5, other.num_images) == (first.top1, first.top5, 6)
    assert other.confidence == pytest.approx(first.confidence, abs=1e-5)


def test_accuracy_is_one_where_the_folders_are_the_predictions(classifier, make_photo, tmp_path):
    for i in range(12):
        make_photo(tmp_path / "plain" / f"{i}.png", seed=i)
    plain = ImageFolder.scan(tmp_path / "plain", classifier.preprocessing)
    with torch.no_grad():
        predicted = classifier.module(torch.stack([plain[i].image for i in range(12)])).argmax(-1).tolist()
    assert len(set(predicted)) > 2
    for path, index in zip(plain.paths, predicted, strict=True):
        target = tmp_path / "sorted" / classifier.class_names[index] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    result = evaluate(classifier, ImageFolder.scan(tmp_path / "sorted", classifier.preprocessing), batch_size=5)
    assert (result.top1, result.top5, result.num_images) == (1.0, 1.0, 12)


def test_nothing_readable_is_an_error_that_names_a_file(classifier, tmp_path):
    (tmp_path / "blue").mkdir()
    (tmp_path / "blue" / "bad.jpg").write_text("no photo")
    images = ImageFolder.scan(tmp_path, classifier.preprocessing)
    with pytest.raises(ImageError, match=r"not one of 1 images could be read.*bad\.jpg"):
        evaluate(classifier, images)
    with pytest.raises(ImageError, match=r"not one of 1 images could be read.*bad\.jpg"):
        score(classifier, images, [make_explainer("hit", classifier)], QUICK)


def test_the_models_mode_is_kept(classifier, labeled):
    classifier.module.train()
    evaluate(classifier, labeled("blue"))
    score(classifier, labeled("blue"), [make_explainer("random", classifier)], QUICK)
    assert classifier.module.training


def test_score_skips_the_unreadable_and_keeps_paths_and_curves_together(classifier, make_photo, tmp_path):
    photos = [make_photo(tmp_path / f"{i}.png", seed=i) for i in range(5)]
    (tmp_path / "1b.png").write_bytes(b"")
    images = ImageFolder.scan(tmp_path, classifier.preprocessing)
    scores = score(classifier, images, [make_explainer(name, classifier) for name in ("hit", "random")], QUICK, batch_size=2)
    assert scores.paths == [str(path) for path in photos]
    assert scores.indices.tolist() == [0, 1, 3, 4, 5]  # "1b.png" stands between.
    assert [file.path for file in scores.unreadable] == [str(tmp_path / "1b.png")]
    curves = scores.curves("quick")
    assert list(curves) == list(scores.methods) == ["hit", "random"]
    alone = score(classifier, ImageFolder.scan(photos[3], classifier.preprocessing), [make_explainer("hit", classifier)], QUICK)
    expected = alone.curves("quick")["hit"]
    torch.testing.assert_close(curves["hit"].scores[3], expected.scores[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(curves["hit"].ends[3], expected.ends[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores.method_values("hit")[3], alone.method_values("hit")[0], rtol=1e-3, atol=1e-5)
    assert scores.targets[3] == alone.targets[0]
    with torch.no_grad():
        found = classifier.module(torch.stack([images[place].image for place in scores.indices.tolist()])).argmax(-1)
    assert scores.targets.tolist() == found.tolist()
    assert scores.target_names == [classifier.class_names[int(target)] for target in found]


def test_completeness_is_measured_of_those_that_account_for_the_whole_logit(classifier, labeled):
    images = labeled("blue")
    explainers = [make_explainer(name, classifier) for name in ("hit", "random")]
    hit, random = score(classifier, images, explainers, QUICK).column("completeness")
    assert (hit < 1e-4).all()
    assert np.isnan(random).all()
    assert "completeness" not in [column.name for column in score(classifier, images, explainers[1:], QUICK).columns]


def test_two_settings_of_one_method_are_both_scored_or_refused(classifier, make_photo, tmp_path):
    images = ImageFolder.scan(make_photo(tmp_path / "a.png"), classifier.preprocessing)
    explainers = [make_explainer("random", classifier, seed=seed) for seed in (0, 1)]
    try:
        scores = score(classifier, images, explainers, QUICK)
    except InvalidInputError:
        return
    assert len(set(scores.methods)) == 2


def test_methods_of_other_grids_are_refused_where_points_are_counted_in_cells(classifier, make_photo, tmp_path):
    @dataclass(frozen=True, eq=False)
    class Coarse(Explainer):
        """One number for four patches."""

        name = "coarse"

        def attribution(self, images, choose):
            logits = self.model.logits(images)
            return Attribution(logits, choose(logits), torch.rand(len(images), 2, 2))

    images = ImageFolder.scan(make_photo(tmp_path / "a.png"), classifier.preprocessing)
    explainers = [make_explainer("random", classifier), Coarse(classifier)]
    with pytest.raises(InvalidInputError, match=r"expected maps of one grid.*images separately"):
        score(classifier, images, explainers, DIFFMASK)
    alone = score(classifier, images, explainers[1:], DIFFMASK).curves("diffmask")["coarse"]
    assert alone.scores.shape == (1, 4, 2)
    assert score(classifier, images, explainers, QUICK).methods == ("random", "coarse")


def test_curves_do_not_depend_on_the_batch_size(classifier, make_photo, tmp_path):
    for i in range(5):
        make_photo(tmp_path / f"{i}.png", seed=i)
    images = ImageFolder.scan(tmp_path, classifier.preprocessing)
    first, other = (
        score(classifier, images, [make_explainer("hit", classifier)], DIFFMASK, batch_size=size).curves("diffmask")["hit"]
        for size in (5, 2)
    )
    assert first.fractions.tolist() == [0, 7 / 16, 14 / 16, 1]
    torch.testing.assert_close(first.scores, other.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.ends, other.ends, rtol=1e-4, atol=1e-5)
