"""What is said of every kind of edit, under a serving champion, and what the command ends with."""

from pathlib import Path

import pytest

from edited_model import Edit, Edited, copied, make_checkout, plans_of
from windsock.plan.report import as_text

USAGE, RISK = "features.views.0", "features.views.1"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Edited:
    return make_checkout(tmp_path_factory.mktemp("checkout"))


def add_view(edited: Edited) -> None:
    (edited.folder / "more.sql").write_text(
        "select customer_id, seen_at as event_timestamp, max(n) over w as most from events window w as "
        "(partition by customer_id order by epoch_us(seen_at) range between 86399999999 preceding and current row)"
    )
    rewrite_views(edited, "    lookback_days: 2\n    ttl_days: 5\ntraining", "more")


def rewrite_views(edited: Edited, before: str, name: str) -> None:
    view = f"  - name: {name}\n    sql: {name}.sql\n    entity: customer\n    lookback_days: 2\n    ttl_days: 5\n"
    edited.rewrite("model.yaml", before, before.removesuffix("training") + view + "training")


def rename_model(edited: Edited) -> None:
    edited.rewrite("model.yaml", "name: churn", "name: leavers")
    edited.folder.rename(edited.folder.parent / "leavers")


def drop_column(edited: Edited) -> None:
    edited.set("events.columns.n", None)
    edited.set("features.row.calls", None)


def hide_key(edited: Edited) -> None:
    edited.set("events.columns.id", "int64")
    edited.set("events.key", "id")


