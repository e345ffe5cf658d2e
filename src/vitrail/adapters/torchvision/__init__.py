"""torchvision's networks as the explainers see them."""
