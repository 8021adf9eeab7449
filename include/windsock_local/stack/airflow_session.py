"""A logged-in HTTP session with Airflow's REST API: tokens, retries, errors in words.

``airflow_api`` says what can be done with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from windsock.errors import UpstreamUnavailable, WindsockError

if TYPE_CHECKING:
    import httpx

_CALL_SECONDS = 30.0
_RETRY_SECONDS = 1.0
_ATTEMPTS = 4
_PAGE = 100


class AirflowRefused(WindsockError):
    """Airflow understood a call and said no; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AirflowSession:
    """A logged-in session with one Airflow.

    Args:
        url: Of the API server, without a path.
        user: Name to log in with.
        password: Kept in memory only.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        import httpx

        self.url = url.rstrip("/")
        self._user, self._password = user, password
        # trust_env: a proxy for the outside world must not see calls to this machine.
        self._client = httpx.Client(base_url=self.url, timeout=_CALL_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
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
        return self._call("POST", path, body=body or {})

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """PATCH, and return the decoded body."""
        return self._call("PATCH", path, body=body)

    def delete(self, path: str) -> Any:
        """DELETE, and return the decoded body, if there is one."""
        return self._call("DELETE", path)

    def pages(self, path: str, key: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield every item of a listing, page by page.

        Args:
            path: Of the listing.
            key: Field of the body that holds the items.
            params: Filters.
        """
        offset = 0
        while True:
            body = self.get(path, limit=_PAGE, offset=offset, **params)
            yield from body[key]
            offset += len(body[key])
            if not body[key] or offset >= body["total_entries"]:
                return

    # --- the wire

    def _call(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        import httpx

        last = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_RETRY_SECONDS)
            try:
                if "Authorization" not in self._client.headers:
                    self._log_in()
                response = self._client.request(method, f"/api/v2/{path}", params=params, json=body)
            except httpx.ConnectError as err:  # nothing was sent: trying again is safe
                last = str(err)
                continue
            except httpx.HTTPError as err:
                if method != "GET":
                    raise UpstreamUnavailable(
                        f"{method} {self.url}/api/v2/{path}: {err or type(err).__name__}"
                    ) from err
                last = str(err) or type(err).__name__
                continue
            if response.status_code == 401:  # the token has run out
                del self._client.headers["Authorization"]
                last = "login refused"
                continue
            if response.status_code == 503 or (response.status_code >= 500 and method == "GET"):
                last = f"HTTP {response.status_code}"
                continue
            return _body(method, path, response)
        raise UpstreamUnavailable(
            f"Airflow at {self.url} does not answer {method} {path}: {last}. See `windsock status`."
        )

    def _log_in(self) -> None:
        response = self._client.post("/auth/token", json={"username": self._user, "password": self._password})
        if response.status_code != 201:
            raise AirflowRefused(
                f"Airflow at {self.url} refuses the login of {self._user!r} (HTTP {response.status_code}).",
                response.status_code,
            )
        self._client.headers["Authorization"] = f"Bearer {response.json()['access_token']}"


def _body(method: str, path: str, response: httpx.Response) -> Any:
    if response.is_success:
        return response.json() if response.content else None
    try:
        detail = response.json().get("detail", response.text)
    except (ValueError, AttributeError):
        detail = response.text
    raise AirflowRefused(
        f"Airflow refused {method} {path}: HTTP {response.status_code}: {str(detail)[:1000]}", response.status_code
    )
