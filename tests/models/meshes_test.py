"""Tests of meshes, on 8 fake devices."""

import jax
from absl.testing import absltest

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import meshes

jax.config.update("jax_num_cpu_devices", 8)


class MeshesTest(absltest.TestCase):
  def test_slices_are_parts_of_the_data_axis(self):
    sizes = meshes.sizes_of(MeshConfig(data=2, fsdp=-1, tensor=2), 16, 2)
    self.assertEqual(sizes, (2, 4, 2))
    for data in (1, 3):
      with self.assertRaisesRegex(ValueError, "the 2 slices.* set data=2"):
        meshes.sizes_of(MeshConfig(data=data, fsdp=-1), 6, 2)
    with self.assertRaisesRegex(ValueError, "'data': 3, .* the 2 slices"):
      meshes.sizes_of(MeshConfig(data=-1, fsdp=2), 6, 2)

    class Chip:
      """A chip of a slice, as far as a mesh asks for it."""

      platform = device_kind = "fake"
      process_index = 0

      def __init__(self, number: int):
        self.id, self.slice_index = number, number % 2

      def __repr__(self):
        return f"{self.id}"

    devices = [Chip(number) for number in range(8)]
    mesh = meshes.make(MeshConfig(data=4, fsdp=2, tensor=1), devices)
    self.assertEqual(dict(mesh.shape), {"data": 4, "fsdp": 2, "tensor": 1})
    slices = [[each.slice_index for each in row.flat] for row in mesh.devices]
    # No row of fsdp and tensor has chips of both, and the first half of data is
    # one slice.
    self.assertEqual(slices, [[0, 0], [0, 0], [1, 1], [1, 1]])
    self.assertLen({each.id for each in mesh.devices.flat}, 8)

  def test_an_abstract_mesh_has_the_axes_of_a_real_one(self):
    config = MeshConfig(data=2, tensor=4)
    found = meshes.abstract(config, 8)
    real = meshes.make(config)
    self.assertEqual(
      (found.shape, found.axis_types), (real.shape, real.axis_types)
    )
    self.assertEqual(dict(found.shape), {"data": 2, "fsdp": 1, "tensor": 4})
    with self.assertRaisesRegex(ValueError, "set data=2"):
      meshes.abstract(MeshConfig(data=1, fsdp=8), 8, slices=2)

  def test_mesh_of_a_field(self):
    devices = jax.devices()
    self.assertIsNone(meshes.of_field(MeshConfig(), devices[:1], "x"))
    mesh = meshes.of_field(MeshConfig(tensor=2), devices[:4], "x")
    self.assertEqual(dict(mesh.shape), {"data": 2, "fsdp": 1, "tensor": 2})
    with self.assertRaisesRegex(ValueError, "config.search_mesh: .* there are"):
      meshes.of_field(MeshConfig(tensor=2), devices[:1], "config.search_mesh")

  def test_mesh_that_does_not_fit(self):
    with self.assertRaisesRegex(ValueError, "needs a multiple of 3 devices"):
      meshes.make(MeshConfig(fsdp=3))
    with self.assertRaisesRegex(ValueError, "needs 4 devices, and there are 8"):
      meshes.make(MeshConfig(data=4))
    with self.assertRaisesRegex(ValueError, "may be -1"):
      meshes.make(MeshConfig(data=-1, fsdp=-1))
    one = meshes.make(MeshConfig(), jax.devices()[:1])
    self.assertEqual(dict(one.shape), {"data": 1, "fsdp": 1, "tensor": 1})


if __name__ == "__main__":
  absltest.main()
