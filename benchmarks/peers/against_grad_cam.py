"""Compare Grad-CAM with pytorch-grad-cam, at the same layer.

The package computes the gradients of all weights that are not frozen, which is most of a network as it is loaded; vitrail computes those of
the layer's activations only.
"""

from copy import deepcopy
from itertools import product

import torch
from side_by_side import Bench, main
from torch import Tensor

from vitrail.explainers import make_explainer


def compare(bench: Bench) -> None:
    """Compare one image, and a batch of eight, with weights as they are loaded, and with those before the layer frozen."""
    package = bench.find("pytorch-grad-cam", "pytorch_grad_cam")
    targets_module = bench.find("pytorch-grad-cam", "pytorch_grad_cam.utils.model_targets")
    vit = bench.build()
    explainer = make_explainer("grad-cam", vit)
    for batch, frozen in product((1, 8), (False, True)):
        network = deepcopy(vit.module).requires_grad_(not frozen)
        network.blocks[-1].requires_grad_()
        images = bench.draw_images(vit, batch)
        grid_size, targets = vit.grid_size(images), bench.draw_explanation(vit, images).targets

        def reshape(tokens: Tensor, grid_size: tuple[int, int] = grid_size) -> Tensor:
            return tokens[:, 1:].mT.unflatten(2, grid_size)

        method = package.GradCAM(network, [network.blocks[-1].norm1], reshape_transform=reshape)
        wanted = [targets_module.ClassifierOutputTarget(int(target)) for target in targets]

        def theirs(
            images: Tensor = images, method: object = method, wanted: object = wanted, side: int = grid_size[0]
        ) -> Tensor:
            maps = torch.tensor(method(input_tensor=images, targets=wanted))
            step = maps.shape[-1] // side
            return maps[:, step // 2 :: step, step // 2 :: step]

        # It scales and enlarges its maps, so that only the times are compared.
        bench.time(
            "pytorch-grad-cam",
            f"Grad-CAM, {'weights before the layer frozen' if frozen else 'weights as loaded'}, {batch} image(s)",
            lambda images=images, targets=targets: explainer.explain(images, targets).relevance,
            theirs,
        )


if __name__ == "__main__":
    main(compare, __doc__)
