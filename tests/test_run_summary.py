"""The summary of a run has ten lines, whatever a table's names are."""

import json

from hypothesis import given
from hypothesis import strategies as st

from modelpred.run_summary import WIDTH, Answered, RunSummary

LINES = (2, 2, 1, 1)  # of the answers
TOPICS = ("topic 0", "topic 1", "topic 2", "topic 3")
texts = st.text(max_size=200)


def answer(topic, lines, drawn):
    question, words, name, note, *brief = drawn
    return Answered(question, words, topic, tuple(brief[:lines]), ((name, words),), note)


@given(title=texts, drawn=st.lists(st.lists(texts, min_size=6, max_size=6), min_size=4, max_size=4))
def test_ten_lines_of_text_and_everything_as_json(title, drawn):
    answers = tuple(map(answer, TOPICS, LINES, drawn))
    summary = RunSummary(title, "80 rows train and 20 test", answers, "report.html", "explore x")
    lines = str(summary).split("\n")
    assert len(lines) == 10
    assert all(line.isprintable() for line in lines)
    assert all(len(line) <= WIDTH + len("topic 0  ") for line in lines)
    for line, topic in zip(lines[2:8], ("topic 0", "", "topic 1", "", *TOPICS[2:]), strict=True):
        assert line.startswith(f"{topic:<7}  ")
    assert lines[-2].endswith("report.html")
    assert lines[-1].endswith("explore x")
    content = json.loads(summary.as_json())
    for found, (question, words, name, note, *brief), count in zip(
        content["answers"], drawn, LINES, strict=True
    ):
        assert [found["question"], found["words"], found["note"]] == [question, words, note]
        assert found["items"] == [[name, words]]
        assert found["brief"] == brief[:count]
    assert (content["report"], content["explore"]) == ("report.html", "explore x")
