from contextlib import contextmanager

import pytest
import torch
from torch import nn

from vitrail.core.hooks import attributes, forward_hooks, inspecting, shuffled


class BoomError(Exception):
    pass


@contextmanager
def leaving(ending: str):
    """Run the block and, if asked, leave it by an error that is caught here."""
    if ending == "success":
        yield lambda: None
        return

    def explode():
        raise BoomError

    with pytest.raises(BoomError):
        yield explode


@pytest.fixture(params=["success", "error"])
def ending(request):
    return request.param


@pytest.fixture
def network():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
    network = nn.Sequential(inner, nn.Linear(4, 2))
    network.train()
    inner[1].eval()
    inner[2].eval()
    network[1].weight.requires_grad_(False)
    network[0][0].weight.grad = torch.full((4, 4), 7.0)
    return network


def test_inside_every_part_is_in_evaluation_mode(network):
    with inspecting(network):
        assert not any(part.training for part in network.modules())


def test_the_mode_of_every_part_is_restored(network, ending):
    before = [part.training for part in network.modules()]
    assert len(set(before)) == 2
    with leaving(ending) as leave, inspecting(network):
        network.train()
        leave()
    assert [part.training for part in network.modules()] == before


def test_requires_grad_is_restored(network, ending):
    before = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    assert len(set(before.values())) == 2
    with leaving(ending) as leave, inspecting(network):
        for parameter in network.parameters():
            parameter.requires_grad_(not parameter.requires_grad)
        leave()
    assert {name: parameter.requires_grad for name, parameter in network.named_parameters()} == before


def test_the_same_gradient_object_is_restored(network, ending):
    before = {name: parameter.grad for name, parameter in network.named_parameters()}
    with leaving(ending) as leave, inspecting(network):
        network.zero_grad(set_to_none=True)
        network.requires_grad_(True)
        network(torch.randn(3, 4)).sum().backward()
        assert network[0][0].bias.grad is not None
        leave()
    assert all(parameter.grad is before[name] for name, parameter in network.named_parameters())
    assert network[0][0].weight.grad.eq(7).all()


def test_a_backward_inside_does_not_add_to_the_gradient(network, ending):
    gradient = network[0][0].weight.grad
    with leaving(ending) as leave, inspecting(network):
        network.requires_grad_(True)(torch.randn(3, 4)).sum().backward()
        leave()
    assert network[0][0].weight.grad is gradient
    assert gradient.eq(7).all()
    assert network[0][0].bias.grad is None


def test_gradients_reach_inputs_and_no_weight(network, ending):
    images = torch.randn(3, 4, requires_grad=True)
    with leaving(ending) as leave, inspecting(network):
        assert not any(parameter.requires_grad for parameter in network.parameters())
        network(images).sum().backward()
        assert all(parameter.grad is None for parameter in network.parameters())
        leave()
    assert images.grad.abs().sum() > 0


def test_the_random_state_is_restored(network, ending):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with leaving(ending) as leave, inspecting(network):
        torch.manual_seed(99)
        torch.rand(7)
        leave()
    assert torch.equal(torch.rand(4), expected)


def test_the_state_dict_is_untouched(network, ending):
    network[0][2].train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with leaving(ending) as leave, inspecting(network):
        network(torch.randn(3, 4))
        leave()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_failing_forward_leaves_no_trace(network):
    before = [part.training for part in network.modules()]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), inspecting(network):
        network(torch.zeros(1, 5))
    assert [part.training for part in network.modules()] == before


def hooks_of(network: nn.Module) -> int:
    return sum(len(part._forward_hooks) for part in network.modules())


def test_forward_hooks_run_inside_and_are_removed(network, ending):
    seen = []
    network[1].register_forward_hook(lambda *_: seen.append("own"))

    def hook(module, inputs, output):
        seen.append((module, inputs[0].shape, output.shape))

    with leaving(ending) as leave, forward_hooks([(network[0], hook), (network[1], hook)]):
        network.eval()(torch.zeros(3, 4))
        assert hooks_of(network) == 3
        leave()
    assert hooks_of(network) == 1
    assert seen == [(network[0], (3, 4), (3, 4)), "own", (network[1], (3, 4), (3, 2))]
    network(torch.zeros(3, 4))
    assert seen[3:] == ["own"]


def test_forward_hooks_are_removed_after_a_failing_forward(network):
    with pytest.raises(RuntimeError, match="shapes cannot"), forward_hooks([(part, print) for part in network.modules()]):
        network(torch.zeros(1, 5))
    assert hooks_of(network) == 0


class NoHooks(nn.Module):
    def register_forward_hook(self, *_, **__):
        raise BoomError


