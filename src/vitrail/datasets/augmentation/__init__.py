"""Random transforms and label mixing for training images."""
