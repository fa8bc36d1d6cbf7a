"""What binds a run, and configs of runs that were begun before."""

import copy
import dataclasses
import json
import operator
import re
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config import closed, identity, presets, schema
from rstar_jax.config.schema import Config, DataConfig, RoundConfig
from tests import docs_test, layering_test

# All fields that say how a run is done; each was looked up where it is read.
FREE = {
  "programs": "elsewhere",
  "trackers": ("wandb",),
  "engine.warm_up": True,
  "engine.rows": 7,
  "engine.inner_steps": 3,
  "engine.prefill_tokens": 9,
  "engine.pages": 5,
  "remote.api_key_env": "KEY",
  "remote.in_flight": 3,
  "remote.timeout_seconds": 1.0,
  "remote.patience_seconds": 1.0,
  "servers.api_key_env": "KEY",
  "servers.in_flight": 3,
  "servers.timeout_seconds": 1.0,
  "servers.patience_seconds": 1.0,
  "servers.protocol": "sglang",
  "servers.model": "name",
  "servers.load": "vllm",
  "servers.compare": False,
  "servers.tolerance": 0.5,
  "ray.address": "auto",
  "ray.searchers": 7,
  "ray.needs": ("TPU=4",),
  "sandbox.workers": 7,
  "sandbox.live": 0,
  "sandbox.require": ("net",),
  "grader.workers": 7,
  "sft.checkpoint_every": 7,
  "sft.log_every": 7,
  "sft.eval_every": 7,
  "ppm.checkpoint_every": 7,
  "ppm.log_every": 7,
  "reinforce.train.checkpoint_every": 7,
  "reinforce.train.log_every": 7,
  "ppm.eval_every": 7,
  "reinforce.train.eval_every": 7,
  "search.in_flight": 7,
  "eval.search.in_flight": 7,
  "study.trajectories": 7,
}


def assign(config, name, value):
  owner, _, field = name.rpartition(".")
  holder = operator.attrgetter(owner)(config) if owner else config
  setattr(holder, field, value)
  return config


def leaves(config, prefix=""):
  """Returns {path: value} of all fields that are no dataclass."""
  found = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      found |= leaves(value, f"{prefix}{field.name}.")
    else:
      found[prefix + field.name] = value
  return found


