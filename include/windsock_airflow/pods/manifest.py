"""A step's pod: its manifest, what runs in it, and how its result comes back: always through the store.

It keeps the *restricted* pod security standard: no service-account token, no root, no writable root file system, no
capabilities; secrets only by reference, but for a key to MLflow, which is the model's own and runs out in a day. Memory
is limited to what is asked for, as a pod that takes more would take it from its neighbours. Cores are asked for but not
limited (unless the site says so): spare cores would else lie idle.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from kubernetes.client import V1Pod

from windsock import mlflow_keys
from windsock.compute import PodNeeds, Volume
from windsock.errors import DataContractError
from windsock.runs.contract import REQUEST_VARIABLE, ROLE_VARIABLE, TrainerRequest, request_url
from windsock.runs.run_folder import RunFolder
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.estimators import CustomSpec, Estimator
from windsock.store import Store
from windsock.store_memory import StoreMemory
from windsock.trainers.fit_step import result as candidate_result
from windsock_airflow.runs import RunFacts

CONTAINER = "base"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def pod_manifest(
    needs: PodNeeds,
    *,
    name: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    env: Mapping[str, str],
    command: Sequence[str] = (),
    arguments: Sequence[str] = (),
    deadline_seconds: int | None = None,
    own_folders: Mapping[str, bool] | None = None,
) -> V1Pod:
    """Return the pod that runs one command with these needs.

    Of a volume that holds ``own_folders`` (path to whether it may be written to) it sees these alone, not the whole.
    The site's labels give way to ``labels``, the values of ``env`` to the site's; secrets have no place in it.
    Without a ``command`` the image's entrypoint gets the ``arguments``.
    """
    values = {"HOME": "/tmp", "OMP_WAIT_POLICY": "passive", **env, **needs.env}
    mounted = _scratch_volumes(needs)
    for site_volume in needs.volumes:
        volume, mount = _site_volume(site_volume)
        inside = _inside(site_volume, own_folders or {})
        mounted += [(volume, each) for each in inside or [mount]]
    container = {
        "name": CONTAINER,
        "image": needs.image,
        "imagePullPolicy": needs.image_pull_policy,
        "command": list(command) or None,
        "args": list(arguments) or None,
        "env": [{"name": key, "value": value} for key, value in sorted(values.items())],
        "envFrom": [
            *({"configMapRef": {"name": name}} for name in needs.env_from_config_maps),
            *({"secretRef": {"name": name}} for name in needs.env_from_secrets),
        ],
        "resources": _resources(needs),
        "volumeMounts": [{"name": volume["name"], **mount} for volume, mount in mounted],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
    }
    spec = {
        "containers": [container],
        "restartPolicy": "Never",
        "serviceAccountName": needs.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "imagePullSecrets": [{"name": name} for name in needs.image_pull_secrets] or None,
        "nodeSelector": dict(needs.node_selector) or None,
        "affinity": _affinity(needs),
        "tolerations": [t.model_dump(exclude={"seconds"}) | {"tolerationSeconds": t.seconds} for t in needs.tolerations]
        or None,
        "priorityClassName": needs.priority_class,
        "activeDeadlineSeconds": deadline_seconds,
        "terminationGracePeriodSeconds": needs.termination_grace_seconds,
        "volumes": list({volume["name"]: volume for volume, _ in mounted}.values()),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": needs.run_as.user,
            "runAsGroup": needs.run_as.group,
            "fsGroup": needs.run_as.fs_group,
            # Without it, each start would walk through the whole store to change its owner.
            "fsGroupChangePolicy": "OnRootMismatch" if needs.run_as.fs_group else None,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    metadata = {
        "name": name,
        "namespace": needs.namespace,
        "labels": {**needs.labels, **labels},
        "annotations": dict(annotations),
    }
    return PodGenerator.deserialize_model_dict({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def _resources(needs: PodNeeds) -> dict[str, dict[str, str]]:
    requests, limits = {"cpu": f"{needs.cpu:g}", "memory": needs.memory}, {"memory": needs.memory}
    if needs.limit_cpu:
        limits["cpu"] = f"{needs.cpu:g}"
    if needs.gpu:
        requests[needs.gpu_resource] = limits[needs.gpu_resource] = str(needs.gpu)
    return {"requests": requests, "limits": limits}


def _scratch_volumes(needs: PodNeeds) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    scratch = {"name": "windsock-scratch", "emptyDir": {"sizeLimit": needs.scratch}}
    volumes: list[tuple[dict[str, Any], dict[str, Any]]] = [(scratch, {"mountPath": "/tmp"})]
    if needs.gpu > 1:  # torch's processes exchange data through shared memory; a container's own has 64 MiB
        memory = {"name": "windsock-shared", "emptyDir": {"medium": "Memory", "sizeLimit": needs.shared_memory}}
        volumes.append((memory, {"mountPath": "/dev/shm"}))
    return volumes


def _site_volume(volume: Volume) -> tuple[dict[str, Any], dict[str, Any]]:
    read_only = volume.read_only or None
    sources = {
        "persistentVolumeClaim": volume.claim and {"claimName": volume.claim, "readOnly": read_only},
        "hostPath": volume.host_path and {"path": volume.host_path, "type": "Directory"},
        "configMap": volume.config_map and {"name": volume.config_map},
        "secret": volume.secret and {"secretName": volume.secret},
    }
    return {"name": volume.name, **sources}, {"mountPath": volume.mount, "readOnly": read_only}


def _inside(volume: Volume, folders: Mapping[str, bool]) -> list[dict[str, Any]]:
    """Return the mounts of those of the folders that lie in a volume which may be written to, by their place in it."""
    if volume.read_only:
        return []
    places = {folder: PurePosixPath(folder) for folder in folders if PurePosixPath(folder).is_relative_to(volume.mount)}
    return [
        {
            "mountPath": folder,
            "subPath": str(place.relative_to(volume.mount)),
            "readOnly": None if folders[folder] else True,
        }
        for folder, place in sorted(places.items())
    ]


def _affinity(needs: PodNeeds) -> dict[str, Any] | None:
    """Say how the pod stands to spot nodes, as far as the site says which nodes these are."""
    label = needs.spot_label
    if label is None:
        return None
    operator = "NotIn" if needs.spot == "never" else "In"
    term = {"matchExpressions": [{"key": label.key, "operator": operator, "values": [label.value]}]}
    rule: dict[str, Any] = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    if needs.spot == "prefer":
        rule = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}
    return {"nodeAffinity": rule}


class TrainerWork:
    """A trainer on the request of one candidate, in the run folder that the step's option ``run`` names.

    The option ``role`` says what it is to do; it goes on from what lies in the candidate's folder.

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
        self.own_folders: dict[str, bool] = {}
        """Where the store is a folder: the run, to read, and its own candidate, to write to; see ``pod_manifest``."""
        if self._folder.is_local:
            self.own_folders = {self._folder.url(): False, self._url.rpartition("/")[0]: True}
        self.title = f"{spec.name}, {self._role} {estimator.name}"
        # Without a command the image's entrypoint runs.
        self.command = tuple(estimator.command) if isinstance(estimator, CustomSpec) else ()
        self.arguments: tuple[str, ...] = ()
        self.env = {
            REQUEST_VARIABLE: self._url,
            ROLE_VARIABLE: self._role,
            "WINDSOCK_THREADS": str(needs.threads),
            **_tracking(settings, spec.name, f"{self._role}.{self._estimator}"),
        }

    def finished(self) -> dict[str, Any] | None:
        """Return the result if the candidate is complete; a trainer would end at once."""
        if self._role != "fit" or TrainerRequest.read(self._url).finished() is None:
            return None
        return self.result()

    def result(self) -> dict[str, Any]:
        """Return what the trainer said of its candidate; one that only searched says nothing."""
        if self._role != "fit":
            return {"run": self._folder.run, "estimator": self._estimator}
        return candidate_result(self._folder, self._estimator)


