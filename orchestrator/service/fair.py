"""The orders that wait for a site, handed out fairly: live scans first, then by weight between experiments.

Weighted fair queueing by virtual time: each experiment has a queue of its own whose next order carries the virtual time
at which it may go, and each that goes moves the next one on by 1/weight. So an experiment that has just come is served
next, however much others have waiting, and among those that always have work each gets its share. Costs O(log n) in the
number of experiments that wait, whatever the number of orders.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict

from orchestrator.model import Order

LIVE = "live"
WEIGHTS = {LIVE: 1.0, "": 8.0, "normal": 8.0, "backfill": 1.0}  # live ones share among themselves, before all others
MOST_IDLE = 4096  # experiments without work whose virtual time is kept, so that leaving and coming again gains nothing

Key = tuple[str, str]  # priority, experiment


class _Flow:
    """The orders of one experiment and priority."""

    def __init__(self, weight: float) -> None:
        self.step = 1.0 / weight
        self.next_at = 0.0  # virtual
        self.orders: OrderedDict[str, Order] = OrderedDict()
        self.listed = False  # has an entry in the heap, perhaps one that is out of date


class _Share:
    """The experiments that share by weight."""

    def __init__(self) -> None:
        self._now = 0.0  # virtual
        self._flows: dict[Key, _Flow] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._number = itertools.count()  # those due at once go in the order in which they came
        self._most = MOST_IDLE

    def put(self, key: Key, order: Order) -> None:
        flow = self._flows.get(key)
        if flow is None:
            self._forget_idle()
            flow = self._flows[key] = _Flow(WEIGHTS.get(key[0], 1.0))
        flow.orders[order.token] = order
        if not flow.listed:
            flow.listed = True
            flow.next_at = max(flow.next_at, self._now)
            heapq.heappush(self._heap, (flow.next_at, next(self._number), key))

    def take(self) -> Order | None:
        while self._heap:
            at, _, key = self._heap[0]
            flow = self._flows[key]
            if not flow.orders:
                heapq.heappop(self._heap)
                flow.listed = False
                continue
            self._now = at
            _, order = flow.orders.popitem(last=False)
            flow.next_at = at + flow.step
            if flow.orders:
                heapq.heapreplace(self._heap, (flow.next_at, next(self._number), key))
            else:
                heapq.heappop(self._heap)
                flow.listed = False
            return order
        return None

    def remove(self, key: Key, token: str) -> Order:
        return self._flows[key].orders.pop(token)

    def get(self, key: Key, token: str) -> Order:
        return self._flows[key].orders[token]

    def _forget_idle(self) -> None:
        if not self._heap:
            self._now, self._flows = 0.0, {}  # nobody waits, so nobody is owed anything
        elif len(self._flows) >= self._most:
            self._flows = {k: f for k, f in self._flows.items() if f.listed or f.next_at > self._now}
            self._most = max(MOST_IDLE, 2 * len(self._flows))


class Waiting:
    """What has not been sent, by token."""

    def __init__(self) -> None:
        self._first: OrderedDict[str, Order] = OrderedDict()  # may run already, so they are looked for first
        self._live, self._others = _Share(), _Share()
        self._keys: dict[str, Key] = {}

    def __len__(self) -> int:
        return len(self._first) + len(self._keys)

    def __contains__(self, token: object) -> bool:
        return token in self._keys or token in self._first

    def __getitem__(self, token: str) -> Order:
        if token in self._first:
            return self._first[token]
        key = self._keys[token]
        return self._share(key).get(key, token)

    def put(self, order: Order) -> None:
        """The same again takes the place of the one before."""
        if order.token in self:
            self.pop(order.token)
        key = self._keys[order.token] = (order.placing.priority, order.experiment)
        self._share(key).put(key, order)

    def put_first(self, order: Order) -> None:
        """Before everything else: the agent before had it."""
        self._first[order.token] = order

    def pop(self, token: str) -> Order:
        if token in self._first:
            return self._first.pop(token)
        key = self._keys.pop(token)
        return self._share(key).remove(key, token)

    def take(self) -> Order:
        """The next one; raises LookupError when none waits."""
        if self._first:
            return self._first.popitem(last=False)[1]
        order = self._live.take() or self._others.take()
        if order is None:
            raise LookupError("no order waits")
        del self._keys[order.token]
        return order

    @property
    def begun(self) -> bool:
        """May the next one run already?"""
        return bool(self._first)

    def tokens(self) -> set[str]:
        return {*self._first, *self._keys}

    def _share(self, key: Key) -> _Share:
        return self._live if key[0] == LIVE else self._others
