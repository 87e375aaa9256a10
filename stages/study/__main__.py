"""What `python -m stages.study` runs."""

from stages.files import run
from stages.study.driver import main

if __name__ == "__main__":
    run(main)
