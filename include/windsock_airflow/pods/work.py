"""What runs in a step's pod, and how its result comes back: always through the store."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from windsock.compute import PodNeeds
from windsock.errors import DataContractError
from windsock.runs.contract import REQUEST_VARIABLE, ROLE_VARIABLE, TrainerRequest, request_url
from windsock.runs.run_folder import RunFolder
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.estimators import CustomSpec, Estimator
from windsock.store import Store
from windsock.trainers.fit_step import result as candidate_result
from windsock_airflow.runs import RunFacts

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class TrainerWork:
    """A trainer on the request of one candidate; it goes on from what lies in its folder.

    The step's option ``run`` names the run folder, ``role`` what the trainer is to do.

    Raises:
        SpecError: No run is named.
    """

    def __init__(
        self, settings: Settings, spec: ModelSpec, estimator: Estimator, needs: PodNeeds, options: Mapping[str, Any]
    ) -> None:
        self._folder = RunFolder.named(Store.of(settings), spec.name, options.get("run"))
        self._estimator = estimator.name
        self._role = str(options.get("role") or "fit")
        self._url = request_url(self._folder, estimator.name)
        self.title = f"{spec.name}, {self._role} {estimator.name}"
        # Without a command the image's entrypoint runs.
        self.command = tuple(estimator.command) if isinstance(estimator, CustomSpec) else ()
        self.arguments: tuple[str, ...] = ()
        self.env = {
            REQUEST_VARIABLE: self._url,
            ROLE_VARIABLE: self._role,
            "WINDSOCK_THREADS": str(needs.threads),
            **_tracking(settings),
        }

    def prepare(self) -> None:
        """Leave everything: the trainer goes on from it."""

    def finished(self) -> dict[str, Any] | None:
        """Return the result if the candidate is complete; a trainer would end at once."""
        if self._role != "fit" or TrainerRequest.read(self._url).finished() is None:
            return None
        return self.result()

    def result(self) -> dict[str, Any]:
        """Return what the trainer said of its candidate; one that only searched says nothing.

        Raises:
            DataContractError: It left no candidate, or a wrong one.
        """
        if self._role != "fit":
            return {"run": self._folder.run, "estimator": self._estimator}
        return candidate_result(self._folder, self._estimator)


class StepWork:
    """``windsock step`` in the site's step image; run again, it looks for itself what there is to do.

    The digest of the task instance names the result.
    """

    command: tuple[str, ...] = ("windsock",)

    def __init__(
        self, settings: Settings, spec: ModelSpec, step: str, facts: RunFacts, options: Mapping[str, Any], digest: str
    ) -> None:
        self._store = Store.of(settings)
        self._result = ("steps", spec.name, f"{digest}.json")
        self.title = f"{spec.name}, {step}"
        arguments = ["step", step, "--model", spec.name, "--origin", facts.run_id, "--result", "/".join(self._result)]
        arguments += ["--key", facts.key] if facts.key is not None else []
        arguments += [] if facts.live else ["--replayed"]
        for name, value in options.items():
            # As `windsock step` reads it back: versions are text, all else is JSON.
            arguments += ["-o", f"{name}={value if name.endswith('version') else json.dumps(value)}"]
        self.arguments = tuple(arguments)
        self.env = {"WINDSOCK_STORE": self._store.url(), "WINDSOCK_UI_URL": settings.ui_url, **_tracking(settings)}

    def prepare(self) -> None:
        """Remove the result of an earlier pod."""
        with contextlib.suppress(FileNotFoundError):
            self._store.fs.rm(self._store.path(*self._result))

    def finished(self) -> dict[str, Any] | None:
        """Return None: the step finds out for itself whether there is anything to do."""
        return None

    def result(self) -> dict[str, Any]:
        """Return what the step left in the store.

        Raises:
            DataContractError: It left none, or no JSON.
        """
        url = self._store.url(*self._result)
        try:
            return dict(self._store.read_json(*self._result))
        except FileNotFoundError as err:
            raise DataContractError(
                f"The pod of {self.title} ended well but left no result at {url}. Check that its WINDSOCK_STORE is "
                "the store that Airflow uses, and that step_image holds the same version of Windsock as Airflow."
            ) from err
        except ValueError as err:
            raise DataContractError(f"{url}: is no JSON: {err}. Is step_image of another version?") from err


def _tracking(settings: Settings) -> dict[str, str]:
    """Return where live metrics go, unless no pod could reach it."""
    address = urlsplit(settings.mlflow_uri)
    reachable = address.scheme in {"http", "https"} and address.hostname not in _LOOPBACK
    return {"MLFLOW_TRACKING_URI": settings.mlflow_uri} if reachable else {}
