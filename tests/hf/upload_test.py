"""Files on a Hub of this machine, sent by the real client."""

import pathlib

from absl.testing import absltest, parameterized

from rstar_jax.hf import upload
from tests.hf import fake_hub


class UploadTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.hub = fake_hub.started(self)
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.files = {}
    for name, data in (
      ("README.md", b"---\ntags: [x]\n---\nA card.\n"),
      ("model.safetensors", bytes(range(256)) * 9),
      ("a/b.json", b"{}"),
    ):
      path = folder / name
      path.parent.mkdir(exist_ok=True)
      path.write_bytes(data)
      self.files[name] = path

  def push(self, name="me/mine", kind="model"):
    upload.prepare(name, kind, self.hub.url)
    return upload.push(self.files, name, kind, "Add it", self.hub.url)

  @parameterized.parameters(
    ("model", "models/me/mine", ""),
    ("dataset", "datasets/me/mine", "datasets/"),
  )
  def test_files_are_pushed_to_a_private_repository(self, kind, repo, part):
    address = self.push(kind=kind)
    self.assertEqual(address, f"{self.hub.url}/{part}me/mine (private)")
    self.assertEqual(list(self.hub.repos), [repo])
    found = self.hub.repos[repo]
    self.assertTrue(found["private"])
    self.assertEqual(found["commits"], ["Add it"])
    wanted = {name: path.read_bytes() for name, path in self.files.items()}
    self.assertEqual(found["files"], wanted)

  def test_what_is_there_is_not_sent_again(self):
    self.push()
    self.files["a/b.json"].write_text('{"a": 1}')
    self.push()
    self.assertEqual(self.hub.sent, [256 * 9])
    found = self.hub.repos["models/me/mine"]
    self.assertEqual(found["files"]["a/b.json"], b'{"a": 1}')
    self.assertLen(found["commits"], 2)

  def test_a_public_one_is_said_to_be(self):
    self.hub.add("models/me/mine", private=False)
    self.assertEndsWith(self.push(), "/me/mine (public)")

  @parameterized.parameters("", "mine", "a/b/c", "me/", "me/my model")
  def test_names_that_are_none(self, name):
    with self.assertRaisesRegex(
      ValueError, "is no name on the Hub: give USER/"
    ):
      upload.prepare(name, "model", self.hub.url)

  def test_nobody_is_logged_in(self):
    hub = fake_hub.started(self, token="hf_of_nobody")
    with self.assertRaises(ValueError) as caught:
      upload.prepare("me/mine", "model", hub.url)
    message = str(caught.exception)
    self.assertNotIn("\n", message)
    self.assertRegex(
      message, "^me/mine cannot be pushed to .*401.*hf auth login"
    )
    self.assertEmpty(hub.repos)

  def test_the_hub_is_not_there(self):
    with self.assertRaisesRegex(
      ValueError, "me/mine cannot be pushed to .Conn"
    ):
      upload.prepare("me/mine", "model", "http://127.0.0.1:9")
    self.assertIsNone(upload.licence("a/b", "model", "http://127.0.0.1:9"))

  @parameterized.parameters(
    ("apache-2.0", "apache-2.0"), (["mit", "cc0"], "mit, cc0"), (None, None)
  )
  def test_licences(self, said, expected):
    self.hub.add("datasets/a/b", license=said)
    found = upload.licence("a/b", "dataset", self.hub.url)
    self.assertEqual(found, expected)
    self.assertIsNone(upload.licence("a/c", "dataset", self.hub.url))


if __name__ == "__main__":
  absltest.main()
