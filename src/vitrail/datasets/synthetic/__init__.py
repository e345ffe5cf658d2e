"""Synthetic data sets: generated images, each with the mask of the pixels that decide its class."""
