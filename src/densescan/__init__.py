"""densescan."""
