"""Run a study: `python -m studies.engine studies/NAME.yaml`."""

from stages.common.cli import run

RESUME = (
    "interrupted; finished trials are kept. Run the same command again to continue: trials that "
    "were running start again from their first epoch"
)


def main() -> None:
    from studies.engine import driver  # inside `run`, so that Ctrl-C here prints RESUME too

    driver.main()


if __name__ == "__main__":
    run(main, RESUME)
