"""Who is champion, since when and why.

Read ``log`` first: the append-only record is the truth. ``step`` and ``rollback_step``
write to it; the MLflow alias ``champion`` is derived from it by ``reconcile``.
"""

from windsock.promotion.log import Promotion, champion_on, current, history
from windsock.promotion.reconcile import reconcile

__all__ = ["Promotion", "champion_on", "current", "history", "reconcile"]
