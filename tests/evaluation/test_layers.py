"""The layer-wise report of a folder, against networks whose layers are silenced and against counts by hand."""

from dataclasses import replace

import networks
import pytest
import torch

from vitrail.adapters import Preprocessing, adapt, load
from vitrail.core.errors import ImageError, UnsupportedModelError
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.image_io import open_image
from vitrail.evaluation.layers import Ablation, layer_ablations, report_layers

pytest_plugins = ("tiny",)


@pytest.fixture
def classifier(tiny_model_file):
    return load(tiny_model_file, device="cpu")


@pytest.fixture
def deep():
    """Four layers in three stages of two widths, in double precision."""
    model = networks.hit_pooled(num_classes=7).double()
    return adapt(model, preprocessing=Preprocessing((16, 16)), name="deep")


@pytest.fixture
def photos(make_photo, tmp_path):
    for i in range(7):
        make_photo(tmp_path / "photos" / f"{i}.png", seed=i)
    return tmp_path / "photos"


def scan(folder, classifier):
    return ImageFolder.scan(folder, classifier.preprocessing)


def layers_of(model):
    return [layer for stage in model.stages for layer in stage.layers]


def silenced_probabilities(classifier, folder, kept):
    """Of a whole forward pass through a network whose other layers' output projections are zero."""
    model, state = classifier.module, {name: tensor.clone() for name, tensor in classifier.module.state_dict().items()}
    with torch.no_grad():
        for i, layer in enumerate(layers_of(model)):
            if i not in kept:
                layer.attention.out_proj.weight.zero_()
                layer.attention.out_proj.bias.zero_()
        probabilities = model(batch_of(classifier, folder)).softmax(-1)
        model.load_state_dict(state)
    return probabilities


def batch_of(classifier, folder):
    return torch.stack([classifier.preprocessing(open_image(path)) for path in sorted(folder.glob("*.png"))]).to(
        classifier.dtype
    )


def test_the_sets_of_layers():
    assert layer_ablations(2) == [
        Ablation("first", 0, ()),
        Ablation("first", 1, (0,)),
        Ablation("first", 2, (0, 1)),
        Ablation("without_first", 0, (0, 1)),
        Ablation("without_first", 1, (1,)),
        Ablation("without_first", 2, ()),
        Ablation("single", 0, (0,)),
        Ablation("single", 1, (1,)),
        Ablation("without", 0, (1,)),
        Ablation("without", 1, (0,)),
    ]
    kinds = [ablation.kind for ablation in layer_ablations(12)]
    assert [kinds.count(kind) for kind in ("first", "without_first", "single", "without")] == [13, 13, 12, 12]


def test_omitting_the_last_layers_equals_silencing_them(deep, photos):
    """Nothing comes after them that could answer otherwise."""
    report = report_layers(deep, scan(photos, deep))
    for i, ablation in enumerate(report.ablations):
        if ablation.kept != tuple(range(len(ablation.kept))):
            continue
        expected = silenced_probabilities(deep, photos, ablation.kept)
        assert report.predicted[:, i].tolist() == expected.argmax(-1).tolist()
        wanted = expected.gather(1, report.targets[:, None])[:, 0].float()
        torch.testing.assert_close(report.probabilities[:, i], wanted, rtol=1e-5, atol=1e-6)


def test_omitting_an_earlier_layer_differs_from_silencing_it(deep, photos):
    report = report_layers(deep, scan(photos, deep))
    i = report.ablations.index(Ablation("without", 0, (1, 2, 3)))
    silenced = silenced_probabilities(deep, photos, (1, 2, 3)).gather(1, report.targets[:, None])[:, 0].float()
    assert (report.probabilities[:, i] - silenced).abs().max() > 1e-3


