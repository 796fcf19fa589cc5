"""Training: a loop that knows no method, and one file per stage of the method."""
