"""What is drawn of a run: at every size whole, within the terminal, and with names that cannot steer it."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from flows.display import describe_clock, describe_count, render_display
from flows.live import Snapshot, WorkerRow
from flows.looks import GPUUse
from summidx.activity import Figures, RepoLook

HOSTILE = "evil\x1b[31m\u202e\n名前"


def draw(snapshot, width, height=40, **console):
    stream = io.StringIO()
    Console(file=stream, width=width, height=height, highlight=False, **console).print(
        render_display(snapshot, width, height)
    )
    return stream.getvalue()


def snapshot(workers=2, repos=2, **changes):
    rows = tuple(
        WorkerRow(
            str(w),
            tuple(
                RepoLook(f"repo-{w}-{r}" if r else HOSTILE, "summarise", 812, 2304, 72.0, Figures())
                for r in range(repos)
            ),
            GPUUse(0.78, 41 << 30, 80 << 30),
        )
        for w in range(workers)
    )
    known = {
        "title": "nightly",
        "elapsed_s": 723.0,
        "up_to_date": 1800,
        "to_build": 200,
        "endings": {"built": 133, "failed": 4, "crashed": 1},
        "share": 0.69,
        "eta_s": 480.0,
        "figures": Figures(41_203, 12_034, 24_100, 9_310_000, 1_800_000),
        "rates": {"documents": 57.0, "calls": 31.0, "tokens_in": 48_100.0, "tokens_out": 12_000.0},
        "in_flight": 251,
        "limit": 256,
        "workers": rows,
    }
    return Snapshot(**known | changes)


@pytest.mark.parametrize("width", [30, 40, 60, 63, 64, 80, 95, 96, 120, 200])
@pytest.mark.parametrize("height", [8, 12, 24, 50])
def test_no_line_is_wider_and_no_frame_higher_than_the_terminal(width, height):
    lines = draw(snapshot(workers=8, repos=4), width, height).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert len(lines) < height or height == 8, "a frame that does not fit is cut by rich; none of ours should be"


def test_everything_that_matters_is_there_in_120_and_in_80_columns():
    for width in (120, 80):
        text = draw(snapshot(), width)
        for part in (
            *("138 of 200 repositories", "133 built", "5 failed", "62 left", "1,800 up to date", "69 %"),
            *("12:03, about 8 min left", "41,203", "57/s", "24,100", "31/s", "9.3M", "48.1k/s", "12,034", "33%"),
            *("251", "of 256", "12.0k/s", "0: 78%, 41 of 80 GiB", "worker 1", "repo-1-1", "812/2,304", "1:12"),
        ):
            assert part in text, (width, part)


def test_names_are_shown_as_escapes():
    text = draw(snapshot(), 120)
    assert r"evil\x1b[31m\u202e\n名前" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_without_colours_nothing_is_lost(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = draw(snapshot(), 80, force_terminal=True, color_system="truecolor")
    assert "\x1b[3" not in text.replace("\x1b[39", ""), "no colour"
    assert "5 failed" in text


def test_what_is_not_shown_is_counted():
    assert "and 28 more under way" in draw(snapshot(workers=8, repos=4), 120, 13)


def test_it_is_not_done_before_the_last_one_has_ended():
    text = draw(snapshot(share=1.0, endings={"built": 199}), 80)
    assert "99 %" in text
    assert "100 %" not in text
    done = draw(snapshot(share=1.0, endings={"built": 200}, eta_s=1.0), 80)
    assert "100 %" in done
    assert "left" not in done.split("\n")[0]


def test_a_run_without_an_llm_and_one_that_has_not_begun_show_no_empty_figures():
    assert "LLM" not in draw(snapshot(asks_llm=False), 120)
    starting = draw(Snapshot(phase="planning", elapsed_s=3.0), 120)
    assert starting.split() == ["summary-index", "0:03", "planning", "…"]


def test_numbers_are_short():
    assert [describe_count(n) for n in (0, 812, 2304, 48_100, 999_960, 1_200_000)] == [
        *("0", "812", "2,304", "48.1k", "1.0M", "1.2M"),
    ]
    assert [describe_clock(s) for s in (7, 723, 3723)] == ["0:07", "12:03", "1:02:03"]
