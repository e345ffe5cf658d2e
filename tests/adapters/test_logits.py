"""The number of logits is inferred from the network; other outputs are refused."""

from dataclasses import dataclass

import networks
import pytest
import torch
from torch import Tensor, nn

from vitrail.adapters import Preprocessing, ViTAdapter, adapt
from vitrail.adapters.plain import adapt_plain
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.explainers import make_explainer

IMAGES = networks.images("timm")
BUILDERS = {
    "timm": networks.timm_vit,
    "huggingface": lambda: networks.huggingface("ViT"),
    "torchvision": networks.torchvision_vit,
}
HEADS = {"timm": "head", "huggingface": "classifier", "torchvision": "heads"}


class Cosine(nn.Module):
    """A head without a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(7, 24, generator=torch.Generator().manual_seed(0)))

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.normalize(features, dim=-1) @ nn.functional.normalize(self.directions, dim=-1).T


class Pairs(nn.Module):
    """The last linear layer is not the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.mixed = nn.Linear(24, 10), nn.Linear(10, 3)

    def forward(self, features: Tensor) -> Tensor:
        logits = self.wide(features)
        return logits + self.mixed(logits).sum(-1, keepdim=True)


def with_head(library: str, head: nn.Module) -> nn.Module:
    network = BUILDERS[library]()
    setattr(network, HEADS[library], head)
    return network


@pytest.mark.parametrize("library", BUILDERS)
@pytest.mark.parametrize(
    ("head", "count"),
    [
        (Cosine(), 7),
        (Pairs(), 10),
        (nn.Sequential(nn.Linear(24, 6), nn.Softplus(), nn.Linear(6, 4), nn.PixelShuffle(1)), 4),
        (nn.Sequential(nn.Linear(24, 12), nn.GLU()), 6),
        (nn.Linear(24, 9, bias=False), 9),
    ],
)
def test_classes_are_counted_by_a_forward_pass(library, head, count):
    if isinstance(head, nn.Sequential) and isinstance(head[-1], nn.PixelShuffle):
        head = head[:-1]
    classifier = adapt(with_head(library, head), class_names=[f"kind {index}" for index in range(count)])
    assert classifier.num_classes == count
    for method in ("chefer", "occlusion", "legrad"):
        explanation = make_explainer(method, classifier).explain(IMAGES, f"kind {count - 1}")
        assert explanation.logits.shape == (3, count)
    with pytest.raises(UnsupportedModelError, match=f"expected {count} class names"):
        adapt(with_head(library, head), class_names=["one"])
    with pytest.raises(InvalidInputError, match=f"between 0 and {count - 1}"):
        make_explainer("chefer", classifier).explain(IMAGES, count)


class Returning(nn.Module):
    """Returns its logits in another form."""

    def __init__(self, form) -> None:
        super().__init__()
        self.linear, self.form = nn.Linear(24, 5), form

    def forward(self, features: Tensor):
        return self.form(self.linear(features))


@dataclass
class Output:
    scores: Tensor


@pytest.mark.parametrize("library", BUILDERS)
@pytest.mark.parametrize(
    ("form", "got"),
    [
        (lambda logits: (logits, logits.mean()), "a tuple of 2"),
        (lambda logits: [logits], "a list of 1"),
        (lambda logits: {"scores": logits}, "a dict"),
        (lambda logits: Output(logits), "a Output"),
        (lambda logits: logits.argmax(-1, keepdim=True), r"a tensor of shape \(\d, 1\) and torch.int64"),
        (lambda logits: logits[:, :, None], r"a tensor of shape \(\d, 5, 1\)"),
        (lambda logits: logits[:, :0], r"a tensor of shape \(\d, 0\)"),
        (lambda logits: logits.to_sparse(), r"a sparse tensor of shape \(\d, 5\)"),
    ],
)
def test_other_outputs_are_refused(library, form, got):
    network = with_head(library, Returning(form))
    for classifier in (adapt(network, name="mine"), adapt_plain(network, "mine", cell_size=8)):
        with pytest.raises(UnsupportedModelError, match=rf"expected mine to return logits of shape .*, got {got}"):
            make_explainer("occlusion", classifier).explain(IMAGES)


