"""Scores on the test set, confidence intervals and tests."""

CONFIDENCE = 0.95  # of all intervals
SIGNIFICANT = 0.05  # a smaller p-value, after correction for multiple tests, is significant
