"""Reading Markdown, on documents small enough to read along."""

from absl.testing import absltest, parameterized

from tests.docs import reading

PAGE = """# A page: its *name*

```python
print(7)
```

That prints

```text
7
```

## Links

See [one](two.md#three) and `[no](link)`.

## Links

```bash
make demo   # a comment
```
"""


class DocumentsTest(parameterized.TestCase):
  def test_blocks(self):
    python, output, bash = reading.blocks(PAGE)
    self.assertEqual(python, reading.Block("python", "print(7)\n", 4, "7\n"))
    self.assertEqual(output.language, "text")
    self.assertEqual((bash.line, bash.output), (20, None))
    self.assertEqual(PAGE.splitlines()[bash.line - 1], bash.text.strip())

  def test_a_block_may_be_a_file(self):
    for text, name in (
      ("# my_file.py\nx = 1\n", "my_file.py"),
      ("# my file.py\nx = 1\n", ""),
      ("x = 1\n# my_file.py\n", ""),
    ):
      (block,) = reading.blocks(f"```python\n{text}```\n")
      self.assertEqual(block.file, name)

  def test_a_page_without_blocks(self):
    self.assertEqual(reading.blocks("# A page\n"), [])

  @parameterized.parameters(
    ("", []),
    ("# nothing\n\n", []),
    ("make a   # why\nmake b\n", ["make a", "make b"]),
    ("python -m a \\\n  --b=1\n", ["python -m a   --b=1"]),
    ("a --q='x # y'\n", ["a --q='x # y'"]),
    ('a --q="x\ny"\nb\n', ['a --q="x\ny"', "b"]),
    ('a --q="x \\\ny"\n', ['a --q="x y"']),
  )
  def test_commands(self, script, expected):
    self.assertEqual(reading.commands(script), expected)

  def test_a_quotation_that_is_left_open(self):
    with self.assertRaisesRegex(ValueError, "not closed"):
      reading.commands("a 'b\nc\n")

  def test_links_are_not_in_code(self):
    self.assertEqual(reading.links(PAGE), ["two.md#three"])

  def test_anchors_are_github_s(self):
    self.assertEqual(
      reading.anchors(PAGE), {"a-page-its-name", "links", "links-1"}
    )
    self.assertEqual(
      reading.anchors("# One `two` [three](x.md)"), {"one-two-three"}
    )

  def test_finds_the_documents(self):
    found = reading.documents()
    self.assertContainsSubset(
      {"README.md", "CONTRIBUTING.md", "docs/architecture.md"}, found
    )


if __name__ == "__main__":
  absltest.main()
