"""The hard concrete distribution: probabilities against samples and the published code, gradients at any logit."""

import math

import pytest
import torch
from torch import Tensor, nn

from goldens import golden
from vitrail.models.diffmask import HardConcrete

OTHER = (0.6, (-0.1, 1.1))
"""Another temperature and stretch, recorded too."""

SHAPES = [((0.2, (-0.2, 1.0)), "log_expected_L0"), (OTHER, "log_expected_L0.T0.6.l-0.1.r1.1")]


def recorded(name: str) -> Tensor:
    return golden("diffmask_hardconcrete").tensors[name]


def sampled(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Return gates, and the gradient of their sum."""
    logits = logits.clone().requires_grad_()
    gates = HardConcrete(logits).sample(uniform)
    return gates.detach(), torch.autograd.grad(gates.sum(), logits)[0]


@pytest.mark.parametrize(("shape", "name"), SHAPES)
def test_expected_norm(shape, name):
    log_open = HardConcrete(recorded("in.logits"), *shape).log_probability_open()
    torch.testing.assert_close(log_open, recorded(f"out.{name}"), rtol=1e-6, atol=0)
    if name == "log_expected_L0":
        torch.testing.assert_close(log_open.exp(), recorded("out.expected_L0"), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("shape", "name"), SHAPES)
def test_expected_norm_in_double_precision(shape, name):
    """The published code computes its threshold in single precision, where softplus is linear beyond 20."""
    temperature, (low, high) = shape
    logits, theirs = recorded("in.logits").double(), recorded(f"out64.{name}")
    torch.testing.assert_close(HardConcrete(logits, *shape).log_probability_open(), theirs, rtol=1e-7, atol=0)
    closed_below = torch.tensor(-low) / torch.tensor(high - low)
    threshold = temperature * float(closed_below.log() - (1 - closed_below).log())
    shifted = HardConcrete(logits - threshold + temperature * math.log(-low / high), *shape)
    near = threshold - logits <= 20
    torch.testing.assert_close(shifted.log_probability_open()[near], theirs[near], rtol=1e-12, atol=0)


def test_samples_and_gradients_in_double_precision():
    gates, gradient = sampled(recorded("in.rs_logits64"), recorded("in.rs_u64"))
    torch.testing.assert_close(gates, recorded("out64.rsample"), rtol=0, atol=1e-14)
    torch.testing.assert_close(gradient, recorded("out64.rsample_grad_logits"), rtol=0, atol=1e-14)
    assert ((gates == 0) == (recorded("out64.rsample") == 0)).all()


def test_samples_and_gradients():
    """In single precision the published code loses as many digits in a sigmoid as a probability near 1 has lost."""
    logits, uniform = recorded("in.rs_logits"), recorded("in.rs_u")
    gates, gradient = sampled(logits, uniform)
    exact, slope = sampled(logits.double(), uniform.double())
    torch.testing.assert_close(gates.double(), exact, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient.double(), slope, rtol=0, atol=1e-6)
    lost = torch.finfo(torch.float32).eps / (1 - logits.double().sigmoid()).clamp_min(torch.finfo(torch.float32).eps)
    assert ((recorded("out.rsample") - exact).abs() <= slope * lost + 1e-6).all()
    assert ((recorded("out.rsample_grad_logits") - slope).abs() <= 5 * slope * lost + 1e-6).all()


def test_the_probability_is_how_often_a_gate_is_open():
    logits = torch.linspace(-4, 4, 9).double()
    uniform = torch.rand(200_000, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for shape in ((0.2, (-0.2, 1.0)), OTHER):
        gates = HardConcrete(logits.expand(200_000, 9), *shape).sample(uniform)
        counted = (gates > 0).double().mean(0)
        torch.testing.assert_close(HardConcrete(logits, *shape).log_probability_open().exp(), counted, rtol=0, atol=4e-3)


def test_gates_are_often_exactly_closed_or_open():
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    gates = HardConcrete(torch.zeros(20_000)).sample(uniform)
    assert (gates == 0).float().mean() > 0.3
    assert (gates > 0.99).float().mean() > 0.2
    assert ((gates >= 0) & (gates <= 1)).all()
    # With the other stretch the upper end is hit too.
    assert (HardConcrete(torch.zeros(20_000), *OTHER).sample(uniform) == 1).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("noise", [0.0, 0.5, 1 - 2**-24])
def test_nothing_is_infinite_at_any_logit(dtype, noise):
    extremes = [-1e4, -100.0, -20.0, -1.0, 0.0, 1.0, 20.0, 100.0, 1e4]
    logits = torch.tensor(extremes, dtype=dtype).requires_grad_()
    distribution = HardConcrete(logits)
    log_open, gates = distribution.log_probability_open(), distribution.sample(torch.full((9,), noise))
    assert log_open.dtype == gates.dtype == torch.promote_types(dtype, torch.float32)
    for values in (log_open, gates):
        assert torch.isfinite(values).all()
        [gradient] = torch.autograd.grad(values.sum(), logits)
        assert torch.isfinite(gradient).all()
        assert (gradient >= 0).all()
    assert (log_open <= 0).all()
    assert float(log_open[0].detach()) == pytest.approx(-1e4 + 0.2 * math.log(5), rel=1e-5, abs=40)
    assert (gates[:3] == 0).all() or noise > 0.5
    assert (gates[6:] == 1).all() or noise < 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_of_gates_are_limited_by_precision(dtype):
    """As published: a probability that rounds to 1 is clamped to the previous number, which the same noise can undo."""
    logits, noise = torch.tensor([40.0, 1e4, -40.0, -1e4], dtype=dtype), torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=dtype)
    gates, gradient = sampled(logits, noise)
    torch.testing.assert_close(gates, torch.full_like(gates, 0.4), rtol=0, atol=1e-3)
    assert not gradient.any()


def test_the_gradient_is_the_slope():
    logits = torch.linspace(-3, 3, 13, dtype=torch.float64)
    uniform = torch.rand(13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gates, gradient = sampled(logits, uniform)
    higher, lower = (HardConcrete(logits + step).sample(uniform) for step in (1e-6, -1e-6))
    between = (gates > 1e-4) & (gates < 1)
    assert between.sum() > 3
    torch.testing.assert_close(gradient[between], ((higher - lower) / 2e-6)[between], rtol=1e-5, atol=1e-7)


def test_single_precision_at_least():
    """In half precision, probabilities near 1 round to 1, and their logarithm has no gradient."""
    log_open = HardConcrete(torch.tensor([12.0], dtype=torch.bfloat16)).log_probability_open()
    torch.testing.assert_close(log_open, nn.functional.logsigmoid(torch.tensor([12 + 0.2 * math.log(5)])))
    assert log_open < 0
