"""Training DiffMask against the published code: losses, gradients, Lookahead, and a whole run of 14 batches."""

import pytest
import torch
from timm.optim.lookahead import Lookahead
from torch import Tensor, nn

from goldens import assert_close, golden, published_mask, published_vit
from vitrail.models.diffmask import DiffMask
from vitrail.models.diffmask.published import PARTS, published_state
from vitrail.training.diffmask.config import MaskConfig
from vitrail.training.diffmask.lagrangian import (
    MaskedBatch,
    create_dual_optimizer,
    create_primal_optimizer,
    mask_batch,
    warm_up,
)
from vitrail.training.diffmask.layer_sampling import LayerSampler

MAIN, TRAINER = "diffmask_main", "diffmask_trainer"
CALLS = range(4)


def fresh_mask(name: str) -> DiffMask:
    """Recorded gates that may change."""
    mask = DiffMask(published_mask(name).config)
    mask.load_state_dict(published_mask(name).state_dict())
    return mask


def loss_of(masked: MaskedBatch, alpha: Tensor, eps: float) -> Tensor:
    """What the gates descend on."""
    return (alpha.detach() * (masked.kl - eps) + masked.log_kept).mean()


def train_step(call: int) -> tuple[DiffMask, MaskedBatch, Tensor, Tensor]:
    """The recorded step with its gradients: gates, figures, loss and the multiplier."""
    case, mask = golden(MAIN), fresh_mask(MAIN)
    alpha = case.tensors[f"mask.alpha.{case.about['train_calls'][call]['layer_pred']}"]
    vit = published_vit(MAIN)
    vit.module.requires_grad_(False)
    masked = mask_batch(vit, mask, case.images(), case.tensors[f"in.train.{call}.u"])
    loss = loss_of(masked, alpha, case.about["settings"]["eps"])
    loss.backward()
    return mask, masked, loss, alpha


@pytest.mark.parametrize("call", CALLS)
def test_losses(call):
    _mask, masked, loss, alpha = train_step(call)
    ours = {
        "loss": loss,
        "loss_c": (masked.kl - golden(MAIN).about["settings"]["eps"]).mean(),
        "loss_g": masked.log_kept.mean(),
        "acc": masked.agrees.float().mean(),
        "l0": masked.norm.mean(),
        "alpha": alpha,
    }
    for name, theirs in golden(MAIN).below(f"out.train.{call}.").items():
        if not name.startswith("grad."):
            torch.testing.assert_close(ours[name].detach(), theirs, rtol=2e-5, atol=1e-6, msg=name)


def as_published(name: str) -> str:
    """The published name of a weight of the gates."""
    if name == "placeholder":
        return "gate.placeholder"
    _gates, number, part = name.split(".", 2)
    return f"gate.g_hat.{number}.{next(theirs for theirs, ours in PARTS.items() if ours == part)}"


@pytest.mark.parametrize("call", CALLS)
def test_every_gradient(call):
    """Of the last two calls only is recorded which weights have none."""
    case, (mask, _masked, _loss, _alpha) = golden(MAIN), train_step(call)
    recorded, nograd = case.below(f"out.train.{call}.grad."), case.about["train_calls"][call]["nograd"]
    gradients = {as_published(name): parameter.grad for name, parameter in mask.named_parameters()}
    for name, gradient in gradients.items():
        assert (gradient is None) == (name in nograd), name
        if name in recorded:
            assert_close(gradient.reshape(recorded[name].shape), recorded[name], 1e-4)
    assert {name for name in recorded if not name.startswith("alpha")} == (set(gradients) - set(nograd) if recorded else set())
    assert len(recorded) == (len(gradients) - sum(name in gradients for name in nograd) + 1 if call < 2 else 0)


