"""Tree search on callables alone; `rstar_jax.search(...)` is MCTS.

The folder `search` takes the name that the function `search` would have in the
package, so the folder itself can be called: it is `mcts.search`.
"""

import sys
import types

from rstar_jax.search import mcts


class _Callable(types.ModuleType):
  __call__ = staticmethod(mcts.search)


sys.modules[__name__].__class__ = _Callable
