"""Euclidean HDBSCAN of one unit's contribution vectors (ELUDe paper, section 3.2): exact, repeatable and fast.

`trees` turns a minimum spanning tree into clusters; `dense` and `lists` find that tree; `libraries` has the others.
"""

from methods.clustering.libraries import cluster
from methods.clustering.trees import Clusters, Selection, SpanningTree

__all__ = ["Clusters", "Selection", "SpanningTree", "cluster"]