@pytest.mark.parametrize("call", [0, 1])
def test_the_published_multiplier_descends_and_ours_ascends(call):
    """Its gradient is the constraint, and Adam goes down it: the multiplier falls while the divergence is too large."""
    pytest.importorskip("lightning")
    from vitrail.training import MaskTrainingConfig
    from vitrail.training.diffmask.learner import MaskLearner

    case, (mask, masked, _loss, alpha) = golden(MAIN), train_step(call)
    layer = case.about["train_calls"][call]["layer_pred"]
    constraint = masked.kl.detach().mean() - case.about["settings"]["eps"]
    assert constraint > 0
    theirs = case.tensors[f"out.train.{call}.grad.alpha.{layer}"]
    torch.testing.assert_close(constraint, theirs, rtol=2e-5, atol=1e-6)

    wanted = {"model": "any", "alpha": float(alpha), "alpha_learning_rate": 0.3}
    config = MaskTrainingConfig.model_validate({"diffmask": wanted, "data": {"root": "data"}})
    learner = MaskLearner(published_vit(MAIN), mask, config)
    learner.alphas.ascend(create_dual_optimizer(learner.alphas, config.diffmask), layer, constraint)
    assert float(learner.alphas[layer].detach()) == pytest.approx(float(alpha) + 0.3, abs=1e-4)
    others = [float(other.detach()) for i, other in enumerate(learner.alphas) if i != layer]
    assert others == [pytest.approx(float(alpha))] * len(others)

    published = nn.Parameter(alpha.clone())
    published.grad = theirs.clone()
    create_dual_optimizer([published], config.diffmask).step()
    assert float(published.detach()) == pytest.approx(float(alpha) - 0.3, abs=1e-4)


def test_running_figures():
    case, layers = golden(MAIN), LayerSampler(5)
    for call, recorded in enumerate(case.about["train_calls"]):
        figures = case.below(f"out.train.{call}.")
        layers.update(recorded["layer_pred"], figures["acc"], figures["l0"])
    for name, ours in (("acc", layers.agreement), ("l0", layers.kept), ("steps", layers.steps)):
        torch.testing.assert_close(ours, case.tensors[f"out.after_train.running_{name}"], rtol=1e-6, atol=0)


OPTIMIZERS = {"LookaheadAdam": torch.optim.Adam, "LookaheadRAdam": torch.optim.RAdam, "LookaheadRMSprop": torch.optim.RMSprop}
each_case = pytest.mark.parametrize("case", golden("diffmask_lookahead").about["cases"], ids=lambda case: str(case["i"]))
LATE = 8
"""The step from which on the second weight is in the loss."""


class Quadratic:
    """The recorded problem: two weights, of which the second has a gradient only later."""

    def __init__(self, case: dict, dtype: torch.dtype) -> None:
        tensors = golden("diffmask_lookahead").below(f"in.{case['i']}.")
        self.matrix, self.slope = tensors["A"].to(dtype), tensors["b"].to(dtype)
        self.w = nn.Parameter(tensors["w0"].to(dtype).clone())
        self.v = nn.Parameter(torch.ones(2, dtype=dtype))
        options = dict(case["kwargs"])
        alpha, steps = options.pop("lalpha", 0.5), options.pop("k", 6)
        self.optimizer = Lookahead(
            OPTIMIZERS[case["factory"]]([{"params": [self.w]}, {"params": [self.v], "lr": 0.01}], **options), alpha, steps
        )

    def step(self, number: int) -> None:
        self.optimizer.zero_grad()
        loss = 0.5 * self.w @ self.matrix @ self.w - self.slope @ self.w
        (loss + self.v.square().sum() if number >= LATE else loss).backward()
        self.optimizer.step()


@each_case
@pytest.mark.parametrize(("dtype", "prefix", "tolerance"), [(torch.float32, "out.", 1e-5), (torch.float64, "out64.", 1e-11)])
def test_lookahead(case, dtype, prefix, tolerance):
    problem, recorded = Quadratic(case, dtype), golden("diffmask_lookahead").below(f"{prefix}{case['i']}.")
    for number in range(len(recorded["w"])):
        problem.step(number)
        assert_close(problem.w.detach(), recorded["w"][number], tolerance)
        assert_close(problem.v.detach(), recorded["v"][number], tolerance)


