"""How things end early: a node and everything below it, without recursion, each exactly once."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Coroutine
from typing import Any

from .errors import Cancelled
from .queues import Queues
from .settle import Settler
from .tree import DONE, FLYING, PAUSED, QUEUED, Group, Task, Ticket

Ready = deque[tuple[Task, Any, Exception | None]]


class Endings:
    """Cancels. `ready` is where those who waited for what is gone are told."""

    def __init__(self, queues: Queues, settler: Settler, ready: Ready) -> None:
        self.queues, self.settler, self.ready = queues, settler, ready

    def drop(self, group: Group[Any]) -> None:
        """Draw nothing more. Coroutines that a collection still holds are closed: nobody else will."""
        source, group.source = group.source, None
        if source is not None and isinstance(group.work, Collection):
            for piece in source:
                if isinstance(piece, Coroutine):
                    piece.close()
        elif source is not None and hasattr(source, "close"):
            source.close()

    def abandon(self, group: Group[Any]) -> None:
        waiters, group.waiters = group.waiters, []
        for task, _ in waiters:
            if task.state != DONE:
                gone = Cancelled(f"{task.path} waited for work that {group.task.path} started and that was cancelled")
                self.ready.append((task, None, gone))

    def orphans(self, task: Task) -> None:
        """When a coroutine ends, everything it started is cancelled."""
        if task.groups:
            for group in list(task.groups):
                self.drop(group)
                for node in list(group.live):
                    self.stop(node)
                group.live.clear()
                self.abandon(group)
        task.groups = None

    def stop(self, node: Ticket | Task) -> None:
        """Cancel a node and everything below it, without recursion. Sub-budgets close from the leaves up."""
        stack: list[Ticket | Task] = [node]
        opened: list[Task] = []
        while stack:
            node = stack.pop()
            node.group = None
            if type(node) is Ticket:
                if node.state != FLYING and node.state != PAUSED:
                    node.run.decide(node.path, "cancel", bound=node.bound if node.amounts is not None else None)
                self.settler.cancel(node)
                continue
            assert type(node) is Task
            if node.state == QUEUED:
                self.queues.forget(node, node.account)
            elif node.grant is not None:
                opened.append(node)
            node.state = DONE
            if node.waiting is not None:
                stack.append(node.waiting)
                node.waiting = None
            for group in node.groups or ():
                self.drop(group)
                stack.extend(reversed(group.live))
                group.live.clear()
                self.abandon(group)
            node.groups = None
            try:
                node.coro.close()
            except Exception as error:  # it awaited, or failed, while it was being closed
                node.run.decide(node.path, "note", reason=f"ignored while cancelling: {error!r}")
        for task in reversed(opened):
            self.settler.close(task.account)
