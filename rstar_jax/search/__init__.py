"""Tree search on callables alone; `rstar_jax.search(...)` is MCTS.

Python puts a package's folder where its function of the same name would stand.
So this folder can be called: it is `mcts.search`.
"""

import sys
import types

from rstar_jax.search import mcts


class _Callable(types.ModuleType):
  __call__ = staticmethod(mcts.search)


sys.modules[__name__].__class__ = _Callable
