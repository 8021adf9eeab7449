"""Logging in to an Airflow and calling its REST API: that of the settings, or the embedded stack of the home."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from windsock.errors import SpecError, UpstreamUnavailable
from windsock.redact import redact
from windsock.settings import Settings
from windsock_local.stack.home import ADMIN_USER, Home, read_stack

QUICKLY: Mapping[str, Any] = {"call_seconds": 5.0, "attempts": 1}
"""Limits for who only looks how things stand."""
_RETRY_SECONDS = 1.0
_PAGE = 100


class AirflowRefused(SpecError):
    """Airflow understood a call and said no; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AirflowSession:
    """A session with one Airflow; calls are sent ``attempts`` times if that is safe."""

    def __init__(
        self,
        url: str,
        password: str,
        *,
        user: str = ADMIN_USER,
        token: str = "",
        call_seconds: float = 30.0,
        attempts: int = 4,
    ) -> None:
        self.url, self._attempts = url.rstrip("/"), attempts
        self._login, self._token = {"username": user, "password": password}, token
        self._advice = "See `windsock status`."
        self.date = ""
        """When the last answer was given, by the clock over there, as HTTP writes it."""
        # trust_env: a proxy for the outside world must not see calls to this machine.
        here = urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")
        self._client = httpx.Client(base_url=f"{self.url}/api/v2/", timeout=call_seconds, trust_env=not here)

    @classmethod
    def of(cls, settings: Settings, **limits: Any) -> Self:
        """Return a session with the Airflow that the settings name, else with the running stack of their home.

        ``limits`` are ``call_seconds`` and ``attempts``.

        Raises:
            SpecError: The address is none.
            UpstreamUnavailable: None is named, and no stack runs.
        """
        if not settings.airflow_url:
            return cls.of_stack(settings, **limits)
        address = urlsplit(settings.airflow_url)
        if address.scheme not in ("http", "https") or not address.hostname or address.username is not None:
            raise SpecError(
                f"WINDSOCK_AIRFLOW_URL is {redact(settings.airflow_url)!r}. Give an address such as "
                "https://airflow.example.com, the login by WINDSOCK_AIRFLOW_USER and WINDSOCK_AIRFLOW_PASSWORD_FILE."
            )
        session = cls(
            settings.airflow_url,
            settings.airflow_password,
            user=settings.airflow_user,
            token=settings.airflow_token,
            **limits,
        )
        session._advice = "Check WINDSOCK_AIRFLOW_URL and whether it is up."
        return session

    @classmethod
    def of_stack(cls, settings: Settings, **limits: Any) -> Self:
        """Return a session with the running stack of these settings' home.

        Raises:
            UpstreamUnavailable: No stack runs there.
        """
        info = read_stack(settings)
        if info is None:
            raise UpstreamUnavailable(f"No stack runs under {settings.home}. {how_to_find_airflow(settings)}")
        return cls(info.airflow_url, Home.of(settings).admin_password(), **limits)

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
            AirflowRefused: Airflow, or who answers there, says no.
            UpstreamUnavailable: It gives no answer that helps.
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
                    break
                continue
            if response.is_success:
                return self._decoded(response) if response.content else None
            last = _reason(response)
            if response.status_code < 500:
                raise AirflowRefused(f"Airflow refused {method} {path}: {last}", response.status_code)
            if response.status_code != 503 and method != "GET":
                break  # it may have been done
        raise UpstreamUnavailable(
            f"Airflow at {self.url} does not answer {method} {path}: {last.rstrip('.')}. {self._advice}"
        )

    def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Send a request with a token, logging in before the first one and when the token has run out."""
        headers = self._client.headers
        for _ in range(2):
            if "Authorization" not in headers:
                answer = self._logged_in()
                if isinstance(answer, httpx.Response):
                    return answer
                headers["Authorization"] = f"Bearer {answer}"
            response = self._client.request(method, path, **content)
            self.date = response.headers.get("Date", "")
            if response.status_code != 401:
                break
            del headers["Authorization"]
            if self._token:
                raise AirflowRefused(
                    f"Airflow at {self.url} refuses the token (HTTP 401): it has run out, or is another Airflow's. "
                    "Set WINDSOCK_AIRFLOW_TOKEN anew, or give user and password.",
                    401,
                )
        return response

    def _logged_in(self) -> str | httpx.Response:
        """Return a token; an answer that is none, of a server that is not well, is returned as it is."""
        if self._token:
            return self._token
        named, login = self._login["password"], f"{self.url}/auth/token"
        # Without a password: some let everybody in.
        answer = self._client.post(login, json=self._login) if named else self._client.get(login)
        status = answer.status_code
        if status >= 500:
            return answer
        if status == 201:
            return str(self._decoded(answer)["access_token"])
        if status in (400, 401, 403, 422):
            who = f"refuses the login of {self._login['username']!r}" if named else "wants a login"
            raise AirflowRefused(
                f"Airflow at {self.url} {who} (HTTP {status}). Check WINDSOCK_AIRFLOW_USER and "
                "WINDSOCK_AIRFLOW_PASSWORD_FILE (docs/settings.md).",
                status,
            )
        raise AirflowRefused(
            f"{self.url} is no Airflow 3: /auth/token answers with HTTP {status}. {self._advice}", status
        )

    def _decoded(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as err:
            where = f"{self.url} is no Airflow 3: {response.request.method} {response.request.url.path}"
            raise AirflowRefused(f"{where} answers with what is no JSON. {self._advice}", response.status_code) from err

    def pages(self, path: str, key: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield every item of a listing, page by page; ``key`` is the field of the body that holds them."""
        offset = 0
        while True:
            body = self.call("GET", path, limit=_PAGE, offset=offset, **params)
            yield from body[key]
            offset += len(body[key])
            if not body[key] or offset >= body["total_entries"]:
                return


def how_to_find_airflow(settings: Settings) -> str:
    """Say what to do where no stack runs; never to start one beside an Airflow that works elsewhere."""
    setting = "WINDSOCK_AIRFLOW_URL to the address of the Airflow to ask (docs/settings.md)"
    if settings.elsewhere:
        return f"The store is {redact(settings.store)}, so Airflow runs elsewhere: set {setting}."
    return f"Start it with `windsock up`, or set {setting}."


def _reason(response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text
    return f"HTTP {response.status_code}: {str(detail)[:1000]}"
