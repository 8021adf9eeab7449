"""Waiting for days of other steps without a process: one look at the ledger for all tasks that wait for it.

A task that asks again itself costs a process start and a page of log each time, and hundreds may wait. So one that has
waited a while hands its days to the triggerer (``StepOperator``), where each is a sleeping coroutine; a listing of the
ledger, once in a few seconds for each model and stage, tells them all whether their days are there.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from windsock.ledger import Ledger
from windsock.settings import Settings

log = logging.getLogger(__name__)

LOOK_S = 5.0
_looks: dict[tuple[str, str], tuple[float, "asyncio.Future[frozenset[str]]"]] = {}
"""Model and stage to the time of the last look, and what it found; the triggerer has one event loop."""


class DaysTrigger(BaseTrigger):
    """Fires once a stage of a model has a record of each of some days, and after the longest sleep in any case.

    Args:
        model: Name of the model.
        stage: Ledger stage whose days are waited for.
        days: The days, ``YYYY-MM-DD``.
        longest: Seconds after which the task looks for itself, as other things may have made it ready.
    """

    def __init__(self, model: str, stage: str, days: list[str], longest: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model, self.stage, self.days, self.longest = model, stage, days, longest

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer makes this anew from."""
        arguments = {"model": self.model, "stage": self.stage, "days": self.days, "longest": self.longest}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep until the days are there."""
        until = time.monotonic() + self.longest
        while time.monotonic() < until:
            try:
                if await _recorded(self.model, self.stage) >= set(self.days):
                    break
            except Exception as err:  # a store that is away: the task will say so, should it last
                log.warning("The days of %s of %s could not be listed: %s", self.stage, self.model, err)
            await asyncio.sleep(LOOK_S)
        yield TriggerEvent({})  # type: ignore[no-untyped-call]


async def _recorded(model: str, stage: str) -> frozenset[str]:
    """Return the days that have a record, as a look within the last seconds has found them."""
    now, key = time.monotonic(), (model, stage)
    if key not in _looks or now - _looks[key][0] >= LOOK_S:
        _looks[key] = now, asyncio.ensure_future(asyncio.to_thread(_list_days, model, stage))
    return await asyncio.shield(_looks[key][1])


def _list_days(model: str, stage: str) -> frozenset[str]:
    return frozenset(map(str, Ledger.of(Settings.from_env(), model, stage).days()))
