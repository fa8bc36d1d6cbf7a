"""A stand-in for the package ray: actors that are threads, and can die.

It has what `on_ray.py` uses. Arguments and results are pickled, as on their way
to another machine. An actor begins when a host has room for it. One that dies
leaves its calls without an answer, but its threads go on: it is an actor that
is thought dead. The real package is tried by `ray_live.py`.
"""

import concurrent.futures
import pickle
import threading
import types
from collections.abc import Callable
from typing import Any


class RayError(Exception):
  pass


class RayTaskError(RayError):
  def __init__(self, cause: BaseException):
    super().__init__(f"a long text\nabout {cause!r}")
    self.cause = cause


class RayActorError(RayError):
  pass


class _Other(RayError):
  pass


Future = concurrent.futures.Future
_METHODS = ("open", "search", "wait", "close")


class Ray(types.ModuleType):
  """The package, and a cluster.

  Attributes:
    exceptions: its errors.
    joined: arguments of `init`.
    options: of each class and function that was made remote.
    actors: all that were asked for, in order.
    called: number and method of the actor of each call, in order.
    strikes: called with the actor, the name and the arguments of each call
      before it begins; it may kill the actor.
  """

  def __init__(self, room: int, cpus: int = 2):
    """Starts a cluster.

    Args:
      room: most actors at once.
      cpus: that the cluster says it has.
    """
    super().__init__("ray")
    self.exceptions = types.SimpleNamespace(
      RayError=RayError,
      RayTaskError=RayTaskError,
      RayActorError=RayActorError,
      NodeDiedError=type("NodeDiedError", (_Other,), {}),
      ObjectLostError=type("ObjectLostError", (_Other,), {}),
      OutOfMemoryError=type("OutOfMemoryError", (_Other,), {}),
      WorkerCrashedError=type("WorkerCrashedError", (_Other,), {}),
    )
    self.joined: list[tuple] = []
    self.options: list[dict] = []
    self.actors: list[Actor] = []
    self.called: list[tuple[int, str]] = []
    self.strikes: Callable[..., None] = lambda *_: None
    self.lock = threading.RLock()
    self._room, self._cpus = room, cpus

  def is_initialized(self) -> bool:
    return bool(self.joined)

  def init(self, address: str, **_) -> None:
    self.joined.append((address,))

  def cluster_resources(self) -> dict[str, float]:
    return {"CPU": float(self._cpus)}

  def remote(self, **options) -> Callable:
    self.options.append(options)

    def wrap(what: Callable) -> Any:
      if isinstance(what, type):
        make = lambda *args: Actor(self, what, _sent(args))  # noqa: E731
      else:
        make = lambda *args: _run(threading.Thread, what, _sent(args))  # noqa: E731
      return types.SimpleNamespace(remote=make)

    return wrap

  def wait(self, calls, num_returns, timeout=None):
    assert len(calls) == len(set(calls)) and num_returns <= len(calls)
    done: list[Future] = []
    while len(done) < num_returns:
      found = concurrent.futures.wait(
        set(calls) - set(done),
        timeout,
        concurrent.futures.FIRST_COMPLETED,
      ).done
      if not found:
        break
      done += list(found)[: num_returns - len(done)]
    return done, [each for each in calls if each not in done]

  def get(self, call: Future) -> Any:
    return call.result(timeout=0)

  def kill(self, actor: "Actor") -> None:
    actor.die()

  def grow(self, room: int) -> None:
    """Lets so many actors be at once; more than there were."""
    with self.lock:
      self._room = room
    self.fill()

  def fill(self) -> None:
    """Begins actors for which there is room, the oldest first."""
    with self.lock:
      living = [each for each in self.actors if each.alive]
      for each in living[: self._room]:
        each.begin()


class Actor:
  """A handle of an actor, and the actor.

  Attributes:
    number: in the order of asking.
    alive: whether nobody killed it.
  """

  def __init__(self, ray: Ray, cls: type, args: tuple):
    self._ray, self._cls, self._args = ray, cls, args
    self.number, self.alive = len(ray.actors), True
    self._object: Any = None
    self._waiting: list[Callable[[], None]] = []
    self._unanswered: set[Future] = set()
    ray.actors.append(self)
    ray.fill()

  def __getattr__(self, name: str) -> Any:
    if name not in _METHODS:
      raise AttributeError(name)
    return types.SimpleNamespace(remote=lambda *a: self._call(name, _sent(a)))

  def begin(self) -> None:
    if self._object is None:
      self._object = self._cls(*self._args)
      for each in self._waiting:
        each()

  def die(self) -> None:
    with self._ray.lock:
      self.alive = False
      unanswered, self._unanswered = self._unanswered, set()
    for each in unanswered:
      each.set_exception(RayActorError(f"actor {self.number} died\nof a test"))
    self._ray.fill()

  def _call(self, name: str, args: tuple) -> Future:
    answer: Future = Future()
    with self._ray.lock:
      if not self.alive:
        answer.set_exception(RayActorError("dead already"))
        return answer
      self._unanswered.add(answer)
      # What an actor waits for when it dies never comes.
      work = threading.Thread(
        target=self._work, args=(name, args, answer), daemon=True
      )
      if self._object is None:
        self._waiting.append(work.start)
      else:
        work.start()
    return answer

  def _work(self, name: str, args: tuple, answer: Future) -> None:
    with self._ray.lock:
      self._ray.called.append((self.number, name))
    self._ray.strikes(self, name, args)
    found = _run(_Now, getattr(self._object, name), args)
    with self._ray.lock:
      if answer not in self._unanswered:
        return  # It is thought dead.
      self._unanswered.remove(answer)
    _copy(found, answer)


class _Now:
  """A thread that is none."""

  def __init__(self, target: Callable):
    self.start = target


def _run(thread: Callable, function: Callable, args: tuple) -> Future:
  answer: Future = Future()

  def work() -> None:
    try:
      answer.set_result(_sent(function(*args)))
    except Exception as error:
      answer.set_exception(RayTaskError(error))

  thread(target=work).start()
  return answer


def _copy(found: Future, answer: Future) -> None:
  if error := found.exception():
    answer.set_exception(error)
  else:
    answer.set_result(found.result())


def _sent(value: Any) -> Any:
  return pickle.loads(pickle.dumps(value))
