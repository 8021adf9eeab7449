"""``windsock explain`` and ``policy``: why a night was decided as it was, and how it would be by other rules."""

import json
from collections.abc import Iterator, Mapping
from datetime import date
from itertools import pairwise
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from windsock import promotions
from windsock.cli.step import read_options
from windsock.days import parse_day
from windsock.errors import SpecError
from windsock.governor.answers import answers_to, requests_since
from windsock.governor.episode import episode, speaks
from windsock.governor.policy import Answer, decide
from windsock.governor.step import history_of, new_labels, settings_hash, signal_of
from windsock.ledger import DECISIONS, DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec
from windsock.spec.operations import RetrainingSpec
from windsock.store import Store

_UNKNOWN = Answer("unknown")
"""Of a request that was not made: the recorded signals go on as if nothing had come of it, so it is not repeated."""


@click.command()
@click.argument("model")
@click.option("--day", required=True, help="The night's day, YYYY-MM-DD.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(model: str, day: str, as_json: bool) -> None:
    """Say why the governor decided about a day of MODEL as it did.

    Its reasons, numbers and settings; then, in order, what led there: since when, requests, trainings, verdicts,
    promotions.
    """
    settings = Settings.from_env()
    spec, at = get_spec(settings, model), parse_day(day, what="day")
    record = Ledger.of(settings, model, DECISIONS).get(at)
    if record is None:
        days = Ledger.of(settings, model, DECISIONS).days()
        known = f"Decided are {len(days)} days from {days[0]} to {days[-1]}." if days else "None has been decided yet."
        raise SpecError(f"{model}: nothing was decided about {at}. {known} Run {model}_monitor for that day.")
    detail = record.detail
    story = sorted(_story(settings, spec, at), key=lambda line: line[0])
    if as_json:
        events = [{"day": str(when), "what": what} for when, what in story]
        click.echo(json.dumps({"day": str(at), "decision": dict(detail), "events": events}, indent=1))
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{model} {at}: {detail['action']}[/]" + ("" if detail.get("live", True) else " (replayed)"))
    for reason in detail["reasons"]:
        console.print(f"  {escape(reason)}")
    numbers = {name: value for name, value in (detail.get("numbers") or {}).items() if value is not None}
    numbers |= {
        name: detail[name] for name in ("onset", "useful_from", "recovery", "dedupe_key", "trigger") if detail.get(name)
    }
    console.print("  " + escape(", ".join(f"{name} {value}" for name, value in numbers.items())))
    if (made_by := detail.get("settings")) is not None:
        same = "as today's" if made_by == settings_hash(spec) else "which are not today's any more"
        console.print(f"  by settings {made_by[:12]}, {same}")
    for when, what in story:
        console.print(f"{when}  {escape(what)}")


def _story(settings: Settings, spec: ModelSpec, day: date) -> Iterator[tuple[date, str]]:
    """Yield what happened from the beginning of a day's episode on (else in its limits' reach), in no order."""
    history = history_of(settings, spec, day)
    found = Ledger.of(settings, spec.name, "monitor").get(day)
    signals = [*history, signal_of(found)] if found is not None else history
    goes_on = episode(spec, signals)
    since = goes_on.root.day if goes_on is not None else day
    if goes_on is not None:
        first = goes_on.root
        yield first.day, f"first signal, about version {first.champion}: {first.why}"
        for before, after in pairwise(signals):
            spoke, speaks_now = (speaks(spec, signal, first) for signal in (before, after))
            if after.day > since and speaks_now != spoke:
                yield after.day, f"a signal again: {after.why}" if speaks_now else f"no signal: {after.why}"
    requests = requests_since(settings, spec.name, since)
    answers = answers_to(settings, spec, requests)
    for on, key in requests.items():
        if on <= day:
            answer = answers.get(key)
            yield on, f"asked for a training ({key})" + ("" if answer else ": no training exists for it")
            if answer is not None:
                yield on, f"training {answer.run}: " + (_verdict(settings, spec, answer) or "it became no version")
    for entry in promotions.history(settings, spec):
        if since <= entry.in_force_from <= day:
            yield entry.in_force_from, f"version {entry.version} in force ({entry.kind}: {entry.reason})"


def _verdict(settings: Settings, spec: ModelSpec, answer: Answer) -> str | None:
    if answer.version is None:
        return None
    gate = ("runs", spec.name, answer.run, "gate.json")
    store = Store.of(settings)
    if not store.exists(*gate):
        return f"version {answer.version}, not judged yet"
    verdict: Mapping[str, Any] = store.read_json(*gate)
    failed = [str(check["why"]) for check in verdict.get("checks", []) if not check["passed"]]
    look = f" (look {verdict['look']['number']} of at most {verdict['look']['most']})" if verdict.get("look") else ""
    return f"version {answer.version}, " + (f"refused: {' '.join(failed)}" if failed else f"passed the gate{look}")


@click.command()
@click.argument("model")
@click.option("--from", "first", required=True, help="First day, YYYY-MM-DD.")
@click.option("--to", "last", required=True, help="Last day, YYYY-MM-DD.")
@click.option("--set", "pairs", multiple=True, metavar="FIELD=VALUE", help="A field of retraining; repeat for more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def policy(model: str, first: str, last: str, pairs: tuple[str, ...], as_json: bool) -> None:
    """Decide recorded nights of MODEL again, by other settings, and change nothing.

    What a request would have led to nobody knows: the recorded signals go on as they were, and a request that was not
    made is not repeated.
    """
    settings = Settings.from_env()
    spec = get_spec(settings, model)
    begin, end = parse_day(first, what="day of --from"), parse_day(last, what="day of --to")
    ledger, monitor = (Ledger.of(settings, model, stage) for stage in (DECISIONS, "monitor"))
    nights = monitor.between(begin, end)
    if not nights:
        raise SpecError(f"{model}: no day from {begin} to {end} has been monitored. Choose others.")
    tried = spec.model_copy(update={"retraining": _with(spec.retraining, read_options(pairs))})
    made = requests_since(settings, model, spec.first_day)
    answers = answers_to(settings, spec, made)
    asked = {day: key for day, key in made.items() if day < begin}
    rows = []
    for day, record in nights.items():
        signal = signal_of(record, new_labels(settings, tried, day))
        known = {key: answers.get(key, _UNKNOWN) for key in asked.values()}
        decision = decide(tried, signal, history_of(settings, tried, day), asked, known)
        action, why, key, then = str(decision.action), decision.reasons[0], decision.dedupe_key, ledger.get(day)
        if then is not None and _is_that_night(then, record, tried, asked, made):
            # What has become of a request since was not known then.
            action, why, key = str(then.detail["action"]), str(then.detail["reasons"][0]), made.get(day)
        elif action != "retrain":
            key = None
        if key is not None:
            asked[day] = key
        rows.append(
            {
                "day": str(day),
                "signal": "yes" if decision.signal else "no",
                "recorded": _recorded(then),
                "replayed": action,
                "why": why,
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    table = Table(*(Column(name, overflow="fold") for name in rows[0]), box=None, pad_edge=False)
    for row in rows:
        style = "bold" if str(row["recorded"]).partition(" ")[0] != row["replayed"] else None
        table.add_row(*(escape(value or "–") for value in row.values()), style=style)
    console = Console()
    console.print(table)
    counts = {name: sum(row[name] == "retrain" for row in rows) for name in ("recorded", "replayed")}
    console.print(f"Requests: {counts['recorded']} recorded, {counts['replayed']} by these settings.", highlight=False)


def _is_that_night(
    then: DayRecord, night: DayRecord, spec: ModelSpec, asked: Mapping[date, str], made: Mapping[date, str]
) -> bool:
    """Say whether a night was decided by these settings, of the same finding and after the same requests."""
    same = then.detail.get("settings") == settings_hash(spec)
    before = {day: key for day, key in made.items() if day < night.day}
    return same and asked == before and then.inputs.get(f"monitor/{night.day}") == night.content_hash


def _recorded(then: DayRecord | None) -> str | None:
    if then is None:
        return None
    return str(then.detail["action"]) + ("" if then.detail.get("live", True) else " (in a backfill)")


def _with(retraining: RetrainingSpec, given: Mapping[str, Any]) -> RetrainingSpec:
    """Return a policy with other values.

    Raises:
        SpecError: There is no such field, or a value is outside its range.
    """
    for name in given:
        if name not in RetrainingSpec.model_fields:
            raise SpecError.unknown("field of retraining", name, RetrainingSpec.model_fields)
    try:
        return TypeAdapter(RetrainingSpec).validate_python({**retraining.model_dump(), **given})
    except ValidationError as err:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in err.errors())
        raise SpecError(f"--set: {faults}") from err
