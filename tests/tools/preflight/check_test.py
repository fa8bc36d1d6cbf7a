"""The whole check: who writes first, equal cost, and what is left out."""

from unittest import mock

from absl.testing import absltest, parameterized

from configs import qwen2_5_math_7b, tiny
from rstar_jax.config.schema import Config
from rstar_jax.tools.preflight import check as check_lib
from rstar_jax.tools.preflight.findings import Finding


def found(config: Config, **options) -> dict[str, Finding]:
  """Checks what needs no data, server or sandbox."""
  with mock.patch.multiple(
    check_lib.trials,
    data=lambda config: [],
    servers=lambda config: [],
    sandbox=lambda config, away: Finding("ok", "sandbox", f"away={away}"),
    workdir=lambda config, folder, away: Finding(
      "ok", "workdir", f"{folder}, away={away}"
    ),
  ):
    every = check_lib.check(config, grace=25.0, **options)
    return {each.about: each for each in every}


class CheckTest(parameterized.TestCase):
  def test_the_bare_paper_has_nobody_who_writes(self):
    said = found(qwen2_5_math_7b.get_config())["round 1"]
    self.assertEqual(said.level, "error")
    self.assertIn("has never seen the step grammar", said.said)

  @parameterized.parameters(
    ("remote.url", "http://a/v1", "http://a/v1 writes"),
    ("policy.prompt", "few_shot", "shown solved examples, writes"),
    ("policy.backend", "mine:policy", "mine:policy writes"),
  )
  def test_somebody_who_writes(self, name, value, expected):
    config = qwen2_5_math_7b.get_config()
    config.remote.model = "large"
    part, field = name.split(".")
    setattr(getattr(config, part), field, value)
    said = found(config)["round 1"]
    self.assertEqual(said.level, "ok")
    self.assertIn(expected, said.said)

  def test_others_who_write(self):
    config = qwen2_5_math_7b.get_config()
    config.rounds[0].policy = "cold/policy"
    self.assertEqual(found(config)["round 1"].level, "ok")
    # The base model of the package has the markers as tokens.
    self.assertEqual(found(tiny.get_config())["round 1"].level, "ok")
    config = qwen2_5_math_7b.get_config()
    config.extract.sft_source = config.extract.pairs_source = "a.json"
    self.assertEqual(found(config)["round 1"].level, "ok")

  def test_a_base_model_that_is_not_here(self):
    config = Config()
    config.policy.path = "no/such-folder"
    with mock.patch.object(
      check_lib, "load_tokenizer", side_effect=OSError("?")
    ):
      self.assertEqual(found(config)["round 1"].level, "warning")

  def test_equal_cost(self):
    config = Config()
    self.assertNotIn("equal cost", found(config))
    # Half of 4 x 32 is what a search of few solutions may cost.
    config.eval.samples = 64
    self.assertNotIn("equal cost", found(config))
    config.eval.samples = 16
    said = found(config)["equal cost"]
    self.assertEqual(said.level, "warning")
    self.assertIn("4 x 32 = 128 solutions", said.said)
    config.eval.samples, config.study.samples = 0, 16
    self.assertIn("16 x 32 = 512", found(config)["equal cost"].said)

  def test_a_search_that_rounds_replace(self):
    config = tiny.get_config()
    self.assertNotIn("search", found(config))
    config.search.rollouts = 4
    folder = self.create_tempdir()
    for options in ({}, {"workdir": folder.full_path}):
      said = found(config, **options)["search"]
      self.assertEqual(said.level, "error")
      self.assertIn("config.search.rollouts=4 does nothing", said.said)
    # `evolve` goes on with a run that has begun.
    folder.mkdir("round_0")
    self.assertNotIn("search", found(config, workdir=folder.full_path))

  def test_what_there_is_to_look_at(self):
    here = found(tiny.get_config())
    self.assertEqual(here["chips"].level, "warning")
    self.assertEqual(here["sandbox"].said, "away=False")
    self.assertNotIn("workdir", here)
    there = found(tiny.get_config(), topology="v5e-4", workdir="gs://a/b")
    self.assertEqual(there["chips"].level, "ok")
    self.assertEqual(there["sandbox"].said, "away=True")
    self.assertEqual(there["workdir"].said, "gs://a/b, away=True")

  def test_an_unknown_topology(self):
    with self.assertRaisesRegex(ValueError, "^topology 'v9-8': want one of v4"):
      found(tiny.get_config(), topology="v9-8")


if __name__ == "__main__":
  absltest.main()
