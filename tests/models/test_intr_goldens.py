"""INTR against the published implementation, from images to logits, with padded batches."""

import zlib
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import nn

from goldens import PRECISIONS, assert_close, golden
from vitrail.models.intr import INTR, INTRConfig, ResNet
from vitrail.models.intr.positions import LearnedPositions, SinePositions
from vitrail.models.intr.published import is_detr, is_published, published_config
from vitrail.models.intr.transfer import make_class_queries

CASES = ("intr_post_sine", "intr_post_sine_single", "intr_post_learned", "intr_pre_sine", "intr_pre_learned")


def draw(seed: int, key: str, shape: tuple[int, ...], scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    """Random numbers as drawn by the recording, so that images and backbone need not be stored."""
    generator = np.random.RandomState((seed * 100003 + zlib.crc32(key.encode())) % 2**32)
    return torch.from_numpy((generator.standard_normal(shape) * scale + shift).astype(np.float32))


@lru_cache
def backbone_weights(seed: int) -> dict[str, torch.Tensor]:
    """The recorded ResNet-18 under torchvision's names in a DETR."""
    from torchvision.models import resnet18

    weights = {}
    with torch.device("meta"):  # Only names and shapes matter.
        published = resnet18().state_dict()
    for name, tensor in published.items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        key, shape = f"backbone.0.body.{name}", tuple(tensor.shape)
        if tensor.ndim == 4:
            weights[key] = draw(seed, key, shape, scale=float(np.sqrt(2 / np.prod(shape[1:]))))
        elif name.endswith("running_var"):
            weights[key] = 1 + 0.2 * draw(seed, key, shape).abs()
        elif name.endswith("weight"):
            weights[key] = draw(seed, key, shape, scale=0.1, shift=0.6)
        else:
            weights[key] = draw(seed, key, shape, scale=0.1)
    return weights


def recorded_model(name: str, dtype: torch.dtype) -> INTR:
    case = golden(name)
    state = {**case.weights, **backbone_weights(case.about["seed"])}
    config = published_config(state, case.about["config"])
    return INTR(config, ResNet(config.backbone)).load_published(state).eval().to(dtype)


def padded(name: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
    case = golden(name)
    sizes = case.about["image_sizes_hw"]
    images = [draw(case.about["seed"], f"img{i}", (3, *size)) for i, size in enumerate(sizes)]
    height, width = (max(side) for side in zip(*sizes, strict=True))
    batch = torch.stack([nn.functional.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images])
    padding = torch.ones(len(images), height, width, dtype=torch.bool)
    for i, (rows, cols) in enumerate(sizes):
        padding[i, :rows, :cols] = False
    return batch.to(dtype), padding if padding.any() else None


@pytest.mark.parametrize("name", CASES)
def test_shape_is_read_off_the_weights(name):
    case = golden(name)
    config = published_config({**case.weights, **backbone_weights(1)}, case.about["config"])
    published = case.about["config"]
    assert config == INTRConfig(
        backbone=published["backbone"],
        num_classes=published["num_queries"],
        width=published["hidden_dim"],
        num_heads=published["nheads"],
        mlp_width=published["dim_feedforward"],
        encoder_depth=published["enc_layers"],
        decoder_depth=published["dec_layers"],
        dropout=published["dropout"],
        pre_norm=published["pre_norm"],
        positions=published["position_embedding"],
    )
    assert is_published(case.weights)
    assert not is_detr(case.weights)


@pytest.mark.parametrize("name", CASES)
def test_positions(name):
    case = golden(name)
    width = case.about["config"]["hidden_dim"]
    positions = SinePositions(width)
    if case.about["config"]["position_embedding"] == "learned":
        positions = LearnedPositions(width)
        weights = case.below("param.backbone.1.")
        positions.load_state_dict({"rows": weights["row_embed.weight"], "columns": weights["col_embed.weight"]})
    with torch.no_grad():
        assert_close(positions(case.tensors["in.mask"]), case.tensors["in.pos"], 1e-6)


SINGLE, DOUBLE = PRECISIONS


@pytest.mark.parametrize(
    ("dtype", "prefix", "tolerance", "name"),
    [
        *((*DOUBLE, name) for name in CASES),
        *(
            pytest.param(*SINGLE, name, marks=[] if name in ("intr_post_sine_single", "intr_pre_learned") else pytest.mark.slow)
            for name in CASES
        ),
    ],
)
def test_everything_recorded(name, dtype, prefix, tolerance):
    case, model = golden(name), recorded_model(name, dtype)
    images, padding = padded(name, dtype)
    with torch.no_grad():
        features = model.backbone(images)
        search = model.search(model.encode(images, padding))
        maps = torch.stack([model.attention(search, layer) for layer in range(model.config.decoder_depth)])
    assert_close(features, case.tensors["in.features"].to(dtype), 1e-5)
    rows, cols = search.memory.grid_size

    def expect(actual: torch.Tensor, key: str) -> None:
        assert_close(actual, case.tensors[prefix + key], tolerance)

    expect(search.memory.cells.mT.unflatten(2, (rows, cols)), "encoder_output")
    expect(search.states, "hs")
    expect(search.logits, "query_logits")
    expect(maps.transpose(2, 3).flatten(4), "attention_scores")
    if not model.config.pre_norm:  # There the published average is of other queries.
        expect(maps.mean(3).flatten(3), "avg_attention_scores")
    if padding is None:
        assert not case.tensors["in.mask"].any()
    else:
        assert torch.equal(search.memory.padding.unflatten(1, (rows, cols)), case.tensors["in.mask"])
    # What a user's call gives, and from the recorded features on, so that rounding in the backbone does not count.
    with torch.no_grad():
        expect(model(images, padding), "query_logits")
        mask = case.tensors["in.mask"]
        memory = model.encode_features(case.tensors["in.features"].to(dtype), mask if mask.any() else None)
        assert_close(model.search(memory).logits, case.tensors["out.query_logits"].to(dtype), 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_loss(name):
    case = golden(name)
    loss = nn.functional.cross_entropy(case.tensors["out.query_logits"], case.tensors["in.labels"])
    assert_close(loss, case.tensors["out.CE_loss"], 1e-6)


@pytest.mark.parametrize("case", golden("intr_load_model").about["cases"], ids=lambda case: f"{case['old']}to{case['new']}")
def test_queries_of_a_detector(case):
    recorded = golden("intr_load_model").tensors
    trained, expected = (recorded[f"{side}.{case['i']}.query_embed.weight"] for side in ("in", "out"))
    bare = make_class_queries(trained, case["new"])
    noise = (expected - bare)[case["old"] :]
    assert torch.equal(bare[: case["old"]], expected[: case["old"]])
    assert torch.equal(make_class_queries(trained, case["new"], noise if len(noise) else None), bare + (expected - bare))
    assert not len(noise) or 0.5 < noise.std() / case["noise_frac"] < 1.5
