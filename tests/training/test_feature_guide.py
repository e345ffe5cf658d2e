"""A convolutional teacher's features as targets for a student's tokens."""

import networks
import pytest
import torch
from torch import nn

import vitrail
from vitrail.adapters import build as build_network
from vitrail.core.errors import InvalidInputError
from vitrail.training import train
from vitrail.training.distillation import Teacher
from vitrail.training.feature_guide import FeatureGuide
from vitrail.training.sections import DistillationConfig, FeatureConfig

LAYER = "layer2"  # 32x32 pixels: a map of 4x4 features.


@pytest.fixture
def teacher(tmp_path):
    classifier = build_network("timm:resnet10t", num_classes=2, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8])
    networks.shaken(classifier.module)
    vitrail.save(classifier, tmp_path / "teacher.safetensors")
    config = DistillationConfig(kind="soft", teacher=str(tmp_path / "teacher.safetensors"))
    return Teacher(config, student())


def student(**options):
    classifier = build_network(
        "timm:vit_tiny_patch16_224",
        num_classes=2,
        image_size=(32, 32),
        patch_size=4,
        embed_dim=24,
        depth=3,
        num_heads=3,
        **options,
    )
    networks.shaken(classifier.module)
    return classifier


def expected_loss(guide, tokens, features, weight):
    """Written out token by token."""
    errors = []
    for token, feature in zip(tokens.flatten(0, 1), features.flatten(0, 1), strict=True):
        token, feature = ((each - each.mean()) / (each.var(correction=0) + 1e-5).sqrt() for each in (token, feature))
        predicted = guide.projection.weight @ token + guide.projection.bias
        errors.append((predicted - feature).square().mean())
    return weight * torch.stack(errors).mean()


@pytest.mark.parametrize("drop_rate", [0.0, 0.5])
def test_every_kept_token_predicts_the_feature_at_its_patch(teacher, drop_rate):
    """Positions of dropped patches are followed by giving every patch the number of its place as its content."""
    classifier = student(patch_drop_rate=drop_rate)
    guide = FeatureGuide(FeatureConfig(layer=LAYER, block=1, weight=0.3), classifier, teacher)
    classifier.module.train()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    places, tokens, maps = [], [], []
    classifier.module.blocks[0].register_forward_pre_hook(lambda block, inputs: places.append(inputs[0].detach()))
    classifier.module.blocks[1].register_forward_hook(lambda block, inputs, output: tokens.append(output.detach()))
    teacher.classifier.module.layer2.register_forward_hook(lambda layer, inputs, output: maps.append(output))
    with guide.watch() as seen:
        classifier.module(images)
        teacher.classifier.logits(images)
    loss = guide.loss(seen)
    embedded = classifier.module._pos_embed(classifier.module.patch_embed(images)).detach()[:, 1:]
    found = torch.cdist(places[0][:, 1:], embedded).argmin(2)
    assert found.shape[1] == (64 if not drop_rate else 32)
    enlarged = nn.functional.interpolate(maps[0], (8, 8), mode="bilinear").flatten(2).mT
    features = torch.stack([image[place] for image, place in zip(enlarged, found, strict=True)])
    torch.testing.assert_close(loss, expected_loss(guide, tokens[0][:, 1:], features, 0.3), rtol=1e-4, atol=1e-6)
    loss.backward()
    assert classifier.module.patch_embed.proj.weight.grad.abs().max() > 0


def test_a_guided_student_trains_and_is_saved_without_the_guide(teacher, configured_for, tmp_path):
    overrides = ["model.name=timm:vit_tiny_patch16_224", "model.options={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 3}"]
    overrides += ["distillation.kind=soft", f"distillation.teacher={teacher.config.teacher}"]
    overrides += [f"distillation.features={{layer: {LAYER}, block: 1}}"]
    best = train(configured_for(*overrides), tmp_path / "run")
    checkpoint = torch.load(max((tmp_path / "run" / "checkpoints").iterdir()), weights_only=True)
    assert "guide.projection.weight" in checkpoint["state_dict"]
    assert not [name for name in vitrail.load(best, device="cpu").module.state_dict() if "projection" in name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": LAYER, "block": 3}, "a block 3 for distillation.features.block, got .* with 3 blocks"),
        ({"layer": "stage9", "block": 0}, "got 'stage9'; it has conv1"),
        ({"layer": "fc", "block": 0}, "returns a feature map"),
    ],
)
def test_what_does_not_fit_is_refused(teacher, options, message):
    with pytest.raises(InvalidInputError, match=message):
        FeatureGuide(FeatureConfig(**options), student(), teacher)


def test_a_student_without_blocks_is_refused(teacher):
    with pytest.raises(InvalidInputError, match="no blocks of its own"):
        FeatureGuide(FeatureConfig(layer=LAYER, block=0), teacher.classifier, teacher)


def test_tokens_without_places_are_refused(teacher):
    """Half of the tokens are gone after the first block: nothing tells which ones."""
    classifier = student()
    guide = FeatureGuide(FeatureConfig(layer=LAYER, block=1), classifier, teacher)
    classifier.module.blocks[0].register_forward_hook(lambda block, inputs, output: output[:, :33])
    with guide.watch() as seen:
        classifier.module(torch.zeros(1, 3, 32, 32))
        teacher.classifier.logits(torch.zeros(1, 3, 32, 32))
    with pytest.raises(InvalidInputError, match="got 32 for 64 patches"):
        guide.loss(seen)
