"""The gates of Vision DiffMask: batched against one by one, votes, placeholders, and fingerprints."""

import math

import networks
import pytest
import torch
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.models.diffmask import DiffMask, DiffMaskConfig, HardConcrete, Votes
from vitrail.models.fingerprint import weights_fingerprint

CONFIG = DiffMaskConfig(width=12, depth=3)


def gates(config: DiffMaskConfig = CONFIG, dtype: torch.dtype = torch.float32) -> DiffMask:
    torch.manual_seed(0)
    return networks.shaken(DiffMask(config), spread=0.5).to(dtype)


def states(count: int, dtype: torch.dtype = torch.float32, width: int = 12) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(2, 7, width, generator=generator).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("config", [CONFIG, DiffMaskConfig(12, 3, hidden=5, mul_activation=3.0, add_activation=-1.0)])
@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_all_gates_at_once_equal_single_gates(config, count, dtype, tolerance):
    mask, seen = gates(config, dtype), states(count, dtype)
    together = mask.logits(seen)
    one_by_one = torch.stack([gate(seen[0], state) for gate, state in zip(mask.gates, seen, strict=False)], -1)
    assert together.shape == (2, 7, count)
    torch.testing.assert_close(together, one_by_one, rtol=tolerance, atol=tolerance)
    assert together.std() > 0.1

    weights = torch.randn(together.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    used = list(mask.gates[:count].parameters())
    ours, theirs = (torch.autograd.grad((logits * weights).sum(), used) for logits in (together, one_by_one))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=100 * tolerance, atol=100 * tolerance)


def test_a_gate_is_as_published():
    """The definition: a hidden layer between two tanh, on the first and the gate's own state, with weight normalization."""
    mask, (first, later) = gates(), states(2)
    gate = mask.gates[1]
    inner, outer = gate.inner.weight, gate.outer.weight
    hidden = torch.tanh(first @ inner[:, :12].T + later @ inner[:, 12:].T + gate.inner.bias)
    expected = torch.tanh(hidden @ outer[0] + gate.outer.bias) * 15 + gate.add_activation
    torch.testing.assert_close(gate(first, later), expected)
    with torch.no_grad():
        gate.inner.parametrizations.weight.original1.mul_(3)
    torch.testing.assert_close(gate(first, later), expected)


def test_gates_begin_open():
    torch.manual_seed(0)
    mask = DiffMask(DiffMaskConfig(192, 4))
    assert mask.config.num_gates == 6
    assert mask.config.num_hidden == 48
    kept = mask([torch.randn(3, 10, 192) for _ in range(6)]).log_kept().exp()
    assert kept.median() > 0.9
    assert {float(gate.add_activation.detach()) for gate in mask.gates} == {8.0}
    # As published; Xavier's bound for a matrix of one row would be larger by a factor of 1.4.
    spread = torch.stack([DiffMask(DiffMaskConfig(192, 1)).placeholder.detach() for _ in range(20)]).std()
    assert float(spread) == pytest.approx(192**-0.5, rel=0.05)


def test_votes():
    seen, noise = states(3), torch.rand(2, 7, 3, generator=torch.Generator().manual_seed(3))
    together, alone = gates()(seen), gates()(seen, aggregated=False)
    own = HardConcrete(gates().logits(seen)).log_probability_open()
    torch.testing.assert_close(alone.log_kept(), own)
    torch.testing.assert_close(together.log_kept()[..., 2], own.sum(-1))
    torch.testing.assert_close(together.log_kept()[..., 0], own[..., 0])
    sampled = HardConcrete(gates().logits(seen)).sample(noise)
    torch.testing.assert_close(together.sample(noise), sampled[..., 0] * sampled[..., 1] * sampled[..., 2])
    torch.testing.assert_close(alone.sample(noise), sampled[..., 2])


