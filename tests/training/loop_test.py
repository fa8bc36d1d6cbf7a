import contextlib
import dataclasses
import gc
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax import testing
from rstar_jax.config.schema import MeshConfig, TrainConfig
from rstar_jax.data import batches
from rstar_jax.models import meshes
from rstar_jax.models.transformer import Transformer
from rstar_jax.storage import stopping
from rstar_jax.training import loop, sft, state
from tests.training import tiny_training

CONFIG = TrainConfig(
  learning_rate=1e-2, checkpoint_every=3, log_every=2, warmup=0.2
)
STEPS = 11
QUIET = loop.Session("sft", progress=False)


class Recorder:
  def __init__(self):
    self.rows = []

  def write(self, step, values, prefix=""):
    self.rows.append((step, prefix, values))

  def close(self):
    pass


# A process that is told to end, and whose bucket is slow then.
SLOW = """
import os, pathlib, signal, sys, time
from unittest import mock
from rstar_jax.storage import checkpoints, stopping
from tests.training import loop_test

save = checkpoints.Checkpoints.save

def slow(self, step, state):
  if step == 5:
    time.sleep(100)
  save(self, step, state)

def batch_at(k):
  if k == 4:
    os.kill(os.getpid(), signal.SIGTERM)
  return loop_test._batch_at(k)

with mock.patch.object(checkpoints.Checkpoints, "save", slow):
  with stopping.listening(5.0):
    loop_test._run(pathlib.Path(sys.argv[1]), batch_at)
print("went on")
"""


def _batch_at(k: int):
  rng = np.random.default_rng(k)
  x = rng.normal(size=(5, 3)).astype(np.float32)
  return {"x": x, "y": x.sum(axis=1)}


def _loss(params, batch):
  error = batch["x"] @ params["w"] - batch["y"]
  return jnp.sum(error**2), {"count": jnp.float32(len(error))}


def _fit(begin, step, *args, **options):
  return loop.fit(begin, jax.tree_util.Partial(step), *args, **options)


def _run(
  folder=None,
  batch_at=_batch_at,
  writer=None,
  steps=STEPS,
  progress=False,
  before=None,
  **changes,
):
  config = dataclasses.replace(CONFIG, **changes)
  tx = state.optimizer(config, STEPS)
  return _fit(
    state.init({"w": jnp.zeros(3)}, tx),
    state.make_step(_loss, tx),
    batch_at,
    steps,
    config,
    loop.Session("sft", folder=folder, writer=writer, progress=progress),
    before=before,
  )


def _assert_same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


class FitTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def _killed(self, at: int):
    def batch_at(k: int):
      if k == at:
        raise KeyboardInterrupt
      return _batch_at(k)

    with self.assertRaises(KeyboardInterrupt):
      _run(self.folder, batch_at)

  def test_same_as_plain_python_loop(self):
    tx = state.optimizer(CONFIG, STEPS)
    step = state.make_step(_loss, tx)
    expected = state.init({"w": jnp.zeros(3)}, tx)
    for k in range(STEPS):
      expected, _ = jax.jit(step)(expected, _batch_at(k))
    _assert_same(_run(), expected)

  def test_resume_after_kill_is_bit_exact(self):
    straight = _run()
    self._killed(at=7)
    self.assertEqual(_saved(self.folder), [3, 6])
    asked = []

    def batch_at(k: int):
      asked.append(k)
      return _batch_at(k)

    _assert_same(_run(self.folder, batch_at), straight)
    self.assertEqual(asked, list(range(6, STEPS)))

  def test_corrupted_checkpoint_is_skipped(self):
    straight = _run()
    self._killed(at=7)
    shutil.rmtree(self.folder / "6" / "state")
    with self.assertWarnsRegex(UserWarning, "checkpoint 6 cannot be read"):
      resumed = _run(self.folder)
    _assert_same(resumed, straight)

  def test_a_checkpoint_that_is_out_of_reach_is_waited_for(self):
    straight = _run()
    self._killed(at=7)
    with mock.patch.object(
      loop.checkpoints_lib.ocp,
      "load_checkpointables",
      side_effect=OSError("503"),
    ):
      with self.assertRaisesRegex(OSError, "checkpoint 6 cannot be read"):
        _run(self.folder, batch_at=None)
    self.assertEqual(_saved(self.folder), [3, 6])
    _assert_same(_run(self.folder), straight)

  def test_its_programs_end_with_it(self):
    def programs():
      gc.collect()
      return len(jax.devices()[0].client.live_executables())

    _run(steps=2)
    before = programs()
    _run(steps=2)
    self.assertEqual(programs(), before)

  def test_finished_run_asks_for_nothing(self):
    done = _run(self.folder)
    _assert_same(_run(self.folder, batch_at=None), done)

  def test_sigterm_saves_and_stops(self):
    straight = _run()
    before = signal.getsignal(signal.SIGTERM)

    def batch_at(k: int):
      if k == 4:
        os.kill(os.getpid(), signal.SIGTERM)
      return _batch_at(k)

    with self.assertRaisesRegex(loop.Preempted, "after update 5") as caught:
      _run(self.folder, batch_at)
    self.assertEqual(caught.exception.code, 0)
    self.assertIn(5, _saved(self.folder))
    self.assertEqual(signal.getsignal(signal.SIGTERM), before)
    _assert_same(_run(self.folder), straight)

  def test_a_save_that_takes_longer_than_the_grace(self):
    straight = _run()
    done = subprocess.run(
      [sys.executable, "-c", SLOW, str(self.folder)],
      capture_output=True,
      text=True,
      check=False,
      timeout=200,
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn(
      "SIGTERM: ending now; sft: the newest whole checkpoint is of update 3, "
      "and 2 of 5 updates are made again",
      done.stderr,
    )
    self.assertEqual(_saved(self.folder), [3])
    _assert_same(_run(self.folder), straight)

  def test_what_is_lost_at_a_sudden_end(self):
    for done, whole, said in (
      (0, 0, "no update is lost"),
      (3, 3, "no update is lost"),
      (5, 3, "update 3, and 2 of 5 updates are made again"),
    ):
      self.assertEndsWith(loop._lost("sft", done, whole), said)

  def test_what_comes_before_a_batch_may_be_stopped(self):
    straight = _run()
    told = []

    def before(k: int, params):
      told.append((k, jax.device_get(params)))
      if k == 4 and len(told) == 5:
        os.kill(os.getpid(), signal.SIGTERM)
        self.fail("it went on")

    with self.assertRaises(stopping.Stopped):
      _run(self.folder, before=before)
    self.assertEqual(_saved(self.folder), [3])
    _assert_same(_run(self.folder, before=before), straight)
    # Each batch after its parameters, and those since the checkpoint again.
    self.assertEqual([k for k, _ in told], [*range(5), *range(3, STEPS)])
    jax.tree.map(np.testing.assert_array_equal, told[3][1], told[5][1])

  def test_nan_stops_and_is_not_saved(self):
    def batch_at(k: int):
      batch = _batch_at(k)
      if k == 4:
        batch["y"][0] = np.nan
      return batch

    with self.assertRaisesRegex(loop.NonFiniteLoss, "sft: .* update 5 is nan"):
      _run(self.folder, batch_at)
    self.assertEqual(_saved(self.folder), [3])

  def test_metrics(self):
    recorder = Recorder()
    _run(writer=recorder)
    steps = [step for step, _, _ in recorder.rows]
    self.assertEqual(steps, [1, 2, 3, 4, 6, 8, 9, 10, 11])
    self.assertEqual({prefix for _, prefix, _ in recorder.rows}, {"sft"})
    # The first loss by hand: weights are 0, so it is the mean of y squared.
    np.testing.assert_allclose(
      recorder.rows[0][2]["loss"], np.mean(_batch_at(0)["y"] ** 2), rtol=1e-5
    )
    self.assertContainsSubset(
      {"loss", "grad_norm", "tokens_per_second", "seconds"}, recorder.rows[0][2]
    )

  def test_metrics_are_means_by_count_between_two_rows(self):
    def batch_at(k: int):
      # Of 1, 2, ... rows, so that no update weighs as much as another.
      x = np.zeros((k + 1, 3), np.float32)
      return {"x": x, "y": np.full(k + 1, float(k), np.float32)}

    recorder = Recorder()
    _run(batch_at=batch_at, writer=recorder, checkpoint_every=100, log_every=4)
    self.assertEqual([step for step, _, _ in recorder.rows], [1, 4, 8, 11])
    # The weights do nothing, so that the loss of update k is k squared.
    for (_, _, values), (first, last) in zip(
      recorder.rows, ((0, 1), (1, 4), (4, 8), (8, 11)), strict=True
    ):
      k = np.arange(first, last)
      mean = np.sum((k + 1) * k**2) / np.sum(k + 1)
      np.testing.assert_allclose(values["loss"], mean, rtol=1e-6)
      self.assertEqual(values["updates"], STEPS)
      self.assertNotIn("count", values)
    seconds = [values["seconds"] for _, _, values in recorder.rows]
    self.assertEqual(seconds, sorted(seconds))

  def test_speed_is_of_the_tokens_since_the_last_row(self):
    recorder, clock = Recorder(), iter(range(0, 10_000, 10))

    def batch_at(k: int):
      return _batch_at(k) | {"tokens": np.zeros((2, 3 + k))}

    time = types.SimpleNamespace(monotonic=lambda: next(clock))
    with mock.patch.object(loop, "time", time):
      _run(batch_at=batch_at, writer=recorder, checkpoint_every=99, log_every=4)
    # Ten seconds pass between two looks at the clock.
    self.assertEqual(
      [values["tokens_per_second"] for _, _, values in recorder.rows],
      [0.6, 2 * (4 + 5 + 6) / 10, 2 * (7 + 8 + 9 + 10) / 10, 2 * 36 / 10],
    )
    self.assertEqual(
      [values["seconds"] for _, _, values in recorder.rows], [10, 30, 50, 70]
    )

  def test_the_arrays_of_the_start_are_given_away(self):
    tx = state.optimizer(CONFIG, STEPS)
    begin = state.init({"w": jnp.zeros(3)}, tx)
    _fit(
      *(begin, state.make_step(_loss, tx), _batch_at, 1),
      *(CONFIG, QUIET),
    )
    self.assertTrue(begin.params["w"].is_deleted())

  @parameterized.parameters(False, True)
  def test_updates_of_padding_alone_change_nothing(self, on_mesh):
    """Not even by momentum, weight decay, an average or the schedule."""
    mesh = meshes.make(MeshConfig(data=1)) if on_mesh else None
    config = dataclasses.replace(CONFIG, weight_decay=0.5, checkpoint_every=2)
    tx = state.optimizer(config, STEPS)
    recorder, padding = Recorder(), {0, 3, 4, 5, 9}
    full = [k for k in range(STEPS) if k not in padding]

    def loss(params, batch):
      return _loss({"w": params["w"][:, 0]}, batch)

    def batch_at(k: int):
      rows = len(_batch_at(0)["y"])
      there = 0 if k in padding else 1
      # What padding holds is not looked at.
      return _batch_at(k) | {"ends": np.full(rows, there, np.int32)}

    def run(batch_at, steps, folder=None):
      return _fit(
        state.init({"w": jnp.full((3, 1), 2.0)}, tx, mesh, averages=True),
        state.make_step(loss, tx, ema=0.1),
        *(batch_at, steps, config),
        loop.Session("", 0, mesh, folder, recorder, progress=False),
      )

    found = run(batch_at, STEPS)
    self.assertEqual(found.step, STEPS)
    rows = {step: values for step, _, values in recorder.rows}
    # As if those updates did not exist.
    wanted = run(lambda k: _batch_at(full[k]), len(full))
    self.assertEqual(wanted.step, len(full))
    for part in ("params", "opt_state", "average"):
      _assert_same(getattr(found, part), getattr(wanted, part))
    # The first row, and one every two updates; the mean is of those with rows.
    self.assertEqual(list(rows), [1, 2, 4, 6, 8, 10, 11])
    for step in (1, 6):
      self.assertEqual(rows[step]["rows"], 0)
      self.assertNoCommonElements(rows[step], {"loss", "grad_norm"})
    for step in (2, 4, 10):
      self.assertGreater(rows[step]["loss"], 0)
      self.assertNotIn("rows", rows[step])

    def killed_at(k: int):
      def killed(number: int):
        if number == k:
          raise KeyboardInterrupt
        return batch_at(number)

      return killed

    for k in (1, 4, 9):
      with self.assertRaises(KeyboardInterrupt):
        run(killed_at(k), STEPS, self.folder)
    _assert_same(run(batch_at, STEPS, self.folder), found)

  def test_tokens_of_a_batch(self):
    tokens = np.ones((2, 3))
    ends = np.array([[1, 2, 0], [1, 0, 0]])
    self.assertEqual(loop._tokens({"tokens": tokens}), 6)
    self.assertEqual(loop._tokens({"tokens": tokens, "ends": ends}), 3)
    self.assertEqual(loop._tokens({"x": tokens}), 0)
    self.assertEqual(loop._tokens([tokens]), 0)

  def test_progress_is_shown_unless_it_is_not_wanted(self):
    bars = []

    class Bar:
      def __init__(self):
        self.updates, self.shown = 0, []

      def update(self, count=1, **shown):
        self.updates += count
        if shown:
          self.shown.append(shown)

    @contextlib.contextmanager
    def progress(total, name, *, start, unit):
      bars.append((total, name, start, unit, Bar()))
      yield bars[-1][-1]

    with mock.patch.object(loop.metrics_lib, "Progress", progress):
      _run(self.folder, steps=6)
      self.assertEmpty(bars)
      _run(self.folder, progress=True)
      tx = state.optimizer(CONFIG, STEPS)
      _fit(
        state.init({"w": jnp.zeros(3)}, tx),
        state.make_step(_loss, tx),
        *(_batch_at, 1, CONFIG, loop.Session("toy")),
      )
    (*said, bar), (*unsaid, _) = bars
    # Without a word it is shown.
    self.assertEqual(unsaid, [1, "toy", 0, "update"])
    self.assertEqual(said, [STEPS, "sft", 6, "update"])
    self.assertEqual(bar.updates, STEPS - 6)
    # Updates 7 (the first), 8, 9, 10 and 11.
    self.assertLen(bar.shown, 5)
    self.assertEqual(set(bar.shown[0]), {"loss", "tokens/s"})

  def test_an_infinite_loss_stops_too(self):
    def batch_at(k: int):
      batch = _batch_at(k)
      batch["y"][0] = 1e30 if k == 2 else 0.0
      return batch

    with self.assertRaisesRegex(loop.NonFiniteLoss, "update 3 is inf"):
      _run(batch_at=batch_at)

  def test_a_gradient_without_a_value_stops_too(self):
    def loss(params, batch):
      total, sums = _loss(params, batch)
      # Its derivative at 0, where training begins, is infinite.
      return total + jnp.sum(jnp.sqrt(params["w"])), sums

    tx = state.optimizer(CONFIG, STEPS)
    begin = state.init({"w": jnp.zeros(3)}, tx)
    message = r"the gradient norm of update 1 is \w+ \(loss \d"
    with self.assertRaisesRegex(loop.NonFiniteLoss, message):
      _fit(begin, state.make_step(loss, tx), _batch_at, STEPS, CONFIG, QUIET)

  def test_the_queue_of_updates_is_short(self):
    """The loop waits for the last update but two."""
    waited = []

    class Loss(float):
      def block_until_ready(self):
        waited.append(float(self))

    log = loop._Log(Recorder(), "sft", None, 7)
    for k in range(1, 6):
      log.add(k, {"loss": Loss(k), "count": 1.0}, 0)
    self.assertEqual(waited, [1.0, 2.0, 3.0])

  def test_what_is_held_out_is_measured_every_so_often_and_at_the_end(self):
    recorder, seen = Recorder(), []

    def measure(params):
      seen.append(np.array(params["w"]))
      return {"held_out_loss": float(len(seen))}

    tx = state.optimizer(CONFIG, STEPS)
    end = _fit(
      state.init({"w": jnp.zeros(3)}, tx),
      state.make_step(_loss, tx),
      *(_batch_at, STEPS),
      dataclasses.replace(CONFIG, eval_every=4),
      loop.Session("sft", writer=recorder, progress=False),
      measure=measure,
    )
    rows = [(k, v) for k, _, v in recorder.rows if "held_out_loss" in v]
    self.assertEqual(
      rows,
      [(k, {"held_out_loss": n}) for k, n in ((4, 1.0), (8, 2.0), (11, 3.0))],
    )
    np.testing.assert_array_equal(seen[-1], end.params["w"])
    self.assertTrue(np.any(seen[0] != seen[1]))

  def test_an_average_is_kept_saved_and_resumed(self):
    tx = state.optimizer(CONFIG, STEPS)
    measured = []

    def run(folder=None, stop=-1):
      def batch_at(k: int):
        if k == stop:
          raise KeyboardInterrupt
        return _batch_at(k)

      return _fit(
        state.init({"w": jnp.zeros(3)}, tx, averages=True),
        state.make_step(_loss, tx, ema=0.5),
        *(batch_at, STEPS, CONFIG),
        loop.Session("sft", folder=folder, progress=False),
        measure=lambda params: measured.append(params) or {},
      )

    straight = run()
    # The average by hand, of the parameters that plain training goes through.
    average = np.zeros(3)
    for k in range(1, STEPS + 1):
      decay = min(0.5, (1 + k) / (10 + k))
      weights = np.asarray(_run(steps=k).params["w"], np.float64)
      average = decay * average + (1 - decay) * weights
    np.testing.assert_allclose(straight.average["w"], average, rtol=1e-5)
    np.testing.assert_array_equal(straight.trained["w"], straight.average["w"])
    np.testing.assert_array_equal(measured[0]["w"], straight.average["w"])
    _assert_same(straight.params, _run().params)
    with self.assertRaises(KeyboardInterrupt):
      run(self.folder, stop=7)
    _assert_same(run(self.folder), straight)

  def test_checkpoints_of_another_model(self):
    _run(self.folder)
    tx = state.optimizer(CONFIG, STEPS)
    with self.assertRaisesRegex(ValueError, "another model or optimiser"):
      _fit(
        state.init({"w": jnp.zeros(5)}, tx),
        state.make_step(_loss, tx),
        _batch_at,
        STEPS,
        CONFIG,
        loop.Session("sft", folder=self.folder, progress=False),
      )


class StopTest(absltest.TestCase):
  """Of several processes, which agree by what each has been asked."""

  def stops(self, *asked: bool) -> loop._Stop:
    mesh = meshes.make(MeshConfig(data=1, fsdp=1, tensor=1))
    stops = loop._Stop(mesh)
    stops._alone = False
    answers = iter(asked)
    self.enter_context(
      mock.patch.object(loop.stopping, "asked", lambda: next(answers))
    )
    return stops

  def test_the_answer_is_that_of_two_updates_ago(self):
    stops = self.stops(False, True, False, False, False)
    self.assertEqual(
      [stops() for _ in range(5)], [False, False, False, True, False]
    )

  def test_the_last_update_waits_for_all_answers(self):
    for asked in ([True, False], [False, True]):
      stops = self.stops(*asked)
      self.assertFalse(stops())
      self.assertTrue(stops.wait())
    stops = self.stops(False, False)
    self.assertFalse(stops())
    self.assertFalse(stops.wait())

  def test_before_what_may_take_long_nobody_goes_on(self):
    """Such as a turn of reinforcement, after which each would end anyway."""
    with mock.patch.object(loop, "_Stop") as made:
      made.return_value.return_value = False
      made.return_value.wait.side_effect = [False, True]
      with self.assertRaisesRegex(loop.Preempted, "after update 2"):
        _run(before=lambda k, params: None)
      made.return_value.wait.side_effect = [False]
      _run()
      self.assertEqual(made.return_value.call_count, STEPS - 1)

  def test_one_process_asks_itself(self):
    for mesh in (None, meshes.make(MeshConfig(data=1))):
      with mock.patch.object(loop.stopping, "asked", return_value=True):
        self.assertTrue(loop._Stop(mesh)())


class FitModelTest(absltest.TestCase):
  def test_what_shares_the_arrays_of_a_model_keeps_them(self):
    model = Transformer(testing.tiny_model(num_layers=1), rngs=nnx.Rngs(3))
    shared = jax.tree.leaves(nnx.split(model)[1])
    before = [np.array(each) for each in shared]
    rows = [[(np.arange(1, 6), np.ones(5, int))] for _ in range(2)]
    arrays = batches.pack(rows, 5).arrays
    trained = loop.fit_model(
      model, sft.sft_loss, lambda k: arrays, 1, CONFIG, QUIET
    )
    self.assertIs(trained, model)
    _assert_same(shared, before)
    after = jax.tree.leaves(nnx.split(model)[1])
    changed = [(a != b).any() for a, b in zip(after, before, strict=True)]
    self.assertTrue(any(changed))

  def test_resume_of_a_transformer_is_bit_exact(self):
    def model():
      return Transformer(testing.tiny_model(num_layers=1), rngs=nnx.Rngs(3))

    def batch_at(k: int, stop: int = -1):
      if k == stop:
        raise KeyboardInterrupt
      rng = np.random.default_rng(k)
      tokens = rng.integers(1, 200, (2, 13), dtype=np.int32)
      rows = [[(ids, np.ones(13, np.int32))] for ids in tokens]
      return batches.pack(rows, 13).arrays

    def run(folder=None, stop=-1):
      return loop.fit_model(
        model(),
        sft.sft_loss,
        lambda k: batch_at(k, stop),
        5,
        dataclasses.replace(CONFIG, checkpoint_every=2),
        loop.Session("sft", folder=folder, progress=False),
      )

    folder = self.create_tempdir().full_path
    with self.assertRaises(KeyboardInterrupt):
      run(folder, stop=3)
    resumed, straight = run(folder), run()
    _assert_same(nnx.split(resumed)[1], nnx.split(straight)[1])
    untrained = nnx.split(model())[1]
    changed = jax.tree.map(
      lambda a, b: bool((a != b).any()), untrained, nnx.split(straight)[1]
    )
    self.assertTrue(any(jax.tree.leaves(changed)))

  def test_a_resumed_training_holds_its_state_once(self):
    config = dataclasses.replace(CONFIG, ema=0.5, checkpoint_every=1)
    folder = self.create_tempdir().full_path
    orbax = loop.checkpoints_lib.ocp
    load, held = orbax.load_checkpointables, []

    def live() -> int:
      gc.collect()
      return sum(each.nbytes for each in jax.live_arrays())

    def loaded(*arguments):
      held.append(live())
      found = load(*arguments)
      held.append(live())
      return found

    def run(updates: int) -> int:
      """Returns the bytes of the model's parameters."""
      model = Transformer(testing.tiny_model(num_layers=1), rngs=nnx.Rngs(3))
      rows = [[(np.arange(1, 6), np.ones(5, int))] for _ in range(2)]
      arrays = batches.pack(rows, 5).arrays
      session = loop.Session("sft", folder=folder, progress=False)
      loop.fit_model(
        model, sft.sft_loss, lambda k: arrays, updates, config, session
      )
      return sum(x.nbytes for x in jax.tree.leaves(nnx.split(model)[1]))

    before = live()
    size = run(1)
    with mock.patch.object(orbax, "load_checkpointables", loaded):
      run(2)
    # Parameters, two moments and an average.
    self.assertLess(held[0] - before, 0.1 * size)
    self.assertBetween(held[1] - before, 4 * size, 4.1 * size)

  def test_trainings_of_any_length_share_a_program(self):
    programs = []

    def lowered(begin, step, batch_at, *_, **options):
      del options
      update = jax.jit(lambda step, *given: step(*given))
      programs.append(update.lower(step, begin, batch_at(0)).as_text())
      return begin

    with mock.patch.object(loop, "fit", lowered):
      for epochs in (1, 3):
        tiny_training.train("sft", epochs=epochs)
    self.assertEqual(*programs)


def _saved(folder: pathlib.Path) -> list[int]:
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


if __name__ == "__main__":
  absltest.main()
