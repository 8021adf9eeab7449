"""A logged-in HTTP session with Airflow's REST API: tokens, retries, errors in words.

``airflow_api`` says what can be done with it.
"""

import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Self

import httpx

from windsock.errors import UpstreamUnavailable, WindsockError

_RETRY_SECONDS = 1.0
_PAGE = 100


class AirflowRefused(WindsockError):
    """Airflow understood a call and said no; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _TokenAuth(httpx.Auth):
    """Logs in before the first call, and again when the token has run out."""

    requires_response_body = True

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url, self._user, self._password = url, user, password
        self.token = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request with a token (httpx calls this)."""
        for _ in range(2):
            if not self.token:
                login = {"username": self._user, "password": self._password}
                answer = yield httpx.Request("POST", f"{self._url}/auth/token", json=login)
                if answer.status_code != 201:
                    status = answer.status_code
                    raise AirflowRefused(
                        f"Airflow at {self._url} refuses the login of {self._user!r} (HTTP {status}).", status
                    )
                self.token = answer.json()["access_token"]
            request.headers["Authorization"] = f"Bearer {self.token}"
            response = yield request
            if response.status_code != 401:
                return
            self.token = ""


class AirflowSession:
    """A logged-in session with one Airflow.

    Args:
        url: Of the API server, without a path.
        user: Name to log in with.
        password: Kept in memory only.
        call_seconds: Longest wait for an answer.
        attempts: How often a call is sent if that is safe.
    """

    def __init__(self, url: str, user: str, password: str, *, call_seconds: float = 30.0, attempts: int = 4) -> None:
        self._attempts = attempts
        self.url = url.rstrip("/")
        self._auth = _TokenAuth(self.url, user, password)
        # trust_env: a proxy for the outside world must not see calls to this machine.
        self._client = httpx.Client(
            base_url=f"{self.url}/api/v2/", auth=self._auth, timeout=call_seconds, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # --- calls; ``path`` is relative to /api/v2, its segments quoted

    def get(self, path: str, **params: Any) -> Any:
        """GET, and return the decoded body."""
        return self._call("GET", path, params={k: v for k, v in params.items() if v is not None})

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """POST, and return the decoded body."""
        return self._call("POST", path, json=body or {})

    def put(self, path: str) -> Any:
        """PUT without a body, and return the decoded one, if there is one."""
        return self._call("PUT", path)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """PATCH, and return the decoded body."""
        return self._call("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE, and return the decoded body, if there is one."""
        return self._call("DELETE", path)

    def pages(self, path: str, key: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield every item of a listing, page by page; ``key`` is the field of the body that holds them."""
        offset = 0
        while True:
            body = self.get(path, limit=_PAGE, offset=offset, **params)
            yield from body[key]
            offset += len(body[key])
            if not body[key] or offset >= body["total_entries"]:
                return

    def _call(self, method: str, path: str, **content: Any) -> Any:
        """Send a call; again if nothing was sent, if Airflow is busy, or if it only reads."""
        last = ""
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(_RETRY_SECONDS)
            try:
                response = self._client.request(method, path, **content)
            except httpx.HTTPError as err:
                last = str(err) or type(err).__name__
                if method != "GET" and not isinstance(err, httpx.ConnectError):
                    raise UpstreamUnavailable(f"{method} {self.url}/api/v2/{path}: {last}") from err
                continue
            if response.status_code == 503 or (response.status_code >= 500 and method == "GET"):
                last = f"HTTP {response.status_code}"
                continue
            if response.is_success:
                return response.json() if response.content else None
            raise AirflowRefused(
                f"Airflow refused {method} {path}: HTTP {response.status_code}: {_detail(response)[:1000]}",
                response.status_code,
            )
        raise UpstreamUnavailable(
            f"Airflow at {self.url} does not answer {method} {path}: {last}. See `windsock status`."
        )


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json().get("detail", response.text))
    except (ValueError, AttributeError):
        return response.text
