"""The token loop: prefill, run-ahead decoding, what ends a reply, and its statistics."""

from py_engine.generation.generation import FinishReason, Generation, GenerationParams
from py_engine.generation.statistics import Statistics

__all__ = ["FinishReason", "Generation", "GenerationParams", "Statistics"]
