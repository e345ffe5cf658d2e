"""The parts of adapted Vision Transformers give the network's own logits, on every backend."""

import networks
import pytest
import timm
import torch
from shared_networks import EVERY_NETWORK, shared_network
from torch import nn

import vitrail
from vitrail.adapters import Classifier, ViTAdapter, adapt
from vitrail.core.errors import InvalidInputError, UnknownNameError

HAS_POOLING = ("hit-pooled", "hit-wide", "hit-no-positions")
"""Pooled stages need patches in their order."""


@pytest.fixture(params=networks.NETWORKS)
def name(request) -> str:
    return request.param


@pytest.fixture
def adapter(name) -> ViTAdapter:
    return shared_network(name)


@torch.no_grad()
def test_networks_tell_images_apart(adapter, name):
    """A precondition of the other tests."""
    assert adapter.logits(networks.images(name)).std(0).mean() > 0.05


@torch.no_grad()
def test_the_parts_make_the_whole(adapter, name):
    images = networks.images(name)
    grid = rows, cols = adapter.grid_size(images)
    patches = adapter.patch_embed(images)
    assert patches.shape[:2] == (3, rows * cols)
    tokens = adapter.assemble(patches, grid)
    assert tokens.shape[1] == adapter.num_prefix_tokens + rows * cols
    own = networks.own_logits(adapter.module, images)
    everyone = torch.arange(rows * cols).expand(3, -1)
    torch.testing.assert_close(adapter.forward_tokens(tokens, grid), own)
    torch.testing.assert_close(adapter.forward_tokens(tokens, grid, everyone), own)
    torch.testing.assert_close(adapter.logits(images), own)
    assert adapter.num_classes == own.shape[1] == 5


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in networks.NETWORKS if name not in HAS_POOLING])
def test_the_order_of_patches_does_not_matter(adapter, name):
    """Given their positions, in the tokens or by `kept`. Every image has its own order."""
    images = networks.images(name)
    grid, num_prefix = adapter.grid_size(images), adapter.num_prefix_tokens
    tokens = adapter.assemble(adapter.patch_embed(images), grid)
    order = torch.rand(3, grid[0] * grid[1], generator=torch.Generator().manual_seed(2)).argsort(1)
    shuffled = torch.cat([tokens[:, :num_prefix], tokens[torch.arange(3)[:, None], num_prefix + order]], 1)
    logits = networks.own_logits(adapter.module, images)
    torch.testing.assert_close(adapter.forward_tokens(shuffled, grid, order), logits, rtol=1e-4, atol=1e-5)
    if name.startswith(("eva", "beit", "hf-beit")):
        assert (adapter.forward_tokens(shuffled, grid) - logits).abs().max() > 1e-3


@torch.no_grad()
def test_patches_are_numbered_row_by_row(adapter, name):
    images = networks.images(name, 1)
    rows, cols = adapter.grid_size(images)
    height, width = images.shape[2] // rows, images.shape[3] // cols
    changed = images.clone()
    changed[:, :, height : 2 * height, 2 * width : 3 * width] += 1
    moved = (adapter.patch_embed(changed) - adapter.patch_embed(images)).abs().sum(-1)[0] > 0
    assert moved.nonzero().flatten().tolist() == [cols + 2]


