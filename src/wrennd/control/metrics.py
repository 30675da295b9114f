"""Numbers for Prometheus: requests, operations, sandboxes by state, hosts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """One server's numbers; no ids are in them, so nobody's business is."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "wrenn_http_request_seconds",
            "Requests by route and status, until the answer began",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.operations = Histogram(
            "wrenn_operation_seconds",
            "Operations on sandboxes by kind and result (ok, or the error's code)",
            ("operation", "result"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.phases = Histogram(
            "wrenn_operation_phase_seconds",
            "Phases of operations that succeeded",
            ("operation", "phase"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.sandboxes = Gauge(
            "wrenn_sandboxes", "Sandboxes by state", ("state",), registry=self.registry
        )
        self.hosts = Gauge(
            "wrenn_host_online", "1 if the host answered last", ("host",), registry=self.registry
        )
        self.reconciled = Counter(
            "wrenn_reconcile_actions", "What reconciling did", ("action",), registry=self.registry
        )
        self.sockets = Gauge("wrenn_websockets", "Open WebSockets", registry=self.registry)

    def render(self) -> bytes:
        return generate_latest(self.registry)
