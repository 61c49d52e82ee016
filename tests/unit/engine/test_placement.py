from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from orchestrator.engine import place_estimates as estimates
from orchestrator.engine.place_words import LONGEST_S
from orchestrator.engine.placement import (
    Candidate,
    Closed,
    Correction,
    Need,
    NodeFacts,
    Placement,
    QueueFacts,
    Rate,
    ReservationFacts,
    SiteFacts,
    Timing,
    choose,
    corrections,
    fallback,
    fits,
    read,
    row,
)
from orchestrator.model import Resources
from orchestrator.store.measured import Wait

NOW = 1_800_000_000.0  # 15 Jan 2027 08:00 UTC
GB = 10**9


def site(name: str = "a", *queues: QueueFacts, **more: Any) -> SiteFacts:
    given: dict[str, Any] = {"scheduler": True, "shared": ("/",), **more}
    return SiteFacts(name, queues=queues or (QueueFacts("regular"),), **given)


def need(*, nodes: int = 1, walltime_s: float = 600.0, resources: Resources | None = None, **more: Any) -> Need:
    asked = resources or Resources(nodes=nodes, walltime_s=walltime_s)
    return Need(asked, workflow="w", stage="s", **more)


def ran(where: str, compute_s: float, **more: Any) -> Timing:
    return Timing("w", "s", where, compute_s, **more)


def only(asked: Need, *sites: SiteFacts, **more: Any) -> Candidate:
    placement = choose(asked, sites, now=NOW, **more)
    assert len(placement.table) == 1
    return placement.table[0]


# ----------------------------------------------------------------------------------------------------------- the choice


def test_the_least_turnaround_wins_and_all_are_listed_in_order() -> None:
    sites = [site(n, starts_in_s={"regular": s}) for n, s in (("slow", 900.0), ("fast", 60.0), ("middle", 300.0))]
    placement = choose(need(), sites, now=NOW)
    assert [c.site for c in placement.table] == ["fast", "middle", "slow"]
    assert placement.chosen == placement.table[0]
    assert placement.chosen.total_s == 60.0 + 600.0


def test_a_slow_transfer_can_cost_more_than_a_queue() -> None:
    here, there = site("here", starts_in_s={"regular": 600.0}), site("there", shared=(), starts_in_s={"regular": 0.0})
    rates = {("local", "there"): Rate(1e8, 4)}
    assert [
        c.site if (c := choose(need(input_bytes=size), [here, there], rates=rates, now=NOW).chosen) else ""
        for size in (50 * GB, 70 * GB)
    ] == ["there", "here"]


def test_totals_that_are_as_good_as_equal_go_to_the_cheaper_then_to_the_first() -> None:
    dear = site("dear", QueueFacts("q", cost=2.0), starts_in_s={"q": 0.0})
    cheap = site("cheap", QueueFacts("q", cost=1.0), starts_in_s={"q": 10.0})
    later = site("later", QueueFacts("q", cost=1.0), starts_in_s={"q": 10.0})
    placement = choose(need(), [dear, cheap, later], now=NOW)
    assert [c.site for c in placement.table] == ["cheap", "dear", "later"]
    much_later = replace(cheap, starts_in_s={"q": 100.0})
    assert _chosen(choose(need(), [dear, much_later], now=NOW)) == "dear"


def test_each_queue_of_a_site_is_a_candidate_but_those_for_debugging_only_when_asked_for() -> None:
    queues = (QueueFacts("regular"), QueueFacts("demand", use="demand"), QueueFacts("debug", use="debug"))
    assert [c.queue for c in choose(need(), [site("a", *queues)], now=NOW).table] == ["demand", "regular"]
    assert only(need(queue="debug"), site("a", *queues)).queue == "debug"
    assert only(need(), site("a", queues[2])).queue == "debug"  # it has no other


def test_a_queue_may_be_asked_for_by_its_use() -> None:
    queues = (QueueFacts("workq"), QueueFacts("now-1", use="realtime"), QueueFacts("now-2", use="realtime"))
    placement = choose(need(queue="realtime"), [site("a", *queues)], now=NOW)
    assert {c.queue for c in placement.table} == {"now-1", "now-2"}


