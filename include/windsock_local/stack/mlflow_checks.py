"""What ``windsock doctor`` asks of MLflow, by its REST API.

MLflow's own client would take seconds to import, and cannot be told how long it may wait.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from windsock import promotions
from windsock.days import utc_now
from windsock.errors import SpecError, UpstreamUnavailable
from windsock.mlflow_keys import VARIABLE, Caller, Kind, sign
from windsock.redact import redact, redact_line
from windsock.settings import Settings
from windsock.spec import load_specs
from windsock_local.stack.airflow_session import QUICKLY
from windsock_local.stack.day_checks import Findings
from windsock_local.stack.home import read_stack, signing_secret
from windsock_local.stack.service_checks import installed, of_clock, of_versions

_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@contextlib.contextmanager
def mlflow_session(settings: Settings) -> Iterator[httpx.Client | None]:
    """Open a session with MLflow, with a key if there is one; None where MLflow is a file."""
    stack = None if settings.airflow_url else read_stack(settings)
    url = (stack.mlflow_url if stack else settings.mlflow_uri).rstrip("/")
    if not url.startswith(("http://", "https://")):
        yield None
        return
    headers, login = dict[str, str](), None
    if secret := signing_secret(settings):
        key = sign(secret, Kind.KEY, Caller("windsock doctor", "op"), 60)
        headers = {"Authorization": f"Bearer {key}"}
    elif given := os.environ.get(VARIABLE):
        headers = {"Authorization": f"Bearer {given}"}
    elif user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        login = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
    outside = urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1")
    with httpx.Client(
        base_url=url, headers=headers, auth=login, timeout=QUICKLY["call_seconds"], trust_env=outside
    ) as session:
        try:
            yield session
        except httpx.HTTPError as err:
            why = redact_line(str(err) or type(err).__name__).rstrip(".")
            raise UpstreamUnavailable(
                f"MLflow at {redact(url)} gives no answer: {why}. Check MLFLOW_TRACKING_URI and whether it is up."
            ) from err


def ask_mlflow(session: httpx.Client, method: str, path: str, **content: object) -> httpx.Response:
    """Send one request.

    Raises:
        SpecError: MLflow refuses it, or something else answers.
        UpstreamUnavailable: It is not well.
    """
    answer = session.request(method, path, **content)  # type: ignore[arg-type]
    where, status = f"MLflow at {redact(str(session.base_url))}", answer.status_code
    if status in (401, 403):
        raise SpecError(
            f"{where} lets nobody in to {path} with this key (HTTP {status}). Set WINDSOCK_MLFLOW_SECRET_FILE to the "
            f"secret of its door, or {VARIABLE} to a key (docs/security.md)."
        )
    if status >= 500 and not (status == 503 and path.startswith(_ARTIFACTS)):
        raise UpstreamUnavailable(f"{where} answers {method} {path} with HTTP {status}. Its log says why.")
    return answer


def check_mlflow(settings: Settings) -> Findings:
    """Ask for its version and its registry, write an artifact and remove it, and compare the time."""
    with mlflow_session(settings) as session:
        if session is None:
            file = settings.mlflow_uri.removeprefix("sqlite:///")
            if settings.elsewhere:
                yield (
                    "problem",
                    f"MLflow would be a file of this machine, {file}",
                    "Set MLFLOW_TRACKING_URI to its address.",
                )
            else:
                yield "ok", f"a file, {redact(file)}"
            return
        where, asked, well = redact(str(session.base_url)), utc_now(), True
        version = ask_mlflow(session, "GET", "/version")
        registry = ask_mlflow(session, "GET", "/api/2.0/mlflow/registered-models/search", params={"max_results": 1})
        there = version.text.strip()
        if version.status_code != 200 or registry.status_code != 200 or len(there) > 20:
            yield (
                "problem",
                f"{where} is no MLflow: GET /version answers with HTTP {version.status_code}",
                "Check MLFLOW_TRACKING_URI.",
            )
            return
        date = version.headers.get("Date")
        unlike = list(of_versions(where, {"MLflow": (there, installed("mlflow"))}))
        unlike += of_clock(where, parsedate_to_datetime(date), asked) if date else []
        yield from unlike
        place = f"{_ARTIFACTS}/windsock-doctor-{uuid.uuid4().hex}"
        wrote = ask_mlflow(session, "PUT", place, content=b"1")
        if wrote.status_code == 200:
            read = ask_mlflow(session, "GET", place)
            ask_mlflow(session, "DELETE", place)
            if read.content != b"1":
                well = False
                yield "problem", f"{where} does not give back the artifact that it took", "Its log says why."
        how = "takes and gives artifacts" if wrote.status_code == 200 else "leaves artifacts to its clients"
        if well and not unlike:
            yield "ok", f"{where} is MLflow {there}, its registry answers, it {how}"


def check_versions(settings: Settings) -> Findings:
    """Ask MLflow for the version of each model that is in force: a database that was lost knows none."""
    well = True
    with mlflow_session(settings) as session:
        for model, spec in sorted(load_specs(settings)[0].items()) if session is not None else ():
            champion = promotions.current(settings, spec)
            if session is None or champion is None:
                continue
            asked = {"name": model, "version": champion.version}
            answer = ask_mlflow(session, "GET", "/api/2.0/mlflow/model-versions/get", params=asked)
            if answer.status_code == 404:
                well, where = False, redact(str(session.base_url))
                yield (
                    "problem",
                    f"{model}: version {champion.version} is in force, but {where} does not know "
                    "it: MLflow's database is a new or another one. Days are scored; trainings cannot register",
                    "Restore MLflow's database, or point MLFLOW_TRACKING_URI to the right server.",
                )
    if well:
        yield "ok", "MLflow knows each version that is in force"
