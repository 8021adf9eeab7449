"""A collector of OpenTelemetry and OpenLineage on loopback: takes what Airflow exports, by the official messages."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Received:
    """What has come in."""

    url: str = ""
    spans: list[dict[str, Any]] = field(default_factory=list)
    """Name, service and attributes of each."""
    metrics: set[str] = field(default_factory=set)
    lineage: list[RunEvent] = field(default_factory=list)
    """Events of runs, without their facets."""
    faults: list[str] = field(default_factory=list)
    """What could not be decoded."""

    @property
    def env(self) -> dict[str, str]:
        """The settings of ``docs/deploy.md``, for the embedded stack."""
        return {
            "WINDSOCK_AIRFLOW__METRICS__OTEL_ON": "True",
            "WINDSOCK_AIRFLOW__TRACES__OTEL_ON": "True",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp_proto_http",
            "OTEL_SERVICE_NAME": "windsock",
            # More often than usual: a test waits for them.
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "WINDSOCK_AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "http", "url": self.url}),
            "WINDSOCK_AIRFLOW__OPENLINEAGE__NAMESPACE": "windsock",
        }

    def take(self, path: str, body: bytes) -> None:
        """Decode a request."""
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = _plain(resource.resource.attributes).get("service.name")
                for scope in resource.scope_spans:
                    self.spans += [
                        {"name": span.name, "service": service, **_plain(span.attributes)} for span in scope.spans
                    ]
        elif path == "/v1/metrics":
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics |= {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
        elif path == "/api/v1/lineage":
            self.lineage.append(_run_event(json.loads(body)))
        else:
            raise ValueError(f"nothing is received at {path}")


def _run_event(told: dict[str, Any]) -> RunEvent:
    return RunEvent(
        eventType=RunState(told["eventType"]),
        eventTime=told["eventTime"],
        run=Run(told["run"]["runId"]),
        job=Job(told["job"]["namespace"], told["job"]["name"]),
        producer=told["producer"],
        inputs=[InputDataset(of["namespace"], of["name"]) for of in told.get("inputs", ())],
        outputs=[OutputDataset(of["namespace"], of["name"]) for of in told.get("outputs", ())],
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


@contextmanager
def telemetry_receiver() -> Iterator[Received]:
    """Receive on a port of its own for as long as this lasts."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                received.take(self.path, decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            except Exception as err:  # whatever it is, the test says it
                received.faults.append(f"{self.path}: {type(err).__name__}: {err}")
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield received
        server.shutdown()
