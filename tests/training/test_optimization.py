"""Optimizers and learning rate schedules against formulas."""

import math

import networks
import numpy as np
import pytest
import torch

from vitrail.core.errors import InvalidInputError
from vitrail.training.optimization import create_optimizer, create_schedule
from vitrail.training.sections import OptimizerConfig, ScheduleConfig

PEAK, LOWEST, FIRST = 1e-3, 1e-4, 1e-5


@pytest.mark.parametrize(("scale_to", "expected"), [(None, 4e-3), (64, 4e-3 * 256 / 64), (512, 4e-3 / 2)])
def test_scale_to_scales_the_learning_rate(scale_to, expected):
    optimizer = create_optimizer(networks.hit(), OptimizerConfig(learning_rate=4e-3, scale_to=scale_to), 256)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([expected] * len(optimizer.param_groups))


@pytest.mark.parametrize("name", ["hit-pooled", "timm", "hf-vit", "torchvision"])
def test_norms_and_biases_do_not_decay_and_frozen_weights_are_excluded(name):
    module = networks.NETWORKS[name]()
    next(module.parameters()).requires_grad_(False)
    optimizer = create_optimizer(module, OptimizerConfig(weight_decay=0.2), 8)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for parameter_name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in decay
        elif parameter.ndim < 2:
            assert decay[id(parameter)] == 0, parameter_name
        elif parameter.ndim == 2:
            assert decay[id(parameter)] == 0.2, parameter_name


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        ({"name": "adamw", "betas": (0.8, 0.95), "epsilon": 1e-6}, "AdamW", {"betas": (0.8, 0.95), "eps": 1e-6}),
        ({"name": "adamw"}, "AdamW", {"betas": (0.9, 0.999), "eps": 1e-8}),
        ({"name": "radam", "betas": (0.8, 0.95)}, "RAdam", {"betas": (0.8, 0.95)}),
        ({"name": "lookahead_adamw", "betas": (0.8, 0.95)}, "Lookahead", {"betas": (0.8, 0.95)}),
        ({"name": "sgd", "momentum": 0.7}, "SGD", {"momentum": 0.7, "nesterov": True}),
        ({"name": "momentum", "momentum": 0.7}, "SGD", {"momentum": 0.7, "nesterov": False}),
        ({"name": "lamb"}, "Lamb", {"betas": (0.9, 0.999)}),
    ],
)
def test_optimizers_by_name(settings, kind, expected):
    module = networks.hit()
    optimizer = create_optimizer(module, OptimizerConfig(**settings), 8)
    assert type(optimizer).__name__ == kind
    for group in optimizer.param_groups:
        assert {key: group[key] for key in expected} == expected
    before = [p.detach().clone() for p in module.parameters()]
    module(torch.randn(2, 3, 16, 16)).square().mean().backward()
    optimizer.step()
    assert any(not torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "sgd", "betas": (0.9, 0.99)}, "'sgd' has no betas; leave out optimizer.betas"),
        ({"name": "lion", "epsilon": 1e-6}, "'lion' has no epsilon; leave out optimizer.epsilon"),
        ({"name": "adamw", "betas": (1.5, 0.99)}, "cannot create the optimizer 'adamw'.*1.5"),
        ({"name": "adamwww"}, "adamwww"),
        ({"layer_decay": 0.5}, "expected a timm network for optimizer.layer_decay.*got HiT"),
    ],
)
def test_unsupported_settings_are_rejected(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        create_optimizer(networks.hit(), OptimizerConfig(**settings), 8)


def compute_rates(config, num_steps):
    """Return the learning rate at every step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = create_schedule(optimizer, config, num_steps)
    rates = []
    for step in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step_update(num_updates=step + 1)
    return rates


SHAPES = {
    "cosine": lambda share: LOWEST + (PEAK - LOWEST) * (1 + math.cos(math.pi * share)) / 2,
    "linear": lambda share: LOWEST + (PEAK - LOWEST) * (1 - share),
    "step": lambda share: PEAK * 0.5 ** math.floor(10 * share / 3),  # every 3 of 10 epochs
    "constant": lambda share: PEAK,
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_schedules_match_formulas(name, warmup_epochs):
    config = ScheduleConfig(
        name=name,
        epochs=10,
        warmup_epochs=warmup_epochs,
        warmup_learning_rate=FIRST,
        min_learning_rate=LOWEST,
        decay_epochs=3,
        decay_rate=0.5,
    )
    num_steps, warmup = 70, 7 * warmup_epochs
    expected = [
        FIRST + (PEAK - FIRST) * step / warmup if step < warmup else SHAPES[name](step / num_steps) for step in range(num_steps)
    ]
    np.testing.assert_allclose(compute_rates(config, num_steps), expected, rtol=1e-9)


def test_warm_up_longer_than_the_run():
    rates = compute_rates(ScheduleConfig(epochs=2, warmup_epochs=5, warmup_learning_rate=FIRST), 10)
    assert rates[0] == FIRST
    assert np.all(np.diff(rates[:-1]) > 0)


def test_layer_decay_slows_earlier_blocks():
    module = networks.timm_vit()
    optimizer = create_optimizer(module, OptimizerConfig(learning_rate=PEAK, layer_decay=0.5), 8)
    config = ScheduleConfig(name="constant", epochs=4, warmup_epochs=1, warmup_learning_rate=0)
    schedule = create_schedule(optimizer, config, 4)
    schedule.step_update(num_updates=2)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {
        "head.weight": 1,
        "blocks.2.attn.qkv.weight": 1 / 2,
        "blocks.1.mlp.fc1.bias": 1 / 4,
        "blocks.0.norm1.weight": 1 / 8,
    }
    expected |= {"patch_embed.proj.weight": 1 / 16, "pos_embed": 1 / 16}
    for name, factor in expected.items():
        assert rate[id(module.get_parameter(name))] == pytest.approx(PEAK * factor), name


def test_layer_decay_with_a_trainable_head_only():
    module = networks.timm_vit()
    module.requires_grad_(False)
    module.head.requires_grad_(True)
    optimizer = create_optimizer(module, OptimizerConfig(learning_rate=PEAK, layer_decay=0.5), 8)
    assert {group["lr"] * group["lr_scale"] for group in optimizer.param_groups} == {PEAK}