def test_a_stage_that_names_a_site_is_predicted_there_only() -> None:
    assert only(need(site="b"), site("a"), site("b")).site == "b"


def test_no_site_or_none_possible_gives_no_choice() -> None:
    assert choose(need(), [], now=NOW) == Placement(NOW, workflow="w", stage="s")
    assert choose(need(), [site(answers=False)], now=NOW).chosen is None


def test_work_without_a_queue_starts_at_once_behind_our_own_work() -> None:
    local = SiteFacts("local", shared=("/",))
    assert only(need(), local).queue_s == 0
    busy = only(need(), replace(local, backlog_s=300.0))
    assert busy.queue_s == 300
    assert "5 min of our own work before it" in busy.queue_basis


# ---------------------------------------------------------------------------------------------------- what is forbidden


@pytest.mark.parametrize(
    ("asked", "queue", "node", "said"),
    [
        (Resources(nodes=4), {"max_nodes": 2}, {}, "needs 4 nodes; debug allows 2"),
        (Resources(nodes=1), {"min_nodes": 10}, {}, "needs 1 node; debug takes no job of less than 10"),
        (Resources(nodes=9), {"nodes": 8}, {}, "needs 9 nodes; debug has 8"),
        (
            Resources(ranks_per_node=4, cores_per_rank=16),
            {},
            {"cores": 32},
            "needs 64 cores on a node (4 ranks of 16 cores); a node of debug has 32",
        ),
        (
            Resources(ranks_per_node=8, gpus_per_rank=1),
            {},
            {"gpus": 4},
            "needs 8 GPUs on a node (8 ranks of 1 GPU); a node of debug has 4",
        ),
        (Resources(gpus_per_rank=1), {}, {}, "needs 1 GPU on a node (1 rank of 1 GPU); a node of debug has none"),
        (
            Resources(memory_bytes=512 * GB),
            {},
            {"memory_bytes": 256 * GB},
            "needs 512 GB of memory; a node of debug has 256 GB",
        ),
        (Resources(walltime_s=7200), {"max_walltime_s": 1800}, {}, "needs 2.0 h of walltime; debug allows 30 min"),
    ],
)
def test_a_limit_of_the_profile_is_named(
    asked: Resources, queue: dict[str, Any], node: dict[str, Any], said: str
) -> None:
    there = site("a", QueueFacts("debug", node=NodeFacts(**node), **queue))
    assert fits(Need(asked), there) == said
    assert only(Need(asked), there).excluded == said


def test_a_site_fits_when_one_of_its_queues_does_and_else_names_the_nearest_limit() -> None:
    small, large = QueueFacts("small", max_nodes=2), QueueFacts("large", max_nodes=64, use="demand")
    assert fits(need(nodes=8), site("a", small, large)) == ""
    assert fits(need(nodes=99), site("a", small, large)) == "needs 99 nodes; large allows 64"
    assert fits(need(nodes=8, queue="small"), site("a", small, large)) == "needs 8 nodes; small allows 2"


def test_unknown_limits_forbid_nothing() -> None:
    big = Resources(nodes=500, ranks_per_node=64, cores_per_rank=4, memory_bytes=10**12, walltime_s=10**6)
    assert fits(Need(big), site()) == ""


def test_a_word_the_site_does_not_know_is_refused_with_a_suggestion() -> None:
    there = site("a", QueueFacts("regular"), reservations=(ReservationFacts("beamtime"),))
    assert fits(need(queue="regualr"), there) == "has no queue 'regualr'; it has regular. Did you mean 'regular'?"
    assert "Did you mean 'beamtime'?" in fits(need(reservation="beamtine"), there)
    assert fits(need(queue="x"), SiteFacts("local")) == "has no queue 'x'; its profile names none"


def test_policies_keep_data_away() -> None:
    assert only(need(export_controlled=True), site()).excluded == "export-controlled data may not go there"
    assert not only(need(export_controlled=True), site(export_control=True)).excluded
    ours = site(experiments=("8id-*",))
    assert not only(need(experiment="8id-2026"), ours).excluded
    assert "'2bm-2026' may not be processed there (only 8id-*)" in only(need(experiment="2bm-2026"), ours).excluded
    assert "data of no experiment" in fits(need(), ours)


