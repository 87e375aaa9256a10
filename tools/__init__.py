"""Commands that people run next to the pipeline."""
