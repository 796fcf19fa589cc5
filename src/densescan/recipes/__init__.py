"""Frozen configurations: of the stages, by size, and of the rows of the paper's Tables 1 to 8 that are made of them."""
