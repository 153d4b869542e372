"""A model's answer is read as it was meant, made safe, or refused with the reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summidx.errors import InvalidOutput
from summidx.summarizers.prompts.output import MAX_SUMMARY_CHARS, parse_answer


@pytest.mark.parametrize(
    ("text", "summary", "keywords"),
    [
        ("Sends a request.\nKeywords: http, retry", "Sends a request.", ("http", "retry")),
        ("Sends a request.\n\n**Keywords:** `http`; *retry*.", "Sends a request.", ("http", "retry")),
        ("Sends.\nWaits first.\nkeywords : a, b", "Sends. Waits first.", ("a", "b")),
        ("**Summary:** Sends a request.", "Sends a request.", ()),
        ("```text\nSends a request.\n```", "Sends a request.", ()),
        ("<think>hm, Keywords: x\n</think>\n\nSends.\nKeywords: a", "Sends.", ("a",)),
        ("so it sends, I think.\n</think>\nSends.", "Sends.", ()),
        ("Drops a leading <think> block up to </think> from answers.", None, ()),
        ("Sends\x1b[31m a\u202e re\u200bquest\x07.\r\nKeywords: \x1b[0ma", "Sends a request.", ("a",)),
        ("Sends.\nKeywords: a, a, getUser, get_user, os.path, f(), b, c, d, e, g, h", "Sends.", tuple("abcdeg")),
        ("Sends.\nKeywords:", "Sends.", ()),
        ("Sends.\nKeywords:\n- a\n- b", "Sends.", ("a", "b")),
        ("要求を送る。\nKeywords: 再試行、接続", "要求を送る。", ("再試行", "接続")),
    ],
)
def test_answers_are_read_as_they_were_meant(text, summary, keywords):
    assert parse_answer(text, "stop") == (text if summary is None else summary, keywords)


@pytest.mark.parametrize(
    ("text", "finish_reason", "said"),
    [
        ("", "stop", "empty"),
        (" \n\u200b\n", "stop", "empty"),
        ("Keywords: a", "stop", "empty"),
        ("...", "stop", "empty"),
        ("Sends a req", "length", "cut"),
        ("", "content_filter", "withheld"),
        ("<think>first, then", "stop", "thinking"),
        ("<think>all of it</think>", "stop", "empty"),
        ("It sends and then it waits and then " * 9, "stop", "repeats"),
        ("Sends. " + "no " * 40, "stop", "repeats"),
        ("Sends. " + "ab" * 100, "stop", "repeats"),
        ("再" * 100, "stop", "repeats"),
        (" ".join("The method reads one line of the file and checks it." for _ in range(5)), "stop", "repeats"),
    ],
)
def test_unusable_answers_are_refused_with_the_reason(text, finish_reason, said):
    with pytest.raises(InvalidOutput, match=said):
        parse_answer(text, finish_reason)


@pytest.mark.parametrize(
    "text",
    [
        "Reads a, b, c and d, then e, f, g and h; very, very carefully.",
        "Adds the row to the table, adds the row to the index and adds the row to the log.",
        "Maps 0 0 0 1 to 1 and 0 0 0 0 to 0.",
    ],
)
def test_honest_repetition_is_no_loop(text):
    assert parse_answer(text, "stop")[0] == text


def test_a_long_answer_is_bounded_at_a_sentence():
    text = " ".join(f"Sentence number {n} says something else about it." for n in range(200))
    summary, _ = parse_answer(text, "stop")
    assert MAX_SUMMARY_CHARS * 0.9 < len(summary) <= MAX_SUMMARY_CHARS
    assert summary.endswith(".")
    one = " ".join(str(n) for n in range(2000))
    assert len(parse_answer(one, "stop")[0]) <= MAX_SUMMARY_CHARS


@given(st.text(alphabet=st.characters(codec=None), max_size=300))
def test_whatever_comes_back_is_safe_to_print_or_refused(text):
    try:
        summary, keywords = parse_answer(text, None)
    except InvalidOutput:
        return
    for shown in (summary, *keywords):
        assert shown.isprintable()
        assert shown.strip() == shown
        shown.encode()
