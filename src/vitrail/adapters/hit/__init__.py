"""HiT as the explainers see it."""
