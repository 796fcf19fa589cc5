"""Scans and scenes: where they come from and how they are read: files, data sets, maps, and simulated streets."""