class IdentityTest(parameterized.TestCase):
  def test_what_may_change(self):
    for name, value in FREE.items():
      with self.subTest(name):
        changed = assign(Config(), name, value)
        self.assertNotEqual(changed, Config())
        self.assertEqual(identity.differences(Config(), changed), [])

  def test_all_else_binds(self):
    """Every other field is named when it differs."""
    count = 0
    for name, value in leaves(Config()).items():
      if name in FREE or name.startswith("study."):
        continue
      with self.subTest(name):
        changed = assign(Config(), name, "x" if value == "" else value)
        # A value of the same type that no default has; choices aside.
        other = {bool: lambda v: not v, int: lambda v: v + 9}.get(type(value))
        if isinstance(value, float):
          other = lambda v: v + 0.25  # noqa: E731
        if other:
          assign(changed, name, other(value))
        elif value != "":
          continue
        count += 1
        self.assertLen(identity.differences(Config(), changed), 1)
    self.assertGreater(count, 70)

  def test_whether_there_is_a_server_binds_and_not_which(self):
    one, two = (
      assign(Config(), "remote.url", f"http://{name}/v1") for name in "ab"
    )
    self.assertEqual(identity.differences(one, two), [])
    self.assertEqual(
      identity.differences(one, Config()),
      ["config.remote.url was True and is False"],
    )

  def test_what_answers_depend_on(self):
    """Every field is either of answers, or of training."""
    of_training = {
      *("train", "decontaminate", "search", "remote", "extract", "rounds"),
      *("train_mesh", "sft", "sft_from", "reinforce"),
      *("ppm", "ppm_head", "reward", "reward_balanced"),
    }
    free = {"programs", "trackers", "study"}
    found = identity.of_answers(Config())
    self.assertEqual(
      set(found),
      {each.name for each in dataclasses.fields(Config)} - of_training - free,
    )
    self.assertTrue(
      {"seed", "task", "policy", "engine", "servers", "search_mesh"} < {*found}
    )
    self.assertTrue({"sandbox", "grader", "eval", "shard_size"} < {*found})
    for name, value in FREE.items():
      self.assertEqual(
        identity.of_answers(assign(Config(), name, value)), found
      )

  def test_differences_are_named_by_their_paths(self):
    changed = Config(seed=7)
    changed.eval.search.c = 1.5
    changed.rounds[2].trees = 2
    self.assertEqual(
      identity.differences(Config(), changed),
      [
        "config.eval.search.c was 2.0 and is 1.5",
        "config.rounds[2].trees was 1 and is 2",
        "config.seed was 0 and is 7",
      ],
    )

  def test_what_is_not_the_default(self):
    self.assertEqual(identity.changes(Config()), {})
    changed = Config(
      seed=7, trackers=("wandb",), rounds=(RoundConfig(trees=2),)
    )
    changed.remote.url = "http://a"
    # The default of this one is not that of its class.
    changed.eval.search.rollouts = 16
    changed.eval.more = (DataConfig(source="a.json", count=3),)
    self.assertEqual(
      identity.changes(changed),
      {
        "seed": 7,
        "rounds": [{"trees": 2}],
        "remote": {"url": True},
        "eval": {
          "search": {"rollouts": 16},
          "more": [{"source": "a.json", "count": 3}],
        },
      },
    )
    changed.decontaminate.against = changed.eval.more
    changed.extract.min_correct_of = ("a",)
    found = identity.changes(changed)
    self.assertEqual(found["extract"], {"min_correct_of": ["a"]})
    self.assertLen(found["decontaminate"]["against"], 1)
    changed.ppm.lora_matrices = changed.trackers = ()
    self.assertEqual(identity.changes(changed)["ppm"], {"lora_matrices": []})

  def test_a_field_of_a_later_version(self):
    def later(base, **fields):
      made = [(name, type(v), closed.field(v)) for name, v in fields.items()]
      return dataclasses.make_dataclass(
        f"Later{base.__name__}", made, bases=(base,), kw_only=True
      )

    whole, spec = later(Config, fresh=3), later(RoundConfig, fresh="a")
    rounds = (spec(trees=2),)
    self.assertEqual(
      identity.changes(whole(seed=7, rounds=rounds)),
      identity.changes(Config(seed=7, rounds=(RoundConfig(trees=2),))),
    )
    self.assertEqual(
      identity.changes(whole(fresh=4, rounds=(spec(fresh="b"),))),
      {"fresh": 4, "rounds": [{"fresh": "b"}]},
    )

  def test_rounds_may_be_added_at_the_end(self):
    longer = Config()
    longer.rounds += (RoundConfig(),)
    self.assertEqual(identity.continues(Config(), longer), [])
    self.assertLen(longer.rounds, 5)
    # Not taken away, and not changed.
    self.assertLen(identity.continues(longer, Config()), 1)
    longer.rounds[0].rollouts = 9
    self.assertEqual(
      identity.continues(Config(), longer),
      ["config.rounds[0].rollouts was 8 and is 9"],
    )


class AdviceTest(absltest.TestCase):
  """A message that advises another value advises one that is accepted."""

  # What is said before a workdir is bound, so that any value is accepted.
  BEFORE = ("/config/", "/data/", "/preflight/")
  VERB = re.compile(r"\b(set|give|leave|lower|make|change|more|larger)\b")
  FIELD = re.compile(r"\b((?:[a-z_]+\.)?[a-z_]+\.[a-z_]+)\b")

  def test_what_binds_is_changed_in_another_workdir(self):
    bound = {name for name in leaves(Config()) if name not in FREE}
    bound -= {name for name in bound if name.startswith("study.")}
    bound |= {f"rounds.{each.name}" for each in dataclasses.fields(RoundConfig)}
    paths = [
      path
      for path in layering_test.sources().values()
      if not any(part in str(path) for part in self.BEFORE)
    ]
    found = 0
    for text in docs_test.templates(paths):
      named = {
        each.removeprefix("config.") for each in self.FIELD.findall(text)
      }
      # Whole messages, and neither docstrings nor parts of a message.
      if "\n\n" in text or text.startswith((":", " ")):
        continue
      if named & bound and self.VERB.search(text):
        found += 1
        with self.subTest(text):
          self.assertIn("another --workdir", text)
    self.assertGreater(found, 5)


