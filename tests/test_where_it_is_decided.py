"""agent/README.md names the file and the function of each decision; both are there."""

import re
from pathlib import Path

import pytest

AGENT = Path(__file__).parents[1] / "agent"
ROW = re.compile(r"^\| (.+) \| `([\w/.]+\.py)` \| `(\w+)` \|$", re.M)
ROWS = ROW.findall((AGENT / "README.md").read_text().partition("## Where it is decided")[2])


def test_the_table_answers_the_questions_of_a_newcomer():
    assert len(ROWS) >= 70
    assert len({question for question, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("question", "file", "name"), ROWS, ids=[row[0] for row in ROWS])
def test_a_decision_is_where_the_table_says(question: str, file: str, name: str):
    defined = re.compile(rf"^\s*(async )?(def|class) {name}\b|^{name}\b", re.M)
    assert defined.search((AGENT / file).read_text()), question


def test_what_a_newcomer_reads_in_order_is_there() -> None:
    text = (AGENT / "README.md").read_text()
    table = text.partition("## In which order to read the base")[2].partition("\n## ")[0]
    rows = [row.split("|")[2] for row in table.splitlines() if re.match(r"\| \d", row)]
    assert len(rows) > 10
    for row in rows:
        folder = AGENT
        for name in re.findall(r"`([\w/.]+)`", row):
            path = AGENT / name if (AGENT / name).exists() else folder / name
            assert path.exists(), name
            folder = path.parent
