"""Metrics turn tensors into numbers: each module computes values in one streamed pass over the evaluation split.

This package knows torch, numpy and scipy, and neither the bench nor the methods. `metrics.catalogue` lists every
value that can be asked for and imports nothing heavy.
"""
