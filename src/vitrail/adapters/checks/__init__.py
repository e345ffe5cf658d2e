"""Checks that an adapter's view of a network is what the network computes."""
