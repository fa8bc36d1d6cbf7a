"""What follows from chips, on the paper's 7B and numbers made by hand."""

import functools
import pathlib
import re

from absl.testing import absltest, parameterized

from configs import qwen2_5_math_7b, tiny
from rstar_jax.config.schema import Config
from rstar_jax.tools.aot import chips
from rstar_jax.tools.preflight import sizes

_ROOT = pathlib.Path(__file__).resolve().parents[3]


def found(config: Config, topology: str, grace: float = 25.0) -> dict:
  """Returns (level, text) of each finding by what it is about."""
  where = chips.parse(topology)
  return {
    each.about: (each.level, each.said)
    for each in sizes.of_chips(config, where, grace)
  }


class SizesTest(parameterized.TestCase):
  def assert_wrong(self, finding: tuple[str, str], *texts: str):
    level, said = finding
    self.assertEqual(level, "error", said)
    for each in texts:
      self.assertIn(each, said)

  def levels(self, findings: dict, level: str) -> set[str]:
    return {about for about, (each, _) in findings.items() if each == level}

  def test_the_paper_s_7b_on_16_chips(self):
    findings = found(qwen2_5_math_7b.get_config(), "v5e-16")
    self.assertEmpty(self.levels(findings, "error"))
    self.assertEqual(
      self.levels(findings, "warning"), {"sft checkpoint", "ppm checkpoint"}
    )
    self.assertIn("16 chips of 15.75 GiB on 4 hosts", findings["chips"][1])

  def test_64_chips_want_fewer_micro_batches(self):
    config = qwen2_5_math_7b.get_config()
    findings = found(config, "v5e-64")
    # 16 parts of rows: 128 rows in 8 micro-batches at the most, 512 in 32.
    self.assert_wrong(findings["sft rows"], "16 parts", "or accumulate=8")
    self.assert_wrong(findings["ppm rows"], "or accumulate=32")
    config.sft.accumulate, config.ppm.accumulate = 8, 32
    findings = found(config, "v5e-64")
    self.assertEmpty(self.levels(findings, "error"))
    self.assertIn("8 micro-batches of 16 rows", findings["sft memory"][1])

  def test_the_slices_of_the_page(self):
    """What docs/reproducing.md says to give."""
    page = (_ROOT / "docs" / "reproducing.md").read_text()
    table = re.findall(r"^\| ([^|]*v5[^|]*) \| (`--.*`)? *\|$", page, re.M)
    self.assertGreater(len(table), 4)
    for name, flags in table:
      config = qwen2_5_math_7b.get_config()
      for each in flags.strip("`").split():
        field, value = each.removeprefix("--config.").split("=")
        *parts, last = field.split(".")
        part = functools.reduce(getattr, parts, config)
        setattr(part, last, type(getattr(part, last))(value))
      with self.subTest(name):
        self.assertEmpty(self.levels(found(config, name), "error"))

  def test_slices_are_data(self):
    config = qwen2_5_math_7b.get_config()
    findings = found(config, "2x v5e-16")
    self.assert_wrong(findings["train_mesh"], "the 2 slices", "set data=2")
    # A host's mesh is as in one slice, and so is what it holds.
    self.assertEqual(
      findings["search memory"], found(config, "v5e-16")["search memory"]
    )
    config.train_mesh.data = 2
    findings = found(config, "2x v5e-16")
    self.assertEqual(
      findings["train_mesh"], ("ok", "data=2 x fsdp=4 x tensor=4")
    )
    self.assertEmpty(self.levels(findings, "error"))
    self.assertIn("as if slices were one", findings["price"][1])

  def test_a_mesh_of_more_chips_than_there_are(self):
    config = qwen2_5_math_7b.get_config()
    findings = found(config, "v5e-1")
    for name in ("search_mesh", "train_mesh"):
      self.assert_wrong(findings[name], f"config.{name}: mesh", "there are 1")
    # Nothing that needs a mesh is said.
    self.assertEqual(set(findings), {"chips", "search_mesh", "train_mesh"})

  def test_what_a_mesh_does_not_cut(self):
    config = qwen2_5_math_7b.get_config()
    config.train_mesh.tensor = 8
    level, said = found(config, "v5e-16")["train_mesh"]
    self.assertEqual(level, "warning")
    # 28 heads and 4 key/value heads; 18,944 and 152,064 have 8.
    self.assertIn("heads (28) over tensor=8, key/value heads (4)", said)
    self.assertNotIn("MLP", said)

  def test_memory_that_is_not_there(self):
    config = qwen2_5_math_7b.get_config()
    config.engine.pages *= 2
    said = found(config, "v5e-16")["search memory"]
    self.assert_wrong(said, "21.0 of 15.8 GiB")
    config.engine.pages = int(re.search(r"engine.pages=(\d+)", said[1])[1])
    level, said = found(config, "v5e-16")["search memory"]
    # To the last page, which is nearer than the estimate is.
    self.assertEqual(level, "warning")
    config.engine.pages = int(re.search(r"engine.pages=(\d+)", said)[1])
    self.assertEqual(found(config, "v5e-16")["search memory"][0], "ok")
    config.search_mesh.tensor, config.search_mesh.data = 1, 4
    said = found(config, "v5e-16")["search memory"]
    self.assert_wrong(said, "leave no room for pages", "weights=int8")
    # A quarter of the chips hold four times the state, and it is over.
    config = qwen2_5_math_7b.get_config()
    # 91 GB of four chips of 16 GB: no number of micro-batches helps.
    said = found(config, "v5e-4")["sft memory"]
    self.assert_wrong(said, "of 15.8 GiB", "a larger config.train_mesh.fsdp")
    self.assertNotIn("accumulate", said[1])
    config.sft.accumulate = 4
    said = found(config, "v5e-16")["sft memory"]
    self.assert_wrong(said, "set config.sft.accumulate=8")
    # 6 would not be enough, and 8 does not divide the batch, of 4 parts of
    # rows.
    config.sft.batch_size = 4 * 4 * 9
    said = found(config, "v5e-16")["sft memory"]
    self.assert_wrong(said, "set config.sft.accumulate=9")
    config.sft.accumulate = 6
    self.assert_wrong(found(config, "v5e-16")["sft memory"])
    config.sft.accumulate = 9
    self.assertEqual(found(config, "v5e-16")["sft memory"][0], "ok")
    # Two rows of a chip cannot be cut.
    config.sft.remat, config.sft.batch_size = "none", 8
    config.sft.accumulate = 2
    said = found(config, "v5e-16")["sft memory"]
    self.assertIn("or set config.sft.remat=layer", said[1])
    config.sft.remat = "layer"
    self.assertEqual(found(config, "v5e-16")["sft memory"][0], "ok")

  def test_what_reinforcement_may_set(self):
    config = qwen2_5_math_7b.get_config()
    for each in config.rounds:
      each.algorithm = "grpo"
    config.reinforce.train.batch_size = 48
    said = found(config, "v5e-16")["reinforce memory"]
    # Its batch is that of a micro-batch, and a multiple of 4 parts of rows.
    self.assert_wrong(said, "set config.reinforce.train.batch_size=16")
    config.reinforce.train.batch_size = 16
    self.assertEqual(found(config, "v5e-16")["reinforce memory"][0], "ok")
    config.reinforce.train.batch_size = 1
    config.reinforce.train.remat = "layer"
    said = found(config, "v5e-4")["reinforce memory"]
    self.assert_wrong(
      said, "or train less with config.reinforce.train.lora_rank"
    )

  def test_an_engine_that_cannot_hold_the_model(self):
    config = qwen2_5_math_7b.get_config()
    config.engine.kernels = "cpp"
    findings = found(config, "v5e-16")
    self.assert_wrong(findings["engine"], "is for one CPU device")
    self.assertNotIn("search memory", findings)
    config.servers.policy = config.servers.ppm = "http://a/v1"
    self.assertNotIn("engine", found(config, "v5e-16"))

  def test_experts_are_not_told_to_take_int8(self):
    config = qwen2_5_math_7b.get_config()
    config.policy.path = str(_ROOT / "tests" / "golden" / "qwen3_moe")
    config.engine.weights = "int8"
    findings = found(config, "v5e-16")
    self.assert_wrong(findings["engine"], "this one has experts")
    config.engine.weights = "float"
    # So many slots that their programs leave no room for pages.
    config.engine.rows = 1 << 27
    said = found(config, "v5e-16")["search memory"]
    self.assert_wrong(said, "leave no room for pages: raise config")
    self.assertNotIn("int8", said[1])

  def test_models_on_servers_take_no_memory_here(self):
    config = qwen2_5_math_7b.get_config()
    both = found(config, "v5e-16")
    self.assertIn("6.8 GiB of weights, 7.0 of pages", both["search memory"][1])
    self.assertNotIn("compared model", both)
    servers = config.servers
    servers.ppm, servers.compare = "http://a/v1", False
    one = found(config, "v5e-16")
    # The PPM has no LM head: 3.3 GiB.
    self.assertIn("3.5 GiB of weights, 3.5 of pages", one["search memory"][1])
    self.assertNotIn("compared model", one)
    # To be compared, a model is whole on a chip: 7.6e9 numbers of two bytes.
    servers.compare = True
    self.assert_wrong(
      found(config, "v5e-16")["compared model"],
      "21.4 of 15.8 GiB",
      "beside the policy",
      "config.servers.compare=false",
    )
    # Two models leave no room on chips that share nothing, and two servers do.
    config.search_mesh.tensor, config.search_mesh.data = 1, 4
    servers.policy = "http://b/v1"
    none = found(config, "v5e-16")
    self.assertEqual(none["search memory"][0], "ok")
    self.assertIn("servers have the models", none["search memory"][1])
    self.assertEqual(none["compared model"][0], "ok")
    self.assertIn("14.2 of 15.8 GiB", none["compared model"][1])
    servers.ppm = ""
    self.assert_wrong(
      found(config, "v5e-16")["search memory"], "set config.engine.pages=11215"
    )

  @parameterized.parameters((45, "warning"), (47, "ok"))
  def test_a_checkpoint_within_the_grace(self, grace, level):
    # 7.6e9 parameters x 12 bytes, of 4 hosts at 0.5 GB/s: 46 seconds.
    config = qwen2_5_math_7b.get_config()
    findings = found(config, "v5e-16", grace)
    self.assertEqual(findings["sft checkpoint"][0], level)
    self.assertIn("91.4 GB, which 4 hosts", findings["sft checkpoint"][1])
    # Twice as many hosts take half of the time.
    config.train_mesh.data = 2
    for name in ("sft", "ppm"):
      getattr(config, name).accumulate //= 2
    self.assertEqual(found(config, "2x v5e-16")["sft checkpoint"][0], "ok")

  def test_the_price_is_in_proportion_to_the_problems(self):
    config = qwen2_5_math_7b.get_config()
    config.train.count = 747_000
    whole = found(config, "v5e-16")["price"][1]
    config.train.count = 74_700
    part = found(config, "v5e-16")["price"][1]

    def of(stage: str, said: str) -> float:
      return float(re.search(rf"{stage} ([\d,.]+)", said)[1].replace(",", ""))

    for stage in ("search", "sft", "ppm"):
      self.assertAlmostEqual(of(stage, whole) / of(stage, part), 10, delta=0.1)
    # The tests are the same ones.
    self.assertEqual(of("test", whole), of("test", part))
    # As docs/results/aot.md has it.
    self.assertIn("26,468 chip-hours", whole)
    config.train.count = 0
    self.assertIn(
      "config.train.count is 0", found(config, "v5e-16")["price"][1]
    )

  def test_the_price_leaves_out_what_others_search(self):
    # As docs/reproducing.md shows it, without the 201 of docs/results/aot.md.
    config = qwen2_5_math_7b.get_config()
    config.remote.url = "http://server:8000/v1"
    said = found(config, "v5e-16")["price"][1]
    self.assertIn("26,268 chip-hours", said)
    self.assertIn("without the servers of round 1", said)
    page = (_ROOT / "docs" / "reproducing.md").read_text()
    self.assertIn(said.partition(", test")[0], page)
    self.assertNotIn("plugins", said)
    config.servers.policy = config.servers.ppm = "http://a/v1"
    said = found(config, "v5e-16")["price"][1]
    self.assertIn("without what servers or plugins compute", said)
    self.assertIn("v5e:4x4: sft 896, ppm 1,503; for", said)
    # The cheapest thing to try first.
    config = qwen2_5_math_7b.get_config()
    config.extract.sft_source = config.extract.pairs_source = "a.json"
    said = found(config, "v5e-16")["price"][1]
    self.assertIn("2,602 chip-hours", said)
    self.assertNotIn("search", said)

  def test_pages_that_the_engine_chooses(self):
    findings = found(tiny.get_config(), "v5e-4")
    self.assertEqual(self.levels(findings, "warning"), {"search memory"})
    self.assertIn("for 200 problems", findings["price"][1])
    # The price does not depend on their number.
    config = qwen2_5_math_7b.get_config()
    price = found(config, "v5e-16")["price"]
    config.engine.pages = 0
    self.assertEqual(found(config, "v5e-16")["price"], price)

  def test_a_model_whose_sizes_are_not_known(self):
    config = Config()
    config.policy.path = "somebody/something"
    findings = found(config, "v5e-4")
    self.assertEqual(set(findings), {"chips", "model"})
    self.assertEqual(findings["model"][0], "warning")


if __name__ == "__main__":
  absltest.main()
