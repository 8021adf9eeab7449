from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from windsock.errors import SpecError
from windsock.settings import REPO_ROOT, Settings
from windsock.spec import get_spec, load_spec, load_specs
from windsock.spec.sources import url_of_day

FRAUD = REPO_ROOT / "include" / "models" / "fraud"


def write_model(folder: Path, name: str = "fraud", **changes: Any) -> Path:
    """Copy the fraud model with some fields changed (``a.b`` reaches into a mapping; None removes)."""
    raw = yaml.safe_load((FRAUD / "model.yaml").read_text(encoding="utf-8"))
    raw["name"] = name
    for place, value in changes.items():
        *path, last = place.split("__")
        part = raw
        for step in path:
            part = part[step]
        if value is None:
            part.pop(last)
        else:
            part[last] = value
    target = folder / name
    target.mkdir(parents=True)
    for sql in FRAUD.glob("*.sql"):
        (target / sql.name).write_text(sql.read_text(encoding="utf-8"), encoding="utf-8")
    path = target / "model.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def test_the_reference_model_loads_and_fits_on_a_page():
    spec = load_spec(FRAUD / "model.yaml")
    assert spec.gap_days == 7
    assert (spec.first_warm_day - spec.first_day).days == 37
    assert len((FRAUD / "model.yaml").read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"trainning": {}}, r"trainning: there is no such field\. Did you mean 'training'\?", id="top"),
        pytest.param(
            {"training__windows_days": 7}, r"training\.windows_days: .*Did you mean 'window_days'\?", id="nested"
        ),
        pytest.param({"source__sed": 1}, r"sed: there is no such field\. Did you mean 'seed'\?", id="in-a-choice"),
        pytest.param({"owner": None}, r"owner: is missing", id="missing"),
        pytest.param({"training__holdout_days": 0}, r"training\.holdout_days: .*greater than 0.*given: 0", id="range"),
        pytest.param({"label__delay_days": -1}, r"label\.delay_days.*given: -1", id="negative-delay"),
        pytest.param({"features__row": {"F": "TX_FRAUD * 1"}}, r"features\.row\.F uses the label .*leaks", id="label"),
        pytest.param(
            {"features__row": {"S": "TX_FRAUD_SCENARIO"}},
            r"TX_FRAUD_SCENARIO, which events\.ignore drops",
            id="ignored",
        ),
        pytest.param(
            {"entities__customer": "CUSTOMER"}, r"entities\.customer names 'CUSTOMER'.*CUSTOMER_ID", id="entity"
        ),
        pytest.param(
            {"events__time": "TX_TIME"}, r"time names 'TX_TIME', which is not among events\.columns", id="time"
        ),
        pytest.param({"events__time": "TX_AMOUNT"}, r"of type double, not timestamp", id="time-type"),
        pytest.param(
            {"events__columns__MCC": {"type": "int64", "sins": "2026-08-14"}},
            r"events\.columns\.MCC\.sins: there is no such field\. Did you mean 'since'\?",
            id="column-field",
        ),
        pytest.param({"events__columns__MCC": "float"}, r"events\.columns\.MCC.*'int64'.*given: 'float'", id="type"),
        pytest.param(
            {"events__columns__EUR": {"type": "double", "from": "TX_AMOUNT"}},
            r"'EUR' and 'TX_AMOUNT' are taken from the same 'TX_AMOUNT' of the delivery.*`from:` of its own",
            id="one-source-twice",
        ),
        pytest.param(
            {"events__columns__MCC": {"type": "int64", "from": "TX_FRAUD"}},
            r"'MCC' is taken from the label 'TX_FRAUD': that leaks the answer",
            id="label-by-another-name",
        ),
        pytest.param(
            {"events__columns__MCC": {"type": "int64", "from": "TX_TIME_DAYS"}},
            r"TX_TIME_DAYS stand both in events\.columns and in events\.ignore",
            id="ignored-source",
        ),
        pytest.param(
            {"events__columns__TX_DATETIME": {"type": "timestamp", "since": "2026-08-14"}},
            r"time names a column with `since:`, but every event has one",
            id="time-since",
        ),
        pytest.param({"last_day": "2020-01-01"}, r"last_day 2020-01-01 lies before first_day", id="days"),
        pytest.param({"training__metric": "r2"}, r"r2 cannot judge a binary model", id="metric"),
        pytest.param(
            {"gate__floors": {"precision": 1}}, r"gate\.floors.precision.*average_precision", id="metric-name"
        ),
        pytest.param({"source": {"kind": "sql", "url_env": "X", "query": "select 1"}}, r":start and :end", id="sql"),
        pytest.param(
            {"features__views": [{"name": "a", "sql": "../fraud2/a.sql", "lookback_days": 1}]},
            r"features\.views\.0\.sql.*'\.\./fraud2/a\.sql' must lie in the model's folder",
            id="sql-elsewhere",
        ),
        pytest.param(
            {"validation": {"suite": "/etc/suite.json"}}, r"validation\.suite.*must lie in the model's", id="suite"
        ),
    ],
)
def test_a_faulty_spec_names_the_field_and_the_file(tmp_path: Path, changes: dict[str, Any], says: str):
    path = write_model(tmp_path, **changes)
    with pytest.raises(SpecError, match=rf"(?s)fraud/model\.yaml.*{says}"):
        load_spec(path)


