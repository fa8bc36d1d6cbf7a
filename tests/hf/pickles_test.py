"""Pickled weights: those that torch wrote, and those that do harm.

`python -m tests.parity.pickled` made the golden file, with torch.
"""

import io
import json
import os
import pathlib
import pickle
import pickletools
import shutil
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized

from rstar_jax.hf import folders, pickles, tensors
from rstar_jax.models.transformer import arrays_of

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
TABLE = np.arange(35, dtype=np.float32).reshape(7, 5) / 4 - 3
NAME = pickles.FILES.single


def whole(read, name):
  return read.read(name, tuple(slice(0, n) for n in read.shape(name)))


class Named:
  """Pickles as a global, which need not exist here."""

  def __init__(self, module, name):
    self.module, self.name = module, name

  def __call__(self):
    """As pickle wants it of what is called."""


class Writer(pickle._Pickler):
  """Writes what torch writes, with the names and storages that a test gives."""

  dispatch = dict(pickle._Pickler.dispatch)

  def save_named(self, each):
    self.write(f"c{each.module}\n{each.name}\n".encode())

  dispatch[Named] = save_named

  def persistent_id(self, value):
    return (
      value[1:] if isinstance(value, list) and value[:1] == ["at"] else None
    )


class Call:
  """A call that a pickle makes, with the state that it then sets."""

  def __init__(self, called, args, state=None):
    self.made = (called, args) if state is None else (called, args, state)

  def __reduce__(self):
    return self.made


def save_call(self, each):
  self.save_reduce(*each.made, obj=each)


Writer.dispatch[Call] = save_call


def tensor(key, count, offset, shape, strides, state=None, what="storage"):
  """Returns a tensor of float32 as torch writes it."""
  kind = Named("torch", "FloatStorage")
  at = ["at", what, kind, key, "cpu", count] if what else None
  rebuild = Named("torch._utils", "_rebuild_tensor_v2")
  return Call(rebuild, (at, offset, shape, strides, False, {}), state)


class PicklesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def write(self, description, storages=(b"\0" * 24,), **options):
    """Writes a file as torch does; returns the error that it is read with."""
    if not isinstance(description, bytes):
      file = io.BytesIO()
      Writer(file, 2).dump(description)
      description = file.getvalue()
    with zipfile.ZipFile(self.folder / NAME, "w", **options) as archive:
      archive.writestr("model/data.pkl", description)
      for index, values in enumerate(storages):
        archive.writestr(f"model/data/{index}", values)
    with self.assertRaises(ValueError) as caught:
      pickles.PickledFolder(self.folder)
    message = str(caught.exception)
    self.assertStartsWith(message, f"{self.folder / NAME} cannot be read (")
    self.assertIn("): copy it again, or, where torch is,", message)
    self.assertNotIn("\n", message)
    return message

  def test_tensors_are_those_of_torch(self):
    read = pickles.PickledFolder(GOLDEN / "pickled")
    expected = {
      "float32": TABLE,
      "the same": TABLE,
      "rows": TABLE[2:6],
      "turned": TABLE.T,
      "columns": TABLE[:, 1:4],
      "bfloat16": TABLE.astype(ml_dtypes.bfloat16),
      "float16": TABLE.astype(np.float16),
      "float64": TABLE.astype(np.float64),
      "parameter": TABLE + 1,
      "one": np.float32(2.5),
      "none": np.zeros((0, 5), np.float32),
    }
    self.assertEqual(read.names(), sorted([*expected, "int8", "bool"]))
    for name, value in expected.items():
      with self.subTest(name):
        found = whole(read, name)
        self.assertEqual(found.dtype, value.dtype)
        np.testing.assert_array_equal(found, value)
        if value.ndim == 2 and len(value):
          part = (slice(1, 3), slice(2, 3))
          np.testing.assert_array_equal(read.read(name, part), value[part])
    for name in ("int8", "bool"):
      with self.assertRaisesRegex(ValueError, f"{name} is of the type .*: the"):
        read.shape(name)

  def test_a_byte_order_that_would_fill_the_memory_is_not_read(self):
    file = io.BytesIO()
    Writer(file, 2).dump({"a": tensor("0", 6, 0, (2, 3), (3, 1))})
    for order in (b"little" + b" " * (1 << 25), b"big"):
      with zipfile.ZipFile(
        self.folder / NAME, "w", zipfile.ZIP_DEFLATED
      ) as archive:
        archive.writestr("model/data.pkl", file.getvalue())
        archive.writestr("model/byteorder", order)
      tracemalloc.start()
      self.addCleanup(tracemalloc.stop)
      with self.assertRaisesRegex(ValueError, "has the byte order of another"):
        pickles.PickledFolder(self.folder)
      self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 22)
      tracemalloc.stop()

  def test_a_model_is_that_of_its_safetensors(self):
    source = GOLDEN / "llama_bias"
    shutil.copy(source / "config.json", self.folder)
    values = safetensors.numpy.load_file(source / "model.safetensors")
    storages, tensors_, shards = {}, {}, 2
    for number, (name, value) in enumerate(values.items()):
      shard = number % shards
      place = storages.setdefault(shard, [])
      place.append(value.tobytes())
      strides = tuple(step // 4 for step in value.strides)
      made = tensor(str(len(place) - 1), value.size, 0, value.shape, strides)
      tensors_.setdefault(shard, {})[name] = made
    placed = {}
    for shard, found in tensors_.items():
      file = f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
      placed |= dict.fromkeys(found, file)
      stream = io.BytesIO()
      Writer(stream, 2).dump(found)
      with zipfile.ZipFile(self.folder / file, "w") as archive:
        archive.writestr("model/data.pkl", stream.getvalue())
        for index, each in enumerate(storages[shard]):
          archive.writestr(f"model/data/{index}", each)
    index = self.folder / pickles.FILES.index
    index.write_text(json.dumps({"weight_map": placed}))
    found, expected = (
      arrays_of(folders.load_policy(each)) for each in (self.folder, source)
    )
    self.assertEqual(found.keys(), expected.keys())
    for path, value in expected.items():
      np.testing.assert_array_equal(found[path], value)
    # What is safe in any case is read first.
    shutil.copy(source / "model.safetensors", self.folder)
    (self.folder / file).write_bytes(b"")
    folders.load_policy(self.folder)

  @parameterized.parameters(
    ("posix", "system", ("touch PLACE",)),
    ("builtins", "eval", ("open('PLACE', 'w')",)),
    ("builtins", "getattr", ("a", "b")),
    ("torch", "load", ("PLACE",)),
    ("torch.storage", "_load_from_bytes", (b"x",)),
    ("rstar_jax.hf.pickles", "pathlib.Path", ("PLACE",)),
    ("collections", "OrderedDict.fromkeys", ([1],)),
  )
  def test_a_pickle_that_calls_something_is_refused(self, module, name, args):
    made = self.folder / "made"
    args = tuple(
      each.replace("PLACE", str(made)) if isinstance(each, str) else each
      for each in args
    )
    message = self.write({"a": Call(Named(module, name), args)})
    self.assertIn(f"it names {module}.{name}", message)
    self.assertFalse(made.exists())
    # Such a pickle does harm where it is simply loaded.
    if module == "posix":
      pickle.loads(pickle.dumps(Call(os.system, args)))
      self.assertTrue(made.exists())

  @parameterized.parameters(
    (("0", 6, 0, (2, 4), (4, 1)), "beyond its storage"),
    (("0", 6, 1, (2, 3), (3, 1)), "beyond its storage"),
    (("0", 6, 0, (2, 3), (-3, 1)), "of another form"),
    (("0", 6, 0, (2, 3), (1,)), "of another form"),
    (("0", 6, 0, (2, 3), (3, 1), None, ""), "of another form"),
    (("0", 7, 0, (1,), (1,)), "has another size"),
    (("0", -6, 0, (1,), (1,)), "has another size"),
    (("0", 6, 0, (1,), (1,), None, "module"), "has another size"),
    (("../x", 6, 0, (1,), (1,)), "no item named"),
    # What is made cannot be changed by what a pickle calls its state.
    (("0", 6, 0, (6,), (1,), {"offset": 99}), "attribute"),
    (("0", 6, 0, (6,), (1,), (None, {"offset": 99})), "attribute"),
  )
  def test_a_tensor_that_is_none(self, args, reason):
    self.assertIn(reason, self.write({"a": tensor(*args)}))

  def test_what_is_no_dict_of_tensors(self):
    whole = tensor("0", 6, 0, (6,), (1,))
    self.assertIn("holds no dict", self.write([whole]))
    self.assertIn("'a' is no tensor", self.write({"a": 1}))
    self.assertIn("key of the type int", self.write({1: whole}))
    packed = {"compression": zipfile.ZIP_DEFLATED}
    self.assertIn("or form", self.write({"a": whole}, **packed))

  def test_what_would_take_hours_to_hash_or_to_show(self):
    """Tuples of the same tuple twice double the work each time."""
    deep = b")" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(40))
    name = b"cposix\nsystem\n"  # Refused in any case.
    what, key = b"X\7\0\0\0storage", b"X\1\0\0\x000"
    kind = b"ctorch\nFloatStorage\n"
    for made, said in (
      (b"}" + deep + b"Ns.", "a key of the type tuple"),
      (b"}(" + deep + b"Nu.", "a key of the type tuple"),
      (b"ccollections\nOrderedDict\n)R" + deep + b"Ns.", "of the type tuple"),
      (b"ccollections\nOrderedDict\n]" + deep + b"N\x86a\x85R.", "takes 1 "),
      (b"(" + deep + b"Nd.", "no dict of tensors"),
      (b"(" + deep + b"\x91.", "no dict of tensors"),
      (b"\x8f(" + deep + b"\x90.", "no dict of tensors"),
      (b"\x96\0\0\0\0\0\0\0\x10.", "no dict of tensors"),
      (b"(" + deep + kind + key + b"NNtQ.", "storage has another form"),
      (b"(" + what + deep + key + b"NNtQ.", "storage has another form"),
      (b"(" + what + kind + deep + b"NNtQ.", "storage has another form"),
      (deep + name + b".", "it names posix.system"),
    ):
      with self.subTest(said, made=made[:12]):
        self.assertIn(said, self.write(b"\x80\2" + made))

  def test_files_that_are_damaged_or_of_another_form(self):
    golden = (GOLDEN / "pickled" / NAME).read_bytes()
    older = pickle.dumps({"a": 1}, 2)
    for data in (golden[:-40], golden[: len(golden) // 2], b"", older):
      (self.folder / NAME).write_bytes(data)
      with self.assertRaisesRegex(ValueError, "cannot be read .*copy it again"):
        pickles.PickledFolder(self.folder)
    self.write(older[:-3])

  def test_names_that_the_golden_file_needs_are_those_that_are_known(self):
    with zipfile.ZipFile(GOLDEN / "pickled" / NAME) as archive:
      (name,) = (n for n in archive.namelist() if n.endswith("data.pkl"))
      ops = pickletools.genops(archive.read(name))
      named = {arg for op, arg, _ in ops if op.name == "GLOBAL"}
    self.assertContainsSubset(
      {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"}, named
    )

  def test_no_file(self):
    with self.assertRaisesRegex(FileNotFoundError, "has no .safetensors file"):
      folders._weights(self.folder)
    (self.folder / pickles.FILES.index).write_text('{"weight_map": {"a": "b"}}')
    with self.assertRaisesRegex(FileNotFoundError, "names b, which is not"):
      tensors.files_of(self.folder, pickles.FILES)


if __name__ == "__main__":
  absltest.main()
