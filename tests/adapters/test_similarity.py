"""Networks that give an embedding, compared with texts, reference images, probes and directions."""

import copy
import math
from dataclasses import replace

import clip_networks
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import vitrail
from vitrail import similarity
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.explainers import EXPLAINERS
from vitrail.metrics import PROTOCOLS
from vitrail.metrics.perturbation import perturbation_curves


@pytest.fixture
def tower():
    return clip_networks.with_text(clip_networks.headless())


@pytest.fixture
def images():
    return clip_networks.images()


def embed(tower, images):
    with torch.no_grad():
        return nn.functional.normalize(tower.module(images), dim=-1)


def encode(tower, *texts):
    return nn.functional.normalize(tower.text.encode(texts), dim=-1)


@torch.no_grad()
def test_logits_are_scaled_cosines_to_prompts(tower, images):
    compared = similarity(tower, prompts=["cat", "dog"])
    torch.testing.assert_close(compared.logits(images), 8 * embed(tower, images) @ encode(tower, "cat", "dog").T)
    assert compared.class_names == ("cat", "dog")
    assert (compared.output, compared.num_classes, compared.name) == ("softmax", 2, "tower with 2 prompts")


@torch.no_grad()
def test_a_class_of_several_texts_is_their_normalized_mean(tower, images):
    compared = similarity(tower, prompts={"cat": ["cat", "a kitten"], "dog": "dog"}, batch_size=2)
    cat = nn.functional.normalize(encode(tower, "cat", "a kitten").mean(0), dim=0)
    torch.testing.assert_close(compared.logits(images)[:, 0], 8 * embed(tower, images) @ cat)
    assert compared.class_names == ("cat", "dog")


def test_templates_are_an_ensemble(tower, images):
    compared = similarity(tower, prompts=["cat", "dog"], templates=["a photo of a {}.", "{} in {}"])
    expected = similarity(
        tower, prompts={"cat": ["a photo of a cat.", "cat in cat"], "dog": ["a photo of a dog.", "dog in dog"]}
    )
    torch.testing.assert_close(compared.logits(images), expected.logits(images))
    assert compared.class_names == ("cat", "dog")


def test_one_prompt_alone_is_a_similarity_and_no_softmax(tower, images):
    compared = similarity(tower, prompts=["cat"])
    torch.testing.assert_close(compared.logits(images), embed(tower, images) @ encode(tower, "cat").T)
    assert compared.output == "none"
    explanation = vitrail.explain(compared, images[:1], method="occlusion")
    assert explanation.relevance.std() > 0, "the softmax over one prompt would make every map zero"


def test_one_prompt_of_a_sigmoid_model_is_its_own_probability(images):
    tower = clip_networks.with_text(clip_networks.headless(), meaning="sigmoid", bias=-2.0)
    compared = similarity(tower, prompts="cat")
    torch.testing.assert_close(compared.logits(images), 8 * embed(tower, images) @ encode(tower, "cat").T - 2)
    assert compared.output == "sigmoid"


def test_prompts_from_files(tower, images, tmp_path):
    (tmp_path / "prompts.txt").write_text("cat: a cat\n\ncat: a kitten\na dog\n")
    (tmp_path / "templates.txt").write_text("a photo of {}\n")
    compared = similarity(tower, prompts=tmp_path / "prompts.txt", templates=str(tmp_path / "templates.txt"))
    expected = similarity(tower, prompts={"cat": ["a photo of a cat", "a photo of a kitten"], "a dog": ["a photo of a dog"]})
    torch.testing.assert_close(compared.logits(images), expected.logits(images))
    assert compared.class_names == ("cat", "a dog")
    separated = similarity(tower, prompts="a cat, a dog", class_names=["cat", "dog"])
    torch.testing.assert_close(separated.logits(images), similarity(tower, prompts=["a cat", "a dog"]).logits(images))
    assert separated.class_names == ("cat", "dog")