def test_a_column_may_have_another_name_in_the_delivery_and_a_first_day_and_is_written_down_as_given(tmp_path: Path):
    given = {"type": "int64", "since": "2026-08-14", "from": "merchant category"}
    changes = {"TX_AMOUNT": {"type": "double"}, "CUSTOMER_ID": {"type": "int64", "from": "TERMINAL_ID"}}
    changes |= {"TERMINAL_ID": {"type": "int64", "from": "CUSTOMER_ID"}, "MCC": given}
    spec = load_spec(write_model(tmp_path, **{f"events__columns__{name}": column for name, column in changes.items()}))
    written = spec.model_dump(mode="json")

    assert spec.events.columns["MCC"] == "int64"
    assert spec.events.sources["MCC"] == "merchant category"
    assert spec.events.sources["CUSTOMER_ID"] == "TERMINAL_ID"  # two names may change places
    assert written["events"]["columns"] == {**spec.events.columns, **changes, "TX_AMOUNT": "double"}
    assert type(spec).model_validate(written) == spec


def test_other_columns_keep_what_is_declared_of_those_that_stay(tmp_path: Path):
    given = {"type": "int64", "since": "2026-08-14", "from": "merchant category"}
    events = load_spec(write_model(tmp_path, events__columns__MCC=given)).events

    other = events.with_columns({"MCC": "double", "gone": "string"})

    assert other.columns == {"MCC": "double", "gone": "string"}
    assert other.sources == {"MCC": "merchant category", "gone": "gone"}
    assert other.declared["MCC"].since == events.declared["MCC"].since
    assert "gone" not in events.columns


def test_a_missing_sql_file_is_named_with_the_nearest_one(tmp_path: Path):
    path = write_model(tmp_path)
    (path.parent / "terminal_risk.sql").rename(path.parent / "terminal_risks.sql")
    with pytest.raises(SpecError, match=r"'terminal_risk\.sql', which is not in .*Did you mean 'terminal_risks\.sql'"):
        load_spec(path)


def test_every_fault_is_told_at_once(tmp_path: Path):
    path = write_model(tmp_path, owner=None, description=None, training__holdout_days=0)
    with pytest.raises(SpecError, match=r"3 faults") as caught:
        load_spec(path)
    assert all(field in str(caught.value) for field in ("owner", "description", "holdout_days"))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [unclosed"])
def test_a_file_that_is_no_spec_says_so(tmp_path: Path, text: str):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"m/model\.yaml: is"):
        load_spec(tmp_path / "m" / "model.yaml")


def test_the_name_must_be_the_folders(tmp_path: Path):
    path = write_model(tmp_path)
    path.parent.rename(tmp_path / "other")
    with pytest.raises(SpecError, match=r"name is 'fraud', but its folder is 'other'"):
        load_spec(tmp_path / "other" / "model.yaml")