def test_a_silent_site_is_out_since_when_and_whom_to_call() -> None:
    silent = site(answers=False, silent_since=NOW - 17_280, contact="Ann")
    assert only(need(), silent).excluded == "does not answer since 03:12 UTC (call Ann)"


def test_a_queue_that_takes_no_jobs_is_out() -> None:
    assert only(need(), site("a", QueueFacts("regular", open=False))).excluded == "regular takes no jobs now"


def test_data_that_cannot_get_there_keep_a_site_out() -> None:
    assert "no door for data" in only(need(input_bytes=GB), site(shared=())).excluded
    assert not only(need(), site(shared=())).excluded


# ---------------------------------------------------------------------------------------------------------- maintenance


def test_a_site_in_maintenance_is_out_and_it_is_known_when_to_ask_again() -> None:
    there = site(maintenance=(Closed(NOW - 60, NOW + 21_600, "fabric"),))
    placement = choose(need(), [there, site("b", answers=False)], now=NOW)
    assert placement.table[0].excluded == "maintenance until 14:00 UTC (fabric)"
    assert placement.again_at == NOW + 21_600


def test_a_job_that_maintenance_would_cut_starts_after_it() -> None:
    there = site(maintenance=(Closed(NOW + 500, NOW + 3600),), starts_in_s={"regular": 0.0})
    candidate = only(need(walltime_s=600), there)
    assert candidate.queue_s == 3600
    assert "after 09:00 UTC" in candidate.queue_basis
    assert candidate.raw_queue_s < 0  # the window made the wait: nothing to learn about the queue
    assert only(need(walltime_s=400), there).queue_s == 0


def test_between_two_maintenances_there_must_be_room_too() -> None:
    closed = (Closed(NOW + 4000, NOW + 5000), Closed(NOW + 100, NOW + 3600))
    assert only(need(walltime_s=600), site(maintenance=closed, starts_in_s={"regular": 0.0})).queue_s == 5000


# --------------------------------------------------------------------------------------------------------- reservations


def held(**more: Any) -> ReservationFacts:
    return ReservationFacts("beam", **{"queue": "regular", "nodes": 4, **more})


def test_an_open_reservation_that_fits_has_no_wait() -> None:
    there = site(reservations=(held(from_at=NOW - 60, until_at=NOW + 3600),), starts_in_s={"regular": 300.0})
    chosen = choose(need(), [there], now=NOW).table[0]
    assert (chosen.reservation, chosen.queue_s, chosen.queue_basis) == ("beam", 0.0, "reservation beam is open")


def test_one_that_opens_later_is_waited_for_when_that_is_shorter() -> None:
    there = site(reservations=(held(from_at=NOW + 120, until_at=NOW + 3600),), starts_in_s={"regular": 300.0})
    table = choose(need(), [there], now=NOW).table
    assert [(c.reservation, c.queue_s) for c in table] == [("beam", 120.0), ("", 300.0)]
    assert table[0].queue_basis == "reservation beam opens at 08:02 UTC"


def test_the_transfer_counts_into_the_time_before_it_closes() -> None:
    window = held(from_at=NOW - 60, until_at=NOW + 650)
    there = site(reservations=(window,), shared=(), doors=(1e9,))
    assert choose(need(input_bytes=40 * GB), [there], now=NOW).table[0].reservation == "beam"
    late = choose(need(input_bytes=60 * GB), [there], now=NOW).table[-1]
    assert late.excluded == "reservation beam closes at 08:10 UTC; 10 min do not fit after 60 s of transfer"