@torch.no_grad()
@pytest.mark.parametrize("name", EVERY_NETWORK)
@pytest.mark.parametrize("shared", [True, False], ids=["one baseline", "a baseline each"])
def test_perturbed_logits_equal_brute_force_in_pixel_space(adapter, name, shared):
    images = networks.images(name)
    rows, cols = adapter.grid_size(images)
    keep = torch.rand(3, 4, rows * cols, generator=torch.Generator().manual_seed(5)) > 0.5
    baseline = networks.images(name, 1 if shared else 3, seed=7)
    by_pixels = Classifier.perturbed_logits(adapter, images, baseline, keep)
    torch.testing.assert_close(adapter.perturbed_logits(images, baseline, keep), by_pixels, rtol=1e-4, atol=1e-5)
    height, width = images.shape[2] // rows, images.shape[3] // cols
    mask = keep[1, 2].view(1, 1, rows, cols).repeat_interleave(height, 2).repeat_interleave(width, 3)
    by_hand = networks.own_logits(adapter.module, torch.where(mask, images[1:2], baseline[0 if shared else 1]))
    torch.testing.assert_close(by_pixels[1, 2], by_hand[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_perturbed_logits_within_little_memory(adapter, name, monkeypatch):
    images = networks.images(name)
    keep = torch.rand(3, 5, adapter.patch_embed(images).shape[1], generator=torch.Generator().manual_seed(5)) > 0.5
    ample = adapter.perturbed_logits(images, torch.zeros_like(images), keep)
    monkeypatch.setattr("vitrail.adapters.memory.memory_budget", lambda device: 1)
    torch.testing.assert_close(adapter.perturbed_logits(images, torch.zeros_like(images), keep), ample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 4, 5), r"16 cells of a 4x4 grid\), got \(3, 4, 5\)"), ((2, 4, 16), r"3 images"), ((3, 0, 16), "steps")],
)
def test_masks_that_do_not_fit_are_refused(shape, message, unchecked):
    adapter, images = networks.network("hit"), networks.images("hit")
    with pytest.raises(InvalidInputError, match=message):
        adapter.perturbed_logits(images, torch.zeros_like(images), torch.ones(shape, dtype=torch.bool))
    with pytest.raises(InvalidInputError, match="expected a baseline"):
        adapter.perturbed_logits(images, torch.zeros(2, 3, 16, 16), torch.ones(3, 1, 16, dtype=torch.bool))


@pytest.mark.parametrize("name", [name for name in networks.NETWORKS if not name.startswith("hit")])
def test_images_that_do_not_fit_are_refused(name, unchecked):
    adapter, (height, width) = shared_network(name), networks.SIZES[name]
    flexible = name in ("timm-dynamic", "eva-dinov3") or name.startswith("hf-")
    expected = "multiples of 8 and 8 pixels" if flexible else rf"{height}x{width} pixels \(height x width\)"
    for method in (adapter.grid_size, adapter.patch_embed, adapter.logits):
        with pytest.raises(InvalidInputError, match=f"expected images of 3 channels for {name}, got 1"):
            method(torch.zeros(1, 1, height, width))
        with pytest.raises(InvalidInputError, match=rf"{expected} for {name}, got 36x32"):
            method(torch.zeros(1, 3, 36, 32))
        with pytest.raises(InvalidInputError, match=rf"{expected} for {name}, got {height}x4"):
            method(torch.zeros(1, 3, height, 4))


@pytest.mark.parametrize("ask", ["grid_size", "patch_embed", "logits"])
def test_images_that_do_not_fit_a_hit_are_refused(ask, unchecked):
    adapter = networks.network("hit")
    for shape in [(3, 20, 16), (1, 16, 16)]:
        with pytest.raises(InvalidInputError, match=r"expected images of .*(16x16|3 channels|3, 16, 16).*, got .*(20|1)"):
            getattr(adapter, ask)(torch.zeros(1, *shape))


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["timm-dynamic", "eva-dinov3", "hf-vit", "hf-deit-teacher", "hf-dinov2", "hf-registers", "hf-beit"]
)
def test_images_of_other_sizes(name):
    """Where a network resizes its positions, so do its parts; Hugging Face's ViT and DeiT need an option to do so."""
    adapter = networks.network(name)
    images = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    grid = adapter.grid_size(images)
    assert grid == (6, 8)
    options = {"interpolate_pos_encoding": True} if name in ("hf-vit", "hf-deit-teacher") else {}
    output = adapter.module(images, **options)
    own = getattr(output, "logits", output)
    torch.testing.assert_close(adapter.logits(images), own)
    torch.testing.assert_close(adapter.forward_tokens(adapter.assemble(adapter.patch_embed(images), grid), grid), own)
    keep = torch.rand(2, 3, 48, generator=torch.Generator().manual_seed(1)) > 0.5
    by_pixels = Classifier.perturbed_logits(adapter, images, torch.zeros_like(images), keep)
    torch.testing.assert_close(
        adapter.perturbed_logits(images, torch.zeros_like(images), keep), by_pixels, rtol=1e-4, atol=1e-5
    )


