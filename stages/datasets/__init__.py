"""Load, check and split datasets."""
