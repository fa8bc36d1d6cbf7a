"""A run that is watched: what is said of it, what is read, and by whom."""

import contextlib
import http.client
import io
import json
import pathlib
import re
import shutil
import threading
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.report import live
from rstar_jax.report import trees as trees_lib
from rstar_jax.storage import layout, manifests, store
from tests import fake_gcs
from tests.report import growing, workdirs


class WatchTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(mock.patch.object(live, "_SECONDS", 0.0))
    self.enter_context(mock.patch.object(live, "_SHARE", 0.0))
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def overview(self, watch: live.Watch) -> dict:
    """Returns what a page gets that asks now."""
    self.assertEqual(watch.now()["error"], "")
    return json.loads(watch.shown.overview)

  def problems(self, watch: live.Watch) -> list[dict]:
    return trees_lib.decode(watch.shown.problems)

  def test_a_run_that_grows_on_disk_and_in_a_bucket(self):
    bucket, _ = self.enter_context(fake_gcs.serve("bucket"))
    there = store.path("gs://bucket/grows")
    run = self.enter_context(growing.Run(self.folder))
    run.workdir.mkdir()
    sent: dict[str, store.Version] = {}

    def send() -> None:
      """Makes the bucket's folder what the disk's is."""
      now = store.files(run.workdir)
      for name in sent.keys() - now.keys():
        store.remove(there / f"{name}{'.00000' if 'begun' in name else ''}")
      for name, version in now.items():
        if sent.get(name) != version:
          # A journal in a bucket is cut into objects.
          to = f"{name}.00000" if "begun" in name else name
          store.copy(run.workdir / name, there / to)
      sent.clear()
      sent.update(now)

    first = live.Watch(run.workdir)
    self.assertIsNone(first.now()["age"])
    self.assertFalse(self.overview(first)["live"]["begun"])
    run.begin()
    send()
    watches = {"disk": first, "bucket": live.Watch(there)}

    def check(rows, listed, samples, **more):
      send()
      for kind, watch in watches.items():
        with self.subTest(kind):
          found = self.overview(watch)
          # How long a stage took is no matter.
          stages = [
            [re.sub(r", \d+ s", "", cell) for cell in row]
            for row in found["live"]["rows"]
          ]
          self.assertEqual(stages, rows)
          self.assertEqual([e["id"] for e in self.problems(watch)], listed)
          said = [(e["by"], e["id"]) for e in found["live"]["samples"]]
          self.assertEqual(said[: len(samples)], samples)
          for name, value in more.items():
            self.assertEqual(found[name], value)

    left = ["1", *["-"] * 5]
    check([["0", "", "", "", "", "-"], left], [], [])
    run.stage("evaluate", 0)
    done = ["0", "", "", "", "", "done"]
    check(
      [done, left],
      ["p1", "p0"],
      [("samples", "p1"), ("samples", "p0"), ("greedy", "p1")],
      solved=[],
    )
    for watch in watches.values():
      # Before results.json is there.
      (split,) = json.loads(watch.shown.overview)["accuracy"]
      self.assertEndsWith(split["split"], "test.jsonl")
      methods = [each["method"] for each in split["lines"]]
      self.assertEqual(methods, ["policy", "majority", "pass@k"])
      (point,) = split["lines"][0]["points"]
      self.assertBetween(point["accuracy"], 0.0, 1.0)
      self.assertIsNone(point["low"])
    with run.midway():
      check(
        [done, ["1", "0/2 shards (1 begun)", *["-"] * 4]],
        ["p1", "p0", "p1", "p0"],
        [("search", "p1"), ("search", "p0")],
      )
      for watch in watches.values():
        self.assertBetween(watch.now()["age"], 0.0, 600.0)
        (host,) = json.loads(watch.shown.overview)["live"]["hosts"]
        self.assertEqual((host["host"], host["shards"]), (0, 1))
        tree = trees_lib.decode(watch.tree(self.problems(watch)[0]["block"]))
        self.assertEqual(tree["question"], "five")
        self.assertGreater(len(tree["parent"]), 3)
    send()
    for watch in watches.values():
      found = self.overview(watch)
      manifest = manifests.read(run.workdir / "round_1" / "trees")
      self.assertEqual(found["solved"][0]["share"], manifest["solved"])
      # All of the last shard, though no journal of it was ever seen.
      self.assertIn("p3", [each["id"] for each in self.problems(watch)])
    run.train(2.0, 1.5)
    send()
    for watch in watches.values():
      (curve,) = self.overview(watch)["losses"]
      self.assertEqual(curve["points"], [[1, 2.0], [2, 1.5]])
      (host,) = self.overview(watch)["live"]["hosts"]
      self.assertEqual(
        (host["stage"], host["step"], host["loss"], host["rate"]),
        ("round_1_sft", 2, 1.5, 70.0),
      )
    self.check_what_is_read(run, watches["bucket"], bucket, send)
    # Nothing was written.
    self.assertEqual(store.files(run.workdir), sent)
    self.assertLen(store.files(there), len(sent))

  def check_what_is_read(self, run, watch, bucket, send) -> None:
    """Checks that a look reads what is new, and lists what is not finished."""
    self.overview(watch)
    version = watch.now()["version"]
    # Of what is finished it asks for the versions of manifests.
    finished = {
      f"grows/{each}/MANIFEST.json"
      for each in ("round_0/eval", "round_1/trees")
    }
    bucket.calls.clear()
    self.overview(watch)
    self.assertEqual(watch.now()["version"], version)
    self.assertEqual({n for k, n in bucket.calls if k == "read"}, finished)
    lists = [name for kind, name in bucket.calls if kind == "list"]
    self.assertNotEmpty(lists)
    self.assertNotIn("grows/round_1/trees/", lists)
    run.train(1.0)
    send()
    bucket.calls.clear()
    self.overview(watch)
    self.assertEqual(
      {name for kind, name in bucket.calls if kind == "read"}
      - finished
      - {name for _, name in bucket.calls if "tensorboard" in name},
      {"grows/metrics.jsonl"},
    )

  def test_a_folder_that_cannot_be_read_now(self):
    bucket, _ = self.enter_context(fake_gcs.serve("bucket"))
    top = store.path("gs://bucket/run")
    store.write(top / "log.txt", b"a")
    watch = live.Watch(top)

    def refuse(*_):
      raise fake_gcs.Refused(403)

    bucket.hook = refuse
    before = watch.shown
    self.assertIn("gs://bucket/run", watch.now()["error"])
    self.assertEqual(watch.shown, before)
    bucket.hook = lambda *_: None
    self.assertEqual(watch.now()["error"], "")

  def test_numbers_that_are_none_harm_no_page(self):
    path = self.folder / "metrics.jsonl"
    path.write_text('{"step": 1, "round_1_sft/loss": NaN}\n{"step')
    watch = live.Watch(self.folder)
    self.assertEqual(self.overview(watch)["losses"], [])
    with path.open("a") as file:
      file.write('": 2, "round_1_sft/loss": 0.5}\n')
    (curve,) = self.overview(watch)["losses"]
    self.assertEqual(curve["points"], [[2, 0.5]])

  def test_records_of_another_form_are_left_out(self):
    workdirs.write(self.folder)
    wanted = self.overview(live.Watch(self.folder))
    self.assertNotEmpty(wanted["losses"])
    with (self.folder / "metrics.jsonl").open("a") as file:
      for step in ("", '"step": null, ', '"step": "3", ', '"step": 1.5, '):
        file.write(f'{{{step}"round_1_sft/loss": 2.0, "eval/seconds": 9}}\n')
    path = self.folder / "results.json"
    found = json.loads(path.read_text())
    for name in ("rows", "solved", "ppm"):
      found[name] += [{}, None, [], {"round": "1"}]
    path.write_text(json.dumps(found))
    watch = live.Watch(self.folder)
    self.assertEqual(self.overview(watch) | {"live": 0}, wanted | {"live": 0})
    for nothing in (None, 3, {}):
      path.write_text(json.dumps(dict.fromkeys(found, nothing)))
      for each in self.overview(watch)["accuracy"]:
        self.assertEqual(each["lines"], [])

  def test_a_file_that_cannot_be_shown_is_named(self):
    workdirs.write(self.folder)
    watch = live.Watch(self.folder)
    shown = watch.shown
    for name, bad in (
      ("config.json", {"eval": 3}),
      ("round_1/ppm/MANIFEST.json", {"held_out_step": 3}),
    ):
      store.write(self.folder / name, json.dumps(bad).encode())
      self.assertRegex(
        watch.now()["error"],
        f"^[^\n]*: cannot be shown: {name} has another form "
        r"\(AttributeError: [^\n]*\)$",
      )
      self.assertEqual(watch.shown, shown)
      with self.assertRaisesRegex(ValueError, f"^cannot be shown: .*{name}"):
        live.Watch(self.folder)
      store.write(self.folder / name, b"{}")
      self.assertEqual(watch.now()["error"], "")
      shown = watch.shown

  def test_what_was_deleted_is_not_shown(self):
    workdirs.write(self.folder)
    first, second = self.folder / "round_1", self.folder / "round_2"
    shutil.copytree(first, second, copy_function=shutil.copy)  # Newer.
    watch = live.Watch(self.folder)
    rounds = {each["round"] for each in self.problems(watch)}
    self.assertEqual(rounds, {2})
    self.assertLen(self.overview(watch)["solved"], 2)
    (second / "trees" / layout.MANIFEST).unlink()
    self.assertLen(self.overview(watch)["solved"], 1)
    shutil.rmtree(second)
    found = self.overview(watch)
    self.assertEqual({each["round"] for each in self.problems(watch)}, {1})
    self.assertEqual({each["round"] for each in found["live"]["samples"]}, {1})
    shutil.rmtree(self.folder)
    found = self.overview(watch)["live"]
    self.assertEqual((found["begun"], found["samples"]), (False, []))
    self.assertEqual(self.problems(watch), [])

  def test_what_was_not_written_by_anybody_we_know(self):
    workdirs.write(self.folder)
    folder = self.folder / "round_1" / "trees"
    bad = [
      b"\xff{",
      b"{}",
      b'{"key": "a", "answer": {"rows": {"": [{"schema": 99}]}}}',
      b'{"key": "a", "answer": {"rows": {"": [{}]}}}',
      b'{"key": "a", "answer": {"rows": []}}',
    ]
    (folder / "begun-shard-00001-of-00002-0-ab.jsonl").write_bytes(
      b"\n".join(bad) + b"\n"
    )
    found = self.problems(live.Watch(self.folder))
    ids = [each["id"] for each in found]
    self.assertIn("apples", ids)
    self.assertIn("pears", ids)