@pytest.mark.parametrize("aggregated", [True, False])
def test_the_mask_is_how_often_a_token_is_kept_at_all(aggregated):
    logits = torch.linspace(-2, 2, 6, dtype=torch.float64).view(1, 2, 3)
    votes = Votes(HardConcrete(logits.expand(100_000, 2, 3)), aggregated)
    noise = torch.rand(100_000, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counted = (votes.sample(noise) > 0).double().mean(0)
    torch.testing.assert_close(votes.log_kept()[0, :, -1].exp(), counted, rtol=0, atol=6e-3)


def test_removed_patches_become_the_placeholder():
    mask, patches = gates(), torch.randn(2, 4, 12)
    kept = torch.tensor([[0.0, 1.0, 0.25, 1.0], [1.0, 1.0, 0.0, 0.0]])
    masked = mask.masked(patches, kept)
    torch.testing.assert_close(masked[0, 0], mask.placeholder)
    assert torch.equal(masked[0, 1], patches[0, 1])
    torch.testing.assert_close(masked[0, 2], 0.25 * patches[0, 2] + 0.75 * mask.placeholder)
    without = gates(DiffMaskConfig(12, 3, placeholder=False))
    assert without.placeholder is None
    assert not any("placeholder" in name for name in without.state_dict())
    torch.testing.assert_close(without.masked(patches, kept), kept[..., None] * patches)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_gates_keep_their_own_precision(dtype):
    mask, seen = gates(), states(5)
    halved = [state.to(dtype) for state in seen]
    assert mask.logits(halved).dtype == torch.float32
    torch.testing.assert_close(mask.logits(halved), mask.logits([state.float() for state in halved]))
    with torch.autocast("cpu", torch.bfloat16):
        inside = mask.logits(seen)
    torch.testing.assert_close(inside, mask.logits(seen), rtol=0, atol=0)
    assert mask.masked(seen[0].to(dtype), torch.rand(2, 7)).dtype == dtype


@pytest.mark.parametrize(
    ("seen", "got"),
    [
        ([], "got 0: none"),
        (states(6), r"got 6: \(2, 7, 12\)"),
        (states(2, width=11), r"got 2: \(2, 7, 11\)"),
        ([*states(1), torch.zeros(2, 8, 12)], r"got 2: \(2, 7, 12\), \(2, 8, 12\)"),
    ],
)
def test_other_states_are_refused(seen, got, unchecked):
    with pytest.raises(InvalidInputError, match=f"^expected 1 to 5 hidden states of one shape and of width 12, {got}$"):
        gates()(seen)


WRONG = [
    *(({"width": value}, r"expected a width of at least 1, got ") for value in (0, -3, 2.5, "12", True, None)),
    ({"depth": 0}, "expected a depth of at least 1, got 0"),
    ({"hidden": 0}, "expected a hidden of at least 1, got 0"),
    ({"mul_activation": "15"}, "expected a finite number as mul_activation, got '15'"),
    ({"mul_activation": math.inf}, "expected a finite number as mul_activation, got inf"),
    ({"add_activation": math.nan}, "expected a finite number as add_activation, got nan"),
    ({"placeholder": "yes"}, "expected true or false as placeholder, got 'yes'"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_shapes_that_make_no_sense_are_refused(fields, message, unchecked):
    with pytest.raises(InvalidInputError, match=f"^{message}"):
        DiffMaskConfig(**{"width": 12, "depth": 3, **fields})


def test_whole_numbers_are_accepted(unchecked):
    assert DiffMask(DiffMaskConfig(12, 3, mul_activation=10, add_activation=5)).gates[0].add_activation.dtype == torch.float32
    assert DiffMaskConfig(3, 1).num_hidden == 1


class TestFingerprint:
    def test_names_and_order_do_not_count(self):
        one = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 3))
        other = torch.nn.ModuleDict({"second": torch.nn.Linear(4, 3), "first": torch.nn.Linear(3, 4)})
        other["first"].load_state_dict(one[0].state_dict())
        other["second"].load_state_dict(one[1].state_dict())
        assert weights_fingerprint(one) == weights_fingerprint(other)
        assert len(weights_fingerprint(one)) == 32

    def test_where_and_how_weights_lie_does_not_count(self):
        module = networks.timm_vit()
        before = weights_fingerprint(module)
        assert weights_fingerprint(module.double()) == before
        module.blocks[0].mlp.fc1.weight.data = module.blocks[0].mlp.fc1.weight.data.t().contiguous().t()
        assert weights_fingerprint(module.train().requires_grad_(False)) == before

    @pytest.mark.parametrize("name", ["timm", "hf-vit", "torchvision"])
    def test_every_weight_counts(self, name):
        pytest.importorskip("transformers" if name == "hf-vit" else "timm")
        module = networks.NETWORKS[name]()
        before = weights_fingerprint(module)
        for path, parameter in module.named_parameters():
            if not parameter.numel():
                continue
            value = parameter.data.view(-1)[-1].clone()
            parameter.data.view(-1)[-1] = value * (1 + 1e-6) + 1e-6
            assert weights_fingerprint(module) != before, path
            parameter.data.view(-1)[-1] = value
        assert weights_fingerprint(module) == before

    def test_shapes_count(self):
        one, other = torch.nn.Linear(6, 2, bias=False), torch.nn.Linear(4, 3, bias=False)
        other.weight.data = one.weight.data.reshape(3, 4)
        assert weights_fingerprint(one) != weights_fingerprint(other)

    def test_half_precision_is_another_network(self):
        assert weights_fingerprint(networks.timm_vit().bfloat16()) != weights_fingerprint(networks.timm_vit())

    def test_what_no_logit_of_a_hit_depends_on_does_not_count(self):
        module = networks.hit()
        before = weights_fingerprint(module)
        for name in module.unused_names():
            module.get_parameter(name).data.add_(1)
        assert weights_fingerprint(module) == before
        module.stages[0].layers[-1].norm1.weight.data[0] += 1
        assert weights_fingerprint(module) != before

    def test_unusual_parameters(self):
        module = torch.nn.Module()
        module.scalar, module.empty = torch.nn.Parameter(torch.tensor(2.0)), torch.nn.Parameter(torch.zeros(0, 3))
        before = weights_fingerprint(module)
        module.scalar.data += 1
        assert weights_fingerprint(module) != before