@pytest.fixture
def photos():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (40, 48, 3), dtype=np.uint8)) for _ in range(4)]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_references_in_folders(tower, images, photos, tmp_path, batch_size):
    for name, photo in zip(["a/1", "a/2", "b/1", "b/deep/2"], photos, strict=True):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path)
    rows = embed(tower, tower.prepare(photos))
    cosines = embed(tower, images) @ rows.T
    nearest = similarity(tower, references=tmp_path, reference="nearest", batch_size=batch_size)
    torch.testing.assert_close(nearest.logits(images), cosines.unflatten(1, (2, 2)).amax(2))
    mean = similarity(tower, references=str(tmp_path), batch_size=batch_size)
    centers = nn.functional.normalize(rows.unflatten(0, (2, 2)).mean(1), dim=-1)
    torch.testing.assert_close(mean.logits(images), embed(tower, images) @ centers.T)
    assert mean.class_names == ("a", "b")
    assert mean.output == "none"
    assert mean.name == "tower with references of 2 classes"


def test_references_of_every_kind(tower, images, photos, tmp_path):
    photos[1].save(tmp_path / "bee.png")
    compared = similarity(tower, references=[photos[0], tmp_path / "bee.png", tower.prepare(photos[2])[0]])
    torch.testing.assert_close(compared.logits(images), embed(tower, images) @ embed(tower, tower.prepare(photos[:3])).T)
    assert compared.class_names == ("reference 1", "bee", "reference 3")
    alone = similarity(tower, references=tmp_path, class_names=["insect"])
    torch.testing.assert_close(alone.logits(images), compared.logits(images)[:, 1:2])
    assert alone.class_names == ("insect",)
    torch.testing.assert_close(similarity(tower, references=tmp_path / "bee.png").logits(images), alone.logits(images))


