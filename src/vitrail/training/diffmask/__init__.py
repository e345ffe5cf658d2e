"""Training of Vision DiffMask."""