class JsonTest(absltest.TestCase):
  def read(self, fields) -> Config:
    return identity.from_json(json.dumps(fields))

  def test_what_was_written_is_read(self):
    config = presets.paper("p")
    self.assertEqual(self.read(identity.to_json(config)), config)
    self.assertIsInstance(config.eval.more[0], DataConfig)

  def test_a_field_that_was_not_there_has_the_default_of_its_place(self):
    found = identity.to_json(Config())
    del found["remote"], found["eval"]["search"]["rollouts"]
    del found["ppm"]["batch_size"], found["rounds"][1]["retire"]
    self.assertEqual(self.read(found), Config())
    self.assertEqual(self.read({}), Config())

  def test_old_names(self):
    fields = identity.to_json(Config())
    fields["engine"]["warm"] = fields["engine"].pop("warm_up") or True
    fields["eval"]["search"]["depth"] = 5
    fields["rounds"][1]["tries"] = 3
    fields["search"]["forgotten"] = 1
    fields["votes"] = 9
    rows = {
      "EngineConfig.warm": "warm_up",
      "SearchConfig.depth": "max_depth",
      "RoundConfig.tries": "trees",
      "SearchConfig.forgotten": "",
      "Config.votes": "eval.top_k",
    }
    with mock.patch.dict(closed.RENAMED, rows):
      found = self.read(fields)
    wanted = copy.deepcopy(Config())
    wanted.engine.warm_up, wanted.eval.search.max_depth = True, 5
    wanted.rounds[1].trees, wanted.eval.top_k = 3, 9
    self.assertEqual(found, wanted)

  def test_a_run_of_trees_in_groups_goes_on(self):
    fields = identity.to_json(Config())
    for search in (fields["search"], fields["eval"]["search"]):
      del search["in_flight"]
      search |= {"slots": 5, "groups": 2}
    found = self.read(fields)
    self.assertEqual(found.eval.search.in_flight, 5)
    self.assertEqual(identity.continues(found, Config()), [])

  def test_values_that_are_said_otherwise_now(self):
    fields = identity.to_json(Config())
    fields["sft"]["remat"], fields["ppm"]["remat"] = True, False
    found = self.read(fields)
    self.assertEqual((found.sft.remat, found.ppm.remat), ("layer", "none"))

  def test_a_run_without_a_reward_of_its_own_was_of_mathematics(self):
    fields = identity.to_json(Config())
    del fields["task"]
    fields["answer_reward"] = ""
    self.assertEqual(self.read(fields).task, "math")

  def test_every_row_leads_to_a_field(self):
    for old, new in closed.RENAMED.items():
      with self.subTest(old):
        owner, _, name = old.partition(".")
        fields = closed.hints(getattr(schema, owner))
        self.assertNotIn(name, fields)
        if new and "." not in new:
          self.assertIn(new, fields)
        elif new:
          operator.attrgetter(new)(Config())

  def test_what_never_was(self):
    for text, message in (
      ('{"search": {"rolouts": 9}}', "did you mean rollouts?"),
      ('{"seed": "7"}', "Config.seed='7' must be of type int"),
      ('{"search": 3}', "Config.search=3 must be of type SearchConfig"),
      ("{", "Expecting property name"),
      ("[]", "holds no JSON object; restore it"),
    ):
      with self.subTest(text):
        with self.assertRaisesRegex(
          ValueError, f"^run/config.json: .*{message}"
        ):
          identity.from_json(text, "run/config.json")


if __name__ == "__main__":
  absltest.main()
