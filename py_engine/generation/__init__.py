"""The token loop: prefill, decoding ahead or under control, what ends a reply, its statistics."""

from py_engine.generation.generation import Generation
from py_engine.generation.logit_processor import LogitProcessor
from py_engine.generation.params import FinishReason, GenerationParams, Piece, TokenRecorder
from py_engine.generation.seat import Seat
from py_engine.generation.statistics import Latencies, Statistics

__all__ = [
    "FinishReason",
    "Generation",
    "GenerationParams",
    "Latencies",
    "LogitProcessor",
    "Piece",
    "Seat",
    "Statistics",
    "TokenRecorder",
]
