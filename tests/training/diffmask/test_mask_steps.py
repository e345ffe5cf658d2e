"""Updates of gates, placeholder and Lagrange multipliers in a training step."""

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import vitrail
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.models.diffmask import DiffMask
from vitrail.training import train
from vitrail.training.diffmask.learner import NOISE
from vitrail.training.reproducibility import derive_seed

# Slow weights equal the fast ones: Lookahead has no effect.
FAST = "diffmask.lookahead_alpha=1"


def sampled_layers(states):
    """Return the layer of every step."""
    return [int((after["counts"] - before["counts"]).argmax()) for before, after in pairwise(states)]


def layers_and_states(states):
    return zip(sampled_layers(states), states, states[1:], strict=False)


@pytest.mark.parametrize(("eps", "sign"), [(0.0, 1), (100.0, -1)])
def test_only_the_multiplier_of_the_sampled_layer_follows_the_constraint(eps, sign, trained_steps):
    states = trained_steps(FAST, f"diffmask.eps={eps}", "schedule.epochs=4")
    assert set(sampled_layers(states)) == {0, 1, 2}
    for layer, before, after in layers_and_states(states):
        moved = after["alphas"] - before["alphas"]
        assert sign * moved[layer] > 0.01
        assert moved.count_nonzero() == 1


def test_multipliers_stay_between_zero_and_max_alpha(trained_steps):
    falling = trained_steps("diffmask.eps=100", "diffmask.alpha=0.5", out="falling")
    rising = trained_steps("diffmask.eps=0", "diffmask.max_alpha=20.5", out="rising")
    assert torch.stack([state["alphas"] for state in falling]).min() == 0
    assert torch.stack([state["alphas"] for state in rising]).max() == 20.5


def test_gates_above_the_sampled_layer_keep_weights_and_momentum(trained_steps):
    states = trained_steps("schedule.epochs=4", "diffmask.learning_rate=1e-3")
    seen = set()
    for layer, before, after in layers_and_states(states):
        for name, tensor in after["weights"].items():
            gate = int(name.split(".")[1]) if name.startswith("gates.") else -1
            moments = name.removeprefix("gates.")
            if gate > layer:
                assert torch.equal(tensor, before["weights"][name]), name
                assert before["moments"].keys() - after["moments"].keys() == set()
                for key, value in before["moments"].get(moments, {}).items():
                    assert torch.equal(after["moments"][moments][key], value), (name, key)
                assert (moments in after["moments"]) == (moments in before["moments"])
                seen.add((layer, gate, moments in before["moments"]))
            elif after["rates"][0] > 0:
                assert not torch.equal(tensor, before["weights"][name]), name
    assert {(0, 1, True), (0, 2, True), (1, 2, True)} <= seen


def test_learning_rates_warm_up_and_stay_constant(trained_steps):
    states = trained_steps("schedule.warmup_steps=5", "diffmask.learning_rate=0.02", "diffmask.placeholder_learning_rate=0.3")
    for step, state in enumerate(states[1:]):
        factor = min(step / 5, 1)
        assert state["rates"] == pytest.approx([factor * 0.02, factor * 0.3])
    constant = trained_steps("schedule.warmup_steps=0", out="without")
    assert constant[1]["rates"] == [0.01, 0.001]


def test_batch_is_one_step(trained_steps, steps, table, tmp_path):
    states = trained_steps()
    assert [state["step"] for state in states] == list(range(9))
    assert [row["step"] for row in table(tmp_path / "run")] == ["4", "8"]
    assert states[-1]["counts"].sum() == 8


def test_batch_without_images_changes_no_multiplier(trained_steps, images, table, tmp_path):
    for i in range(3):
        (images / "train" / "red" / f"{i}.png").write_bytes(b"no image")
    states = trained_steps(FAST, "data.batch_size=1", "schedule.epochs=1", "diffmask.eps=100")
    counted = [int((after["counts"] - before["counts"]).sum()) for before, after in pairwise(states)]
    assert Counter(counted) == {0: 3, 1: 5}
    for count, before, after in zip(counted, states, states[1:], strict=False):
        assert torch.equal(before["alphas"], after["alphas"]) == (count == 0)
        assert after["step"] == before["step"] + 1
    assert math.isfinite(float(table(tmp_path / "run")[0]["train_kl"]))


