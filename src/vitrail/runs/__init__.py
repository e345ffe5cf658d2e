"""Resumable passes over many photos: the run directory, its manifest, and the results of every photo."""
