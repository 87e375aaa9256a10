"""Datasets: where they come from, checks, and splits."""
