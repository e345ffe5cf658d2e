"""Training of Vision DiffMask gates."""
