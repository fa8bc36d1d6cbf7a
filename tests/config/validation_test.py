import json
import math
import operator
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config import identity, validation
from rstar_jax.config import schema as config_lib


def valid() -> config_lib.Config:
  return config_lib.Config(train=config_lib.DataConfig(count=7))


class ValidateTest(parameterized.TestCase):
  def test_the_paper_s_config_is_valid(self):
    validation.validate(valid())

  @parameterized.parameters(
    ("shard_size", 0),
    ("sandbox.workers", 0),
    ("sandbox.wall_seconds", 0.0),
    ("grader.seconds", -1.0),
    ("search.rollouts", 0),
    ("search.c", -0.5),
    ("search.max_consecutive_errors", 0),
    ("eval.search.candidates", -3),
    ("eval.samples", -1),
    ("study.samples", -1),
    ("engine.temperature", -1.0),
    ("engine.top_p", 0.0),
    ("engine.top_p", 1.5),
    ("engine.min_p", -0.5),
    ("engine.min_p", 1.5),
    ("engine.max_prefix_tokens", 0),
    ("engine.rows", 0),
    ("engine.inner_steps", 0),
    ("engine.prefill_tokens", 0),
    ("engine.pages", -1),
    ("reinforce.iterations", 0),
    ("reinforce.updates", 0),
    ("reinforce.clip_low", 1.5),
    ("reinforce.clip_high", 0.0),
    ("reinforce.ratio_limit", 1.0),
    ("reinforce.kl", -0.1),
    ("reinforce.train.learning_rate", 0.0),
    ("remote.url", "localhost:8000/v1"),
    ("remote.url", "http://localhost:abc/v1"),
    ("remote.url", "http://localhost:65536/v1"),
    ("remote.url", "http://localhost:0/v1"),
    ("remote.url", "http://:8000/v1"),
    ("remote.url", "http://[::1:8000/v1"),
    ("remote.url", "http://name:secret@localhost/v1"),
    ("remote.url", "http://localhost/é"),
    ("remote.url", "http://localhost/a b"),
    ("remote.url", "http://localhost/v1\x7f"),
    ("remote.in_flight", 0),
    ("remote.samples_per_request", 0),
    ("remote.patience_seconds", -1.0),
    ("remote.temperature", -0.1),
    ("remote.top_p", 0.0),
    ("remote.extra", "[1]"),
    ("remote.extra", "{n: 1}"),
    ("search_mesh.data", 0),
    ("train_mesh.tensor", -2),
    ("sft.accumulate", 3),
    ("sft.accumulate", 0),
    ("ppm.learning_rate", 0.0),
    ("ppm.warmup", 1.5),
    ("sft.lora_rank", -1),
    ("sft.ema", 1.0),
    ("sft.ema", -0.1),
    ("sft.held_out", -2),
    ("ppm.held_out", 1),
    ("sft.eval_every", 3),
    ("extract.min_correct_of", ("a", "b,c")),
    ("ppm.lora_alpha", 0.0),
    ("reinforce.train.lora_matrices", ("q", "q")),
    ("extract.positives", 0),
    ("decontaminate.ngram", -1),
    ("train.count", 0),
    ("train.count", -1),
    ("extract.min_correct_share", 1.5),
    ("eval.data.count", -1),
    ("rounds", ()),
  )
  def test_one_clear_line(self, name, value):
    config = valid()
    owner, _, field = name.rpartition(".")
    holder = operator.attrgetter(owner)(config) if owner else config
    setattr(holder, field, value)
    with self.assertRaises(ValueError) as raised:
      validation.validate(config)
    message = str(raised.exception)
    self.assertStartsWith(message, f"config.{name}")
    self.assertNotIn("\n", message)

  @parameterized.parameters(
    ({"annotation": "ppm"}, "annotation"),
    ({"rollouts": 0}, "rollouts=0"),
    ({"trees": -1}, "trees=-1"),
    ({"extra_rollouts": (16, 0)}, "extra_rollouts"),
  )
  def test_rounds(self, fields, expected):
    config = valid()
    config.rounds = (config_lib.RoundConfig(**fields),)
    with self.assertRaisesRegex(
      ValueError, rf"config\.rounds\[0\]\.{expected}"
    ):
      validation.validate(config)

  def test_no_search_at_test_time_sees_gold_answers(self):
    config = valid()
    config.eval.search = config_lib.SearchConfig(rollouts=8, candidates=4)
    for task in ("math", "code", "reasoning_gym:countdown"):
      config.task = task
      with self.assertRaisesRegex(
        ValueError, r"^config\.eval\.search\.terminal_reward=.*set .*='ppm'.*$"
      ):
        validation.validate(config)
    # A task of one's own may have a reward that needs none.
    config.task = "os:getcwd"
    validation.validate(config)
    config.task = "math"
    config.eval.search.terminal_reward = "ppm"
    validation.validate(config)

  def test_lora_of_no_matrix(self):
    config = valid()
    config.sft.lora_matrices = ()
    validation.validate(config)
    config.sft.lora_rank = 2
    with self.assertRaisesRegex(ValueError, "sft.lora_matrices is empty: give"):
      validation.validate(config)

  @parameterized.parameters(
    ({"rollout": "samples", "annotation": "ppm", "ppm": "a"}, {}, "annotation"),
    ({"rollout": "samples"}, {"remote.url": "http://a"}, "remote.url empty"),
    ({"algorithm": "tree", "rollout": "samples"}, {}, "rollout='search'"),
    ({"algorithm": "grpo", "trees": 2}, {}, "trees=1"),
    ({"algorithm": "tree", "extra_rollouts": (4,)}, {}, r"extra_rollouts=\(\)"),
    *(
      ({"algorithm": "tree"}, {name: value}, f"set config.{name}=")
      for name, value in (
        ("policy.backend", "os:getcwd"),
        ("search.method", "os:getcwd"),
        ("search.answer_dedup", "keep_first"),
        ("reinforce.train.accumulate", 2),
        ("remote.url", "http://a"),
        ("policy.prompt", "few_shot"),
      )
    ),
    (
      {"algorithm": "grpo"},
      {"reinforce.updates": 2, "reinforce.temperature": 0.6},
      "set config.reinforce.updates=1, or",
    ),
    *(
      ({"algorithm": "grpo"}, {f"extract.{name}_source": "a"}, "sft_source=''")
      for name in ("sft", "pairs")
    ),
  )
  def test_where_a_policy_comes_from(self, fields, changes, expected):
    # A round by the paper, and then one of this kind.
    for later in (False, True):
      config = valid()
      spec = config_lib.RoundConfig(**fields)
      config.rounds = (config_lib.RoundConfig(),) * later + (spec,)
      if changes:
        validation.validate(config)
      for name, value in changes.items():
        where, _, field = name.rpartition(".")
        setattr(operator.attrgetter(where)(config), field, value)
      config.remote.model = "a"
      if later and set(changes) & {"remote.url", "policy.prompt"}:
        # Of the first round alone.
        validation.validate(config)
        continue
      with (
        self.subTest(later),
        mock.patch.object(validation.plugins, "load"),
        self.assertRaisesRegex(ValueError, expected),
      ):
        validation.validate(config)

  def test_more_splits(self):
    config = valid()
    more = config_lib.DataConfig(source="synthetic:test_long", count=3)
    config.eval.more = (more, config_lib.DataConfig(source="x.json"))
    validation.validate(config)
    more.count = 0
    with self.assertRaisesRegex(ValueError, r"^config\.eval\.more\[0\]\.count"):
      validation.validate(config)

  @parameterized.parameters(
    "source", "=a", "source=", "source=a,,b", "source=a,"
  )
  def test_conditions_on_rows(self, condition):
    config = valid()
    config.eval.data = config_lib.DataConfig(
      source="x.json", where=("source=a,b", "level=3")
    )
    validation.validate(config)
    config.eval.data.where = ("level=3", condition)
    with self.assertRaisesRegex(
      ValueError, r"^config\.eval\.data\.where\[1\]=.* must be FIELD=VALUE"
    ):
      validation.validate(config)

  def test_conditions_on_rows_that_have_no_fields(self):
    config = valid()
    config.train.where = ("source=a",)
    with self.assertRaisesRegex(ValueError, "^config.train.where is for rows"):
      validation.validate(config)

  def test_sets_to_look_in(self):
    config = valid()
    config.decontaminate.against = (config_lib.DataConfig(),)
    with self.assertRaisesRegex(
      ValueError, r"^config\.decontaminate\.against\[0\]\.count must be above"
    ):
      validation.validate(config)

  def test_no_training_problems_where_none_is_searched(self):
    config = config_lib.Config()
    config.extract.sft_source = "sft.json"
    with self.assertRaisesRegex(ValueError, r"^config\.train\.count"):
      validation.validate(config)
    config.extract.pairs_source = "pairs.json"
    validation.validate(config)

  @parameterized.parameters(
    ("d/test.jsonl", "d/test.jsonl"), ("d/test.jsonl", "d_test.jsonl")
  )
  def test_splits_have_folders_of_their_own(self, one, other):
    config = valid()
    config.eval.data = config_lib.DataConfig(source=one)
    config.eval.more = (config_lib.DataConfig(source="d.jsonl"),)
    validation.validate(config)
    config.eval.more += (config_lib.DataConfig(source=other, seed=7),)
    with self.assertRaisesRegex(
      ValueError, rf"^config\.eval: '{one}' would share the folder 'd_test"
    ):
      validation.validate(config)

  @parameterized.parameters("reward", "study.rewards")
  def test_reward_models_without_trees(self, name):
    config = valid()
    owner, _, field = name.rpartition(".")
    holder = config.study if owner else config
    for kind in ("orm", "pqm"):
      setattr(holder, field, ("ppm", kind) if owner else kind)
      config.extract.sft_source, config.extract.pairs_source = "a.json", ""
      validation.validate(config)
      config.extract.pairs_source = "b.json"
      with self.assertRaisesRegex(
        ValueError, f"^config.{name}: '{kind}' learns from trees"
      ):
        validation.validate(config)

  def test_when_a_ppm_is_measured(self):
    config = valid()
    config.ppm.eval_every = 5
    validation.validate(config)  # One problem in ten is held out.
    config.ppm.held_out = 0
    with self.assertRaisesRegex(
      ValueError, "^config.ppm.eval_every=5 would me"
    ):
      validation.validate(config)

  @parameterized.parameters({"policy": "a"}, {"annotation": "ppm", "ppm": "b"})
  def test_what_servers_make_round_1_without(self, **fields):
    config = valid()
    config.rounds = (config_lib.RoundConfig(**fields),) * 2
    validation.validate(config)
    config.remote.url, config.remote.model = "http://a", "m"
    name = next(iter(fields))
    with self.assertRaisesRegex(
      ValueError, rf"^config\.rounds\[0\]\.{name}='\w+' would not be used"
    ):
      validation.validate(config)
    # Later rounds are the engine's.
    config.rounds = (config_lib.RoundConfig(), config.rounds[0])
    validation.validate(config)

  @parameterized.parameters(
    ("seed", 2**63, True),
    ("seed", -(2**63) - 1, True),
    ("seed", 2**63 - 1, False),
    ("rounds", (config_lib.RoundConfig(rollouts=2**63),), True),
    ("rounds", (config_lib.RoundConfig(extra_rollouts=(2**63,)),), True),
    ("train.question_field", "a\udcff", True),
    ("train.question_field", "\U0001d7d9 \0", False),
  )
  def test_what_config_json_cannot_hold(self, name, value, refused):
    config = valid()
    owner, _, field = name.rpartition(".")
    setattr(
      operator.attrgetter(owner)(config) if owner else config, field, value
    )
    if refused:
      with self.assertRaisesRegex(
        ValueError, rf"^config\.{name}\S* .*: config.json cannot hold that$"
      ):
        validation.validate(config)
      return
    validation.validate(config)
    written = json.dumps(identity.to_json(config))
    self.assertEqual(identity.from_json(written), config)

  def test_a_server_needs_the_name_of_a_model(self):
    config = valid()
    config.remote.url = "http://localhost:8000/v1"
    with self.assertRaisesRegex(ValueError, r"^config\.remote\.model is empty"):
      validation.validate(config)
    config.remote.model = "m"
    for url in (
      config.remote.url,
      "https://[::1]:65535",
      "http://a/v1,http://b",
    ):
      config.remote.url = url
      validation.validate(config)

  @parameterized.product(
    name=(
      *("search.c", "engine.temperature", "eval.search.c", "grader.seconds"),
      *("sft.weight_decay", "ppm.clip", "reinforce.ratio_limit"),
    ),
    value=(math.nan, math.inf, -math.inf),
  )
  def test_what_is_not_finite(self, name, value):
    config = valid()
    owner, _, field = name.rpartition(".")
    setattr(operator.attrgetter(owner)(config), field, value)
    with self.assertRaisesRegex(
      ValueError, rf"^config\.{name}={value!r} must be finite$"
    ):
      validation.validate(config)

  def test_an_int_is_a_float(self):
    config = valid()
    config.search.c = 1
    validation.validate(config)

  def test_a_file_may_have_no_count(self):
    config = valid()
    config.train = config_lib.DataConfig(source="problems.jsonl", count=0)
    validation.validate(config)


