"""Weights: folders of our own, those that come with the package, and official checkpoints."""