class StepWork:
    """``windsock step`` in the site's step image; run again, it looks for itself what there is to do.

    The digest of the task instance names the result.
    """

    command: tuple[str, ...] = ("windsock",)
    own_folders: Mapping[str, bool] | None = None  # it reads and writes all of the store

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
        mark, _ = StoreMemory.of(settings).expected()
        self.env = {
            "WINDSOCK_STORE": self._store.url(),
            **({"WINDSOCK_STORE_MARK": mark} if mark is not None else {}),
            "WINDSOCK_UI_URL": settings.ui_url,
            **_tracking(settings, spec.name, step),
        }

    def prepare(self) -> None:
        """Remove the result of an earlier pod."""
        with contextlib.suppress(FileNotFoundError):
            self._store.fs.rm(self._store.path(*self._result))

    def result(self) -> dict[str, Any]:
        """Return what the step left in the store.

        Raises:
            DataContractError: It left none, or no JSON.
        """
        url = self._store.url(*self._result)
        try:
            return self._store.read_json(*self._result, mend="Is step_image of another version?")
        except FileNotFoundError as err:
            raise DataContractError(
                f"The pod of {self.title} ended well but left no result at {url}. Check that its WINDSOCK_STORE is "
                "the store that Airflow uses, and that step_image holds the same version of Windsock as Airflow."
            ) from err


def _tracking(settings: Settings, model: str, step: str) -> dict[str, str]:
    """Return where live metrics go, unless no pod could reach it, and a key of the model's own to go there with."""
    address = urlsplit(settings.mlflow_uri)
    reachable = address.scheme in {"http", "https"} and address.hostname not in _LOOPBACK
    # The site may name an address that does reach it.
    key = mlflow_keys.task_key(settings.mlflow_secret, model, step)
    return {"MLFLOW_TRACKING_URI": settings.mlflow_uri, **key} if reachable else key
