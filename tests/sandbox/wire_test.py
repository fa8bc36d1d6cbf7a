"""Messages, against bytes by hand."""

import json
import socket

from absl.testing import absltest

from rstar_jax.sandbox import wire

_FRAME = b'\x00\x00\x00\x07[1,"x"]'


class WireTest(absltest.TestCase):
  def test_a_frame_begins_with_the_length_of_its_json(self):
    for message in ({}, [], "é", ["run", 0, [["x = 1"]]], None, 1.5):
      frame = wire.frame(message)
      length = int.from_bytes(frame[:4], "big")
      self.assertLen(frame, 4 + length)
      self.assertEqual(json.loads(frame[4:]), message)

  def test_messages_are_taken_whole_whatever_the_pieces(self):
    stream = _FRAME + wire.frame({}) + wire.frame("z" * 700) + _FRAME[:10]
    for size in (1, 2, 5, 11, 4096):
      inbox, taken = wire.Inbox(), []
      for start in range(0, len(stream), size):
        inbox.add(stream[start : start + size])
        while (message := inbox.take()) is not None:
          taken.append(message)
      self.assertEqual(taken, [[1, "x"], {}, "z" * 700])
      # What is not whole waits.
      self.assertLen(inbox, 10)
      inbox.add(_FRAME[10:])
      self.assertEqual(inbox.take(), [1, "x"])
      self.assertEmpty(inbox)

  def test_nonsense_is_refused(self):
    for payload in (b"{", b"\xff", b"[" * 200_000):
      inbox = wire.Inbox()
      inbox.add(len(payload).to_bytes(4, "big") + payload)
      with self.assertRaises((ValueError, RecursionError)):
        inbox.take()

  def test_receive_within_a_time(self):
    ours, theirs = socket.socketpair()
    inbox = wire.Inbox()
    with ours, theirs:
      theirs.sendall(_FRAME + wire.frame({}) + _FRAME[:6])
      # What has arrived is read whatever the time.
      self.assertEqual(wire.receive_within(ours, inbox, -1.0), [1, "x"])
      self.assertEqual(wire.receive_within(ours, inbox, -1.0), {})
      with self.assertRaises(TimeoutError):
        wire.receive_within(ours, inbox, 0.01)
      theirs.sendall(_FRAME[6:] + b"\0\0\1\0" + b" " * 99)
      self.assertEqual(wire.receive_within(ours, inbox, 60.0), [1, "x"])
      # More than the most of a message has arrived.
      theirs.sendall(b" " * 9)
      self.assertIsNone(wire.receive_within(ours, inbox, 60.0, most=99))
      theirs.shutdown(socket.SHUT_WR)
      self.assertIsNone(wire.receive_within(ours, inbox, 60.0))

  def test_receive_waits_for_a_whole_message(self):
    ours, theirs = socket.socketpair()
    with ours, theirs:
      theirs.sendall(_FRAME + wire.frame({}))
      theirs.sendall(_FRAME[:6])
      theirs.shutdown(socket.SHUT_WR)
      self.assertEqual(wire.receive(ours), [1, "x"])
      self.assertEqual(wire.receive(ours), {})
      # The end comes within a message.
      self.assertIsNone(wire.receive(ours))
      self.assertIsNone(wire.receive(ours))


if __name__ == "__main__":
  absltest.main()
