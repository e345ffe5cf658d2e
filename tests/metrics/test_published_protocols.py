"""The protocols of pixels, of removed patches and of hit rates: recorded runs and closed forms."""

import json
from pathlib import Path

import networks
import pytest
import torch
from additive import additive_classifier, explained, ones, own_map
from safetensors.torch import load_file, save_file

from goldens import golden
from vitrail.adapters import Classifier, Preprocessing, adapt
from vitrail.core.autocast import in_precision
from vitrail.core.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.explanation import Explanation
from vitrail.metrics import PROTOCOLS, perturbation_curves, steps
from vitrail.metrics.perturbation import protocol_steps
from vitrail.metrics.steps import Steps, rank_pixels

SHARED = Path(__file__).parents[3] / "shared" / "goldens"
PUBLISHED_BASELINES = {"black": "zero", "mean": "mean", "blur": "strong-blur"}


class Looking(Classifier):
    """Records the images that it classifies."""

    num_classes = 2

    def grid_size(self, images):
        return images.shape[-2], images.shape[-1]

    def logits(self, images):
        self.module.seen += list(images)
        return torch.zeros(len(images), 2)


@pytest.fixture
def looking():
    module = torch.nn.Linear(1, 1)
    module.seen = []
    return Looking(module, Preprocessing((32, 32)), ("yes", "no"), "looking")


@pytest.mark.parametrize("direction", ["insertion", "deletion"])
@pytest.mark.parametrize("published", PUBLISHED_BASELINES)
def test_changed_images_are_those_that_mutex_recorded(looking, published, direction):
    case = golden("mutex_modify_image")
    shares = (0.01, 0.3, 1.0)  # Fewer than one pixel are all pixels there; here none.
    protocol = PROTOCOLS["mutex"].changed(shares=shares, baselines=(PUBLISHED_BASELINES[published],), directions=(direction,))
    explanation = Explanation(case.tensors["in.heat"][None], torch.tensor([0]), torch.zeros(1, 2))
    perturbation_curves(looking, case.tensors["in.x"], explanation, protocol)
    shown = looking.module.seen[1:4]  # The two ends lie around them.
    recorded = {share: f"out.{direction}.{published}.{share}" for share in shares}
    torch.testing.assert_close(shown[1], case.tensors[recorded[0.3]], rtol=1e-5, atol=1e-6)
    for image, name in zip(shown, recorded.values(), strict=True):
        assert float(image.double().sum()) == pytest.approx(float(case.tensors[f"{name}.sum"]), rel=1e-5, abs=1e-3)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the recorded photographs, which are not in the repository")
