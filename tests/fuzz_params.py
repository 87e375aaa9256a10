"""Made-up `params.yaml`: parsed documents, and files."""

from __future__ import annotations

import yaml
from conftest import ROOT
from fuzz_common import LARGE, Target, damaged, mutated
from hypothesis import strategies as st

DOCUMENT = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-LARGE, LARGE), st.floats(), st.text(),
    st.integers(0, 3), st.floats(0, 1), st.floats(0, 1).map(str),
    st.just(None).map(lambda _: 10**5000), st.just("1" * 20_000 + "x"),
    st.from_regex(r"[-+]?\d+\.?\d*[eE]-?\d+"),
    st.binary(max_size=8), st.dates(), st.datetimes(), st.timedeltas().map(str),
    st.sampled_from(["mnist", "../../x.npz", "a\nb.npz", "\0.npz", "\ud800.npz", "/dev/zero.npz"]),
)  # fmt: skip
KEYS = st.one_of(st.text(max_size=8), st.integers(), st.none(), st.booleans(), st.dates())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4),
        st.frozensets(st.integers(), max_size=3).map(set),
    ),
    max_leaves=8,
)  # fmt: skip
LINES = "".join(
    line.split(" #")[0].rstrip() + "\n"
    for line in (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    if line.split("#")[0].strip()
)
TOKENS = st.sampled_from([
    "!!int ''", "!!float ''", "!!bool maybe", "!!timestamp x", "!!binary '%'", "!!set {a, b}",
    "!!python/object/apply:os.mkdir ['sprung']", "!!python/name:os.system ''", "!x y", "*a", "&a",
    "&a [*a]", "<<: *a", "<<: {epochs: 3}", "[" * 400, "{" * 400, "? ", "- ", "|", ">", "'", '"',
    "0x" + "f" * 5000, "1:" * 400 + "1.0", "190:20:30", "0o7", "010", "2001-99-99", ".inf", ".nan",
    "0001-01-01T00:00:00+23:59", "1e400", "9" * 5000, "!!omap [a: 1]", "!!pairs [a: 1]", "---",
    "...", "%YAML 9.9", "%TAG ! tag:x,2000:", "\t", "\ufeff", "\x85", "\u2028", "~", "yes", "1e-05",
    "a: &a {b: 1}\nc: &c [*a,*a,*a]\nd: &d [*c,*c,*c]\ne: {<<: *d}", "epochs: 3", "=", "<<",
])  # fmt: skip


@st.composite
def yaml_lines(draw: st.DrawFn) -> bytes:
    """The real file's lines, some values replaced, lines doubled, dropped or slipped in."""
    lines = LINES.splitlines()
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        strange = draw(st.one_of(TOKENS, st.text(max_size=12)))
        action = draw(st.sampled_from(["value", "value", "insert", "double", "drop", "glue"]))
        if action == "value":
            lines[at] = lines[at].split(":")[0] + ": " + strange
        elif action == "insert":
            lines.insert(at, strange)
        elif action == "double":
            lines.insert(at, lines[at])
        elif action == "drop" and len(lines) > 1:
            del lines[at]
        elif action == "glue":
            lines[at] += strange
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def documents() -> Target:
    """Parsed documents: the real one with changes, or anything."""
    from stages.params import parse_params

    return Target(st.one_of(mutated(DOCUMENT, VALUES), VALUES), parse_params, [DOCUMENT])


def files() -> Target:
    """Files: the real one's lines with changes, YAML made of tokens, text, bytes."""
    from stages.params import load_params

    pieces = st.lists(
        st.one_of(TOKENS, st.sampled_from(" \n\n  :,[]{}-?&*!|>'\"%@`#")), max_size=12
    )
    inputs = st.one_of(
        yaml_lines(), pieces.map(lambda parts: "".join(parts).encode()),
        st.text().map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(),
        damaged(LINES.encode()),
    )  # fmt: skip
    return Target(inputs, load_params, [LINES.encode()], ".yaml")