def test_perturbed_logits_of_images_that_do_not_fit(unchecked):
    adapter = networks.network("timm")
    with pytest.raises(InvalidInputError, match="expected images of 32x32 pixels"):
        adapter.perturbed_logits(torch.zeros(1, 3, 40, 32), torch.zeros(1, 3, 40, 32), torch.ones(1, 1, 16, dtype=torch.bool))


def test_classes_by_name_and_number():
    adapter = networks.network("hit")
    assert [adapter.class_index(name) for name in ("ant", "emu", "0", 0, "4")] == [0, 4, 0, 0, 4]
    assert adapter.class_name(2) == "cat"
    assert adapt(networks.hit()).class_name(2) == "class 2"
    with pytest.raises(
        UnknownNameError, match=r"unknown class 'can' \(did you mean 'cat'\?\); choose one of: ant, bee, cat, dog, emu"
    ):
        adapter.class_index("can")
    for number in (5, -1, "-1", "99"):
        with pytest.raises(InvalidInputError, match="between 0 and 4"):
            adapter.class_index(number)


@pytest.mark.slow
def test_timm_base_with_random_weights():
    """A user's ViT-B/16, end to end: loads, classifies, and is perturbed exactly."""
    classifier = vitrail.load("timm:vit_base_patch16_224", pretrained=False, device="cpu")
    assert (classifier.num_classes, classifier.num_prefix_tokens, len(classifier.class_names)) == (1000, 1, 1000)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert classifier.grid_size(images) == (14, 14)
    keep = torch.rand(1, 2, 196, generator=torch.Generator().manual_seed(1)) > 0.5
    with torch.no_grad():
        ours = classifier.perturbed_logits(images, torch.zeros(1, 3, 224, 224), keep)
        mask = keep[0].view(2, 1, 14, 14).repeat_interleave(16, 2).repeat_interleave(16, 3)
        torch.testing.assert_close(ours[0], classifier.module(torch.where(mask, images, 0.0)), rtol=1e-4, atol=1e-5)


def test_class_names_may_be_a_file_or_a_text(tmp_path):
    """A text is no list of its letters."""
    names = ("ant", "bee", "cat", "dog", "emu")
    (tmp_path / "n.txt").write_text("\n".join(names), encoding="utf-8")
    for given in (names, ",".join(names), tmp_path / "n.txt", str(tmp_path / "n.txt")):
        assert adapt(networks.hit(), class_names=given).class_names == names
    with pytest.raises(InvalidInputError, match=r"no\.txt"):
        adapt(networks.hit(), class_names="no.txt")


def test_a_name_without_class_names_is_refused():
    with pytest.raises(UnknownNameError, match=r"mine has no class names; give a number from 0 to 4"):
        adapt(networks.hit(), name="mine").class_index("cat")


@pytest.mark.parametrize(
    ("network", "given", "warns"),
    [
        (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32, depth=1), False, True),
        (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32, depth=1), True, False),
        (lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1), False, False),  # As published.
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten()), False, True),
        (lambda: vitrail.load("vitrail:hit-cifar10").module, False, False),  # Trained by vitrail.
    ],
    ids=["timm, own classes", "own preprocessing", "timm, ImageNet's classes", "any network", "a HiT"],
)
def test_adapt_logs_once_what_it_assumes_of_photos(network, given, warns, caplog):
    module = network()
    for _ in range(2):
        vitrail.adapt(module, preprocessing=vitrail.Preprocessing((32, 32)) if given else None)
    assumptions = [record for record in caplog.records if "prepared in another way" in record.getMessage()]
    assert len(assumptions) == warns
    assert all("give preprocessing=" in record.getMessage() for record in assumptions)