EDITS: dict[str, tuple[Edit, int, list[str]]] = {
    "nothing": (lambda e: None, 0, ["nothing changes", "Champion 2 goes on with usage@", "A rollback to version 1"]),
    "a row expression": (
        lambda e: e.set("features.row.calls", "n + 1"),
        2,
        ["~ row feature calls  n → n + 1   [next training]", "1 change"],
    ),
    "layout of a row expression": (lambda e: e.set("features.row.calls", " n  "), 0, ["comments or layout only"]),
    "another row feature": (lambda e: e.set("features.row.twice", "n * 2"), 2, ["+ row feature twice  n * 2"]),
    "one row feature less": (lambda e: e.set("features.row.calls", None), 2, ["- row feature calls  n"]),
    "SQL of a view": (
        lambda e: e.rewrite("usage.sql", "86399999999", "172799999999"),
        2,
        ["~ view usage", "[next training]", "172799999999", "15 days missing: 2026-03-06..2026-03-20, about 30 s"],
    ),
    "comments in SQL": (
        lambda e: e.rewrite("usage.sql", "select", "-- how much\nselect"),
        0,
        ["  view usage", "comments or layout only"],
    ),
    "a feature more in a view": (
        lambda e: e.rewrite("usage.sql", " from events", ", min(minutes) over w as least from events"),
        2,
        ["~ view usage", "gives least"],
    ),
    "another view": (add_view, 2, ["+ view more", "gives most", "days missing: "]),
    "a view that does not run": (
        lambda e: e.rewrite("usage.sql", "minutes", "minuets"),
        64,
        ["it does not run", "✗ usage.sql", "1 refused"],
    ),
    "SQL that does not parse": (
        lambda e: (e.folder / "usage.sql").write_text("selec"),
        64,
        ["it does not run", "✗ usage.sql: view 'usage': syntax error", "Champion 2 goes on with usage@"],
    ),
    "an empty SQL file": (
        lambda e: (e.folder / "usage.sql").write_text(""),
        64,
        ["it does not run", "✗ usage.sql: view 'usage': give one SELECT", "Champion 2 goes on with usage@"],
    ),
    "SQL that is not in UTF-8": (
        lambda e: (e.folder / "usage.sql").write_bytes("select 1\n-- größe".encode("latin1")),
        64,
        ["it does not run", "✗ usage.sql: ", "line 2 is not in UTF-8", "Champion 2 goes on with usage@"],
    ),
    "a byte order mark": (
        lambda e: (e.folder / "usage.sql").write_text("\ufeff" + (e.folder / "usage.sql").read_text()),
        0,
        ["  view usage", "comments or layout only"],
    ),
    "a column that nobody reads": (
        lambda e: e.set("events.columns.mcc", "int64"),
        2,
        ["+ events.columns.mcc  int64   [days from now on]", "read by nobody: no definition changes"],
    ),
    "a column less": (drop_column, 2, ["- events.columns.n", "champion 2 reads it in row feature calls"]),
    "a wider column": (
        lambda e: e.set("events.columns.n", "double"),
        2,
        ["~ events.columns.n  int64 → double", "read as the wider type", "~ row feature calls  n → n", "another type"],
    ),
    "a column of a type that does not fit": (
        lambda e: e.set("events.columns.n", "string"),
        64,
        ["20 days hold int64", "Write `n_string: {type: string, from: n}` in its place"],
    ),
    "another key": (hide_key, 64, ["events.key: 20 days are stored under the old one", "another model"]),
    "a longer delay": (
        lambda e: e.set("label.delay_days", 3),
        2,
        [
            "~ label.delay_days  2 → 3   [every day, at once]",
            "known later for everybody, champion 2 too",
            "days are stale: ",
            "risk.sql holds 172800000000, which is 2 days",
        ],
    ),
    "another label": (
        lambda e: e.set("label.column", "gone"),
        64,
        [
            "~ label.column  churned → gone   [next training]",
            "another question",
            "registered versions read 'churned' in risk, and new days would not have it",
        ],
    ),
    "another task": (
        lambda e: (
            e.set("label.task", "regression"),
            e.set("training.metric", "r2"),
            e.set("gate.floors", {"r2": 0.1}),
        )[0],
        64,
        ["label.task: 20 days are stored", "another model"],
    ),
    "a longer lookback": (
        lambda e: e.set(f"{USAGE}.lookback_days", 3),
        2,
        ["~ view usage", "lookback_days 2 → 3", "days missing: "],
    ),
    "another ttl": (
        lambda e: e.set(f"{USAGE}.ttl_days", 4),
        2,
        ["~ view usage: ttl_days  5 → 4   [next training]", "no day is made again"],
    ),
    "as of the end of the day": (
        lambda e: e.set(f"{USAGE}.as_of", "end_of_day"),
        2,
        ["~ view usage: as_of  event → end_of_day", "no look-ahead is looked for"],
    ),
    "training": (lambda e: e.set("training.window_days", 5), 2, ["~ training.window_days  4 → 5   [next training]"]),
    "a parameter": (
        lambda e: e.set("training.estimator.rounds", 30),
        2,
        ["~ training.estimators.lightgbm.rounds  20 → 30   [next training]"],
    ),
    "a parameter that there is not": (
        lambda e: e.set("training.estimator.params.min_chidl", 5),
        64,
        ["LightGBM has no parameter 'min_chidl'"],
    ),
    "the gate": (
        lambda e: e.set("gate.floors.average_precision", 0.1),
        2,
        ["~ gate.floors.average_precision  0.05 → 0.1   [next verdict]"],
    ),
    "approval": (lambda e: e.set("gate.approval", True), 2, ["~ gate.approval  false → true   [next verdict]"]),
    "monitoring": (lambda e: e.set("monitoring.window_days", 14), 2, ["monitoring.window_days  7 → 14   [next night]"]),
    "retraining": (
        lambda e: e.set("retraining.enabled", False),
        2,
        ["retraining.enabled  true → false   [next night]"],
    ),
    "a schedule": (
        lambda e: e.set("schedule.ingest", "0 5 * * *"),
        2,
        ["schedule.ingest", "[next start by the clock]"],
    ),
    "another source": (
        lambda e: e.set("source", {"kind": "files", "url": "/elsewhere/{ds}.csv"}),
        2,
        ["~ source  {url: ", "→ {url: /elsewhere/{ds}.csv, kind: files}", "[days from now on]", "published days stay"],
    ),
    "an earlier first day": (
        lambda e: e.set("first_day", "2026-02-27"),
        2,
        [
            "~ first_day  2026-03-01 → 2026-02-27",
            "2 days to ingest: 2026-02-27..2026-02-28",
            "features of 2 days are stale once the earlier days are there: 2026-03-01..2026-03-02",
        ],
    ),
    "a later first day": (
        lambda e: e.set("first_day", "2026-03-03"),
        2,
        ["days before 2026-03-03 stay stored", "features of 2 days are stale as their lookback holds less"],
    ),
    "a last day": (lambda e: e.set("last_day", "2027-01-01"), 2, ["last_day  2027-01-01   [days from now on]"]),
    "another name of the model": (
        rename_model,
        2,
        ["- model churn   [its chain stops]", "20 ingested days are kept", "champion 2 is in force", "+ model leavers"],
    ),
    "another name of an entity": (
        lambda e: (
            e.set("entities", {"client": "customer_id"}),
            e.rewrite("model.yaml", "entity: customer", "entity: client"),
        )[0],
        2,
        ["entities.client", "an entity's name is Feast's alone"],
    ),
    "another name of a view": (
        lambda e: e.set(f"{USAGE}.name", "use"),
        2,
        ["+ view use", "this is what usage was", "- view usage"],
    ),
    "the suite": (
        lambda e: (e.folder / "expectations.json").write_text('{"expectations": [ ]}'),
        2,
        ["~ suite expectations.json   [days from now on]", "published days stay"],
    ),
    "the budget": (
        lambda e: e.set("validation.quarantine_budget", 0.1),
        2,
        ["~ validation.quarantine_budget  0.05 → 0.1   [days from now on]"],
    ),
    "the owner": (lambda e: e.set("owner", "sales"), 2, ["~ owner  growth → sales", "nothing is computed"]),
    "alerts": (lambda e: e.set("alerts.on_replay", True), 2, ["alerts.on_replay  false → true", "nothing is computed"]),
    "serving": (lambda e: e.set("serving.threshold", 0.5), 2, ["serving.threshold", "0.5   [days from now on]"]),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_told_with_what_follows_from_it(name: str, checkout: Edited, tmp_path: Path):
    edit, exit_code, said = EDITS[name]
    edited = copied(checkout, tmp_path)
    edit(edited)
    before = edited.snapshot()

    plans = plans_of(edited)
    text = as_text(plans)

    assert max(plan.exit_code for plan in plans) == exit_code, text
    assert not [part for part in said if part not in text], text
    assert edited.snapshot() == before, "a plan wrote something"