def test_one_broken_spec_hides_no_other(tmp_path: Path):
    write_model(tmp_path, "good")
    write_model(tmp_path, "bad", owner=None)
    write_model(tmp_path, "latin").write_bytes("name: latin\nowner: Zoë\n".encode("latin-1"))
    write_model(tmp_path, "month").write_text("name: month\nfirst_day: 2026-13-01\n")
    write_model(tmp_path, "tag").write_text("name: tag\nfirst_day: !!timestamp soon\n")
    specs, broken = load_specs(Settings.from_env({"WINDSOCK_MODELS": str(tmp_path)}))
    assert set(specs) == {"good"}
    assert list(broken) == ["bad", "latin", "month", "tag"]
    assert "is not valid YAML" in str(broken["latin"])
    assert "first_day: Input should be a valid date" in str(broken["month"])
    assert "is not valid YAML" in str(broken["tag"])


def test_two_folders_of_models_are_read_as_one(tmp_path: Path):
    write_model(tmp_path / "a", "one")
    write_model(tmp_path / "b", "two")
    settings = Settings.from_env({"WINDSOCK_MODELS": f"{tmp_path / 'a'}:{tmp_path / 'b'}"})
    assert set(load_specs(settings)[0]) == {"one", "two"}
    with pytest.raises(SpecError, match=r"No model named 'tow'\. Did you mean 'two'\?"):
        get_spec(settings, "tow")


@pytest.mark.parametrize("place", ["    TX_AMOUNT: double\n", "label:\n", "  seed: 0\n", "name: fraud\n"])
def test_a_key_that_stands_twice_is_an_error_with_its_line(tmp_path, place):
    path = write_model(tmp_path, source={"kind": "simulator", "seed": 0})
    text = path.read_text(encoding="utf-8")
    assert text.count(f"\n{place}") == 1
    path.write_text(text.replace(f"\n{place}", f"\n{place}{place}"), encoding="utf-8")

    with pytest.raises(SpecError, match=rf"the key '{place.partition(':')[0].strip()}' stands twice.* line \d+"):
        load_spec(path)


def test_names_keep_their_meaning_whatever_yaml_would_make_of_them(tmp_path):
    path = write_model(tmp_path)
    names = ["no", "on", "y", "null", "true", "Off"]
    text = path.read_text(encoding="utf-8").replace(
        "    TX_AMOUNT: double\n", "    TX_AMOUNT: double\n" + "".join(f"    {name}: string\n" for name in names)
    )
    path.write_text(f"{text}retraining: {{enabled: no}}\n", encoding="utf-8")

    spec = load_spec(path)

    assert [name for name, kind in spec.events.columns.items() if kind == "string"] == names
    assert spec.retraining.enabled is False


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("in/{ds}.csv", "in/2026-03-01.csv"),
        ("in/{ds_nodash}/day.csv", "in/20260301/day.csv"),
        ("in/ds={ds}/{ds_nodash}.csv", "in/ds=2026-03-01/20260301.csv"),
        ("https://host/%20/all.csv?day=1", "https://host/%20/all.csv?day=1"),
    ],
)
def test_a_url_names_the_day_in_either_form(tmp_path, url, expected):
    spec = load_spec(write_model(tmp_path, source={"kind": "files", "url": url}))

    assert url_of_day(spec.source.url, date(2026, 3, 1)) == expected


@pytest.mark.parametrize(
    "url", ["{{ ds }}", "{{ds}}", "${ds}", "{date}", "{ds:%Y}", "{ds", "ds}", "%Y-%m-%d", "YYYY-MM-DD", "*", "{}"]
)
def test_any_other_pattern_in_a_url_is_refused(tmp_path, url):
    label = {"column": "TX_FRAUD", "task": "binary", "delay_days": 7}
    files = {"url": f"labels/{{ds}}/{url}.csv", "key": "TRANSACTION_ID"}
    for n, changes in enumerate(
        ({"source": {"kind": "files", "url": f"in/{url}.csv"}}, {"label": {**label, "files": files}})
    ):
        with pytest.raises(SpecError, match=r"url: .* stands for nothing here: write \{ds\}"):
            load_spec(write_model(tmp_path / str(n), **changes))
    with pytest.raises(SpecError, match="names the same file every day"):
        load_spec(write_model(tmp_path / "same", label={**label, "files": {**files, "url": "labels.csv"}}))
