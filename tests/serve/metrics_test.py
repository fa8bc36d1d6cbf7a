"""The server's metrics, as Prometheus reads them."""

import types

from absl.testing import absltest
from prometheus_client import parser

from rstar_jax.pipeline.solve import Solution
from rstar_jax.serve import metrics
from rstar_jax.serve.wire import Refused


class MetricsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    usage = {"seconds": 1.0, "generated_tokens": 41, "rows_used": 3}
    backend = types.SimpleNamespace(usage=lambda: usage)
    service = types.SimpleNamespace(
      solver=types.SimpleNamespace(backend=backend),
      running=2,
      waiting=1,
      stopping=False,
    )
    self.metrics = metrics.Metrics(service, lambda: 4)

  def values(self) -> dict[str, float]:
    text, kind = self.metrics.text()
    self.assertStartsWith(kind, "text/plain")
    return {
      f"{each.name} {' '.join(each.labels.values())}".strip(): each.value
      for family in parser.text_string_to_metric_families(text.decode())
      for each in family.samples
    }

  def test_what_there_is_now(self):
    found = self.values()
    for name, value in (
      ("running", 2),
      ("waiting", 1),
      ("sandbox_workers", 4),
      ("stopping", 0),
      ("generated_tokens_total", 41),
      ("rows_used", 3),
    ):
      self.assertEqual(found[f"rstar_jax_{name}"], value)

  def test_outcomes(self):
    def ended(error=None, answer=None):
      with self.metrics.request("search") as outcome:
        if error:
          raise error
        outcome.solved(Solution((), answer, None))

    ended()
    for _ in range(2):
      ended(answer="4")
    for error in (
      *(Refused("no", 429), Refused("no", 503), Refused("no", 504)),
      *(Refused("no", 500), GeneratorExit()),
    ):
      with self.assertRaises(type(error)):
        ended(error)
    self.metrics.refused(429)
    found = self.values()
    for outcome, count in (
      *(("answered", 2), ("no_answer", 1), ("no_room", 1), ("stopped", 1)),
      *(("timeout", 1), ("failed", 1), ("client_left", 1)),
    ):
      name = f"rstar_jax_requests_total search {outcome}"
      self.assertEqual(found[name], count)
    self.assertEqual(found["rstar_jax_request_seconds_count search"], 8)
    self.assertEqual(found["rstar_jax_refusals_total 429"], 1)


if __name__ == "__main__":
  absltest.main()
