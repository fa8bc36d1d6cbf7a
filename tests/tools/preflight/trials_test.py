"""What is tried from this machine: rows, servers, a sandbox, a folder."""

import http.server
import json
import os
import pathlib
import socket
import threading
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config.schema import Config, DataConfig
from rstar_jax.pipeline import checks
from rstar_jax.sandbox.pool import Sandbox
from rstar_jax.storage import json_io, layout
from rstar_jax.tools.preflight import trials
from rstar_jax.types import ExecResult
from tests.parity import reward_cases


def levels(findings) -> dict[str, str]:
  return {each.about: each.level for each in findings}


class DataTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.file = pathlib.Path(self.create_tempdir().full_path) / "set.jsonl"
    self.config = Config(train=DataConfig(source=str(self.file)))

  def found(self, *rows: dict):
    self.file.write_text("\n".join(map(json.dumps, rows)))
    return {each.about: each for each in trials.data(self.config)}

  def test_first_rows(self):
    rows = [{"question": f"Q{i}", "answer": "1/2"} for i in range(20)]
    found = self.found(*rows, {"question": "past them"})
    self.assertEqual(found["data train"].level, "ok")
    self.assertIn("8 problems of", found["data train"].said)
    self.assertEqual(found["data eval.data"].level, "ok")

  def test_a_row_that_cannot_be_read(self):
    found = self.found({"question": "Q"})
    self.assertEqual(found["data train"].level, "error")
    self.assertIn("set.jsonl:1", found["data train"].said)
    self.assertEqual(found["data eval.data"].level, "ok")

  def test_an_answer_that_the_grader_cannot_read(self):
    with mock.patch.object(trials.Grader, "grade") as grade:
      grade.side_effect = lambda pairs: (
        ["equal", "undecided"][: len(pairs)] + ["equal" for _ in pairs[2:]]
      )
      found = self.found(
        *({"question": each, "answer": each} for each in ("7", "words"))
      )
    self.assertEqual(found["data train"].level, "error")
    self.assertIn("'words' equal to itself", found["data train"].said)

  def test_solutions_and_pairs_that_are_given(self):
    good, bad = (self.file.with_name(f"{each}.jsonl") for each in ("a", "b"))
    solution = "<code>\n<end_of_step>\n<answer>\\boxed{7}<end_of_answer>"
    rows = [{"query": "Q", "response": solution}, {"query": "Q"}]
    good.write_text("\n".join(map(json.dumps, rows)))
    bad.write_text(json.dumps({"prompt": "Q"}))
    self.config.extract.sft_source = str(good)
    self.config.extract.pairs_source = str(bad)
    found = self.found()  # No training problems are wanted.
    self.assertNotIn("data train", found)
    self.assertEqual(found["data eval.data"].level, "ok")
    self.assertEqual(found["data extract.sft_source"].level, "ok")
    said = found["data extract.pairs_source"]
    self.assertEqual(said.level, "error")
    self.assertIn("b.jsonl", said.said)
    # What `evolve` says, word for word.
    with self.assertRaises(ValueError) as raised:
      checks.check_data(self.config)
    self.assertEqual(said.said, str(raised.exception))
    bad.unlink()
    self.assertEqual(self.found()["data extract.pairs_source"].level, "error")

  def test_what_training_problems_are_compared_with(self):
    rows = self.file.with_name("against.jsonl")
    rows.write_text(json.dumps({"question": "Q", "answer": "7"}))
    more = DataConfig(source=str(self.file.with_name("none.jsonl")))
    against = DataConfig(source=str(rows)), more
    self.config.decontaminate.against = against
    found = self.found({"question": "Q", "answer": "7"})
    self.assertEqual(found["data decontaminate.against[0]"].level, "ok")
    self.assertEqual(found["data decontaminate.against[1]"].level, "error")
    # Nobody answers them, unless they are an evaluation set, too.
    self.config.eval.data = against[0]
    found = self.found({"question": "Q", "answer": "7"})
    said = found["data decontaminate.against[0]"].said
    self.assertNotIn("graded", said)
    self.assertEqual(
      found["data eval.data"].said, f"{said}, their answers graded"
    )
    # Released training data are compared with them, too.
    self.config.extract.sft_source = self.config.extract.pairs_source = "a"
    found = self.found()
    self.assertEqual(found["data decontaminate.against[0]"].level, "ok")
    self.assertNotIn("data train", found)

  def test_the_hub_is_tried_once_if_it_is_not_there(self):
    self.config.eval.data.source = "hf:a/b/test"
    self.config.eval.more = (DataConfig(source="hf:c/d/test"),)
    asked = []

    def load(data, task):
      asked.append(data.source)
      raise trials.problems_lib.ProblemError("Couldn't reach 'a/b' on the Hub")

    self.config.train.source = "hf:e/f/train"
    with mock.patch.object(trials.problems_lib, "load_problems", load):
      found = levels(trials.data(self.config))
    self.assertEqual(asked, ["hf:e/f/train"])
    self.assertEqual(set(found.values()), {"error"})
    self.assertLen(found, 3)

  def test_a_library_that_a_worker_has(self):
    self.config.train.source = "hf:a/b/train"
    with mock.patch.dict("sys.modules", datasets=None):
      (found,) = (
        each for each in trials.data(self.config) if "train" in each.about
      )
    self.assertEqual(found.level, "warning")
    self.assertIn("pip install", found.said)