@pytest.mark.parametrize("sign", [1, pytest.param(-1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["chefer", "grad-cam", "input-x-gradient", "legrad", "attcat"])
def test_rounding_errors_of_a_flat_similarity_are_no_map(tower, images, method, dtype, sign):
    """The gradient of a cosine is zero where it is 1 or -1: what is computed there is noise."""
    tower = replace(tower, module=copy.deepcopy(tower.module).to(dtype))
    images = images.to(dtype)
    compared = similarity(tower, direction=sign * embed(tower, images[:2]))
    with pytest.raises(
        UnsupportedModelError, match=r"gradient of the target logit is zero everywhere in an image, .* compared with itself"
    ):
        vitrail.explain(compared, images[:1], method=method, target=0)
    other = vitrail.explain(compared, images[:1], method=method, target=1)
    assert torch.isfinite(other.relevance).all()
    assert other.relevance.abs().max() > 0


@pytest.mark.parametrize("method", ["occlusion", "rise", "integrated-gradients", "attention"])
def test_other_methods_compare_an_image_with_itself(tower, images, method):
    compared = similarity(tower, direction=embed(tower, images[:1]))
    explanation = vitrail.explain(compared, images[:1], method=method)
    assert explanation.relevance.std() > 1e-6
    assert float(explanation.logits) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("angle", [1e-4, 1e-2])
def test_gradients_of_nearly_equal_directions_stay(tower, images, angle):
    """By autograd through the plain formula, in double precision."""
    module = copy.deepcopy(tower.module).double()
    tower, images = replace(tower, module=module), images[:1].double().requires_grad_()
    own = embed(tower, images)
    across = torch.randn(own.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction = own + angle * nn.functional.normalize(across - (across * own).sum() * own, dim=-1)
    [found] = torch.autograd.grad(similarity(tower, direction=direction).logits(images).sum(), images)
    [expected] = torch.autograd.grad(torch.cosine_similarity(module(images), direction).sum(), images)
    torch.testing.assert_close(found, expected)
    assert expected.norm() > 0


def test_an_image_is_most_similar_to_itself(tower, photos):
    compared = similarity(tower, references={"this": [photos[0]], "that": [photos[1]]})
    torch.testing.assert_close(compared.logits(tower.prepare(photos[0]))[0, 0].detach(), torch.tensor(1.0))


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "npz", "layer"])
@pytest.mark.parametrize("prefix", ["", "fc."])
def test_a_probe_is_its_linear_layer(tower, images, tmp_path, suffix, prefix):
    torch.manual_seed(2)
    layer, path = nn.Linear(24, 3), tmp_path / f"probe.{suffix}"
    state = {prefix + name: values.detach().clone() for name, values in layer.state_dict().items()}
    if suffix == "safetensors":
        save_file(state, path)
    elif suffix == "pt":
        torch.save(state, path)
    elif suffix == "npz":
        np.savez(path, **{name: values.numpy() for name, values in state.items()})
    compared = similarity(tower, probe=layer if suffix == "layer" else path, class_names=["a", "b", "c"])
    torch.testing.assert_close(compared.logits(images), layer(tower.module(images)))
    assert compared.output == "softmax"
    assert not any(parameter.grad is not None for parameter in layer.parameters())


def test_a_probe_of_scikit_learn_with_two_classes_is_a_sigmoid(tower, images, tmp_path):
    weight = np.random.default_rng(0).normal(size=(1, 24))
    np.savez(tmp_path / "probe.npz", coef_=weight, intercept_=np.array([0.5]))
    compared = similarity(tower, probe=tmp_path / "probe.npz")
    with torch.no_grad():
        expected = tower.module(images) @ torch.from_numpy(weight).float().T + 0.5
    torch.testing.assert_close(compared.logits(images).detach(), expected)
    assert compared.output == "sigmoid"


def test_directions(tower, images):
    vectors = torch.randn(3, 24, generator=torch.Generator().manual_seed(3))
    compared = similarity(tower, direction=vectors)
    torch.testing.assert_close(compared.logits(images), embed(tower, images) @ nn.functional.normalize(vectors, dim=1).T)
    one = similarity(tower, direction=vectors[0].requires_grad_(), class_names=["striped"])
    torch.testing.assert_close(one.logits(images).detach(), compared.logits(images).detach()[:, :1])
    assert (one.output, one.name) == ("none", "tower with 1 direction")


METHODS = [name for name in EXPLAINERS if name not in ("hit", "hit-rollout", "intr", "diffmask")]


@pytest.mark.parametrize(
    ("prompts", "method"),
    [
        pytest.param(prompts, method, marks=[] if prompts == ["cat"] or method in ("chefer", "shapley") else pytest.mark.slow)
        for prompts in (["cat"], ["cat", "dog"])
        for method in METHODS
    ],
)
def test_every_method_explains_a_similarity(tower, images, method, prompts):
    compared = similarity(tower, prompts=prompts)
    options = {"num_passes": 100} if method == "shapley" else {}
    explanation = vitrail.explain(compared, images[:1], method=method, target=len(prompts) - 1, **options)
    assert explanation.relevance.shape == (1, 4, 4)
    assert explanation.relevance.std() > 0
    assert explanation.model == compared.name
    torch.testing.assert_close(explanation.logits, compared.logits(images[:1]).detach())


@pytest.mark.parametrize("kind", ["prompts", "nearest", "direction"])
def test_integrated_gradients_add_up_to_the_similarity(tower, images, photos, kind):
    given = {
        "prompts": {"prompts": ["cat"]},
        "nearest": {"references": {"a": photos[:2], "b": photos[2:]}, "reference": "nearest"},
        "direction": {"direction": torch.randn(24, generator=torch.Generator().manual_seed(4))},
    }[kind]
    compared = similarity(tower, **given)
    explanation = vitrail.explain(compared, images[:1], method="integrated-gradients", target=0, num_steps=400)
    bias = 0 if explanation.bias is None else explanation.bias
    assert abs(explanation.relevance.sum() + bias - compared.logits(images[:1])[0, 0]) < 2e-3
    assert explanation.relevance.abs().sum() > 0.05


def test_removing_patches_measures_the_similarity(tower, images):
    compared = similarity(tower, prompts=["cat"])
    keep = torch.rand(1, 3, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    keep[0, 0] = True
    logits = compared.kept_logits(images[:1], keep)
    torch.testing.assert_close(logits[0, 0].detach(), compared.logits(images[:1])[0].detach())
    with torch.no_grad():
        vit = compared.module
        tokens = torch.cat([vit.class_token, vit._process_input(images[:1])], 1) + vit.encoder.pos_embedding
        kept = torch.cat([tokens[:, :1], tokens[:, 1:][:, keep[0, 1]]], 1)
        row = nn.functional.normalize(vit.encoder.ln(vit.encoder.layers(kept))[:, 0], dim=-1)
    torch.testing.assert_close(logits[0, 1].detach(), (row @ encode(tower, "cat").T)[0])


def test_curves_are_the_similarity_of_changed_images(tower, images):
    compared, image = similarity(tower, prompts=["cat"]), images[:1]
    explanation = vitrail.explain(compared, image, method="input-x-gradient")
    curves = perturbation_curves(compared, image, explanation, PROTOCOLS["hit"])
    order = explanation.relevance.flatten().argsort(descending=True, stable=True)
    direction = encode(tower, "cat")
    for fraction, score in zip(curves.fractions.tolist(), curves["deletion_zero"][0].tolist(), strict=True):
        keep = torch.ones(16)
        keep[order[: math.ceil(round(fraction * 16, 3))]] = 0
        changed = image * keep.view(1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
        assert score == pytest.approx(float(embed(tower, changed) @ direction.T), abs=1e-5)


@pytest.mark.parametrize("protocol", ["tokens", "hit"])
@pytest.mark.parametrize("prompts", [["cat"], ["cat", "dog"]])
def test_scores_of_a_similarity(tower, photos, tmp_path, protocol, prompts):
    for number, photo in enumerate(photos[:2]):
        photo.save(tmp_path / f"{number}.png")
    compared = similarity(tower, prompts=prompts)
    scores = vitrail.score(compared, tmp_path, ["random", "input-x-gradient"], protocol, steps=4)
    assert scores


def test_a_comparison_is_copied_and_moved_with_its_network(tower, images):
    compared = similarity(tower, prompts=["cat", "dog"])
    copied = copy.deepcopy(compared)
    torch.testing.assert_close(copied.logits(images), compared.logits(images))
    copied.module.double()
    logits = copied.logits(images.double())
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits.float(), compared.logits(images), rtol=1e-4, atol=1e-5)


def test_comparing_leaves_the_network_alone(tower):
    tower.module.train()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    with torch.inference_mode():
        compared = similarity(tower, references=[clip_networks.images(1)], batch_size=1)
    assert tower.module.training
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not compared.directions.vectors.is_inference()
    assert tower.directions is None


def test_comparisons_have_fingerprints(tower):
    cat, dog, again = (similarity(tower, prompts=[text]).directions.fingerprint for text in ("cat", "dog", "cat"))
    assert cat == again != dog


REFUSALS = {
    "commas": ({"prompts": ","}, InvalidInputError, "at least one prompt per class, none of them empty"),
    "nearest prompt": (
        {"prompts": "cat,dog", "reference": "nearest"},
        InvalidInputError,
        "expected reference='nearest' together with references, got prompts; leave it out",
    ),
    "nothing": ({}, InvalidInputError, "expected exactly one of prompts, references, probe, direction, got none"),
    "two": ({"prompts": ["a"], "direction": torch.ones(24)}, InvalidInputError, "exactly one .* got prompts and direction"),
    "templates alone": (
        {"direction": torch.ones(24), "templates": ["{}"]},
        InvalidInputError,
        "templates together with prompts",
    ),
    "template": (
        {"prompts": ["a"], "templates": ["a photo"]},
        InvalidInputError,
        "expected templates with {} in place of the prompt",
    ),
    "empty": ({"prompts": ["a", " "]}, InvalidInputError, "at least one prompt per class, none of them empty"),
    "no prompts": ({"prompts": []}, InvalidInputError, "at least one prompt per class"),
    "twice": ({"prompts": ["a", "a"]}, InvalidInputError, "expected prompts that differ, got 'a' twice"),
    "names": (
        {"prompts": ["a", "b"], "class_names": ["x"]},
        InvalidInputError,
        "expected 2 class names, no two the same, got 1: x",
    ),
    "width": (
        {"direction": torch.ones(7)},
        InvalidInputError,
        "expected directions of 24 numbers, as the embeddings of tower, got 7",
    ),
    "zero": ({"direction": torch.zeros(24)}, InvalidInputError, "expected directions that are not zero"),
    "nan": ({"direction": torch.full((24,), torch.nan)}, InvalidInputError, "expected directions of finite numbers"),
    "tensor": ({"references": [torch.ones(32, 32)]}, InvalidInputError, r"normalized tensors \(channels, height, width\)"),
    "no references": ({"references": {"a": []}}, InvalidInputError, "at least one reference image per class, got none for a"),
    "missing": ({"references": "no/such/folder"}, InvalidInputError, "no such file or folder of images: no/such/folder"),
    "probe": ({"probe": "no-such.pt"}, CheckpointError, "cannot read the checkpoint no-such.pt"),
    "npz": ({"probe": "no-such.npz"}, CheckpointError, "cannot read the linear probe no-such.npz"),
    "batch": ({"prompts": ["a"], "batch_size": 0}, InvalidInputError, "batch_size of at least 1, got 0"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_does_not_fit_is_refused(tower, case):
    options, error, message = REFUSALS[case]
    with pytest.raises(error, match=message):
        similarity(tower, **options)


def test_a_network_with_a_head_is_refused(tower):
    import networks

    with pytest.raises(
        UnsupportedModelError, match="got VisionTransformer, which has a head for classes; load it without its head"
    ):
        similarity(networks.torchvision_vit(), prompts=["a"])
    compared = similarity(tower, prompts=["a"])
    with pytest.raises(
        UnsupportedModelError, match="got tower with 1 prompt, which is compared already; give the network itself"
    ):
        similarity(compared, prompts=["b"])


def test_a_network_without_text_tower_is_refused():
    with pytest.raises(
        UnsupportedModelError, match=r"with a text tower for prompts .* got tower; compare with reference images"
    ):
        similarity(clip_networks.headless(), prompts=["a"])


def test_a_comparison_is_not_saved_as_a_network(tower, tmp_path):
    with pytest.raises(UnsupportedModelError, match="whose directions a file cannot hold; save the network without them"):
        vitrail.save(similarity(tower, prompts=["a"]), tmp_path / "file.safetensors")


@pytest.mark.parametrize(
    "state", [{}, {"weight": torch.ones(2, 24), "other": torch.ones(2)}, {"weight": torch.ones(2, 24), "bias": torch.ones(3)}]
)
def test_a_file_that_is_no_probe_is_refused(tower, tmp_path, state):
    torch.save(state | ({} if state else {"x": torch.ones(1)}), tmp_path / "probe.pt")
    with pytest.raises(CheckpointError, match=r"expected a linear probe in .* save only the state dict of its linear layer"):
        similarity(tower, probe=tmp_path / "probe.pt")


def test_references_in_and_beside_folders_are_refused(tower, photos, tmp_path):
    (tmp_path / "a").mkdir()
    photos[0].save(tmp_path / "a" / "1.png")
    photos[1].save(tmp_path / "2.png")
    with pytest.raises(InvalidInputError, match="one per class, or in itself, got both, as 2"):
        similarity(tower, references=tmp_path)


def test_an_unknown_prompt_as_target_is_refused(tower, images):
    with pytest.raises(UnknownNameError, match="unknown class 'bird'"):
        vitrail.explain(similarity(tower, prompts=["cat", "dog"]), images, target="bird")


def test_any_network_from_images_to_embeddings(photos):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    plain = vitrail.adapt(network, name="mine", output="embedding", preprocessing=vitrail.Preprocessing((32, 32)))
    compared = similarity(plain, references=photos[:2])
    images = plain.prepare(photos)
    rows = nn.functional.normalize(network(images), dim=-1)
    torch.testing.assert_close(compared.logits(images), rows @ rows[:2].T)
    assert vitrail.explain(compared, images, method="occlusion").relevance.std() > 0


@pytest.mark.slow
def test_the_documented_birds_are_most_similar_to_their_species(tmp_path):
    """docs/clip.md: the bundled network without its head, and twenty references per species."""
    from typer.testing import CliRunner

    from vitrail.cli.main import app
    from vitrail.datasets.image_io import open_image

    options = ["--train", "180", "--val", "0", "--test", "60", "--option", "size=64", "--option", "num_classes=9"]
    assert CliRunner().invoke(app, ["generate", "birds", "--out", str(tmp_path), *options]).exit_code == 0
    model = vitrail.load("vitrail:vit-birds", device="cpu")
    model.module.reset_classifier(0)
    birds = similarity(
        vitrail.adapt(model.module, name="vit-birds", preprocessing=model.preprocessing), references=tmp_path / "train"
    )
    for index, name in enumerate(birds.class_names):
        photos = [open_image(path) for path in sorted((tmp_path / "test" / name).iterdir())]
        with torch.no_grad():
            assert birds.logits(birds.prepare(photos)).argmax(1).tolist() == [index] * len(photos)
