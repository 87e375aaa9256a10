"""The study engine.

`grid` reads a study file into trials; `trial` trains and scores one of them; `pool` runs many at
once with Ray; `driver` runs the missing ones and writes the results; `summary` computes means,
spreads and comparisons over seeds; `page` shows them.
"""
