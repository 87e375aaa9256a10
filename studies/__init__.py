"""Studies: many trials over several seeds, with `python -m studies.engine`."""