@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_curves_are_those_that_mutex_recorded(kind, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    tensors = load_file(SHARED / f"mutex_{kind}.safetensors")
    about = json.loads((SHARED / f"mutex_{kind}.json").read_text())
    names = {"vit": "ViTForImageClassification", "deit": "DeiTForImageClassificationWithTeacher"}
    config = {**about["config"], "model_type": kind, "architectures": [names[kind]]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = {name.removeprefix("param."): value for name, value in tensors.items() if name.startswith("param.")}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    network = getattr(transformers, names[kind]).from_pretrained(tmp_path).eval()
    classifier = adapt(network, preprocessing=Preprocessing((224, 224), mean=tuple(about["mean"]), std=tuple(about["std"])))
    pixels = tensors["in.image_u8"].permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(about[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    images = (pixels - mean) / std
    label = about["settings"][0]["label_used"]
    explanation = Explanation(tensors["out.0.heatmap"][None], torch.tensor([label]), classifier.logits(images).detach())
    protocol = PROTOCOLS["mutex"].changed(baselines=tuple(PUBLISHED_BASELINES.values()))
    # Their sort is unstable; its order is recorded, the least relevant first.
    order = tensors["out.insdel_argsort_u16"].int().flip(0)
    ranks = order.argsort().view(1, 224, 224)
    monkeypatch.setattr(steps, "rank_pixels", lambda *arguments: ranks)
    curves = perturbation_curves(classifier, images, explanation, protocol)
    for published, baseline in PUBLISHED_BASELINES.items():
        for direction in ("insertion", "deletion"):
            theirs = tensors[f"out.insdel.{published}.{direction}"]
            torch.testing.assert_close(curves[f"{direction}_{baseline}"][0], theirs.float(), rtol=1e-4, atol=1e-6)


def test_aucs_of_mutex_are_over_percent_and_deletion_starts_at_zero():
    protocol, classifier = PROTOCOLS["mutex"].changed(baselines=("zero",)), additive_classifier()
    curves = perturbation_curves(classifier, ones(), explained(classifier, ones(), own_map(classifier)), protocol)
    shares = torch.tensor(protocol.shares)
    for name, area in zip(curves.names, curves.auc()[0], strict=True):
        x, y = shares * 100, curves[name][0]
        if name == "deletion_zero":
            x, y = torch.cat([torch.zeros(1), x]), torch.cat([torch.zeros(1), y])
        torch.testing.assert_close(area, torch.trapezoid(y, x))


@pytest.mark.parametrize(("smooth", "order"), [(False, "most"), (False, "least"), (True, "most")])
def test_pixels_change_in_the_order_of_the_enlarged_map(smooth, order):
    relevance = torch.tensor([[[3.0, -1.0, 2.0], [0.5, 0.0, 1.0]]])
    ranks = rank_pixels(relevance, (8, 12), order, smooth)
    assert ranks.flatten().sort().values.tolist() == list(range(96))
    if not smooth:  # Whole cells, one after the other.
        place = (relevance.flatten().argsort(descending=order == "most")).argsort()
        cells = ranks[0].unfold(0, 4, 4).unfold(1, 4, 4).flatten(2).flatten(0, 1)
        assert (cells // 16 == place[:, None]).all()
    else:
        assert int(ranks[0, 0, 0]) < 6  # The corner of the strongest cell.


def test_a_pixel_protocol_in_steps_of_a_cell_equals_that_of_cells():
    classifier = additive_classifier()
    explanation = explained(classifier, ones(), own_map(classifier))
    cells = PROTOCOLS["hit"].changed(num_steps=6, baselines=("zero",))
    by_cells = perturbation_curves(classifier, ones(), explanation, cells)
    by_pixels = perturbation_curves(classifier, ones(), explanation, cells.changed(unit="pixels"))
    torch.testing.assert_close(by_pixels.scores, by_cells.scores)
    torch.testing.assert_close(by_pixels.ends, by_cells.ends)


def test_pixels_of_a_vision_transformer_are_images_run_one_by_one():
    classifier = networks.network("timm")
    images = networks.images("timm", 2)
    torch.manual_seed(0)
    grid = classifier.grid_size(images)
    explanation = explained(classifier, images, torch.rand(2, *grid))
    protocol = PROTOCOLS["chefer"].changed(shares=(0.25, 0.75), scores=("probability",), orders=("most",), smooth=False)
    curves = perturbation_curves(classifier, images, explanation, protocol)
    ranks = rank_pixels(explanation.relevance, tuple(images.shape[-2:]), "most", smooth=False)
    black = classifier.prepare(_black_photo(images)).to(images)
    for point, share in enumerate(protocol.shares):
        removed = ranks < int(share * images[0, 0].numel())
        changed = torch.where(removed.unsqueeze(1), black, images)
        expected = classifier.logits(changed).softmax(-1).gather(1, explanation.targets[:, None])[:, 0]
        torch.testing.assert_close(curves.scores[:, 0, point], expected.detach(), rtol=1e-4, atol=1e-6)


def _black_photo(images):
    from PIL import Image

    return Image.new("RGB", (images.shape[-1], images.shape[-2]))


def test_the_hit_rate_is_one_while_the_class_stays():
    """Only two cells matter for the class, which is lost once enough of their pixels are black."""
    classifier = additive_classifier((1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    classifier.module.weights.data -= torch.tensor([0.0, 0.1, 0.1, 0.1, 0.1, 0.1])
    protocol = PROTOCOLS["chefer"].changed(baselines=("zero",), smooth=False)
    explanation = explained(classifier, ones(), own_map(classifier))
    curves = perturbation_curves(classifier, ones(), explanation, protocol)
    shares = torch.tensor(protocol.shares)
    # Of the strongest cell, a sixth of the pixels, half may go: 1 - 6 share > 0.5.
    gone = torch.tensor([int(share * 96) for share in protocol.shares])
    left = (16 - gone).clamp(min=0) / 16
    others = 0.1 * (80 - (gone - 16).clamp(min=0)) / 16
    expected = (left > others).float()
    torch.testing.assert_close(curves["deletion_zero_top1"][0], expected)
    assert curves["deletion_zero_least_top1"][0].eq(1).all()
    torch.testing.assert_close(curves.auc()[0, 1], torch.tensor(1.0))
    torch.testing.assert_close(curves.auc()[0, 0], torch.trapezoid(expected, shares) / 0.8)
    assert curves.ends.isnan().all()  # Nothing asks for them.
    assert curves.normalized_auc().isnan().all()


REMOVABLE = ["timm-registers", "hf-vit", "torchvision", "hit"]
REMOVABLE += [pytest.param(name, marks=pytest.mark.slow) for name in ("timm", "timm-average")]


@pytest.mark.parametrize("name", REMOVABLE)
def test_removed_patches_are_gone(name):
    """Every point equals the network run on the remaining patches."""
    classifier, images = networks.network(name), networks.images(name, 2)
    torch.manual_seed(1)
    rows, cols = classifier.grid_size(images)
    explanation = explained(classifier, images, torch.rand(2, rows, cols))
    curves = perturbation_curves(classifier, images, explanation, PROTOCOLS["tokens"].changed(num_steps=rows * cols))
    prefix = classifier.num_prefix_tokens
    tokens = classifier.assemble(classifier.patch_embed(images), (rows, cols)).detach()
    order = explanation.relevance.flatten(1).argsort(1, descending=True)
    for direction in ("insertion", "deletion"):
        for step in (0, 1, rows * cols // 2, rows * cols - 1, rows * cols):
            for image in range(2):
                gone = min(step, rows * cols - 1)
                left = order[image, : max(step, 1)] if direction == "insertion" else order[image, gone:]
                left = left.sort().values
                some = torch.cat([tokens[image : image + 1, :prefix], tokens[image : image + 1, prefix + left]], 1)
                with torch.no_grad():
                    logits = classifier.forward_tokens(some, (rows, cols), left[None])
                expected = logits.softmax(-1)[0, explanation.targets[image]]
                torch.testing.assert_close(curves[f"{direction}_removed"][image, step], expected, rtol=1e-4, atol=1e-6)
    assert curves.normalized_auc().isnan().all()


def test_only_vision_transformers_can_remove_patches():
    classifier = additive_classifier()
    with pytest.raises(
        UnsupportedModelError,
        match="to remove patch tokens, got additive; choose another protocol, or other baselines",
    ):
        perturbation_curves(classifier, ones(), explained(classifier, ones(), own_map(classifier)), PROTOCOLS["tokens"])
    pooled, images = networks.network("hit-pooled"), networks.images("hit-pooled", 1)
    rows, cols = pooled.grid_size(images)
    with pytest.raises(InvalidInputError, match="expected all"):
        perturbation_curves(pooled, images, explained(pooled, images, torch.rand(1, rows, cols)), PROTOCOLS["tokens"])


def test_missing_ends_of_curves_are_measured_as_additional_points():
    classifier = additive_classifier()
    protocol = PROTOCOLS["hit"].changed(shares=(0.2, 0.5), baselines=("zero",), scores=("logit", "kl"))
    curves = perturbation_curves(classifier, ones(), explained(classifier, ones(), own_map(classifier)), protocol)
    total = float(classifier.module.weights.sum())
    torch.testing.assert_close(curves.ends[0, :2], torch.tensor([[total, 0.0]] * 2))
    torch.testing.assert_close(curves.normalized().scores[0, :2], curves.scores[0, :2] / total)
    assert curves.scores.shape == (1, 4, 2)
    assert float(curves.ends[0, 2, 0]) == 0  # KL of the image to itself.


@pytest.mark.parametrize("name", ["hit", "tokens"])
def test_steps_that_change_no_cell_cost_nothing(name, monkeypatch):
    """On 16 cells, 197 points are 17 different images: of each curve, those at both ends are shared with the other one."""
    classifier, images = networks.network("timm"), networks.images("timm", 2)
    protocol = PROTOCOLS[name].changed(num_steps=196)
    relevance = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    seen, ask = [], Steps._changed_logits

    def count(self, classifier, images, keep):
        seen.append(keep.shape[1])
        return ask(self, classifier, images, keep)

    monkeypatch.setattr(Steps, "_changed_logits", count)
    found = perturbation_curves(classifier, images, explained(classifier, images, relevance), protocol)
    assert all(number < 40 for number in seen)
    for all_steps in protocol_steps(protocol):
        keep = all_steps.masks(relevance, classifier.grid_size(images))
        assert keep.shape[1] == 2 * 197
    monkeypatch.setattr(Steps, "masked_logits", ask)
    expected = perturbation_curves(classifier, images, explained(classifier, images, relevance), protocol)
    torch.testing.assert_close(found.scores, expected.scores)


def test_black_is_black_for_the_model():
    classifier = additive_classifier()
    images = ones(2)
    expected = classifier.prepare(_black_photo(images))
    torch.testing.assert_close(classifier.baseline("black", images), expected)
    with pytest.raises(UnknownNameError, match="unknown baseline 'pink'"):
        classifier.baseline("pink", images)


@pytest.mark.parametrize("name", ["zero", "black", "blur", "strong-blur", "mean", "normal-noise", "noise"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_network_in_half_precision_keeps_its_baselines_exact(name, precision):
    classifier, images = additive_classifier(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = classifier.baseline(name, images)
    with in_precision(precision, images.device):
        found = classifier.baseline(name, images)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_measures_a_network_in_half_precision(name):
    classifier, images = networks.network("timm"), networks.images("timm", 2)
    rows, cols = classifier.grid_size(images)
    explanation = explained(classifier, images, torch.rand(2, rows, cols, generator=torch.Generator().manual_seed(0)))
    exact = perturbation_curves(classifier, images, explanation, PROTOCOLS[name])
    with in_precision("bf16", images.device):
        reduced = perturbation_curves(classifier, images, explanation, PROTOCOLS[name])
    assert reduced.scores.dtype == exact.scores.dtype
    torch.testing.assert_close(reduced.scores, exact.scores, rtol=0, atol=0.05)


def test_rise_measures_two_curves_over_pixels():
    protocol = PROTOCOLS["rise"]
    assert [curve.name for curve in protocol.curves] == ["deletion_zero", "insertion_blur"]
    assert protocol.thresholds(224 * 224).diff().eq(224).all()
    classifier = additive_classifier()
    curves = perturbation_curves(classifier, ones(), explained(classifier, ones(), own_map(classifier)), protocol)
    assert curves.scores.shape == (1, 2, 225)
    torch.testing.assert_close(curves.ends[0, 0], curves["deletion_zero"][0, [0, -1]])
    torch.testing.assert_close(curves.ends[0, 1], curves["insertion_blur"][0, [-1, 0]])


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_the_auc_of_a_constant_curve_is_the_largest(name):
    protocol = PROTOCOLS[name]
    from vitrail.metrics import Curves

    num_cells = 49
    fractions = protocol.fractions(num_cells, torch.zeros(1))
    curves = Curves(
        protocol, fractions, torch.ones(1, len(protocol.curves), len(fractions)), torch.zeros(1, len(protocol.curves), 2)
    )
    span = 1.0 if protocol.axis != "percent" else 0.99
    for curve, area in zip(protocol.curves, curves.auc()[0], strict=True):
        triangle = 0.5 if protocol.from_zero and curve.direction == "deletion" else 0
        assert float(area) == pytest.approx(protocol.largest_auc * span + triangle, rel=1e-6)
        assert area <= protocol.largest_auc
