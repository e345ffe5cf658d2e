"""timm's networks as the explainers see them."""
