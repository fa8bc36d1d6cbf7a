"""Encodes messages between host and workers as length-prefixed JSON.

Workers use it too: standard library only.
"""

import json
import struct


def frame(message: object) -> bytes:
  """Returns a message as length-prefixed JSON."""
  payload = json.dumps(message).encode()
  return struct.pack(">I", len(payload)) + payload


def receive(connection) -> object | None:
  """Returns the next message of a blocking socket, None at end of file."""
  header = _receive_exactly(connection, 4)
  if header is None:
    return None
  payload = _receive_exactly(connection, struct.unpack(">I", header)[0])
  return None if payload is None else json.loads(payload)


def _receive_exactly(connection, count: int) -> bytes | None:
  pieces = []
  while count:
    piece = connection.recv(min(count, 1 << 20))
    if not piece:
      return None
    pieces.append(piece)
    count -= len(piece)
  return b"".join(pieces)
