"""A few kills; `python -m tests.pipeline.kills` does as many as one likes."""

import pathlib

from absl.testing import absltest, parameterized

from tests.pipeline import kills


class KillsTest(parameterized.TestCase):
  @parameterized.parameters(1, 3)
  def test_same_bytes_and_nothing_finished_is_searched_again(self, most_hosts):
    folder = pathlib.Path(self.create_tempdir().full_path)
    found = kills.check(folder, 6, most_hosts)
    self.assertEqual(found["killed"], 6)


if __name__ == "__main__":
  absltest.main()
