"""Data: photos and folders, published data sets by name, synthetic data sets, ground truth, and augmentation."""
