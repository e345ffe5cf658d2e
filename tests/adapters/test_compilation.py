"""Compiled networks give the same results up to rounding, and methods that look inside run them uncompiled."""

import functools

import networks
import pytest
import torch

import vitrail
from vitrail.adapters import Preprocessing, adapt
from vitrail.adapters.compilation import compile_network, is_compiled
from vitrail.core.errors import UnsupportedModelError
from vitrail.runs.manifest import describe_model

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def compiled_graphs(monkeypatch):
    """The graphs that torch compiles."""
    graphs = list[torch.fx.GraphModule]()

    def compile_graph(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("inductor")(graph, inputs)

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=compile_graph))
    yield graphs
    torch.compiler.reset()


def make():
    torch.manual_seed(0)
    return adapt(networks.timm_vit(depth=2), preprocessing=Preprocessing((32, 32), 1.0))


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_results_of_a_compiled_network(compiled_graphs):
    plain, compiled = make(), make()
    compile_network(compiled)
    assert compiled_graphs
    with torch.no_grad():
        torch.testing.assert_close(compiled.logits(IMAGES), plain.logits(IMAGES), rtol=1e-4, atol=1e-5)
    num_graphs = len(compiled_graphs)
    for method in ("rollout", "chefer"):
        maps = [vitrail.explain(model, IMAGES, method=method).relevance for model in (compiled, plain)]
        torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-6)
    assert len(compiled_graphs) == num_graphs
    assert is_compiled(compiled.module)
    assert describe_model(compiled, None) == describe_model(plain, None) | {"compiled": True}


def test_networks_that_do_not_compile_are_refused(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no C++ compiler\nmore")

    monkeypatch.setattr(torch, "compile", lambda call, **_: fail)
    classifier = make()
    with pytest.raises(UnsupportedModelError, match=r"which fails: no C\+\+ compiler; load it without compile"):
        compile_network(classifier)
    assert not is_compiled(classifier.module)
    classifier.logits(IMAGES)
