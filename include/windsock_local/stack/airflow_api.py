"""A small client of Airflow's REST API: what the demo, the CLI and the stack itself need of it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from itertools import takewhile
from typing import Any, Self
from urllib.parse import quote

import httpx

from windsock.days import day_range, parse_day, spans
from windsock.errors import SpecError, UpstreamUnavailable, WindsockError
from windsock.settings import Settings
from windsock_local.stack.home import ADMIN_USER, Home, read_stack

FINAL_RUN_STATES = frozenset({"success", "failed"})
_CONFLICT_SECONDS = 60.0
_POLL_SECONDS = 0.5
_RETRY_SECONDS = 1.0
_PAGE = 100


class AirflowRefused(WindsockError):
    """Airflow understood a call and said no; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AirflowApi:
    """A session with one Airflow: its DAGs, runs and backfills; calls are sent ``attempts`` times if that is safe."""

    def __init__(self, url: str, password: str, *, call_seconds: float = 30.0, attempts: int = 4) -> None:
        self.url, self._attempts = url.rstrip("/"), attempts
        self._login = {"username": ADMIN_USER, "password": password}
        # trust_env: a proxy for the outside world must not see calls to this machine.
        self._client = httpx.Client(base_url=f"{self.url}/api/v2/", timeout=call_seconds, trust_env=False)

    @classmethod
    def of_stack(cls, settings: Settings) -> Self:
        """Return a session with the running stack of these settings' home.

        Raises:
            UpstreamUnavailable: No stack runs there.
        """
        info = read_stack(settings)
        if info is None:
            raise UpstreamUnavailable(f"No stack runs under {settings.home}. Start it with `windsock up`.")
        return cls(info.airflow_url, Home.of(settings).admin_password())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # --- calls; ``path`` is relative to /api/v2, its segments quoted

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **params: Any) -> Any:
        """Send a call and return the decoded body; again if nothing was sent, if Airflow is busy, or if it only reads.

        Raises:
            AirflowRefused: Airflow answered with an error.
            UpstreamUnavailable: It did not answer.
        """
        last = ""
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(_RETRY_SECONDS)
            try:
                response = self._request(method, path, json=body, params=params)
            except httpx.HTTPError as err:
                last = str(err) or type(err).__name__
                if method != "GET" and not isinstance(err, httpx.ConnectError):
                    raise UpstreamUnavailable(f"{method} {self.url}/api/v2/{path}: {last}") from err
                continue
            if response.is_success:
                return response.json() if response.content else None
            if response.status_code != 503 and (response.status_code < 500 or method != "GET"):
                raise AirflowRefused(f"Airflow refused {method} {path}: {_reason(response)}", response.status_code)
            last = f"HTTP {response.status_code}"
        raise UpstreamUnavailable(
            f"Airflow at {self.url} does not answer {method} {path}: {last}. See `windsock status`."
        )

    def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Send a request with a token, logging in before the first one and when the token has run out."""
        headers = self._client.headers
        for _ in range(2):
            if "Authorization" not in headers:
                answer = self._client.post(f"{self.url}/auth/token", json=self._login)
                if (status := answer.status_code) != 201:
                    who = f"{ADMIN_USER!r} (HTTP {status})"
                    raise AirflowRefused(f"Airflow at {self.url} refuses the login of {who}.", status)
                headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
            response = self._client.request(method, path, **content)
            if response.status_code != 401:
                break
            del headers["Authorization"]
        return response

    def pages(self, path: str, key: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield every item of a listing, page by page; ``key`` is the field of the body that holds them."""
        offset = 0
        while True:
            body = self.call("GET", path, limit=_PAGE, offset=offset, **params)
            yield from body[key]
            offset += len(body[key])
            if not body[key] or offset >= body["total_entries"]:
                return

    # --- DAGs and runs

    def wait_for_dag(self, dag_id: str, timeout_seconds: float = 60) -> None:
        """Wait until a DAG has been parsed; what did not appear is reported with the import errors there are."""
        for _ in _polls(timeout_seconds):
            try:
                self.call("GET", f"dags/{_quoted(dag_id)}")
                return
            except AirflowRefused as err:
                if err.status != 404:
                    raise
        errors = [f"{e['filename']}: {e['stack_trace'].strip().splitlines()[-1]}" for e in self.import_errors()]
        why = f"DAG {dag_id!r} did not appear. Import errors: {'; '.join(errors) or 'none'}."
        raise UpstreamUnavailable(f"After {timeout_seconds:.0f} s: {why}")

    def import_errors(self) -> list[dict[str, Any]]:
        """Return the DAG files that could not be parsed."""
        return list(self.pages("importErrors", "import_errors"))

    def set_paused(self, dag_id: str, paused: bool) -> None:
        """Pause a DAG, or let it run."""
        self.call("PATCH", f"dags/{_quoted(dag_id)}", {"is_paused": paused})

    def form_fields(self, dag_id: str) -> dict[str, bool]:
        """Return the fields in a DAG's trigger form by name, and whether each takes text.

        Raises:
            SpecError: There is no such DAG.
        """
        try:
            fields = self.call("GET", f"dags/{_quoted(dag_id)}/details")["params"]
            return {name: "string" in (field["schema"].get("type") or ()) for name, field in fields.items()}
        except AirflowRefused as err:
            if err.status != 404:
                raise
            known = [dag["dag_id"] for dag in self.pages("dags", "dags")]
            raise SpecError.unknown("DAG", dag_id, known, self.url) from err

    def trigger(self, dag_id: str, partition_key: str | None = None, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run now and return its id; the run of a paused DAG waits until it is unpaused."""
        day = {"partition_key": partition_key} if partition_key else {}
        body = {"logical_date": None, "conf": dict(conf or {}), **day}
        return str(self.call("POST", f"dags/{_quoted(dag_id)}/dagRuns", body)["dag_run_id"])

    def runs(self, dag_id: str = "~", **filters: Any) -> list[dict[str, Any]]:
        """Return a DAG's runs (``~``: of all DAGs); filters are the API's own."""
        return list(self.pages(f"dags/{_quoted(dag_id)}/dagRuns", "dag_runs", **filters))

    def wait_for_run(self, dag_id: str, run_id: str, timeout_seconds: float = 300) -> dict[str, Any]:
        """Wait for a run's end and return it; look at its ``state``. One too late is reported with its tasks."""
        for _ in _polls(timeout_seconds):
            run = dict(self.call("GET", run_path(dag_id, run_id)))
            if run["state"] in FINAL_RUN_STATES:
                return run
        tasks = ", ".join(f"{t['task_id']} {t['state']}" for t in self.task_instances(dag_id, run_id))
        why = f"Run {run_id} of {dag_id} has not ended. Its tasks: {tasks or 'none yet'}."
        raise UpstreamUnavailable(f"After {timeout_seconds:.0f} s: {why}")

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the tasks of one run."""
        return list(self.pages(f"{run_path(dag_id, run_id)}/taskInstances", "task_instances"))

    def unanswered_run(self, dag_id: str) -> str | None:
        """Return the run of a DAG that waits for a person's answer, if there is one."""
        waiting = self.call("GET", f"{run_path(dag_id, '~')}/taskInstances", state="awaiting_input", limit=1)
        return next((task["dag_run_id"] for task in waiting["task_instances"]), None)

    # --- backfills

    def backfill(
        self, dag_id: str, from_day: date | str, to_day: date | str, max_active_runs: int = 4, reprocess: str = "none"
    ) -> int:
        """Start a backfill of a range of days, both included, and return its id.

        Airflow refuses a second one for about half a minute after a first has ended; that is waited out.
        ``reprocess`` says which existing runs to run again: ``none``, ``failed`` or ``completed``.
        """
        body = {
            "dag_id": dag_id,
            "from_date": f"{from_day}T00:00:00Z",
            "to_date": f"{to_day}T00:00:00Z",
            "max_active_runs": max_active_runs,
            "reprocess_behavior": reprocess,
            "dag_run_conf": {},
        }
        deadline = time.monotonic() + _CONFLICT_SECONDS
        while True:
            try:
                return int(self.call("POST", "backfills", body)["id"])
            except AirflowRefused as err:
                if err.status != 409 or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)

    def newest_runs(self, dag_id: str, first: date, last: date) -> dict[date, dict[str, Any]]:
        """Return the run of each day that was begun, or begun again, last; days without a run are left out."""
        found = dict[date, dict[str, Any]]()
        # Not a history of years for a week: what the keys of all these days begin with.
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(str(first), str(last), strict=True))
        runs = self.runs(dag_id, partition_key_prefix_pattern="".join(letter for letter, _ in alike))
        for run in sorted(runs, key=lambda run: run["queued_at"] or run["run_after"]):
            with suppress(SpecError):  # somebody's key that is no day
                found[parse_day(run["partition_key"])] = run
        return {day: found[day] for day in day_range(first, last) if day in found}

    def wait_for_days(self, dag_id: str, first: date, last: date, timeout_seconds: float) -> dict[date, dict[str, Any]]:
        """Wait until the newest run of each day has ended, whoever started it, and return these runs by day."""
        days = day_range(first, last)
        for _ in _polls(timeout_seconds):
            runs = self.newest_runs(dag_id, first, last)
            still = [day for day in days if day not in runs or runs[day]["state"] not in FINAL_RUN_STATES]
            if not still:
                return runs
        why = f"{dag_id}: {len(still)} of {len(days)} days have not ended: {spans(still)}. Their runs go on."
        raise UpstreamUnavailable(f"After {timeout_seconds:.0f} s: {why}")


def run_path(dag_id: str, run_id: str) -> str:
    """Return a run's path: run ids hold ``+`` and ``:``."""
    return f"dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"


def _quoted(name: str) -> str:
    return quote(name, safe="~")


def _polls(timeout_seconds: float) -> Iterator[None]:
    """Yield at once, then now and then until the time is up."""
    deadline = time.monotonic() + timeout_seconds
    yield
    while time.monotonic() <= deadline:
        time.sleep(_POLL_SECONDS)
        yield


def _reason(response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text
    return f"HTTP {response.status_code}: {str(detail)[:1000]}"
