"""The quick start is read, run and counted as it stands."""

import pathlib
import socket
import subprocess
import sys
import urllib.request

from absl.testing import absltest

from tests.docs import start

_PAGE = """
**1. See a tree.** It builds:

```bash
make quick   # once
```

**2. Read.** Nothing to do.

**3. Write.** Two commands, and Python that is no command:

```bash
echo one \\
  two
```

```python
print(3)
```

```bash
echo three
```
"""


class StartTest(absltest.TestCase):
  def test_steps_have_the_commands_below_them(self):
    self.assertEqual(
      start.steps(_PAGE),
      {
        1: ("See a tree", ["make quick"]),
        3: ("Write", ["echo one   two", "echo three"]),
      },
    )

  def test_the_page_has_such_steps(self):
    commands = [
      each for _, each in start.steps(start.PAGE.read_text()).values()
    ]
    self.assertEqual(commands[0], ["make quick"])
    self.assertGreater(len(commands), 5)

  def test_downloads_are_added_up(self):
    said = (
      "Downloading jaxlib-0.10.2-cp311.whl (85.4 MB)\n"
      "  Downloading six-1.17.0.whl.metadata (1.7 kB)\n"
      "Using cached numpy-2.whl (16.0 MB)\nDownloading a-1.whl (1.2 GB)\n"
    )
    self.assertAlmostEqual(start.downloaded(said), 1285.4017)
    self.assertEqual(start.row("A", 2, 3.6, said), "| A | 2 | 4 s | 1285 MB |")

  def test_commands_run_one_after_another_at_a_home_of_their_own(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    said = start.do(["echo 1 > a", 'cat a; echo "$HOME"'], folder, folder / "h")
    self.assertEqual(said, f"1\n{folder}/h\n")

  def test_a_server_answers_while_the_next_commands_run(self):
    with socket.create_server(("127.0.0.1", 0)) as free:
      port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = f"{sys.executable} -m http.server {port} --bind=127.0.0.1"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with start.serving(command, address, **quiet):
      urllib.request.urlopen(address).close()
    with self.assertRaises(OSError):
      urllib.request.urlopen(address)


if __name__ == "__main__":
  absltest.main()
