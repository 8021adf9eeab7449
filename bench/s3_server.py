"""An S3 server of benches and tests (SeaweedFS), and a relay before it that answers some requests wrongly."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.stack import free_ports

BUCKET = "windsock"
USERS = {"admin": ["Admin", "Read", "Write", "List", "Tagging"], "reader": ["Read", "List"]}
"""Access keys and what they may do; the secret is ``<key>-secret``."""

Fault = Callable[[str, str], "int | str | None"]
"""Method and path of a request to: a status, ``hang``, ``cut``, an S3 error code with 403, or None for no fault."""


def environment(url: str, key: str = "admin", secret: str | None = None) -> dict[str, str]:
    """Return what names a server and a login to every S3 client."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret or f"{key}-secret",
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def s3_server(folder: Path, *, logins: bool = True) -> Iterator[str]:
    """Run a server with an empty bucket until the block ends; yield its address.

    Without ``logins`` it takes every request, also from those whose clock is another one.
    """
    program = Path(sys.executable).with_name("weed")
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": f"{key}-secret"}], "actions": actions}
        for key, actions in USERS.items()
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    master, volume, filer, port = free_ports(4)
    ports = {"master.port": master, "volume.port": volume, "filer.port": filer, "s3.port": port}
    ports |= {f"{name}.grpc": number for name, number in zip(ports, free_ports(4), strict=True)}
    command = [str(program), "server", "-filer", "-s3", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-volume.max=8", "-master.volumeSizeLimitMB=64"]
    command += [f"-s3.config={folder / 's3.json'}"] if logins else []
    command += ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen([*command, *(f"-{n}={p}" for n, p in ports.items())], stdout=log, stderr=log)
    try:
        _make_bucket(f"http://127.0.0.1:{port}", process, folder / "weed.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()  # it would take half a minute to end by itself
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _make_bucket(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="admin",
        aws_secret_access_key="admin-secret",
        region_name="us-east-1",
    )
    while process.poll() is None:
        with suppress(BotoCoreError, ClientError):
            with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            client.delete_object(Bucket=BUCKET, Key="ready")
            return
        time.sleep(0.05)
    raise AssertionError(f"weed ended with {process.returncode}: {log.read_text()[-2000:]}")


class Relay:
    """Passes requests on, counts them, and answers those wrongly that ``fault`` picks."""

    def __init__(self, target: str, latency_s: float = 0.0) -> None:
        self._latency_s = latency_s
        self.fault: Fault = lambda _method, _path: None
        self.asked: Counter[str] = Counter()
        self.failed = 0
        """How many requests were answered wrongly."""
        self.alter: Callable[[str, bytes], bytes] = lambda _path, body: body
        """Path and body of an answer to another body."""
        self.dropped: tuple[str, ...] = ()
        """Headers of requests that do not arrive."""
        self._target = target.removeprefix("http://")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request as the server behind it does, or wrongly."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.asked[request.command] += 1
        time.sleep(self._latency_s)
        wrong = self.fault(request.command, request.path)
        self.failed += wrong is not None
        if wrong == "hang":
            with suppress(OSError):
                request.connection.recv(1)  # until the client has enough
            return
        if wrong == "cut":
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        if wrong is not None:
            status, code = (wrong, "ServiceUnavailable") if isinstance(wrong, int) else (403, wrong)
            text = b"" if request.command == "HEAD" or status < 300 else f"<Error><Code>{code}</Code></Error>".encode()
            self._answer(request, status, {"Content-Type": "application/xml"}, text)
            return
        server = HTTPConnection(self._target, timeout=60)
        for name in self.dropped:
            del request.headers[name]
        server.request(request.command, request.path, body, dict(request.headers))
        answer = server.getresponse()
        said = self.alter(request.path, answer.read())
        self._answer(request, answer.status, dict(answer.getheaders()), said)

    @staticmethod
    def _answer(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        request.send_response(status)
        length = {} if request.command == "HEAD" else {"Content-Length": str(len(body))}
        hop_by_hop = ("transfer-encoding", "connection", *(n.lower() for n in length), "date", "server")
        for name, value in {**{n: v for n, v in headers.items() if n.lower() not in hop_by_hop}, **length}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)


def _handler(relay: Relay) -> Any:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            relay.pass_on(self)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = _any  # the base class names them

        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

    return Handler


def clear_clients() -> None:
    """Let fsspec forget its clients, whose address and login are those of the environment when they were made."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