@pytest.mark.parametrize(
    ("window", "asked", "said"),
    [
        ({"from_at": NOW - 9, "until_at": NOW - 1}, {}, "reservation beam was over at 07:59 UTC"),
        ({"until_at": NOW + 500}, {}, "reservation beam closes at 08:08 UTC; 10 min do not fit"),
        ({}, {"nodes": 5}, "needs 5 nodes; reservation beam has 4"),
        ({"free_nodes": 1}, {"nodes": 2}, "needs 2 nodes; reservation beam has 1 free"),
        ({"free_nodes": 0}, {"nodes": 2}, "needs 2 nodes; reservation beam has none free"),
        ({"experiments": ("8id-*",)}, {}, "reservation beam is for 8id-*"),
        ({"from_at": NOW + 1000}, {}, "reservation beam would be cut by maintenance at 08:20 UTC"),
    ],
)
def test_a_named_reservation_that_does_not_fit_says_why(
    window: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    there = site(reservations=(held(**window),), maintenance=(Closed(NOW + 1200, NOW + 1300),))
    assert only(need(reservation="beam", **asked), there).excluded == said


def test_a_reservation_is_only_used_by_its_experiments_and_not_by_who_wants_none() -> None:
    there = site(reservations=(held(experiments=("8id-*",)),))
    assert only(need(experiment="2bm-1"), there).reservation == ""
    assert only(need(experiment="8id-1", reservation="none"), there).reservation == ""
    assert choose(need(experiment="8id-1"), [there], now=NOW).table[0].reservation == "beam"


# ------------------------------------------------------------------------------------------------------------ estimates


def test_a_transfer_is_predicted_from_what_was_measured_else_from_the_door() -> None:
    there = site(shared=("/data",), doors=(1e8, 2e8))
    asked = need(input_bytes=2 * GB, paths=("/scans/x.h5",))
    assert only(asked, there).transfer_s == 10
    assert "not measured yet" in only(asked, there).transfer_basis
    measured = only(asked, there, rates={("local", "a"): Rate(4e8, 12)})
    assert (measured.transfer_s, measured.transfer_basis) == (5.0, "2 GB at 400 MB/s, measured in 12 transfers")


def test_files_that_the_site_sees_are_not_moved() -> None:
    there = site(shared=("/data",), doors=(1e8,))
    assert only(need(input_bytes=GB, paths=("/data/x", "/data/../data/y")), there).transfer_s == 0
    assert only(need(input_bytes=GB, paths=("/data/x", "/database/y")), there).transfer_s == 5  # half of them
    assert only(need(input_bytes=GB, paths=("/x",), data_at="a"), there).transfer_s == 0


def test_a_scheduler_that_cannot_say_leaves_it_to_idle_nodes_then_to_earlier_waits_then_to_a_rule_of_thumb() -> None:
    idle = site("a", QueueFacts("regular", idle_nodes=12, nodes=64), starts_in_s={"regular": None})
    assert only(need(), idle).queue_basis == "12 idle nodes, nobody waits"
    busy = site("a", QueueFacts("regular", idle_nodes=0, nodes=64, pending=3))
    assert only(need(), busy).queue_basis == "guess: too few idle nodes, 3 jobs wait"
    waited = [ran("a", 1.0, queue_s=q) for q in (10.0, 20.0, 90.0)]
    assert (only(need(), busy, history=waited).queue_s) == 20
    assert only(need(), busy, history=waited).queue_basis == "median of 3 waits"
    assert only(need(), site()).queue_basis == "guess for a regular queue"


def test_an_old_answer_of_the_scheduler_is_told_and_a_very_old_one_not_believed() -> None:
    there = site(starts_in_s={"regular": 5.0}, starts_by="squeue --start", measured_at=NOW - 300)
    assert only(need(), there).queue_basis == "squeue --start, 5 min old"
    assert "guess" in only(need(), replace(there, measured_at=NOW - 7200)).queue_basis


def test_without_history_the_walltime_counts_else_a_guess() -> None:
    assert only(need(walltime_s=1200), site()).compute_basis == "its walltime: no history"
    guess = only(need(walltime_s=0), site())
    assert (guess.compute_s, guess.compute_basis) == (600.0, "guess: no history")


def test_runs_of_like_size_give_their_median() -> None:
    runs = [ran("a", s, input_bytes=2 * GB) for s in (10.0, 12.0, 500.0)]
    candidate = only(need(input_bytes=2 * GB), site(), history=runs)
    assert (candidate.compute_s, candidate.compute_basis) == (12.0, "median of 3 runs of 2 GB")


def test_another_size_is_read_off_a_line_that_one_odd_run_does_not_bend() -> None:
    runs = [ran("a", 30.0 + 10.0 * n, input_bytes=n * GB) for n in range(1, 10)] + [
        ran("a", 9999.0, input_bytes=5 * GB)
    ]
    candidate = only(need(input_bytes=20 * GB), site(), history=runs)
    assert candidate.compute_s == pytest.approx(230.0, rel=0.05)
    assert candidate.compute_basis == "line through 10 runs of 1 GB to 9 GB"


def test_one_run_is_taken_in_proportion() -> None:
    candidate = only(need(input_bytes=4 * GB), site(), history=[ran("a", 60.0, input_bytes=GB)])
    assert (candidate.compute_s, candidate.compute_basis) == (240.0, "1 run of 1 GB, in proportion")


def test_runs_with_other_ranks_are_scaled_and_not_used_where_there_are_enough_of_the_same() -> None:
    asked = need(resources=Resources(nodes=2, ranks_per_node=4))
    other = [ran("a", 800.0, ranks=1)]
    scaled = only(asked, site(), history=other)
    assert scaled.compute_s == pytest.approx(800 / 8**0.8)
    assert "scaled to its ranks" in scaled.compute_basis
    same = [ran("a", 50.0, ranks=8) for _ in range(3)]
    assert only(asked, site(), history=[*other, *same]).compute_s == 50


def test_a_site_without_history_is_predicted_from_the_others() -> None:
    runs = [ran("b", 100.0), ran("c", 300.0), ran("c", 300.0), replace(ran("a", 5.0), stage="other")]
    candidate = only(need(), site("a"), history=runs)
    assert (candidate.compute_s, candidate.compute_basis) == (200.0, "3 runs at b and c, none here")


def test_a_run_that_may_be_cut_by_its_walltime_is_told() -> None:
    candidate = only(need(walltime_s=60), site(), history=[ran("a", 120.0)])
    assert candidate.note == "may be cut: 2 min predicted, 60 s of walltime"


# ----------------------------------------------------------------------------------------------- learning, falling back


def test_waits_that_came_out_longer_lengthen_the_next_prediction_within_bounds() -> None:
    learned = corrections({"a": [Wait("a", 300.0, 660.0)] * 3, "b": [Wait("b", 1.0, 9e9)] * 9, "c": [Wait("c", 1, 99)]})
    assert learned["a"] == Correction(2.0, 3)
    assert learned["b"].factor == 4.0
    assert learned["c"] == Correction()  # too few to learn from
    there = site(starts_in_s={"regular": 240.0}, starts_by="squeue --start")
    candidate = only(need(), there, corrections=learned)
    assert (candidate.queue_s, candidate.raw_queue_s) == (540.0, 240.0)
    assert candidate.queue_basis == "squeue --start; corrected ×2.0 after 3 waits there"


def test_falling_back_takes_the_next_that_has_not_failed() -> None:
    sites = [
        site("a", QueueFacts("q"), QueueFacts("r"), starts_in_s={"q": 0.0, "r": 50.0}),
        site("b", starts_in_s={"regular": 500.0}),
    ]
    first = choose(need(), sites, now=NOW)
    assert _chosen(first) == "a/q"
    assert _chosen(fallback(first, {"a/q"})) == "a/r"
    second = fallback(first, {"a"})
    assert _chosen(second) == "b/regular"
    assert {c.site: c.excluded for c in second.table} == {"a": "was tried and failed", "b": ""}
    assert fallback(second, {"b"}).chosen is None


def test_a_placement_is_stored_and_read_back() -> None:
    placement = choose(need(), [site("a", reservations=(held(),)), site("b", answers=False)], now=NOW)
    stored = row(placement, "r1", 2)
    assert (stored.chosen, stored.reservation, stored.stage, stored.attempt) == ("a", "beam", "s", 2)
    assert read(stored) == placement
    assert row(choose(need(), [], now=NOW), "r1", 1).chosen == ""


def _chosen(placement: Placement) -> str:
    c = placement.chosen
    return "" if c is None else f"{c.site}/{c.queue}" if c.queue != "q" or c.site == "a" else c.site


# ----------------------------------------------------------------------------------------------------------- properties

any_float = st.floats() | st.floats(-10, 1e5)
small = st.integers(0, 6)
moments = st.floats(NOW - 5000, NOW + 9000)
nodes = st.builds(NodeFacts, cores=small, memory_bytes=small, gpus=small)
queues = st.builds(
    QueueFacts,
    name=st.sampled_from(["q", "r", "s"]),
    use=st.sampled_from(["regular", "debug", "demand", "other"]),
    max_nodes=small,
    min_nodes=small,
    max_walltime_s=st.floats(0, 5000),
    cost=st.floats(0, 3),
    node=st.none() | nodes,
    open=st.booleans(),
    nodes=small,
    idle_nodes=st.none() | st.integers(-2, 9),
    pending=st.integers(-2, 9),
)
reserved = st.builds(
    ReservationFacts,
    name=st.sampled_from(["x", "y"]),
    queue=st.sampled_from(["", "q", "r", "gone"]),
    from_at=st.just(0.0) | moments,
    until_at=st.just(0.0) | moments,
    nodes=small,
    free_nodes=st.none() | small,
    experiments=st.sampled_from([(), ("e*",), ("f",)]),
)
sites_any = st.builds(
    SiteFacts,
    name=st.sampled_from(["a", "b", "c", "local"]),
    queues=st.lists(queues, max_size=3, unique_by=lambda q: q.name).map(tuple),
    reservations=st.lists(reserved, max_size=2).map(tuple),
    maintenance=st.lists(st.builds(Closed, from_at=moments, until_at=moments), max_size=2).map(tuple),
    node=nodes,
    node_count=small,
    scheduler=st.booleans(),
    starts_in_s=st.dictionaries(st.sampled_from(["", "q", "r", "s"]), st.none() | any_float),
    measured_at=st.just(0.0) | any_float,
    backlog_s=any_float,
    export_control=st.booleans(),
    experiments=st.sampled_from([("*",), ("e*",), ()]),
    doors=st.lists(any_float, max_size=2).map(tuple),
    shared=st.sampled_from([(), ("/",), ("/d",)]),
    answers=st.booleans(),
    silent_since=st.just(0.0) | any_float,
)
needs = st.builds(
    Need,
    resources=st.builds(
        Resources,
        nodes=small,
        ranks_per_node=small,
        gpus_per_rank=small,
        cores_per_rank=small,
        memory_bytes=small,
        walltime_s=st.floats(0, 9000),
    ),
    workflow=st.just("w"),
    stage=st.just("s"),
    input_bytes=st.integers(-1, 10**13),
    paths=st.lists(st.sampled_from(["/d/x", "/e/y", ""]), max_size=2).map(tuple),
    experiment=st.sampled_from(["", "e1", "f"]),
    export_controlled=st.booleans(),
    queue=st.sampled_from(["", "", "q", "demand", "none such"]),
    reservation=st.sampled_from(["", "", "auto", "none", "x"]),
)
histories = st.lists(
    st.builds(
        Timing,
        workflow=st.just("w"),
        stage=st.sampled_from(["s", "s", "other"]),
        site=st.sampled_from(["a", "b", "c"]),
        compute_s=any_float,
        input_bytes=st.integers(-1, 10**13),
        ranks=st.integers(-1, 8),
        gpus=st.integers(-1, 8),
        queue_s=any_float,
    ),
    max_size=8,
)
rate_tables = st.dictionaries(
    st.tuples(st.just("local"), st.sampled_from(["a", "b", "c"])), st.builds(Rate, bytes_per_s=any_float)
)
site_lists = st.lists(sites_any, max_size=4)


@given(needs, site_lists, histories, rate_tables)
def test_a_choice_is_total_deterministic_and_never_what_is_excluded(
    asked: Need, sites: list[SiteFacts], history: list[Timing], rates: dict[tuple[str, str], Rate]
) -> None:
    placement = choose(asked, sites, now=NOW, history=history, rates=rates)
    assert placement == choose(asked, sites, now=NOW, history=history, rates=rates)
    possible = [c for c in placement.table if not c.excluded]
    assert (placement.chosen is None) == (not possible)
    if placement.chosen is not None:
        assert placement.chosen is placement.table[0]
        assert placement.chosen.total_s <= min(c.total_s for c in possible) * 1.02 + 5.0
    for c in possible:
        times = (c.transfer_s, c.queue_s, c.compute_s, c.total_s)
        assert all(math.isfinite(t) and t >= 0 for t in times)
        assert all((c.transfer_basis, c.queue_basis, c.compute_basis))
    assert [bool(c.excluded) for c in placement.table] == sorted(bool(c.excluded) for c in placement.table)
    assert read(row(placement, "r", 1)) == placement


@given(needs, site_lists)
def test_what_does_not_fit_is_never_chosen(asked: Need, sites: list[SiteFacts]) -> None:
    for one in sites:
        if fits(asked, one):
            assert choose(asked, [one], now=NOW).chosen is None


@given(needs, site_lists, histories, rate_tables, st.sampled_from(["rate", "wait", "backlog"]), st.floats(0, 1))
def test_a_site_made_faster_does_not_lose_the_choice(
    asked: Need,
    sites: list[SiteFacts],
    history: list[Timing],
    rates: dict[tuple[str, str], Rate],
    what: str,
    share: float,
) -> None:
    by = {"a": Correction(0.25, 3), "b": Correction(4.0, 3)}
    placement = choose(asked, sites, now=NOW, history=history, rates=rates, corrections=by)
    best = placement.chosen
    if best is None or len({s.name for s in sites}) < len(sites):
        return
    old = next(s for s in sites if s.name == best.site)
    new = old
    if what == "backlog":
        new = replace(old, backlog_s=(estimates.bounded(old.backlog_s) or 0.0) * share)
    elif what == "wait":
        faster = {q: s * share if s is not None and estimates.bounded(s) else s for q, s in old.starts_in_s.items()}
        new = replace(old, starts_in_s=faster)
    elif best.transfer_s > 0:
        rates = {**rates, ("local", best.site): Rate(asked.input_bytes / (best.transfer_s * max(share, 0.01)))}
    after = choose(
        asked, [new if s is old else s for s in sites], now=NOW, history=history, rates=rates, corrections=by
    )
    assert after.chosen is not None
    assert after.chosen.site == best.site


@given(st.lists(st.tuples(st.integers(0, 10**13), st.floats(0, 1e6)), min_size=3, max_size=20))
def test_a_line_through_runs_never_begins_below_zero_or_falls(points: list[tuple[int, float]]) -> None:
    start, slope = estimates._line(points) or (0.0, 0.0)
    assert start >= 0
    assert slope >= 0


def test_a_door_that_lets_next_to_nothing_through_is_no_short_cut() -> None:
    assert only(need(input_bytes=GB), site(shared=(), doors=(1e-310,))).transfer_s == LONGEST_S
    for useless in (0.0, -1.0, math.nan, math.inf):
        assert "no door" in only(need(input_bytes=GB), site(shared=(), doors=(useless,))).excluded


@given(st.lists(st.builds(Wait, site=st.just("a"), predicted_s=any_float, actual_s=any_float), max_size=30))
def test_a_correction_stays_within_its_bounds(waits: list[Wait]) -> None:
    least, most = estimates.CORRECTION_LIMITS
    assert least <= estimates.correction(waits).factor <= most


@given(needs, site_lists, histories)
def test_falling_back_site_by_site_ends(asked: Need, sites: list[SiteFacts], history: list[Timing]) -> None:
    placement, failed = choose(asked, sites, now=NOW, history=history), set()
    while placement.chosen is not None:
        assert placement.chosen.site not in failed
        failed.add(placement.chosen.site)
        placement = fallback(placement, failed)
    assert len(failed) <= len(sites)