class CommandTest(absltest.TestCase):
  def run_main(self, *arguments: str) -> tuple[int, str]:
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
      code = live.main(list(arguments))
    return code, err.getvalue()

  def test_a_mistyped_folder_is_a_line_and_makes_nothing(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    store.write(folder / "tiny" / "config.json", b"{}")
    code, said = self.run_main(str(folder / "tiiny"))
    self.assertEqual(
      (code, said),
      (
        1,
        f"rstar_jax watch: there is no run in {folder}/tiiny; did you mean "
        f"{folder}/tiny?\n",
      ),
    )
    (folder / "mine.txt").touch()
    code, said = self.run_main(f"--workdir={folder}")
    self.assertEqual(code, 1)
    self.assertIn(f"there is no run in {folder}", said)
    self.assertCountEqual(store.children(folder), ["mine.txt", "tiny"])
    self.enter_context(fake_gcs.serve("bucket"))
    code, said = self.run_main("gs://bucket/nowhere")
    self.assertEqual(code, 1)
    self.assertEndsWith(
      said,
      "rstar_jax watch: there is no run in gs://bucket/nowhere\n",
    )

  def test_a_port_that_is_taken(self):
    watch = live.Watch(pathlib.Path(self.create_tempdir().full_path))
    with live.serve(watch, port=0) as server:
      port = server.server_address[1]
      with self.assertRaisesRegex(
        OSError, f"127.0.0.1:{port} cannot be had .*: give another --port"
      ):
        live.serve(watch, port=port)
      with mock.patch.object(live, "_PORT", port), live.serve(watch) as other:
        self.assertNotEqual(other.server_address[1], port)

  def test_an_address_of_ip_version_6(self):
    watch = live.Watch(pathlib.Path(self.create_tempdir().full_path))
    with live.serve(watch, "::1", 0) as server:
      threading.Thread(target=server.handle_request, daemon=True).start()
      connection = http.client.HTTPConnection("::1", server.server_port, 60)
      self.addCleanup(connection.close)
      connection.request("GET", "/now", headers={"Host": "evil.example"})
      self.assertEqual(connection.getresponse().status, 403)


class ServerTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = workdirs.write(pathlib.Path(self.create_tempdir().full_path))
    self.watch = live.Watch(self.folder)
    server = self.enter_context(live.serve(self.watch, port=0))
    self.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    self.addCleanup(thread.join)
    self.addCleanup(server.shutdown)

  def ask(self, path: str, method: str = "GET", **headers: str):
    connection = http.client.HTTPConnection("127.0.0.1", self.port, 60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body

  def test_what_a_page_asks(self):
    answer, body = self.ask("/?a=b")
    self.assertEqual(answer.status, 200)
    self.assertIn(b"connect-src &#x27;self&#x27;", body)
    self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
    _, body = self.ask("/now")
    self.assertEqual(json.loads(body)["version"], 1)
    _, body = self.ask("/overview")
    self.assertEqual(json.loads(body)["name"], self.folder.name)
    _, body = self.ask("/problems")
    rows = trees_lib.decode(body.decode())
    block = next(each["block"] for each in rows if each["id"] == "apples")
    _, body = self.ask(f"/tree-{block}")
    self.assertEqual(trees_lib.decode(body.decode())["gold"], "14")
    answer, body = self.ask("/overview", "HEAD")
    self.assertEqual((answer.status, body), (200, b""))

  def test_what_is_refused(self):
    for path in ("/tree-7", "/tree-", "/tree-" + "9" * 99, "/../config.json"):
      self.assertEqual(self.ask(path)[0].status, 404, path)
    self.assertEqual(self.ask("/now", "POST")[0].status, 501)
    # A page from elsewhere whose name leads here.
    for host in (f"evil.example:{self.port}", "evil.example", ""):
      answer, body = self.ask("/overview", Host=host)
      self.assertEqual(answer.status, 403, host)
      self.assertNotIn(b"accuracy", body)
    answer, _ = self.ask("/overview", Host="localhost:1234")
    self.assertEqual(answer.status, 200)

  def test_one_that_hangs_holds_nobody(self):
    hanging = http.client.HTTPConnection("127.0.0.1", self.port, 60)
    hanging.connect()
    hanging.sock.sendall(b"GET / HTTP/1.1\r\nHos")
    with self.watch._lock:  # As while another one looks at a slow bucket.
      self.assertEqual(self.ask("/now")[0].status, 200)
    hanging.close()


if __name__ == "__main__":
  absltest.main()
