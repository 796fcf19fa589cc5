"""Seeing scans and scenes: pictures without a display, and an interactive window."""
