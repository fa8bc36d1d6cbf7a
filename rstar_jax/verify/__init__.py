"""Verification: running code that a model wrote, and grading its answers."""

from rstar_jax.verify.grader import Grader
from rstar_jax.verify.sandbox import Limits, Sandbox

__all__ = ["Grader", "Limits", "Sandbox"]
