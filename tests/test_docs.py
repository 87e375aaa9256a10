"""The documentation: its tables are generated, its links and names exist, its commands run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import IDENTITY, ROOT, Project
from PIL import Image

from stages.common.params import read_yaml
from stages.reporting.table import summary_table
from studies.engine.grid import read_study, trials
from tools.docs import BLOCK, BLOCKS

FOLDERS = (".", "docs", "studies", "benchmarks", "tests", "data")
TEXT = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for folder in FOLDERS
    for path in sorted((ROOT / folder).glob("*.md"))
}
GENERATED = ("data/", "review/", "plots/report.", "plots/MODEL_CARD.md", "plots/figures/",
             "pictures/", "datasets/", "runs/", "studies/results/NAME.html")  # fmt: skip
PLACEHOLDER = re.compile(r"MODEL|NAME|STUDY|KEY|\bX\b|Y(?=\.py)")
# The start of a command: why it does not run here.
SKIPPED = {
    "git clone": "needs the repository's address",
    ". .venv/bin/activate": "the tests run in this environment already",
    "make": "installs packages or trains for minutes; tests/test_makefile.py",
    "dvc exp run -S epochs=30": "trains for minutes",
    "dvc exp run $(python -m tools.recipe digits)": "trains for minutes",
    "dvc exp run -S dataset=data/raw/my.npz": "trains for minutes; tests/test_tracking.py",
    "dvc queue start": "trains in the background; tests/test_trouble.py",
    "dvc queue logs": "needs an experiment from the queue; tests/test_trouble.py",
    "python -m studies.engine": "needs MNIST and Fashion-MNIST; tests/test_study.py",
    "python -m pytest": "runs other tests",
    "pip install": "needs a network",
    "ray ": "needs a cluster; tests/test_ray_cluster.py",
    "RAY_ADDRESS=": "needs a cluster",
    "export RAY_ADDRESS": "needs SLURM",
    "srun ": "needs SLURM",
}
LONG = ("docs/comparing-experiments.md",)  # run at night
OWN_TEST = "docs/reviewing-and-sharing.md"  # tests/test_sharing.py runs its commands


def commands(page: str) -> list[str]:
    """Return the shell commands of a page, without comments."""
    text = "".join(re.findall(r"^ *```sh\n(.*?)^ *```", TEXT[page], re.MULTILINE | re.DOTALL))
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [re.split(r"\s+# ", line)[0] for line in lines if line and not line.startswith("#")]


def skipped(command: str) -> bool:
    return command.startswith(tuple(SKIPPED))


def python_block(page: str) -> str:
    block = re.search(r"^( *)```python\n(.*?)^ *```", TEXT[page], re.MULTILINE | re.DOTALL)
    return re.sub(rf"^{block[1]}", "", block[2], flags=re.MULTILINE)


def docs_check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.docs", "--check"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_pages_are_short():
    assert len(TEXT["README.md"].splitlines()) <= 150
    assert sum(len(text.splitlines()) for text in TEXT.values()) <= 900


def test_generated_blocks_are_those_of_the_recorded_results():
    done = docs_check(ROOT)
    assert done.returncode == 0, done.stderr
    used = [name for text in TEXT.values() for _, name, _, _ in BLOCK.findall(text)]
    assert sorted(used) == sorted(BLOCKS)


def test_the_check_names_a_stale_block(tmp_path):
    for name in ("README.md", "tools", "stages", "metrics", "benchmarks", "studies"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    results = tmp_path / "metrics/results.csv"
    row = next(line for line in results.read_text("utf-8").splitlines() if line[:4] == "cnn,")
    parameters = row.split(",")[1]
    results.write_text(results.read_text("utf-8").replace(parameters, "12345", 1), "utf-8")
    done = docs_check(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: stale: README.md (results); run `make docs`")


def test_the_generator_does_not_load_tensorflow():
    code = "import sys, tools.docs; print('tensorflow' in sys.modules or 'keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


def test_the_example_output_has_the_columns_of_the_result_table():
    heads = [head.strip() for head in summary_table([], []).split("|")[1:-1]]
    heads = heads[: heads.index("")] if "" in heads else heads
    shown = [[cell.strip() for cell in line.split("|")] for line in TEXT["README.md"].splitlines()]
    assert ["", *heads, ""] in shown


@pytest.mark.parametrize("page", TEXT)
def test_links_and_named_files_exist(page):
    here = (ROOT / page).parent
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"", TEXT[page])
    for link in ("".join(pair) for pair in links):
        assert link.startswith("https:") or (here / link).exists(), link
    named = re.findall(r"`([\w.*-]+(?:/[\w.*-]*)+)`", TEXT[page])
    for name in named if page != "CHANGELOG.md" else []:  # it names files that are gone
        if not name.startswith(GENERATED) and "gru" not in name:
            pattern = PLACEHOLDER.sub("*", name)
            assert [*ROOT.glob(pattern), *here.glob(pattern)], name


@pytest.mark.parametrize("page", TEXT)
def test_named_targets_and_modules_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXT[page], re.MULTILINE)) <= targets
    for module in re.findall(r"python -m ((?:stages|tools|studies|benchmarks)[\w.]*)", TEXT[page]):
        assert find_spec(module.rstrip(".")), module


def test_the_example_of_a_study_is_valid(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT["docs/studies-and-clusters.md"], re.DOTALL)
    (tmp_path / "dropout.yaml").write_text(block, encoding="utf-8")
    document = read_yaml(ROOT / "params.yaml")
    planned = trials(read_study(tmp_path / "dropout.yaml"), document, cpus=1)
    assert sorted({trial.params.cnn.dropout for trial in planned}) == [0.0, 0.5]
    shifts = {(trial.params.epochs, trial.params.cnn.shift) for trial in planned}
    assert shifts == {(10, document["cnn"]["shift"]), (20, 1)}
    assert len(planned) == 12


# --- commands -----------------------------------------------------------------------------


def test_every_command_that_is_skipped_is_documented():
    known = [command for page in TEXT if page != OWN_TEST for command in commands(page)]
    for start in SKIPPED:
        assert any(command.startswith(start) for command in known), start
    assert len([command for command in known if not skipped(command)]) >= 20


def write_pictures(project: Project) -> None:
    """Write test images as PNG: `your_picture.png`, and 12 of each class below `pictures/`."""
    x, y = (np.load(project.path(f"data/prepared/{name}_test.npy")) for name in "xy")
    for part in ("train", "test"):
        for label in range(10):
            folder = project.path(f"pictures/{part}/{label}")
            folder.mkdir(parents=True)
            for i in np.flatnonzero(y == label)[:12]:
                Image.fromarray(x[i, :, :, 0]).save(folder / f"{i}.png")
    Image.fromarray(x[np.argmax(y == 3), :, :, 0]).save(project.path("your_picture.png"))


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page in LONG else pytest.mark.extra)
     for page in TEXT
     if page != OWN_TEST and any(not skipped(command) for command in commands(page))],
)  # fmt: skip
def test_the_commands_of_a_page_run(page, clone):
    write_pictures(clone)
    clone.path("runs").mkdir()
    clone.path("runs/digits").symlink_to(clone.folder)  # as if from `make run`
    if page == "docs/own-data.md":
        clone.path("data").mkdir(exist_ok=True)
        clone.run(sys.executable, "-c", python_block(page))
    for command in commands(page):
        if not skipped(command):
            words = command.replace("NAME1 NAME2", "HEAD wide").replace("NAME", "wide")
            clone.run("bash", "-c", words, BROWSER="true", **IDENTITY)
            if command.startswith("dvc exp show"):
                on_terminal = ("script", "-qec", words, "/dev/null")
                shown = clone.run(*on_terminal, DVC_PAGER="cat", **IDENTITY).stdout
                lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
                assert "cnn.val.accuracy" in shown
                assert "wide" in shown
                assert max(map(len, lines)) <= 130


@pytest.mark.slow
def test_a_model_is_added_as_documented(clone):
    clone.path("stages/models/gru.py").write_text(python_block("docs/adding-a-model.md"), "utf-8")
    params = yaml.safe_load(clone.read("params.yaml"))
    others = ("bidirectional", "cell", "pool", "read")
    section = {key: value for key, value in params["lstm"].items() if key not in others}
    params["gru"] = section | {"units": 8}
    clone.path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), "utf-8")
    pipeline = yaml.safe_load(clone.read("dvc.yaml"))
    stages = pipeline["stages"]
    copied = yaml.safe_dump(stages["train_lstm"]).replace("lstm", "gru")
    stages["train_gru"] = yaml.safe_load(copied)
    stages["evaluate"]["deps"].append("data/models/gru.keras")
    stages["report"]["params"].append("gru")
    clone.path("dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False), "utf-8")
    output = clone.dvc("repro")
    assert re.findall(r"Running stage '(\w+)'", output) == ["train_gru", "evaluate", "report"]
    models = [line.split(",")[0] for line in clone.read("metrics/results.csv").splitlines()[1:]]
    assert models == ["cnn", "lstm", "hybrid", "gru", "ensemble"]
    assert "gru" in clone.read("plots/report.html")


def test_a_clone_with_windows_line_ends_has_the_same_bytes(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("this is an unpacked ZIP")
    clone = ["git", "clone", "-q", "-c", "core.autocrlf=true", str(ROOT), str(tmp_path / "clone")]
    subprocess.run(clone, check=True)
    for arguments, unwanted in (("status --porcelain", "M "), ("ls-files --eol", "w/crlf")):
        command = ["git", "-C", str(tmp_path / "clone"), *shlex.split(arguments)]
        assert unwanted not in subprocess.check_output(command, text=True)