class Batches(Callback):
    def __init__(self):
        self.seen, self.learner, self.start = [], None, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.learner = pl_module
        self.start = self.start or {name: tensor.clone() for name, tensor in pl_module.module.state_dict().items()}
        self.seen.append((trainer.current_epoch, batch_idx, batch.images.clone()))


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        pytest.param(("diffmask.gradient_clip=0.05", "diffmask.placeholder=false"), marks=pytest.mark.slow),
        ("diffmask.alpha=0.1", "diffmask.lookahead_alpha=0.8", "diffmask.lookahead_steps=2"),
    ],
    ids=str,
)
def test_training_matches_the_equations(overrides, mask_configured, monkeypatch, vit_file, tmp_path):
    """Repeat the steps by hand: gate by gate, token by token, with Adam and Lookahead as in their papers."""
    batches = Batches()
    monkeypatch.setattr("vitrail.training.engine.create_progress_callbacks", lambda: [batches])
    config = mask_configured("schedule.epochs=4", "engine.seed=2", *overrides)
    train(config, tmp_path / "run")
    wanted, vit, mask = config.diffmask, vitrail.load(vit_file, device="cpu"), DiffMask(batches.learner.module.config)
    mask.load_state_dict(batches.start)
    alphas = [torch.tensor(wanted.alpha) for _ in range(3)]
    gates = {name: parameter for name, parameter in mask.named_parameters() if name != "placeholder"}
    players = [ByHand(gates, wanted.learning_rate, wanted), ByHand({}, 0, wanted)]
    if mask.placeholder is not None:
        players[1] = ByHand({"placeholder": mask.placeholder}, wanted.placeholder_learning_rate, wanted)
    dual = ByHand({str(k): alpha for k, alpha in enumerate(alphas)}, wanted.alpha_learning_rate, wanted)
    for step, (epoch, index, images) in enumerate(batches.seen):
        layer = batches.learner.layers.sample(derive_seed(2, epoch, 3, index))  # uniform: depends on the seed only
        noise = torch.rand(2, 17, layer + 1, generator=torch.Generator().manual_seed(derive_seed(2, epoch, NOISE, index)))
        with torch.no_grad(), vit.record(hidden_states=True) as trace:
            logits = vit.logits(images)
        patches = vit.patch_embed(images).detach()
        first = torch.cat([vit.module.cls_token.detach().expand(2, -1, -1), patches], 1)
        share, log_open = torch.ones(2, 17), torch.zeros(2, 17)
        for k, state in enumerate([first, *trace.hidden_states][: layer + 1]):
            logit = mask.gates[k](first, state)
            soft = torch.sigmoid((noise[..., k].logit() + logit) / 0.2)
            share = share * (soft * 1.2 - 0.2).clamp(0, 1)
            log_open = log_open + torch.sigmoid(logit + 0.2 * math.log(5)).log()
        share = share[:, 1:, None]
        mixed = share * patches + ((1 - share) * mask.placeholder if mask.placeholder is not None else 0)
        masked = vit.forward_tokens(vit.assemble(mixed, (4, 4)), (4, 4))
        p, q = logits.softmax(-1), masked.softmax(-1)
        divergence = (p * (p / q).log()).sum(-1)
        loss = (alphas[layer].item() * (divergence - wanted.eps) + log_open.mean(1)).mean()
        mask.zero_grad()
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in mask.named_parameters() if parameter.grad is not None}
        length = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt()
        if wanted.gradient_clip is not None and length > wanted.gradient_clip:
            gradients = {name: gradient * wanted.gradient_clip / length for name, gradient in gradients.items()}
        for player in players:
            player.step(gradients, min(step / 2, 1))
        dual.step({str(layer): wanted.eps - divergence.mean().detach()}, 1)
        alphas[layer].clamp_(0, wanted.max_alpha)
    trained = batches.learner
    moved = 0
    for name, parameter in mask.named_parameters():
        torch.testing.assert_close(trained.module.get_parameter(name), parameter, rtol=0, atol=2e-5)
        moved = max(moved, (parameter - batches.start[name]).abs().max())
    assert moved > 1e-2
    torch.testing.assert_close(torch.stack(list(trained.alphas)), torch.stack(alphas), rtol=0, atol=2e-4)


class ByHand:
    """Adam (arXiv:1412.6980, algorithm 1) in Lookahead (arXiv:1907.08610), which copies the slow weights at the first sync."""

    def __init__(self, parameters, rate, config):
        self.parameters, self.rate, self.config, self.num_steps = parameters, rate, config, 0
        self.state = {}

    @torch.no_grad()
    def step(self, gradients, factor):
        self.num_steps += 1
        for name, parameter in self.parameters.items():
            if name not in gradients:
                continue
            t, m, v, slow = self.state.get(name, (0, 0.0, 0.0, None))
            t, m = t + 1, 0.9 * m + 0.1 * gradients[name]
            v = 0.999 * v + 0.001 * gradients[name] ** 2
            parameter -= self.rate * factor * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
            if self.num_steps % self.config.lookahead_steps == 0:
                slow = parameter.clone() if slow is None else slow + self.config.lookahead_alpha * (parameter - slow)
                parameter.copy_(slow)
            self.state[name] = t, m, v, slow


def test_images_get_the_preprocessing_of_the_network(mask_configured, steps, tmp_path):
    train(mask_configured(), tmp_path / "run")
    data = steps.trainer.datamodule
    expected = Preprocessing((16, 16), crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert data.val_images.transform == expected
    for i in range(len(data.train_images)):  # no augmentation by default
        sample = data.train_images[i]
        torch.testing.assert_close(sample.image, expected(data.train_images.open(i)), rtol=0, atol=1e-6)