def test_omitting_layers_equals_silencing_them_where_none_queries_the_class_token(deep, photos):
    """Queries that are nothing but their bias: then every set of layers can be tried by a network of its own."""
    with torch.no_grad():
        for layer in layers_of(deep.module):
            layer.attention.in_proj_weight.chunk(3)[0].zero_()
    report = report_layers(deep, scan(photos, deep))
    assert len(report.ablations) == 18
    for i, ablation in enumerate(report.ablations):
        expected = silenced_probabilities(deep, photos, ablation.kept)
        assert report.predicted[:, i].tolist() == expected.argmax(-1).tolist()
        wanted = expected.gather(1, report.targets[:, None])[:, 0].float()
        torch.testing.assert_close(report.probabilities[:, i], wanted, rtol=1e-5, atol=1e-6)


def test_figures_are_those_of_a_count_by_hand(classifier, make_classes):
    folder = make_classes(("crimson", "amber", "green"), 6)
    images = scan(folder, classifier)
    report = report_layers(classifier, images, batch_size=4)
    assert (report.no_labels, report.unreadable, len(report.paths)) == (None, [], 18)
    assert report.paths == [str(path) for path in images.paths]
    measures = report.measures()
    assert list(measures) == ["top1", "agreement", "probability"]
    assert list(report.whole()) == list(measures)
    keep = torch.tensor([[k in ablation.kept for k in range(2)] for ablation in report.ablations])
    module = classifier.module
    for i, path in enumerate(images.paths):
        image = classifier.preprocessing(open_image(path))[None]
        label = classifier.class_names.index(path.parent.name)
        with torch.no_grad():
            logits, ablated = module(image)[0], module.ablated_logits(image, keep)[0]
            target = int(logits.argmax())
            parts = module.contributions(image, target)
        assert (int(report.targets[i]), int(report.labels[i])) == (target, label)
        assert measures["top1"][i].tolist() == [float(one.argmax() == label) for one in ablated]
        assert measures["agreement"][i].tolist() == [float(one.argmax() == target) for one in ablated]
        torch.testing.assert_close(measures["probability"][i], ablated.softmax(-1)[:, target], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(report.layers[i], parts.layers[0, 0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(report.bias[i], parts.layer_bias[0, 0], rtol=1e-4, atol=1e-5)
        assert float(report.logits[i]) == pytest.approx(float(logits[target]), rel=1e-4)
        whole = {name: float(values[i]) for name, values in report.whole().items()}
        assert whole == pytest.approx(
            {"top1": float(target == label), "agreement": 1.0, "probability": float(logits.softmax(-1)[target])}, abs=1e-5
        )
    # Else the test would tell nothing.
    assert 0 < float(report.whole()["top1"].mean()) < 1
    assert 0 < float(measures["agreement"].mean()) < 1


def test_no_layer_left_out_is_the_whole_model(deep, photos):
    report = report_layers(deep, scan(photos, deep))
    measures = report.measures()
    for ablation in (Ablation("first", 4, (0, 1, 2, 3)), Ablation("without_first", 0, (0, 1, 2, 3))):
        i = report.ablations.index(ablation)
        assert measures["agreement"][:, i].tolist() == [1.0] * 7
        torch.testing.assert_close(measures["probability"][:, i], report.whole()["probability"])
    torch.testing.assert_close(report.layers.sum(-1) + report.bias, report.logits, rtol=1e-5, atol=1e-6)
    assert 0 <= report.completeness_error < 1e-12


def test_one_forward_pass_per_batch(classifier, photos):
    calls = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, _: calls.append((module, len(inputs[0]))))
        for module in (classifier.module.patch_projection, *layers_of(classifier.module))
    ]
    with classifier.verified("parts"):  # The network is looked over before it is first relied on.
        calls.clear()
        report_layers(classifier, scan(photos, classifier), batch_size=3)
    for hook in hooks:
        hook.remove()
    modules = [classifier.module.patch_projection, *layers_of(classifier.module)]
    assert calls == [(module, size) for size in (3, 3, 1) for module in modules]


def test_nothing_depends_on_the_batch_size(classifier, photos):
    first, other = (report_layers(classifier, scan(photos, classifier), batch_size=size) for size in (7, 2))
    assert (first.paths, first.predicted.tolist()) == (other.paths, other.predicted.tolist())
    for name in ("probabilities", "layers", "bias", "logits", "confidence"):
        torch.testing.assert_close(getattr(first, name), getattr(other, name), rtol=1e-4, atol=1e-5)


def test_without_labels_accuracy_is_omitted_with_the_reason(classifier, photos, make_classes):
    report = report_layers(classifier, scan(photos, classifier))
    assert report.labels is None
    assert "without a class" in report.no_labels
    assert list(report.measures()) == list(report.whole()) == ["agreement", "probability"]
    strange = report_layers(classifier, scan(make_classes(("blue", "purple"), 2), classifier))
    assert (strange.labels, len(strange.paths)) == (None, 4)
    assert "unknown among 2: purple" in strange.no_labels


def test_unreadable_files_are_left_out_and_named(classifier, photos):
    before = report_layers(classifier, scan(photos, classifier))
    (photos / "1b.png").write_bytes(b"")
    after = report_layers(classifier, scan(photos, classifier), batch_size=2)
    assert [file.path for file in after.unreadable] == [str(photos / "1b.png")]
    assert after.paths == before.paths
    torch.testing.assert_close(after.layers, before.layers, rtol=1e-4, atol=1e-5)
    for path in photos.glob("?.png"):
        path.write_bytes(b"")
    with pytest.raises(ImageError, match="not one of 8 images could be read"):
        report_layers(classifier, scan(photos, classifier))


def test_only_a_hit_has_such_layers(photos):
    vit = adapt(networks.timm_vit(), name="timm:tiny")
    with pytest.raises(UnsupportedModelError, match=r"expected a HiT, .* got timm:tiny; name one"):
        report_layers(vit, scan(photos, vit))


def test_the_model_and_the_random_state_are_unchanged(classifier, photos):
    classifier.module.train()
    state, chance = {k: v.clone() for k, v in classifier.module.state_dict().items()}, torch.random.get_rng_state()
    report_layers(classifier, scan(photos, classifier))
    assert classifier.module.training
    assert torch.equal(torch.random.get_rng_state(), chance)
    assert all(torch.equal(v, state[k]) for k, v in classifier.module.state_dict().items())


def test_half_precision_is_measured_in_single_precision(classifier, photos):
    exact = report_layers(classifier, scan(photos, classifier))
    classifier.module.bfloat16()
    half = report_layers(classifier, scan(photos, classifier))
    assert half.probabilities.dtype == half.layers.dtype == half.confidence.dtype == torch.float32
    assert half.completeness_error < 0.05
    torch.testing.assert_close(half.layers, exact.layers, rtol=0.1, atol=0.2)


def test_a_model_without_class_names_takes_folders_in_their_order(classifier, make_classes):
    nameless = replace(classifier, class_names=())
    folder = make_classes(tuple("abcdefg"), 1)
    assert report_layers(nameless, scan(folder, nameless)).labels.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_accuracy_of_a_single_logit_uses_its_sign(make_photo, tmp_path):
    """A softmax over one logit is 1, and its largest logit is always the first."""
    for i in range(6):
        make_photo(tmp_path / "photos" / "cat" / f"{i}.png", seed=i)
    single = adapt(networks.hit(num_classes=1), preprocessing=Preprocessing((16, 16)), class_names=["cat"])
    images = scan(tmp_path / "photos", single)
    batch = torch.stack([images[place].image for place in range(6)])
    with torch.no_grad():
        single.module.head.bias.sub_(single.module(batch).median())
        logits = single.module(batch)[:, 0]
        nothing = single.module.layer_split(
            batch, torch.zeros(1, 2, dtype=torch.bool), lambda logits: logits.argmax(1, keepdim=True)
        ).ablated[:, 0, 0]
    report = report_layers(single, images)
    assert report.labels is None
    assert "at least two classes" in report.no_labels
    assert report.targets.tolist() == [0] * 6
    torch.testing.assert_close(report.confidence, logits.sigmoid(), rtol=1e-4, atol=1e-6)
    agreement = report.measures()["agreement"][:, 0]
    assert agreement.tolist() == ((logits >= 0) == (nothing >= 0)).float().tolist()
    assert 0 < agreement.mean() < 1
    assert report.whole()["agreement"].tolist() == [1.0] * 6
