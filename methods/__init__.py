"""Methods turn activations into decompositions: ELUDe, its controls and the learned baselines.

This package knows torch and numpy, and neither the bench nor the metrics. Importing it imports nothing heavy; the
types that every method shares are in `methods.protocol`, how a decomposition lies on disk in `methods.artifacts`.
"""
