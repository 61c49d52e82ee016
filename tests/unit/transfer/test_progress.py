"""One line says how far a copy is, whatever carries it."""

from __future__ import annotations

from orchestrator.agent.output import PROGRESS
from orchestrator.transfer.progress import Told, line


def test_a_line() -> None:
    assert line(1_200_000_000, 2_900_000_000, 310e6) == "progress 0.4138 1.2 GB of 2.9 GB, 310 MB/s, 5 s left"
    assert line(5, 10, 0, "2 of 3") == "progress 0.5000 5 B of 10 B, 2 of 3"
    assert line(10, 10, 5) == "progress 1.0000 10 B of 10 B, 5 B/s"
    assert line(10, 0, 5).startswith("progress 0.0000 10 B, 5 B/s")
    assert line(1, 10**13, 1e6).endswith("2777.8 h left")
    assert PROGRESS.search(line(1, 3, 0).encode())


def test_at_most_two_lines_a_second_and_the_rate_is_of_late() -> None:
    now, lines = 0.0, []
    told = Told(lines.append, clock=lambda: now)
    told(800, 1000)  # was there already
    for step in range(1, 41):
        now = step * 0.05
        told(800 + step, 1000)
    assert len(lines) <= 2 / 0.5 + 1
    assert lines[-1] == "progress 0.8400 840 B of 1 kB, 20 B/s, 8 s left"
    now = 2.01
    told(1000, 1000)  # the last is told whenever it comes
    assert lines[-1].startswith("progress 1.0000 1 kB of 1 kB")


def test_the_rate_forgets_what_is_long_ago() -> None:
    now, lines = 0.0, []
    told = Told(lines.append, clock=lambda: now)
    for second in range(60):
        now = float(second)
        told(second * 1000 if second < 30 else 30_000 + (second - 30) * 10, 10**6)
    assert "10 B/s" in lines[-1]
