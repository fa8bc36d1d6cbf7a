"""Messages between host, workers and programs: length-prefixed JSON.

Workers use it too: standard library only.
"""

import json
import socket
import struct
import time

_LENGTH = struct.Struct(">I")


def frame(message: object) -> bytes:
  """Returns a message as length-prefixed JSON."""
  payload = json.dumps(message).encode()
  return _LENGTH.pack(len(payload)) + payload


class Inbox:
  """Bytes that have arrived, of which whole messages are taken."""

  def __init__(self):
    self._bytes = bytearray()

  def __len__(self) -> int:
    """Returns the number of bytes that are not taken yet."""
    return len(self._bytes)

  def add(self, piece: bytes) -> None:
    """Appends bytes that have arrived."""
    self._bytes += piece

  def take(self) -> object | None:
    """Removes and returns the first message; None if it is not whole.

    Raises:
      ValueError, RecursionError: it is not JSON.
    """
    if len(self._bytes) < _LENGTH.size:
      return None
    end = _LENGTH.size + _LENGTH.unpack_from(self._bytes)[0]
    if len(self._bytes) < end:
      return None
    message = json.loads(self._bytes[_LENGTH.size : end])
    del self._bytes[:end]
    return message


def receive_within(
  connection: socket.socket, inbox: Inbox, seconds: float, most: int = 1 << 32
) -> object | None:
  """Returns the next message of a socket, None at end of file.

  Args:
    connection: gets a timeout.
    inbox: what has arrived.
    seconds: most time to wait.
    most: bytes at which a message that is not whole counts as the end.

  Raises:
    TimeoutError: no whole message has arrived in time.
    OSError: the connection is broken.
    ValueError, RecursionError: a message is not JSON.
  """
  deadline = time.monotonic() + seconds
  while (message := inbox.take()) is None:
    # Bytes that have arrived are read even past the deadline: a delay of this
    # thread must not count as a delay of the other side.
    connection.settimeout(max(1e-4, deadline - time.monotonic()))
    piece = connection.recv(1 << 16)
    if not piece or len(inbox) >= most:
      return None
    inbox.add(piece)
  return message


def receive(connection: socket.socket) -> object | None:
  """Returns the next message of a blocking socket, None at end of file."""
  header = _receive_exactly(connection, _LENGTH.size)
  if header is None:
    return None
  payload = _receive_exactly(connection, _LENGTH.unpack(header)[0])
  return None if payload is None else json.loads(payload)


def _receive_exactly(connection: socket.socket, count: int) -> bytes | None:
  pieces = []
  while count:
    piece = connection.recv(min(count, 1 << 20))
    if not piece:
      return None
    pieces.append(piece)
    count -= len(piece)
  return b"".join(pieces)
