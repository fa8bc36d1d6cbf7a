"""The server's metrics, in Prometheus' format."""

import contextlib
import time
from collections.abc import Callable, Iterator

import prometheus_client

from rstar_jax.pipeline.solve import Solution
from rstar_jax.serve.service import Service
from rstar_jax.serve.wire import Refused

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)
# Fields of `ModelBackend.usage`: counters, and gauges.
_COUNTED = {
  "generated_tokens": "Tokens that the policy has written.",
  "scored_tokens": "Tokens that the reward model has computed.",
  "device_seconds": "Seconds in which a model has computed or compiled.",
  "pages_dropped": "Pages of keys and values dropped for want of free ones.",
}
_NOW = {
  "rows_used": "Token slots that candidates have now.",
  "pages_used": "Pages of keys and values that have tokens now.",
}


class Outcome:
  """The outcome of a request.

  Attributes:
    word: label of the metric.
  """

  def __init__(self):
    self.word = "no_answer"

  def solved(self, solution: Solution) -> None:
    """Notes the solution of one of its questions."""
    if solution.answer is not None:
      self.word = "answered"


class Metrics:
  """Counts requests, and reads the models' usage."""

  def __init__(self, service: Service, sandbox: Callable[[], int]):
    """Creates a registry.

    Args:
      service: has the requests and models.
      sandbox: returns the sandbox's number of live workers.
    """
    self._registry = registry = prometheus_client.CollectorRegistry()
    self._usage = service.solver.backend.usage
    self._requests = prometheus_client.Counter(
      "rstar_jax_requests",
      "Requests that have ended, by method and outcome.",
      ("method", "outcome"),
      registry=registry,
    )
    self._seconds = prometheus_client.Histogram(
      "rstar_jax_request_seconds",
      "Seconds of a request, its wait included.",
      ("method",),
      buckets=_SECONDS,
      registry=registry,
    )
    self._refusals = prometheus_client.Counter(
      "rstar_jax_refusals",
      "Requests that were refused, by HTTP status.",
      ("status",),
      registry=registry,
    )
    for name, does, call in (
      ("running", "Requests that are being answered.", lambda: service.running),
      ("waiting", "Requests that wait for a place.", lambda: service.waiting),
      ("sandbox_workers", "Live workers of the sandbox.", sandbox),
      ("stopping", "1 if the server stops.", lambda: int(service.stopping)),
    ):
      prometheus_client.Gauge(
        f"rstar_jax_{name}", does, registry=registry
      ).set_function(call)
    registry.register(self)

  def refused(self, status: int) -> None:
    """Counts a refused request."""
    self._refusals.labels(str(status)).inc()

  @contextlib.contextmanager
  def request(self, method: str) -> Iterator[Outcome]:
    """Counts a valid request, and its time."""
    began, outcome = time.perf_counter(), Outcome()
    try:
      yield outcome
    except Refused as error:
      words = {429: "no_room", 503: "stopped", 504: "timeout"}
      outcome.word = words.get(error.status, "failed")
      raise
    except BaseException:
      outcome.word = "client_left"
      raise
    finally:
      self._requests.labels(method, outcome.word).inc()
      self._seconds.labels(method).observe(time.perf_counter() - began)

  def text(self) -> tuple[bytes, str]:
    """Returns all metrics, and their content type."""
    return (
      prometheus_client.generate_latest(self._registry),
      prometheus_client.CONTENT_TYPE_LATEST,
    )

  def collect(self) -> Iterator[prometheus_client.Metric]:
    """Yields the models' usage, for the registry."""
    usage = self._usage()
    kinds = prometheus_client.metrics_core
    for name, does in _COUNTED.items():
      if name in usage:
        yield kinds.CounterMetricFamily(
          f"rstar_jax_{name}", does, value=usage[name]
        )
    for name, does in _NOW.items():
      if name in usage:
        yield kinds.GaugeMetricFamily(
          f"rstar_jax_{name}", does, value=usage[name]
        )
