"""Run a study: `python -m studies.engine studies/NAME.yaml`."""

from stages.common.cli import run
from studies.engine.driver import main

if __name__ == "__main__":
    run(main)
