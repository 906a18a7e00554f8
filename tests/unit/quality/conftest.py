"""The fixtures of the gate, for this folder."""

from tests.gate_helpers import gated, vocabulary

__all__ = ["gated", "vocabulary"]
