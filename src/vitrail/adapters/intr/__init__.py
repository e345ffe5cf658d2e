"""INTR as the explainers see it, with its backbones."""
