"""Combines futures: of changed results, of several, of rows."""

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

Future = concurrent.futures.Future


def then(future: Future[Any], change: Callable[[Any], Any]) -> Future[Any]:
  """Returns a future of a changed result; its cancelling cancels the first."""
  changed: Future[Any] = Future()

  def move(done: Future[Any]) -> None:
    # The new future may have been cancelled.
    with contextlib.suppress(concurrent.futures.InvalidStateError):
      try:
        changed.set_result(change(done.result()))
      except concurrent.futures.CancelledError:
        changed.cancel()
      except BaseException as error:
        changed.set_exception(error)

  def cancel(done: Future[Any]) -> None:
    if done.cancelled():
      future.cancel()

  changed.add_done_callback(cancel)
  future.add_done_callback(move)
  return changed


def together(waiting: Sequence[Future[Any]]) -> Future[list]:
  """Returns a future of all results, in order.

  The first error becomes its own and cancels the others; if it is cancelled,
  all are.
  """
  joined: Future[list] = Future()
  missing, lock = len(waiting), threading.Lock()

  def one(done: Future[Any]) -> None:
    nonlocal missing
    with lock:
      missing -= 1
      last = not missing
    # It may have been cancelled, or have an error already.
    with contextlib.suppress(concurrent.futures.InvalidStateError):
      if done.cancelled():
        joined.cancel()
      elif error := done.exception():
        joined.set_exception(error)
      elif last:
        joined.set_result([each.result() for each in waiting])

  def end(done: Future[Any]) -> None:
    if done.cancelled() or done.exception():
      for each in waiting:
        each.cancel()

  joined.add_done_callback(end)
  if not waiting:
    joined.set_result([])
  for each in waiting:
    each.add_done_callback(one)
  return joined


def all_of(submit: Callable[..., Future[Any]], *rows: Sequence[Any]) -> list:
  """Submits each row and returns the results, in order.

  If a row is refused, or a result is an error, the others are cancelled.
  """
  waiting: list[Future[Any]] = []
  try:
    waiting += (submit(*row) for row in zip(*rows, strict=True))
    return [each.result() for each in waiting]
  finally:
    for each in waiting:
      each.cancel()


class OfRows:
  """A call with rows of arguments, each submitted alone.

  It gives a class with `submit`, which takes a row, the form of `types.Expand`
  or `types.Score`.
  """

  submit: Callable[..., Future[Any]]

  def __call__(self, *rows: Sequence[Any]) -> list:
    """Submits each row, and returns the results; see `all_of`."""
    return all_of(self.submit, *rows)
