"""Hugging Face's networks as the explainers see them."""
