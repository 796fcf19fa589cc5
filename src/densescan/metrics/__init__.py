"""Measures of a completed scene against the true one: a function for the maths, a class for the running state."""
