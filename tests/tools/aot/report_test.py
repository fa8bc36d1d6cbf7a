"""What a search holds and what would fit, with numbers made by hand."""

import dataclasses
from unittest import mock

import jax
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import MeshConfig, TrainConfig
from rstar_jax.models import meshes
from rstar_jax.tools.aot import chips, compiler, cost, programs, report
from rstar_jax.tools.aot.compiler import Compiled
from rstar_jax.tools.aot.report import Held
from rstar_jax.tools.aot.traffic import Moved
from tests.tools.aot import small

jax.config.update("jax_num_cpu_devices", 4)

_GIB = 2**30
_MODEL = dataclasses.replace(
  small.MODEL, embed_dim=16, head_dim=4, mlp_dim=32, vocab_size=64
)


def _config():
  config = small.config()
  config.search_mesh = MeshConfig(data=1, tensor=4)
  return config


class SearchTest(absltest.TestCase):
  def rows(self, found):
    where = chips.parse("v5e:4x4")
    with (
      mock.patch.object(compiler, "devices", lambda _: jax.devices()[:4]),
      mock.patch.object(compiler, "compile_program", side_effect=found),
    ):
      return list(report.search_rows(_config(), _MODEL, where, programs.SEARCH))

  def test_adds_up(self):
    found = [
      Compiled(temporaries=3 * _GIB, code=5 * 2**20, cpu_seconds=2),
      Compiled(temporaries=2 * _GIB, outputs=2 * _GIB, code=7 * 2**20),
      Compiled(temporaries=1 * _GIB, code=11 * 2**20, cpu_seconds=3),
      Compiled(code=13 * 2**20),
    ]
    *rows, search = self.rows(found)
    self.assertEqual([row["program"] for row in rows], [*programs.SEARCH])
    self.assertEqual(rows[1]["temporaries_gib"], 4)
    self.assertEqual(
      (search["programs"], search["code_mib"], search["cpu_seconds"]),
      (4, 36, 5),
    )
    self.assertEqual(search["held_gib"]["temporaries"], 4)
    self.assertTrue(search["fits"])
    # The largest of temporaries, and the code of all.
    total = sum(search["held_gib"].values())
    self.assertAlmostEqual(search["hbm_needed_gib"] / total, 1, delta=1e-3)

  def test_refused(self):
    *rows, search = self.rows([Compiled(refused=40 * _GIB)] * 4)
    self.assertEqual(rows[0]["refused_gib"], 40)
    self.assertFalse(search["fits"])
    self.assertAlmostEqual(search["over_gib"], 40 - 15.75)

  def test_by_sizes_alone(self):
    where = chips.parse("v5e:4x4")
    (row,) = report.search_rows(_config(), _MODEL, where, [])
    mesh = meshes.make(MeshConfig(data=1, tensor=4))
    held = report.held_by(_MODEL, _config(), mesh, {})
    self.assertEqual(
      row["held_gib"]["weights"],
      float(f"{held.weights / _GIB:.4g}"),
    )
    # 2 models x 2 layers x 64 pages x 16 tokens x keys, values of 4 heads of 4.
    self.assertEqual(held.pages, 2 * 2 * 64 * 16 * 2 * 4 * 4 * 4 / 4)


class KnobsTest(absltest.TestCase):
  def knobs(self, held, found, has):
    config = _config()
    config.engine.pages = 100
    sizes = dataclasses.replace(programs.sizes_of(config, 1)[0], longest=160)
    return report.search_knobs(held, found, config, sizes, has)

  def test_pages(self):
    # 8 besides, and 10 for 100 pages: 5 are left for them.
    held = Held(policy=4, value=3, pages=10, temporaries=1)
    found = {"decode": Compiled(temporaries=1)}
    self.assertEqual(self.knobs(held, found, 13), {"pages": 50})

  def test_temporaries(self):
    held = Held(policy=4, value=3, pages=10, temporaries=8)
    found = {
      "decode": Compiled(temporaries=8),
      "prefill": Compiled(temporaries=2),
    }
    # 2 of 8 too many, of 64 rows; or 20 pages.
    self.assertEqual(self.knobs(held, found, 23), {"pages": 80, "rows": 48})
    found = {"score": Compiled(temporaries=8)}
    self.assertEqual(
      self.knobs(held, found, 21), {"pages": 60, "prefill_tokens": 32}
    )

  def test_neither(self):
    held = Held(policy=40, value=30, pages=10)
    self.assertEqual(self.knobs(held, {}, 50), {"tensor": 3})

  def test_training(self):
    # 6 that stay and 2 for each of 4 rows at once; 32 rows on 4 devices.
    sizes = dict(batch_size=32, accumulate=2, parts=4, fixed=6.0, needs=14.0)
    # 8 / 4 parts is 4 more; 3 does not divide.
    found = report.training_knobs(**sizes, has=10.5)
    self.assertEqual(found, {"accumulate": 4})
    found = report.training_knobs(**sizes, has=8.0)
    self.assertEqual(found, {"accumulate": 8})
    # 4 parts of 12 rows divide 144 too, and 4 parts of 5 do not.
    self.assertEqual(report.finer(144, 4, 4), [6, 9, 12, 18, 36])
    self.assertEqual(report.finer(4, 1, 4), [])
    # One row at a time needs 8.
    found = report.training_knobs(**sizes, has=4.0)
    self.assertEqual(found, {"times_chips": 2})


class TrainingTest(parameterized.TestCase):
  def test_row(self):
    config = _config()
    config.train_mesh = MeshConfig(data=1, fsdp=2, tensor=2)
    config.sft = TrainConfig(batch_size=8, length=32, accumulate=2)
    with (
      mock.patch.object(compiler, "devices", lambda _: jax.devices()[:4]),
      mock.patch.object(
        compiler,
        "compile_program",
        lambda _, turns: Compiled(
          peak=20 * _GIB, code=_GIB, moved=Moved(turns * 819e9, 8e9)
        ),
      ),
    ):
      row = report.training_row(config, _MODEL, chips.parse("v5e:2x2"), "sft")
    self.assertEqual((row["hbm_needed_gib"], row["fits"]), (21, False))
    self.assertEqual(row["tokens"], 8 * 32)
    self.assertIn("knobs", row)
    # HBM is the slowest: 2 s. A chip of v5e:2x2 has two links of 50 GB/s.
    self.assertEqual((row["seconds"]["hbm"], row["seconds"]["ici"]), (2, 0.08))
    flops = cost.useful(_MODEL, rows=8, length=32, head=True)
    share = flops / 4 / 197e12 / 2
    self.assertAlmostEqual(row["share_of_peak"] / share, 1, delta=1e-3)

  @parameterized.parameters(
    ("sft", "accumulate", 4), ("reinforce", "batch_size", 2)
  )
  def test_what_a_training_may_set(self, name, field, wanted):
    """A batch of reinforcement is that of a micro-batch: 4 rows here."""
    config = _config()
    config.train_mesh = MeshConfig(data=1, fsdp=2, tensor=2)
    config.sft = TrainConfig(batch_size=8, length=32, accumulate=2)
    config.reinforce.train = TrainConfig(batch_size=4, length=32)
    with (
      mock.patch.object(compiler, "devices", lambda _: jax.devices()[:4]),
      mock.patch.object(
        compiler, "compile_program", lambda *_: Compiled(peak=20 * _GIB)
      ),
    ):
      row = report.training_row(config, _MODEL, chips.parse("v5e:2x2"), name)
    self.assertEqual(row["knobs"], {field: wanted})


if __name__ == "__main__":
  absltest.main()
