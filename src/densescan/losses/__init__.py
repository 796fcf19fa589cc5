"""Training losses: pure functions from tensors to a loss and its parts."""
