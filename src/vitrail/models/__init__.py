"""Networks that vitrail defines, and files of weights."""
