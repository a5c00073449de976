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
