"""Tests of the journal: what is in it stays, whoever dies."""

import concurrent.futures
import json
import pathlib
import threading
from unittest import mock

from absl.testing import absltest

from rstar_jax import outside
from rstar_jax.storage import append_only, journal, store
from rstar_jax.storage.journal import Journal
from tests import fake_gcs, full_disk


class JournalTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.path = folder / "below" / "journal.jsonl"

  def test_what_is_put_is_there_for_the_next_one(self):
    journal = Journal(self.path)
    self.assertIsNone(journal.get("a"))
    self.assertFalse(self.path.exists())
    for key, answer in (("a", {"text": "é\n\u2028"}), ("b", [1, 0.25])):
      self.assertEqual(journal.put(key, answer), answer)
    for each in (journal, Journal(self.path)):
      self.assertLen(each, 2)
      self.assertIn("b", each)
      self.assertNotIn("c", each)
      self.assertEqual(each.get("a"), {"text": "é\n\u2028"})
      self.assertEqual(each.get("b"), [1, 0.25])
      self.assertIsNone(each.get("c"))
    lines = self.path.read_text().splitlines()
    self.assertEqual([json.loads(line)["key"] for line in lines], ["a", "b"])

  def test_the_first_answer_stays(self):
    journal = Journal(self.path)
    self.assertEqual(journal.put("a", 1), 1)
    self.assertEqual(journal.put("a", 2), 1)
    self.assertEqual(Journal(self.path).get("a"), 1)

  def test_what_other_hosts_paid_for(self):
    other = self.path.with_name("other.jsonl")
    theirs = Journal(other)
    for key, answer in (("a", 1), ("b", 2), ("c", 3)):
      theirs.put(key, answer)
    # Another process, perhaps, is in the middle of a line.
    other.write_bytes(other.read_bytes()[:-3])
    before = other.read_bytes()
    Journal(self.path).put("a", 7)
    journal = Journal(self.path, [other, self.path.with_name("none.jsonl")])
    self.assertEqual([journal.get(key) for key in "abc"], [7, 2, None])
    self.assertEqual(journal.put("b", 5), 2)
    journal.put("c", 4)
    self.assertEqual(journal.get("c"), 4)
    self.assertEqual(other.read_bytes(), before)
    own = Journal(self.path)
    self.assertEqual([own.get(key) for key in "abc"], [7, None, 4])

  def test_half_a_line_is_dropped_wherever_it_was_cut(self):
    journal = Journal(self.path)
    journal.put("a", "one")
    whole = self.path.stat().st_size
    # Longer than what is written over it.
    journal.put("b", "two" * 20)
    data = self.path.read_bytes()
    for size in range(whole, len(data)):
      self.path.write_bytes(data[:size])
      journal = Journal(self.path)
      self.assertLen(journal, 1)
      self.assertEqual(journal.passed_over, int(size > whole))
      journal.put("c", "x")
      again = Journal(self.path)
      self.assertEqual([again.get(key) for key in "abc"], ["one", None, "x"])
      # Nothing of it is left for other readers either.
      rows = map(json.loads, self.path.read_text().splitlines())
      self.assertEqual([row["key"] for row in rows], ["a", "c"])

  def test_a_full_disk_is_said_with_the_file(self):
    journal = Journal(self.path)
    journal.put("a", "one")
    with (
      self.assertRaisesRegex(OSError, f"^{self.path} cannot be written .File"),
      full_disk.full(self.path.stat().st_size + 9),
    ):
      journal.put("b", "two")
    again = Journal(self.path)
    again.put("b", "three")
    self.assertEqual([again.get(key) for key in "ab"], ["one", "three"])

  def test_a_line_of_something_else(self):
    Journal(self.path).put("a", 1)
    for line in ("not JSON", "[]", "{}"):
      with self.path.open("r+") as file:
        file.readline()
        file.truncate(file.tell())
        file.seek(0, 2)
        file.write(line + "\n")
      with self.assertLogs(level="WARNING") as logs:
        journal = Journal(self.path)
      self.assertRegex(logs.output[0], "1 lines are no .* first: line 2 ")
      self.assertEqual(journal.passed_over, 1)
      self.assertEqual(journal.get("a"), 1)
      self.assertIsNone(journal.get("b"))
      # What comes after it is read, and what is put goes after it.
      self.assertEqual(journal.put("b", 2), 2)
      again = Journal(self.path)
      self.assertEqual([again.get(key) for key in "ab"], [1, 2])

  def test_an_answer_that_cannot_be_used_is_asked_for_anew(self):
    def check(answer):
      if answer is not None and answer < 0:
        raise outside.Bad("is negative")

    journal = Journal(self.path)
    for key, answer in (("a", 1), ("b", -1), ("c", 3)):
      journal.put(key, answer)
    journal = Journal(self.path, check=check)
    self.assertEqual([journal.get(k) for k in "abc"], [1, None, 3])
    journal.put("b", 2)
    # Two lines have the key; the later one counts, with and without a check.
    for journal in (Journal(self.path, check=check), Journal(self.path)):
      self.assertEqual([journal.get(k) for k in "abc"], [1, 2, 3])

  def test_lines_that_no_process_wrote(self):
    Journal(self.path).put("a", 1)
    bad = [b"[" * 100000, b'{"key": [], "answer": 1}', b"\xff", b"\0" * 99]
    bad += [b'{"key": "z", "answer": null}', b'{"key": "z", "key": "y"}']
    with self.path.open("ab") as file:
      file.write(b"\n".join([*bad, b'{"key": "b", "answer": 2}', b""]))
    journal = Journal(self.path)
    self.assertEqual(journal.passed_over, len(bad))
    self.assertEqual([journal.get(key) for key in "abz"], [1, 2, None])

  def test_no_process_of_a_host_loses_what_another_has_put(self):
    folder = self.path.parent
    # Of the first host, by an earlier version.
    Journal(folder / "requests.jsonl").put("x", 0)
    for index in (0, 1):
      old, new = (journal.of_host(folder, index) for _ in range(2))
      keys = [f"{index}{each}" for each in "abcdx"]
      for each, key in zip((old, new, old, new), keys, strict=False):
        self.assertEqual(each.put(key, key), key)
      later = journal.of_host(folder, 0)
      self.assertEqual(later.passed_over, 0)
      self.assertEqual([later.get(key) for key in keys], [*keys[:4], None])
      self.assertEqual(later.get("x"), 0)

  def test_the_first_hosts_answer_counts_where_hosts_differ(self):
    folder = self.path.parent
    for number in (1, 2, 0):
      Journal(folder / f"requests-{number}-ab.jsonl").put("k", number)
    for index in (0, 1):
      self.assertEqual(journal.of_host(folder, index).get("k"), 0)
    # That of an earlier version, to whose trees it belongs.
    Journal(folder / "requests.jsonl").put("k", "old")
    for index in (0, 1):
      self.assertEqual(journal.of_host(folder, index).get("k"), "old")

  def test_one_that_another_removes_all_the_time(self):
    written, over = Journal(self.path), threading.Event()

    def remove():
      while not over.is_set():
        self.path.unlink(missing_ok=True)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      removed = pool.submit(remove)
      try:
        for number in range(300):
          written.put(str(number), number)
      finally:
        over.set()
      removed.result()

  def test_threads(self):
    journal = Journal(self.path)
    pairs = [(f"k{i % 50}", "x" * (i % 50)) for i in range(200)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      found = list(pool.map(lambda pair: journal.put(*pair), pairs))
    self.assertEqual(found, [answer for _, answer in pairs])
    self.assertLen(self.path.read_text().splitlines(), 50)
    again = Journal(self.path)
    for key, answer in pairs:
      self.assertEqual(again.get(key), answer)


class JournalInABucketTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.bucket, _ = self.enter_context(fake_gcs.serve("b"))
    self.enter_context(
      mock.patch.object(append_only.Blocks.__init__, "__defaults__", (0.0,))
    )
    self.folder = store.path("gs://b/run/round_1")

  def test_what_is_put_is_there_for_the_next_one(self):
    first, second = (journal.of_host(self.folder, i) for i in range(2))
    self.assertIsNone(first.get("a"))
    self.assertEqual(first.put("a", {"text": "é"}), {"text": "é"})
    self.assertEqual(first.put("a", 2), {"text": "é"})
    second.put("a", 3)
    second.put("b", 4)
    # One of these two follows `second`, which may be alive.
    third, own, other = (journal.of_host(self.folder, i) for i in (1, 0, 1))
    second.put("c", 5)
    third.put("d", 6)
    for each in own, other:
      found = [each.get(key) for key in "abe"]
      self.assertEqual(found, [{"text": "é"}, 4, None])
    fourth = journal.of_host(self.folder, 1)
    self.assertEqual([fourth.get(key) for key in "bcd"], [4, 5, 6])
    names = store.children(self.folder)
    self.assertLen(names, 3)
    for name, host in zip(names, "011", strict=True):
      self.assertRegex(name, rf"^requests-{host}-\w{{32}}\.jsonl\.00000$")

  def test_the_blocks_hold_the_bytes_of_a_file(self):
    file = pathlib.Path(self.create_tempdir().full_path) / "requests.jsonl"
    for each in (Journal(file), journal.of_host(self.folder, 0)):
      for key, answer in (("a", 1), ("b", [2])):
        each.put(key, answer)
    (name,) = store.children(self.folder)
    self.assertEqual(store.read(self.folder / name), file.read_bytes())

  def test_an_answer_is_not_given_before_it_is_kept(self):
    own = journal.of_host(self.folder, 0)
    own.put("a", 1)
    self.bucket.hook = fake_gcs.Crash(1)
    for _ in range(2):
      with self.assertRaises(OSError):
        own.put("b", 2)
    with self.assertRaises(OSError):
      own.get("b")
    self.bucket.hook = lambda *_: None
    self.assertIsNone(journal.of_host(self.folder, 0).get("b"))
    self.assertEqual(own.get("b"), 2)
    self.assertEqual(journal.of_host(self.folder, 0).get("b"), 2)

  def test_what_need_not_be_durable_is_sent_later(self):
    path = self.folder / "begun.jsonl"
    own = Journal(path, durable=False)
    self.assertEqual([own.put("a", 1), own.put("b", 2)], [1, 2])
    self.assertEqual(own.get("a"), 1)
    self.assertEmpty(store.children(self.folder))
    own.save()
    self.assertEqual([Journal(path).get(key) for key in "ab"], [1, 2])
    own.put("c", 3)
    self.assertIsNone(Journal(path).get("c"))
    writes = len(self.bucket.calls)
    own.save()
    self.assertGreater(len(self.bucket.calls), writes)
    self.assertEqual(Journal(path).get("c"), 3)
    writes = len(self.bucket.calls)
    own.save()
    self.assertLen(self.bucket.calls, writes)

  def test_threads_share_it(self):
    own = journal.of_host(self.folder, 0)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      list(pool.map(lambda n: own.put(str(n % 30), n), range(90)))
    again = journal.of_host(self.folder, 0)
    self.assertLen(again, 30)
    for n in range(30):
      self.assertEqual(again.get(str(n)), own.get(str(n)))
      self.assertEqual(again.get(str(n)) % 30, n)


if __name__ == "__main__":
  absltest.main()
