"""The table of alerts as a page of the Airflow UI; with no script, and nothing from elsewhere."""

from __future__ import annotations

import html
from datetime import datetime

from windsock.alert_table import Row, table_of_alerts
from windsock.settings import Settings

DAYS = 30
POLICY = "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'"
"""What the browser lets the page do: show itself, and open a run in a tab of its own."""
_SIGNS = {"error": "🔴", "warning": "🟡", "info": "🔵"}
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Alerts</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #1d2733; background: #fff }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; vertical-align: top; padding: .45rem .6rem; border-bottom: 1px solid #d8dee6 }}
td:last-child {{ white-space: pre-line; overflow-wrap: anywhere }} .over {{ color: #66717d }}
</style><h1>Alerts of the last {days} days</h1>{body}</html>
"""
_NONE = "<p>Nothing was reported.</p>"


def alerts_page(settings: Settings) -> str:
    """Return the page.

    Raises:
        UpstreamUnavailable: The store is away.
    """
    rows = "".join(_row(row) for row in table_of_alerts(settings, DAYS))
    head = "<tr><th>last (UTC)<th>state<th>what<th>of<th>why</tr>"
    return _PAGE.format(days=DAYS, body=f"<table>{head}{rows}</table>" if rows else _NONE)


def _row(row: Row) -> str:
    first, last = row.first, row.last
    times = f" ({row.count}×)" if row.count > 1 else ""
    state = row.state + (", not sent yet" if row.waiting else "")
    what = f"{_SIGNS[first.severity]} {html.escape(first.headline)}{times}"
    if first.links and first.links[0][1].startswith(("http://", "https://")):
        what = f'<a target="_blank" rel="noreferrer" href="{html.escape(first.links[0][1])}">{what}</a>'
    of = html.escape(" · ".join(filter(None, (first.dag_id, last.day, first.owner))))
    at = datetime.fromisoformat(last.at)
    cells = (f"{at:%Y-%m-%d %H:%M}", state, what, of, html.escape(last.sentence))
    return f'<tr class="{row.state}">' + "".join(f"<td>{cell}" for cell in cells) + "</tr>"
