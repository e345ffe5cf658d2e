"""Foundations: types, errors, registries, hooks, files, processes."""
