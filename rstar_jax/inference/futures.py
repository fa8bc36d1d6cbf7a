"""Results that are not there yet."""

import concurrent.futures
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

Future = concurrent.futures.Future


def then(future: Future[Any], change: Callable[[Any], Any]) -> Future[Any]:
  """Returns a future of a changed result; cancelling it cancels the first."""
  changed: Future[Any] = Future()

  def move(done: Future[Any]) -> None:
    # The one who asked may have gone.
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