class MeshTest(parameterized.TestCase):
  def config(self, **sizes) -> config_lib.Config:
    config = valid()
    config.train_mesh = config_lib.MeshConfig(**sizes)
    config.sft.accumulate = 4
    return config

  @parameterized.parameters(
    dict(data=2, fsdp=16),
    # What these are depends on the devices.
    dict(fsdp=7),
    dict(data=7, fsdp=-1),
    dict(data=1, fsdp=1, tensor=-1),
  )
  def test_valid(self, **sizes):
    validation.validate(self.config(**sizes))

  def test_two_that_take_what_is_left(self):
    with self.assertRaisesRegex(
      ValueError, "config.train_mesh: data and tensor are -1"
    ):
      validation.validate(self.config(tensor=-1))

  def test_rows_that_cannot_be_cut(self):
    with self.assertRaisesRegex(
      ValueError,
      r"config.sft: micro-batches of 32 rows .* into 6 parts",
    ):
      validation.validate(self.config(data=2, fsdp=3))

  def test_pairs_that_cannot_be_cut(self):
    config = self.config(data=2, fsdp=3)
    config.sft.batch_size = 4 * 6
    with self.assertRaisesRegex(
      ValueError,
      r"config.ppm: micro-batches of 512 rows .* into 6 parts",
    ):
      validation.validate(config)
    config.ppm.batch_size, config.ppm.accumulate = 36, 3
    validation.validate(config)

  def test_rows_of_a_training_that_no_round_makes(self):
    config = self.config(data=2, fsdp=3)
    config.ppm.batch_size = 6
    spec = config_lib.RoundConfig(rollout="samples", algorithm="grpo")
    config.rounds = (spec,)
    validation.validate(config)
    config.rounds = (spec, config_lib.RoundConfig())
    with self.assertRaisesRegex(ValueError, "config.sft: micro-batches"):
      validation.validate(config)


if __name__ == "__main__":
  absltest.main()
