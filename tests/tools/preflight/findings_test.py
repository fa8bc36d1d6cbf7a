from absl.testing import absltest

from rstar_jax.tools.preflight.findings import Finding, render


class FindingsTest(absltest.TestCase):
  def test_a_line_each_and_a_verdict(self):
    well = [Finding("ok", "a", "fine"), Finding("warning", "b", "so\nso")]
    for more, ends in (([], True), ([Finding("error", "c", "no")], False)):
      said: list[str] = []
      self.assertEqual(render(iter(well + more), said.append), ends)
      self.assertEqual(said[:2], ["ok      a: fine", "warning b: so so"])
      self.assertEqual(said[-1], f"{len(more)} errors, 1 warnings, 1 ok")

  def test_each_is_said_as_it_comes(self):
    said: list[str] = []

    def slow():
      yield Finding("ok", "a", "first")
      self.assertEqual(said, ["ok      a: first"])
      yield Finding("ok", "b", "second")

    render(slow(), said.append)
    self.assertLen(said, 3)


if __name__ == "__main__":
  absltest.main()
