from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.place_words import duration, moment
from orchestrator.engine.placement import Candidate, Need, Placement, QueueFacts, SiteFacts, choose
from orchestrator.engine.placement_text import outcome, sentence, table
from orchestrator.model import Resources
from orchestrator.store.measured import PlacementRow, Timing

NOW = 1_800_000_000.0  # 15 Jan 2027 08:00 UTC


def three() -> Placement:
    def site(name: str, queue: str, starts_in_s: float) -> SiteFacts:
        by = {"starts_in_s": {queue: starts_in_s}, "starts_by": "test wait"}
        return SiteFacts(name, (QueueFacts(queue),), scheduler=True, doors=(1e9,), **by)  # type: ignore[arg-type]

    sites = [site("polaris", "demand", 400.0), site("perlmutter", "regular", 120.0)]
    sites.append(SiteFacts("frontier", answers=False, silent_since=NOW - 17_280))
    need = Need(Resources(walltime_s=3600.0), "w", "s", input_bytes=120 * 10**9)
    return choose(need, sites, now=NOW, history=[Timing("w", "s", "perlmutter", 600.0, 120 * 10**9)])


def test_the_sentence_names_the_choice_and_how_far_it_is_ahead() -> None:
    assert sentence(three()) == "goes to perlmutter (regular): 14 min predicted, 5 min before polaris (demand)"


def test_the_table_is_aligned_marks_the_choice_and_says_what_is_out() -> None:
    assert table(three()) == (
        "   site        queue    transfer  queue wait  compute   total  why\n"
        ">  perlmutter  regular     2 min       2 min   10 min  14 min  test wait; 1 run of 120 GB\n"
        "   polaris     demand      2 min       7 min   10 min  19 min  test wait; 1 run at perlmutter, none here\n"
        "   frontier    -                                            -  does not answer since 03:12 UTC\n"
        "\n"
        "perlmutter (regular):\n"
        "  transfer       2 min  120 GB at 1 GB/s, expected of its door, not measured yet\n"
        "  queue wait     2 min  test wait\n"
        "  compute       10 min  1 run of 120 GB\n"
    )


def test_no_choice_says_why_of_each() -> None:
    silent = SiteFacts("a", answers=False)
    assert sentence(choose(Need(), [silent], now=NOW)) == "goes nowhere now: a does not answer"
    assert sentence(Placement(NOW)) == "goes nowhere: no site is known"
    assert table(Placement(NOW)) == "no site is known\n"


def test_the_only_one_the_equal_one_and_the_cheaper_one_are_told_so() -> None:
    def told(*candidates: Candidate) -> str:
        return sentence(Placement(NOW, candidates[0], candidates))

    a = Candidate("a", "q", total_s=60.0)
    assert told(a) == "goes to a (q): 60 s predicted, the only one that can"
    assert told(a, Candidate("b", total_s=60.0)) == "goes to a (q): 60 s predicted, as soon as b"
    cheaper = "goes to a (q): 60 s predicted, about as soon as b (reservation r), and cheaper"
    assert told(a, Candidate("b", reservation="r", total_s=58.0)) == cheaper


def test_a_hostile_name_stays_on_its_line() -> None:
    named = Candidate("a\n\x1b[2J", total_s=1.0)
    placement = Placement(NOW, named, (named,))
    assert "\x1b" not in table(placement) + sentence(placement)
    assert len(table(placement).splitlines()) == 7


def test_afterwards_prediction_and_outcome_stand_side_by_side() -> None:
    row = PlacementRow("r", "s", 1, NOW, "a", "{}", predicted_queue_s=240.0, predicted_compute_s=600.0)
    assert outcome(row) == "14 min predicted; not known yet how long it takes"
    done = PlacementRow(**{f: getattr(row, f) for f in row.__struct_fields__} | {"queue_s": 360.0, "compute_s": 600.0})
    assert outcome(done) == "16 min, predicted 14 min (queue wait 6 min, predicted 4 min)"


def test_durations_and_moments_are_for_people() -> None:
    shown = [duration(s) for s in (0, 0.04, 8, 9.5, 42, 100, 720, 5400, 12_240, 400_000)]
    assert shown == ["0 s", "0 s", "8 s", "9.5 s", "42 s", "2 min", "12 min", "1.5 h", "3.4 h", "4.6 days"]
    assert moment(NOW, NOW) == "08:00 UTC"
    assert moment(NOW + 86_400, NOW) == "16 Jan 2027 08:00 UTC"


@given(st.floats(), st.floats())
def test_any_number_has_a_text(a: float, b: float) -> None:
    assert duration(a)
    assert moment(a, b)
