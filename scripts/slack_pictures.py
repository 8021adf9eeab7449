"""Draws messages as Slack shows them, from their blocks, for the docs: ``python scripts/slack_pictures.py``.

A small reading of Block Kit and mrkdwn, in a phone's width; the messages are made by the product.
"""

import html
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "tests"), str(REPO / "tests" / "ui")]

from browser import browser_page  # noqa: E402, I001
from fake_slack import FakeSlack  # noqa: E402
from small_model import small_fraud  # noqa: E402
from windsock.alerts import Alert, report, send_waiting  # noqa: E402
from windsock.messages import tell  # noqa: E402
from windsock.settings import Settings  # noqa: E402
from windsock.spec import ModelSpec  # noqa: E402

STYLE = """
body { margin: 0; padding: 12px; width: 390px; background: #fff; color: #1d1c1d;
  font: 15px/1.46 Lato, 'Noto Sans', 'DejaVu Sans', sans-serif }
.m { display: grid; grid-template-columns: 36px 1fr; gap: 0 8px; padding: 8px 0 }
.m.reply { margin-left: 44px; padding: 2px 0 } .a { width: 36px; height: 36px; border-radius: 6px; background: #2b6cb0;
  color: #fff; font-weight: 700; display: grid; place-items: center }
.reply .a { width: 22px; height: 22px; font-size: 12px }
.n { font-weight: 900 } .t { color: #616061; font-size: 12px; font-weight: 400 }
h3 { font-size: 18px; margin: 2px 0 6px } p { margin: 2px 0 8px; white-space: pre-wrap; overflow-wrap: anywhere }
.f { display: grid; grid-template-columns: 1fr 1fr; gap: 6px 12px; margin-bottom: 8px; white-space: pre-wrap }
.s { display: inline-block; width: 15px; height: 15px; border-radius: 50%; color: #fff; font-size: 11px;
  line-height: 15px; text-align: center; vertical-align: 0 }
.c { color: #616061; font-size: 13px } a { color: #1264a3; text-decoration: none }
"""


def mrkdwn(text: str) -> str:
    """Return mrkdwn as HTML; its escapes are HTML's own."""
    text = re.sub(r"<([^|>]+)\|([^>]+)>", lambda m: f'<a href="{html.escape(m[1])}">{m[2]}</a>', text)
    text = re.sub(r"(?<![\w*])\*([^*\n]+)\*", r"<b>\1</b>", text)
    return signs(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", text))


def signs(text: str) -> str:
    """Draw the signs, which few fonts have."""
    for sign, colour in (("🔴", "#e01e5a"), ("🟡", "#ecb22e"), ("🔵", "#36c5f0"), ("✅", "#2eb67d")):
        text = text.replace(sign, f'<span class="s" style="background:{colour}">{"✓" if sign == "✅" else ""}</span>')
    return text


def drawn(message: dict[str, Any]) -> str:
    """Return a message as HTML."""
    parts = []
    for block in message["blocks"]:
        if block["type"] == "header":
            parts.append(f"<h3>{signs(html.escape(block['text']['text']))}</h3>")
        elif "fields" in block:
            fields = "".join(f"<div>{mrkdwn(field['text'])}</div>" for field in block["fields"])
            parts.append(f'<div class="f">{fields}</div>')
        elif block["type"] == "context":
            parts.append(f'<p class="c">{mrkdwn(block["elements"][0]["text"])}</p>')
        else:
            parts.append(f"<p>{mrkdwn(block['text']['text'])}</p>")
    kind = "m reply" if "thread_ts" in message else "m"
    name = '<div class="n">Windsock <span class="t">APP</span></div>'
    return f'<div class="{kind}"><div class="a">W</div><div>{name}{"".join(parts)}</div></div>'


def say(settings: Settings, step: str, result: dict[str, Any], day: str = "2026-03-05") -> None:
    """Tell of a step's result, as the operator does."""
    dag = {"govern": "monitor", "gate": "promote"}.get(step, step)
    where = {"dag_id": f"fraud_{dag}", "task_id": step, "run_id": day, "url": f"http://ui/{step}"}
    links = (("Report", "http://ui/page"),) if step in ("gate", "monitor") else ()
    tell(settings, "fraud", step, result, day=day, links=links, **where)


def a_trouble(settings: Settings, spec: ModelSpec) -> None:
    """Two hundred tasks that fail at once, and run again."""
    sentence = "UpstreamUnavailable: s3://payments: the object store gives no answer. The task is tried again."
    failed = Alert("fraud_features", sentence, "features", url="http://ui/run", thread="failed fraud_features")
    for number in range(200):
        day = f"2026-0{1 + number // 28 % 7}-{1 + number % 28:02d}"
        report(settings, replace(failed, day=day, cause=f"failed {number}"), spec)
    send_waiting(settings)
    over = Alert("fraud_features", "It runs again: what had failed has succeeded since.", cause="over", closes=True)
    report(settings, replace(over, thread=failed.thread), spec)
    send_waiting(settings)


def news(settings: Settings, spec: ModelSpec) -> None:
    """What steps say on other days."""
    checks = [{"name": "not_worse_than_champion", "passed": False, "value": -0.031, "threshold": -0.01, "why": ""}]
    why = "Version 8 failed 1 of 14 checks: average_precision is at most 0.01 worse than the champion's, but 0.031."
    gate = {"passed": False, "version": "8", "champion_seen": "7", "checks": checks, "why": f"{why} Champion stays 7."}
    by_rule = {"TX_AMOUNT: at least 0": 812, "TERMINAL_ID: not null": 77}
    say(settings, "ingest", {"status": "published", "rows": 8541, "quarantined": 889, "by_rule": by_rule})
    reasons = ["a signal on 2 of the last 3 days", "4 of 17 features drifted: TX_AMOUNT (wasserstein 1.02)"]
    drift = {"action": "wait", "dedupe_key": "7@2026-03-04", "reasons": reasons, "useful_from": "2026-03-15"}
    say(settings, "govern", {**drift, "action": "retrain", "as_of": "2026-03-15"}, "2026-03-15")
    say(settings, "gate", gate, "2026-03-16")
    send_waiting(settings)


def main() -> None:
    """Draw each picture."""
    for name, scene in (("slack-thread", a_trouble), ("slack-news", news)):
        with tempfile.TemporaryDirectory() as home, FakeSlack() as slack:
            _, spec = small_fraud(Path(home), owner="payments")
            env = {"WINDSOCK_HOME": home, "WINDSOCK_MODELS": f"{home}/models", **slack.env}
            scene(Settings.from_env(env), spec)
            page = f"<meta charset=utf-8><style>{STYLE}</style>" + "".join(map(drawn, slack.messages))
        with browser_page(width=414, height=300) as tab:
            tab.set_content(page)
            tab.screenshot(path=str(REPO / "docs" / "images" / f"{name}.png"), full_page=True)


if __name__ == "__main__":
    main()
