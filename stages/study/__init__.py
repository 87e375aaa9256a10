"""Studies: a grid of runs over several seeds, what they come to, and a page about them.

    python -m stages.study studies/comparison.yaml

`driver` runs what is missing of a study and writes its results; `file` reads its YAML into trials;
`trial` is one of them, as the pipeline would run it; `cluster` runs many at once, with Ray;
`results` gives means, spreads and comparisons over seeds; `page` shows them.
"""
