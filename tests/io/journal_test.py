"""Tests of the journal: what is in it stays, whoever dies."""

import concurrent.futures
import json
import pathlib

from absl.testing import absltest

from rstar_jax.io.journal import Journal


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
      journal.put("c", "x")
      again = Journal(self.path)
      self.assertEqual([again.get(key) for key in "abc"], ["one", None, "x"])
      # Nothing of it is left for other readers either.
      rows = map(json.loads, self.path.read_text().splitlines())
      self.assertEqual([row["key"] for row in rows], ["a", "c"])

  def test_a_line_of_something_else(self):
    Journal(self.path).put("a", 1)
    for line in ("not JSON", "[]", "{}"):
      with self.path.open("r+") as file:
        file.readline()
        file.truncate(file.tell())
        file.seek(0, 2)
        file.write(line + "\n")
      with self.assertRaisesRegex(ValueError, r"journal.jsonl:2 is no entry"):
        Journal(self.path)

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


if __name__ == "__main__":
  absltest.main()
