"""Pure functions on points (N, 3) [m]: no networks, no files."""