def test_forward_hooks_are_removed_when_one_cannot_be_set(network):
    with pytest.raises(BoomError), forward_hooks([(network[0], print), (NoHooks(), print)]):
        pytest.fail("the block must not run")
    assert hooks_of(network) == 0


def test_attributes_are_set_inside_and_restored(network, ending):
    network[0].fused, network[1].fused = True, "maybe"
    with leaving(ending) as leave, attributes([network[0], network[1]], fused=False, training=False):
        assert (network[0].fused, network[1].fused) == (False, False)
        assert (network[0].training, network[1].training) == (False, False)
        leave()
    assert (network[0].fused, network[1].fused) == (True, "maybe")
    assert (network[0].training, network[1].training) == (True, True)


def test_attributes_of_a_module_with_two_names_are_restored(network):
    network[0].fused = True
    with attributes([network[0], network[0]], fused=False):
        assert network[0].fused is False
    assert network[0].fused is True


def test_attributes_are_restored_when_one_is_missing(network):
    network[0].fused = True
    with pytest.raises(AttributeError, match="fused"), attributes([network[0], network[1]], fused=False):
        pytest.fail("the block must not run")
    assert network[0].fused is True
    assert not hasattr(network[1], "fused")


def bits(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone().view(torch.uint8) for name, tensor in network.state_dict().items() if tensor.ndim}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shuffled_parameters_are_restored_to_the_bit(network, ending, dtype):
    network.to(dtype)
    network[0][0].weight.data[0, 0], network[0][0].weight.data[0, 1] = torch.nan, -0.0
    before, gradients = bits(network), [parameter.grad for parameter in network.parameters()]
    with leaving(ending) as leave, shuffled(network.parameters(), seed=1):
        changed = {name for name, tensor in bits(network).items() if not torch.equal(tensor, before[name])}
        # Parameters of equal numbers (the batch norm's) and buffers stay; two numbers may fall as they were.
        assert changed - {"1.bias"} == {"0.0.weight", "0.0.bias", "1.weight"}
        leave()
    after = bits(network)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is grad for parameter, grad in zip(network.parameters(), gradients, strict=True))
    assert not network[1].weight.requires_grad
    assert network[0][0].weight.requires_grad


def test_shuffled_parameters_keep_their_numbers_and_their_memory_layout():
    convolution = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    weight, address = convolution.weight.detach().clone(), convolution.weight.data_ptr()
    strides = convolution.weight.stride()
    with shuffled([convolution.weight], seed=0):
        assert torch.equal(convolution.weight.flatten().sort().values, weight.flatten().sort().values)
        assert not torch.equal(convolution.weight, weight)
        assert (convolution.weight.data_ptr(), convolution.weight.stride()) == (address, strides)
        for dim in range(4):  # Not rows or columns moved as wholes.
            assert not torch.equal(convolution.weight.sum(dim).flatten().sort().values, weight.sum(dim).flatten().sort().values)
    assert torch.equal(convolution.weight, weight)


def test_the_order_of_shuffled_parameters_is_the_seeds(network):
    def drawn(parameters, seed):
        with shuffled(parameters, seed):
            return network[1].weight.detach().clone()

    state = torch.get_rng_state()
    alone = drawn([network[1].weight], 0)
    assert torch.equal(drawn([network[1].weight, network[0][0].weight], 0), alone)
    assert not torch.equal(drawn([network[1].weight], 1), alone)
    assert torch.equal(torch.get_rng_state(), state)
    first, second = nn.Parameter(torch.arange(50.0)), nn.Parameter(torch.arange(50.0))
    with shuffled([first, second], 0):
        assert not torch.equal(first, second)


def test_a_graph_from_before_shuffling_can_be_differentiated(network):
    network.eval().requires_grad_(True)
    inputs = torch.randn(3, 4, requires_grad=True)
    [expected] = torch.autograd.grad(network(inputs).sum(), inputs)
    output = network(inputs).sum()
    with shuffled(network.parameters(), seed=0):
        pass
    [found] = torch.autograd.grad(output, inputs)
    assert torch.equal(found, expected)


def test_failing_shuffling_leaves_no_trace(network):
    before = bits(network)

    def some():
        yield network[1].weight
        raise BoomError

    with pytest.raises(BoomError), shuffled(some(), seed=0):
        pytest.fail("the block must not run")
    assert all(torch.equal(tensor, before[name]) for name, tensor in bits(network).items())


def test_parameters_are_shuffled_inside_one_another(network):
    before = bits(network)
    with shuffled(network[1].parameters(), 0), shuffled(network.parameters(), 1):
        pass
    assert all(torch.equal(tensor, before[name]) for name, tensor in bits(network).items())
