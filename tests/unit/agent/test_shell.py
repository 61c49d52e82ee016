from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.agent import claim, output, processes
from orchestrator.agent.shell import REFUSED, Shell
from orchestrator.model import FailureClass, Order, StageKind


@pytest.fixture
def shell() -> Shell:
    return Shell(dict(os.environ), log_cap_bytes=10_000)


def order(tmp_path: Path, command: str, **more: object) -> Order:
    given: dict[str, object] = {"working_dir": str(tmp_path), "log_dir": str(tmp_path / "run" / "logs"), **more}
    token = str(given.pop("token", "run.0.1"))
    return Order(token, StageKind.COMMAND, "s", command=command, **given)  # type: ignore[arg-type]


def running(pid: int) -> bool:
    """Alive, and not merely unburied."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_status_output_and_captures_come_back(shell: Shell, tmp_path: Path) -> None:
    outcome = shell.run(order(tmp_path, "echo count: 5; echo grumble >&2", captures=(r"count: (?P<n>\d+)",)))
    assert outcome.failure is None
    assert outcome.exit_status == 0
    assert outcome.captures == {"n": "5"}
    assert Path(outcome.stdout).read_text() == "count: 5\n"
    assert Path(outcome.stderr).read_text() == "grumble\n"
    assert outcome.ended_at >= outcome.started_at > 0


def test_failure_says_the_last_words_of_stderr(shell: Shell, tmp_path: Path) -> None:
    outcome = shell.run(order(tmp_path, "echo one >&2; echo 'no such scan' >&2; exit 3"))
    assert (outcome.failure, outcome.exit_status) == (FailureClass.USER, 3)
    assert outcome.reason == "exit status 3: no such scan"


@pytest.mark.parametrize(("status", "codes"), [(75, ()), (9, (9,))])
def test_transient_codes(shell: Shell, tmp_path: Path, status: int, codes: tuple[int, ...]) -> None:
    outcome = shell.run(order(tmp_path, f"exit {status}", transient_codes=codes))
    assert outcome.failure is FailureClass.TRANSIENT


def test_an_exit_code_that_means_sign_in_first(shell: Shell, tmp_path: Path) -> None:
    assert shell.run(order(tmp_path, "exit 77")).failure is FailureClass.USER
    asks = "echo sign in at https://sign.in >&2; exit 77"
    outcome = shell.run(order(tmp_path, asks, token="run.0.2", authentication_codes=(77,)))
    assert (outcome.failure, outcome.exit_status) == (FailureClass.AUTHENTICATION, 77)
    assert outcome.reason == "exit status 77 (not let in): sign in at https://sign.in"


def test_the_environment_is_clean_so_that_unset_names_are_empty(tmp_path: Path) -> None:
    shell = Shell({**os.environ, "smooth": "leaked"}, log_cap_bytes=1000)
    outcome = shell.run(order(tmp_path, 'echo "[$smooth][$gpuID]"'))
    assert Path(outcome.stdout).read_text() == "[][]\n"


def test_pipes_backticks_and_quotes_reach_the_shell(shell: Shell, tmp_path: Path) -> None:
    outcome = shell.run(order(tmp_path, """echo "Count: `expr 4 + 1`" | tr a-z A-Z >>x; cat x"""))
    assert Path(outcome.stdout).read_text() == "COUNT: 5\n"


def test_a_timeout_ends_the_whole_process_group(shell: Shell, tmp_path: Path) -> None:
    outcome = shell.run(order(tmp_path, "sleep 1000 & echo $!; sleep 1000", timeout_s=0.5))
    assert outcome.failure is FailureClass.TIMEOUT
    assert "0.5 s" in outcome.reason
    assert not running(int(Path(outcome.stdout).read_text()))


def test_cancel_ends_even_a_group_that_ignores_the_polite_signal(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes.end_group, "__defaults__", (0.5,))
    wanted = order(tmp_path, "trap '' TERM; (trap '' TERM; sleep 1000) & echo $!; while :; do sleep 1; done")
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(shell.run(wanted)))
    thread.start()
    out = Path(output.Paths(wanted).stdout)
    while not (out.exists() and out.read_text().strip()):
        time.sleep(0.02)
    child = int(out.read_text())
    assert shell.end(wanted.token, FailureClass.CANCELLED)
    thread.join(20)
    assert outcomes[0].failure is FailureClass.CANCELLED
    assert not running(child)


def test_a_group_of_another_account_is_said_to_be_left(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What sudo starts may not be signalled by us; only the shell around it ends."""

    def only_ours(group: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(group, number)
        raise PermissionError

    monkeypatch.setattr(os, "killpg", only_ours)
    outcome = shell.run(order(tmp_path, "sleep 3", timeout_s=0.3))
    assert outcome.failure is FailureClass.TIMEOUT
    assert "another account" in outcome.reason


def test_cancel_before_the_beginning_means_it_never_begins(shell: Shell, tmp_path: Path) -> None:
    wanted = order(tmp_path, "touch began")
    assert not shell.end(wanted.token, FailureClass.CANCELLED)
    assert shell.run(wanted).failure is FailureClass.CANCELLED
    assert not (tmp_path / "began").exists()


def test_a_long_output_is_capped(tmp_path: Path) -> None:
    shell = Shell(dict(os.environ), log_cap_bytes=1000)
    outcome = shell.run(order(tmp_path, "yes | head -c 100000"))
    assert os.path.getsize(outcome.stdout) < 1200


def test_a_missing_working_directory_is_a_sentence(shell: Shell, tmp_path: Path) -> None:
    outcome = shell.run(order(tmp_path, "true", working_dir=str(tmp_path / "absent")))
    assert outcome.failure is FailureClass.USER
    assert "absent does not exist" in outcome.reason


@pytest.mark.parametrize(("trouble", "failure"), [(errno.ENOSPC, FailureClass.LOST), (errno.EACCES, FailureClass.USER)])
def test_a_full_disk_says_nothing_about_the_command(
    shell: Shell, tmp_path: Path, trouble: int, failure: FailureClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: output.Paths) -> tuple[int, int]:
        raise OSError(trouble, os.strerror(trouble))

    monkeypatch.setattr(output.Paths, "open", full)
    outcome = shell.run(order(tmp_path, "touch began"))
    assert (outcome.failure, os.strerror(trouble) in outcome.reason) == (failure, True)
    assert not (tmp_path / "began").exists()


ORPHAN = """
import os, sys
from orchestrator.agent.shell import Shell
from orchestrator.model import Order, StageKind
import threading, time
here, command = sys.argv[1:]
order = Order("run.0.1", StageKind.COMMAND, "s", command=command, working_dir=here, log_dir=here + "/run/logs")
threading.Thread(target=Shell(dict(os.environ), log_cap_bytes=1000).run, args=(order,), daemon=True).start()
while not os.path.exists(here + "/began"): time.sleep(0.01)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("still_running", [True, False])
def test_a_command_whose_agent_was_killed_is_adopted_not_repeated(
    shell: Shell, tmp_path: Path, still_running: bool
) -> None:
    command = "echo x >> began; sleep 1; echo value 7; exit 0"
    agent = subprocess.run([sys.executable, "-c", ORPHAN, str(tmp_path), command], check=False)
    assert agent.returncode == -9
    if not still_running:
        time.sleep(1.5)
    outcome = shell.run(order(tmp_path, command, adopt=True, captures=(r"value (?P<v>\d)",)))
    assert outcome.failure is None
    assert outcome.captures == {"v": "7"}
    assert (tmp_path / "began").read_text() == "x\n"


@pytest.mark.parametrize("when", ["before it is looked for", "while it is looked for"])
def test_a_cancel_finds_the_command_that_a_killed_agent_left(
    shell: Shell, tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "echo $$ > began; sleep 1000"
    subprocess.run([sys.executable, "-c", ORPHAN, str(tmp_path), command], check=False)
    wanted = order(tmp_path, command, adopt=True)
    if when.startswith("before"):
        shell.end(wanted.token, FailureClass.CANCELLED)
    else:
        found = list(processes.with_environment(processes.TOKEN, wanted.token))

        def late(name: str, value: str) -> list[psutil.Process]:
            shell.end(wanted.token, FailureClass.CANCELLED)
            return found

        monkeypatch.setattr(processes, "with_environment", late)
    assert shell.run(wanted).failure is FailureClass.CANCELLED
    assert not running(int((tmp_path / "began").read_text()))


def test_a_command_that_died_with_its_agent_is_lost(shell: Shell, tmp_path: Path) -> None:
    wanted = order(tmp_path, "sleep 1000", adopt=True)
    claim.take(output.Paths(wanted).claim(0))
    outcome = shell.run(wanted)
    assert outcome.failure is FailureClass.LOST


def test_an_order_to_adopt_that_never_began_begins(shell: Shell, tmp_path: Path) -> None:
    assert shell.run(order(tmp_path, "echo fresh", adopt=True)).failure is None


def test_an_agent_that_wakes_does_not_begin_what_another_has_adopted(shell: Shell, tmp_path: Path) -> None:
    """It hung just before the start, and the other has begun, ended and tidied up meanwhile."""
    other = Shell(dict(os.environ), log_cap_bytes=1000)
    adopted = order(tmp_path, "echo x >> began", adopt=True)
    assert other.run(adopted).failure is None
    output.tidy(output.Paths(adopted), well=True, begun=True, adopted=True)
    assert shell.run(order(tmp_path, "echo x >> began")).failure is FailureClass.LOST
    assert (tmp_path / "began").read_text() == "x\n"


@pytest.mark.parametrize("ended", [True, False])
def test_a_restored_store_does_not_know_that_it_has_begun_an_attempt(shell: Shell, tmp_path: Path, ended: bool) -> None:
    """Its end is taken from the disk; without one it was lost, and is tried again."""
    wanted = order(tmp_path, "echo x >> began")
    assert shell.run(wanted).failure is None
    if not ended:
        os.unlink(output.Paths(wanted).exit)
    assert shell.run(wanted).failure is (None if ended else FailureClass.LOST)
    assert (tmp_path / "began").read_text() == "x\n"


def test_a_command_may_end_as_one_does_that_was_refused(shell: Shell, tmp_path: Path) -> None:
    outcome = shell.run(order(tmp_path, f"exit {REFUSED}"))
    assert (outcome.failure, outcome.exit_status) == (FailureClass.USER, REFUSED)


def test_a_claim_that_cannot_be_made_loses_the_attempt_and_not_the_run(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / ".claims" / "run.0.1.0").mkdir(parents=True)
    outcome = shell.run(order(tmp_path, "touch began"))
    assert outcome.failure is FailureClass.LOST
    assert not (tmp_path / "began").exists()
