"""open_clip's networks as the explainers see them."""