class _Answers(http.server.BaseHTTPRequestHandler):
  # What is answered to a request of a sample, and of a value.
  said = {
    "choices": [{"token_ids": [5], "logprobs": {"token_logprobs": [-0.5]}}],
    "data": [{"index": 0, "data": [0.25]}],
  }

  def do_GET(self):
    known = self.path == "/v1/models"
    self.answer(known, {"data": [{"id": "large"}]})

  def do_POST(self):
    self.rfile.read(int(self.headers["Content-Length"]))
    self.answer(self.path in ("/v1/completions", "/pooling"), self.said)

  def answer(self, known, said):
    said = json.dumps(said).encode()
    allowed = self.headers.get("Authorization") == "Bearer s3cret"
    self.send_response(404 if not known else 200 if allowed else 401)
    self.send_header("Content-Length", str(len(said)))
    self.end_headers()
    self.wfile.write(said)

  def log_message(self, *_):
    pass


class ServersTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    server = http.server.ThreadingHTTPServer(("localhost", 0), _Answers)
    self.addCleanup(server.server_close)
    self.addCleanup(server.shutdown)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    self.url = f"http://localhost:{server.server_port}/v1"
    self.enter_context(mock.patch.dict(os.environ, KEY="s3cret"))

  def found(self, url: str, model="large", key="KEY"):
    config = Config()
    config.remote.url, config.remote.model = url, model
    config.remote.api_key_env = key
    return list(trials.servers(config))

  def test_none(self):
    self.assertEmpty(list(trials.servers(Config())))

  def test_that_answers(self):
    (found,) = self.found(self.url)
    self.assertEqual(found.level, "ok")

  def test_that_has_another_model(self):
    (found,) = self.found(self.url, model="small")
    self.assertEqual(found.level, "error")
    self.assertIn("has large, not config.remote.model='small'", found.said)

  def test_that_does_not_answer(self):
    first, second = self.found(f"{self.url},http://localhost:9/v1")
    self.assertEqual((first.level, second.level), ("ok", "error"))
    self.assertIn("start it", second.said)

  def test_that_refuses_the_key(self):
    (found,) = self.found(self.url, key="")
    self.assertEqual(found.level, "error")
    self.assertIn("401", found.said)

  def test_that_has_no_list(self):
    (found,) = self.found(self.url.replace("/v1", "/v2"))
    self.assertEqual(found.level, "ok")

  def test_that_is_none_of_http(self):
    place = socket.create_server(("localhost", 0))
    self.addCleanup(place.close)

    def answer():
      connection, _ = place.accept()
      connection.recv(1 << 16)
      connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
      connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    (found,) = self.found(f"http://localhost:{place.getsockname()[1]}/v1")
    thread.join()
    self.assertEqual(found.level, "error")
    self.assertIn("config.remote.url does not answer", found.said)

  def test_a_key_that_cannot_be_sent(self):
    with mock.patch.dict(os.environ, KEY="s3cret\n"):
      (found,) = self.found(self.url)
    self.assertEqual(found.level, "error")
    self.assertIn("api_key_env=KEY: the key there has", found.said)
    self.assertNotIn("s3cret", found.said)

  def test_of_a_policy_and_a_ppm(self):
    config = Config()
    config.servers.policy = f"{self.url},{self.url}/no"
    config.servers.ppm = self.url
    config.servers.api_key_env = "KEY"
    policy, away, ppm = trials.servers(config)
    self.assertEqual((policy.level, ppm.level), ("ok", "ok"))
    self.assertEqual(away.level, "error")
    self.assertIn("config.servers.policy does not answer", away.said)
    # One that answers, but not with the tokens that it was asked for.
    with mock.patch.object(_Answers, "said", {"choices": [{"text": "a"}]}):
      policy, _, ppm = trials.servers(config)
    self.assertEqual((policy.level, ppm.level), ("error", "error"))

  def test_of_a_published_reward_model(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    config = Config()
    config.eval.reward_model = reward_cases.write(folder, "rlhflow")
    config.servers.reward = f"{self.url},{self.url}/no"
    config.servers.api_key_env = "KEY"
    # Log-probabilities of its two answers.
    rows = [{"token": f"token_id:{n}", "logprob": -1.0 - n} for n in range(400)]
    top = [{each["token"]: each["logprob"] for each in rows}]
    said = {
      "choices": [
        {"index": index, "logprobs": {"top_logprobs": top}}
        for index in range(4)
      ]
    }
    with mock.patch.object(_Answers, "said", said):
      right, away = trials.servers(config)
    self.assertEqual((right.level, away.level), ("ok", "error"), right.said)
    self.assertIn("config.servers.reward does not answer", away.said)
    wrong, _ = trials.servers(config)
    self.assertEqual(wrong.level, "error")
    # A study may ask for it, too.
    config.study.rewards = ("ppm", "orm", config.eval.reward_model)
    config.eval.reward_model = ""
    wrong, _ = trials.servers(config)
    self.assertEqual(wrong.level, "error")
    # Nothing says what is asked there.
    config.study.rewards = ("ppm", "orm")
    right, away = trials.servers(config)
    self.assertEqual((right.level, away.level), ("ok", "ok"))
    config.servers.reward = "http://localhost:9/v1"
    (away,) = trials.servers(config)
    self.assertEqual(away.level, "error")


class SandboxTest(parameterized.TestCase):
  def test_isolates_or_says_what_it_does_not(self):
    found = trials.sandbox(Config(), away=False)
    self.assertIn(found.level, ("ok", "warning"), found.said)

  @parameterized.parameters((False, "error"), (True, "warning"))
  def test_a_program_that_does_not_run(self, away, level):
    with mock.patch.object(Sandbox, "run") as run:
      run.return_value = [ExecResult("error", "", "OSError: no")]
      found = trials.sandbox(Config(), away=away)
    self.assertEqual(found.level, level)
    self.assertIn("OSError: no", found.said)

  def test_what_is_required_and_not_there(self):
    config = Config()
    config.sandbox.require = ("nothing like it",)
    found = trials.sandbox(config, away=False)
    self.assertEqual(found.level, "error")


class WorkdirTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def test_leaves_nothing(self):
    found = trials.workdir(Config(), str(self.folder), away=True)
    self.assertEqual(found.level, "ok")
    self.assertEmpty(list(self.folder.iterdir()))

  def test_a_folder_that_only_the_workers_see(self):
    missing = str(self.folder / "nfs" / "run")
    found = trials.workdir(Config(), missing, away=True)
    self.assertEqual(found.level, "warning")
    self.assertIn("is not on this machine, so it was not tried", found.said)
    self.assertEmpty(list(self.folder.iterdir()))
    # A run here makes it.
    found = trials.workdir(Config(), missing, away=False)
    self.assertEqual(found.level, "ok")

  def test_a_bucket_without_its_package(self):
    with mock.patch.object(
      trials.store.fsspec, "get_filesystem_class", side_effect=ImportError
    ):
      for away, level in ((True, "warning"), (False, "error")):
        found = trials.workdir(Config(), "gs://a/b", away=away)
        self.assertEqual(found.level, level)
        self.assertIn("pip install 'rstar_jax[gcs]'", found.said)

  def test_a_file_in_its_place(self):
    (self.folder / "run").write_text("")
    found = trials.workdir(Config(), str(self.folder / "run"), away=True)
    self.assertEqual(found.level, "error")

  def test_a_run_of_another_config(self):
    from rstar_jax.config import identity

    json_io.write(self.folder / layout.CONFIG, identity.to_json(Config(seed=1)))
    (self.folder / "round_1").mkdir()
    found = trials.workdir(Config(), str(self.folder), away=True)
    self.assertEqual(found.level, "error")
    self.assertIn("config.seed was 1 and is 0", found.said)


if __name__ == "__main__":
  absltest.main()
