"""The study engine.

`grid` lists the trials of a study file, `trial` trains and scores one of them, `pool` runs many at
once with Ray, `driver` runs the missing ones and writes the results, `summary` computes means,
spreads and comparisons over seeds, and `page` shows them.
"""
