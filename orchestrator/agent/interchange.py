"""`python -m orchestrator.agent.interchange STATE LEASE_S`: Parsl's interchange, which outlives its agent for a while.

It knows the token of every task it holds, and keeps the last results: the next agent asks for both, so nothing has to
be written down for each task. What no worker has got yet is dropped when the next agent says hello, and ordered anew by
it. When no agent has said anything for `LEASE_S`, the workers are told to end, and this process ends with them.

What an agent asks comes between its tasks, and the answer between the results: on both ways nothing is overtaken.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
from parsl.executors.high_throughput.interchange import PKL_SHUTDOWN_CODE, Interchange
from parsl.serialize import serialize

HELLO, AGAIN, ALIVE = "hello", "again", "alive"  # what an agent asks, in the context of what looks like a task
KEPT_BYTES, KEPT_MOST = 32_000_000, 4096  # of the last results; a service has an eighth of them under way at most
FLUSH_S = 0.5  # for the last messages to leave


Task = tuple[str, str]  # token, and path of the mark that ends it
Held = tuple[dict[int, Task], dict[int, Task]]  # by the numbers that Parsl gives them: what runs, and what has ended


class _Kept:
    """The way out for results; each is shown to `keep` as well."""

    def __init__(self, socket: Any, keep: Callable[[bytes], None]) -> None:
        self._socket, self._keep = socket, keep

    def send(self, message: bytes) -> None:
        self._keep(message)
        self._socket.send(message)


class Last:
    """The last results, by number."""

    def __init__(self) -> None:
        self.results: OrderedDict[int, tuple[Task, bytes]] = OrderedDict()
        self._bytes = 0

    def add(self, number: int, task: Task, result: bytes) -> None:
        self.results[number] = (task, result)
        self._bytes += len(result)
        while self._bytes > KEPT_BYTES or len(self.results) > KEPT_MOST:
            _, (_, oldest) = self.results.popitem(last=False)
            self._bytes -= len(oldest)


class Lasting(Interchange):
    def __init__(self, *, state: Path, lease_s: float, **config: Any) -> None:
        super().__init__(**config)
        self._state, self._lease_s = state, lease_s
        self._heard_at = time.monotonic()
        self._held: dict[int, Task] = {}
        self._ended = Last()
        self._results = self.results_outgoing
        self.results_outgoing: Any = _Kept(self._results, self._keep)

    def process_task_incoming(self) -> None:
        """Called in every turn of Parsl's loop."""
        if self.socks.get(self.task_incoming) != zmq.POLLIN:
            if time.monotonic() - self._heard_at > self._lease_s:
                self._end()
            return
        message = self.task_incoming.recv_pyobj()
        self._heard_at = time.monotonic()
        context, number = message["context"], message["task_id"]
        asked = context.get("asked")
        if asked == HELLO:
            answer = {"type": "result", "task_id": number, "result": serialize(self._hello())}
            self._results.send(pickle.dumps(answer))
        elif asked == AGAIN:
            for _, result in self._ended.results.values():
                self._results.send(result)
        elif asked is None:
            self._held[number] = (context["token"], context["mark"])
            priority = context.get("resource_spec", {}).get("priority", float("inf"))
            self.pending_task_queue.add((-priority, -number, message))

    def _hello(self) -> Held:
        for *_, message in self.pending_task_queue:
            self._held.pop(message["task_id"], None)
        self.pending_task_queue.clear()
        return dict(self._held), {number: task for number, (task, _) in self._ended.results.items()}

    def _keep(self, result: bytes) -> None:
        number = pickle.loads(result)["task_id"]
        task = self._held.pop(number, None)
        if task is not None:
            self._ended.add(number, task, result)

    def _end(self) -> None:
        self._state.unlink(missing_ok=True)  # a block that is still queued ends as soon as it starts
        for manager in list(self._ready_managers):
            self.manager_sock.send_multipart([manager, PKL_SHUTDOWN_CODE])
        time.sleep(FLUSH_S)
        os._exit(0)  # not kept up by threads of Parsl's


def main(state: str, lease_s: str) -> None:
    os.setsid()  # the end of the agent's terminal is not ours
    config = pickle.load(sys.stdin.buffer)
    Lasting(state=Path(state), lease_s=float(lease_s), **config).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