@each_case
@pytest.mark.parametrize("stop", [2, 7, 13])
def test_lookahead_resumes(case, stop, tmp_path):
    """The published state is keyed by addresses in memory, and cannot be restored."""
    recorded = golden("diffmask_lookahead").below(f"out64.{case['i']}.")
    first, second = Quadratic(case, torch.float64), Quadratic(case, torch.float64)
    for number in range(stop):
        first.step(number)
    torch.save({"w": first.w.data, "v": first.v.data, "optimizer": first.optimizer.state_dict()}, tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    second.w.data.copy_(state["w"])
    second.v.data.copy_(state["v"])
    second.optimizer.load_state_dict(state["optimizer"])
    for number in range(stop, len(recorded["w"])):
        second.step(number)
        assert_close(second.w.detach(), recorded["w"][number], 1e-11)
        assert_close(second.v.detach(), recorded["v"][number], 1e-11)


def test_a_published_run():
    """14 batches, two passes each: one trains gates and placeholder, another of another layer the multipliers, downhill."""
    case, mask, vit = golden(TRAINER), fresh_mask(TRAINER), published_vit(TRAINER)
    vit.module.requires_grad_(False)
    settings, calls, num_layers = case.about["settings"], case.about["calls"], mask.config.num_gates
    config = MaskConfig(
        model="any",
        learning_rate=settings["lr"],
        placeholder_learning_rate=settings["lr_placeholder"],
        alpha_learning_rate=settings["lr_alpha"],
    )
    alphas = [nn.Parameter(case.tensors[f"mask.alpha.{i}"].clone()) for i in range(num_layers)]
    primal, dual, layers = (
        create_primal_optimizer(mask, config),
        create_dual_optimizer(alphas, config),
        LayerSampler(num_layers),
    )

    def masking(call: int, images: Tensor) -> tuple[int, MaskedBatch, Tensor]:
        layer = calls[call]["layer_pred"]
        masked = mask_batch(vit, mask, images, case.tensors[f"in.call.{call}.u"])
        constraint = (masked.kl - settings["eps"]).mean()
        loss = loss_of(masked, alphas[layer], settings["eps"])
        assert float(loss.detach()) == pytest.approx(calls[call]["loss"], rel=1e-5)
        assert float(constraint.detach()) == pytest.approx(calls[call]["loss_c"], rel=1e-5, abs=1e-6)
        layers.update(layer, masked.agrees.float().mean(), masked.norm.detach().mean())
        return layer, masked, loss

    for number, images in enumerate(case.tensors["in.X"].split(case.about["batch_size"])):
        step = case.about["steps"][2 * number]
        warm_up(primal, number, 1200)
        assert [group["lr"] for group in primal.param_groups] == pytest.approx(step["lr"])
        _layer, _masked, loss = masking(2 * number, images)
        primal.zero_grad()
        loss.backward()
        primal.step()

        layer, masked, _loss = masking(2 * number + 1, images)
        dual.zero_grad()
        alphas[layer].grad = masked.kl.detach().mean() - settings["eps"]
        dual.step()
        with torch.no_grad():
            alphas[layer].clamp_(0, 200)

        ours = {
            "alpha": torch.stack([alpha.detach() for alpha in alphas]),
            "placeholder": mask.placeholder.detach()[None, None],
            "running_acc": layers.agreement,
            "running_l0": layers.kept,
            "running_steps": layers.steps,
        }
        for name, value in ours.items():
            assert_close(value, case.tensors[f"out.step.{number}.{name}"], 1e-5)

    final, moved = published_state(case.below("out.final.")), 0.0
    for name, parameter in mask.named_parameters():
        assert_close(parameter.detach(), final[name], 1e-5)
        moved = max(moved, float((parameter.detach() - published_mask(TRAINER).state_dict()[name]).abs().max()))
    assert moved > 0.01
    for i, alpha in enumerate(alphas):
        assert_close(alpha.detach(), case.tensors[f"out.final.alpha.{i}"], 1e-5)
