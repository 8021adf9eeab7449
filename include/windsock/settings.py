"""Where this installation keeps and finds things: one environment variable each, none of them needed on a laptop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from windsock.errors import SpecError, did_you_mean

REPO_ROOT = Path(__file__).resolve().parents[2]
COMPUTE_BACKENDS = ("local", "kubernetes")


@dataclass(frozen=True)
class Settings:
    """The settings of one installation, as :meth:`from_env` reads them from the environment."""

    home: Path
    """State of the embedded stack: database, logs, secrets."""
    store: str
    """URL or path of the tables and run folders."""
    models: tuple[Path, ...]
    """Folders that hold one folder per model."""
    mlflow_uri: str
    ui_url: str
    """Address of the Airflow UI, for links in messages."""
    compute: str
    """Where heavy steps run: ``local`` or ``kubernetes``."""
    feature_repo: Path
    """Folder of ``feature_store.yaml``."""
    gx_root: Path
    """Great Expectations file context."""
    store_mark: str = ""
    """Mark that the store must have; empty: the one that the home remembers."""
    slack_channel: str = ""
    slack_api_url: str = "https://slack.com/api/"
    compute_file: Path | None = None
    """The site's defaults for pods; absent: those of the code."""
    gpus: int | None = None
    """GPUs that steps may use at a time, the slots of their pool; absent: not known."""
    studies: str = field(default="", repr=False)
    """SQLAlchemy URL of the PostgreSQL for shared searches."""
    metrics_token: str = field(default="", repr=False)
    """What Prometheus has to show (``WINDSOCK_METRICS_TOKEN``, or a file); empty: there are no numbers for it."""
    slack_token: str = field(default="", repr=False)
    """Slack bot token (``WINDSOCK_SLACK_TOKEN``, or the file ``WINDSOCK_SLACK_TOKEN_FILE``)."""
    slack_conn_id: str = ""
    """The Airflow connection whose password is that token; the scheduler alone reads it."""
    mlflow_url: str = ""
    """Address of MLflow as people's browsers see it; empty: that of the server."""
    airflow_url: str = ""
    """Address of the Airflow that commands ask; empty: the embedded stack of the home."""
    airflow_user: str = "admin"
    airflow_password: str = field(default="", repr=False)
    """Password of that user (``WINDSOCK_AIRFLOW_PASSWORD``, or a file)."""
    airflow_token: str = field(default="", repr=False)
    """A token of that Airflow's in place of a password (``WINDSOCK_AIRFLOW_TOKEN``, or a file)."""
    mlflow_secret: str = field(default="", repr=False)
    """Signs the keys to MLflow's door (``WINDSOCK_MLFLOW_SECRET``, or a file); empty: the server is not ours."""

    @classmethod
    def from_env(cls, env: dict[str, str] | None = None) -> Settings:
        """Read the settings from the environment (or from ``env``, for tests).

        Raises:
            SpecError: ``WINDSOCK_COMPUTE`` names no backend, or the file of a secret cannot be read.
        """
        e = dict(os.environ) if env is None else env
        home = Path(e.get("WINDSOCK_HOME") or REPO_ROOT / "var").expanduser().absolute()
        own_models = home / "models"  # the demo has its own, and is looked at again by its home alone
        shipped = own_models if own_models.is_dir() else REPO_ROOT / "include" / "models"
        models = e.get("WINDSOCK_MODELS") or str(shipped)
        compute, compute_file = e.get("WINDSOCK_COMPUTE") or "local", e.get("WINDSOCK_COMPUTE_FILE")
        if compute not in COMPUTE_BACKENDS:
            near = did_you_mean(compute, COMPUTE_BACKENDS)
            raise SpecError(f"WINDSOCK_COMPUTE is {compute!r}.{near} Known: {', '.join(COMPUTE_BACKENDS)}.")
        return cls(
            home=home,
            store=e.get("WINDSOCK_STORE") or str(home / "store"),
            models=tuple(Path(p).expanduser().absolute() for p in models.split(os.pathsep) if p),
            mlflow_uri=e.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home}/mlflow.db",
            ui_url=(e.get("WINDSOCK_UI_URL") or "http://127.0.0.1:8080").rstrip("/"),
            compute=compute,
            compute_file=Path(compute_file).expanduser().absolute() if compute_file else None,
            gpus=int(gpus) if (gpus := e.get("WINDSOCK_GPUS", "")).isdecimal() else None,
            studies=e.get("WINDSOCK_STUDIES", ""),
            feature_repo=Path(e.get("WINDSOCK_FEATURE_REPO") or REPO_ROOT / "feature_repo"),
            gx_root=Path(e.get("WINDSOCK_GX_ROOT") or REPO_ROOT / "great_expectations"),
            store_mark=e.get("WINDSOCK_STORE_MARK", "").strip(),
            slack_channel=e.get("WINDSOCK_SLACK_CHANNEL", ""),
            slack_api_url=e.get("WINDSOCK_SLACK_API_URL") or "https://slack.com/api/",
            slack_token=_secret(e, "WINDSOCK_SLACK_TOKEN").strip(),
            slack_conn_id=e.get("WINDSOCK_SLACK_CONN_ID", "").strip(),
            metrics_token=_secret(e, "WINDSOCK_METRICS_TOKEN"),
            mlflow_url=e.get("WINDSOCK_MLFLOW_URL", "").rstrip("/"),
            airflow_url=e.get("WINDSOCK_AIRFLOW_URL", "").rstrip("/"),
            airflow_user=e.get("WINDSOCK_AIRFLOW_USER") or "admin",
            airflow_password=_secret(e, "WINDSOCK_AIRFLOW_PASSWORD"),
            airflow_token=_secret(e, "WINDSOCK_AIRFLOW_TOKEN"),
            mlflow_secret=_secret(e, "WINDSOCK_MLFLOW_SECRET"),
        )

    @property
    def has_slack(self) -> bool:
        """Whether what people are told is sent to Slack by somebody."""
        return bool(self.slack_token or self.slack_conn_id)

    @property
    def elsewhere(self) -> bool:
        """Whether Airflow runs elsewhere, as an address or a bucket says: nobody is advised to start a stack here."""
        return bool(self.airflow_url) or ("://" in self.store and not self.store.startswith("file://"))


def _secret(env: Mapping[str, str], name: str) -> str:
    """Return a secret that a variable holds, or the file that ``<name>_FILE`` names."""
    if not env.get(name) and (file := env.get(f"{name}_FILE")):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as err:
            why = err.strerror if isinstance(err, OSError) else "it is no text"
            raise SpecError(
                f"{name}_FILE names {file}, which cannot be read: {why}. Name one that this user may read, or none."
            ) from err
    return env.get(name, "")