@pytest.mark.parametrize("library", BUILDERS)
def test_one_number_per_image_is_a_single_logit(library):
    network = with_head(library, Returning(lambda logits: logits[:, 0]))
    small = Preprocessing((32, 32), 1.0)
    for classifier in (adapt(network), adapt_plain(network, "mine", preprocessing=small, cell_size=8)):
        assert classifier.num_classes == 1
        explanation = make_explainer("occlusion", classifier).explain(IMAGES)
        assert (explanation.logits.shape, explanation.output) == ((3, 1), "sigmoid")
        torch.testing.assert_close(explanation.logits[:, 0], networks.own_logits(network, IMAGES).detach().squeeze())


@pytest.mark.parametrize("library", BUILDERS)
@pytest.mark.parametrize(
    ("form", "key"),
    [
        (lambda logits: (logits.mean(), logits), 1),
        (lambda logits: {"scores": logits, "mean": logits.mean()}, "scores"),
        (lambda logits: Output(logits), "scores"),
    ],
    ids=["tuple", "dictionary", "object"],
)
def test_logits_are_found_by_their_key(library, form, key):
    network = with_head(library, Returning(form))
    plain = with_head(library, network_head := Returning(lambda logits: logits))
    network_head.load_state_dict(getattr(network, HEADS[library]).state_dict())
    if library == "huggingface":
        # There the head's output is the model's `logits`, whatever it is.
        with pytest.raises(UnsupportedModelError, match="output_key"):
            adapt(network, output_key=key, class_names=networks.CLASS_NAMES)
        return
    classifier = adapt(network, output_key=key, class_names=networks.CLASS_NAMES)
    assert isinstance(classifier, ViTAdapter)
    for method in ("chefer", "grad-cam", "occlusion", "mutex"):
        found, expected = (make_explainer(method, each).explain(IMAGES) for each in (classifier, adapt(plain)))
        torch.testing.assert_close(found.relevance, expected.relevance)
        torch.testing.assert_close(found.logits, expected.logits)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_key_of_a_tensor_is_refused(library):
    """A row of logits, as long as the batch, would pass for one number per image."""
    with pytest.raises(UnsupportedModelError, match=r"expected .* to return something with the output_key 0, got a tensor"):
        adapt(BUILDERS[library](), output_key=0, class_names=networks.CLASS_NAMES)


@pytest.mark.parametrize("library", BUILDERS)
def test_a_head_that_changes_its_width_afterwards(library):
    network = BUILDERS[library]()
    explainer = make_explainer("chefer", adapt(network, class_names=networks.CLASS_NAMES))
    explainer.explain(IMAGES, "bee")
    setattr(network, HEADS[library], nn.Linear(24, 3))
    with pytest.raises(
        (UnsupportedModelError, ValueError),
        match=r"expected 5 logits from ViT|expected 5 logits from Vis",
    ):
        explainer.explain(IMAGES, "bee")


@pytest.mark.parametrize("library", BUILDERS)
@pytest.mark.parametrize("head", [nn.Identity(), nn.Sequential(), nn.Sequential(nn.Dropout(0.1), nn.Identity())])
def test_heads_that_pass_features_on_give_an_embedding(library, head):
    network = with_head(library, head.eval())
    classifier = adapt(network)
    assert (classifier.output, classifier.class_names, classifier.num_classes) == ("embedding", (), 24)
    with torch.no_grad():
        torch.testing.assert_close(classifier.logits(IMAGES), networks.own_logits(network, IMAGES))
    with pytest.raises(UnsupportedModelError, match="the method explains a class, and this network gives an embedding"):
        make_explainer("chefer", classifier)
