"""What the exact clustering of some points holds beside them, written down from what its steps allocate.

On a processor the distances of all points are held where they fit into `DENSE_BYTES`, and stay for the next unit;
beyond, lists of near neighbours, which are bounded whatever the number of points. The numbers are for products in
float32. Where those are too coarse, float64 takes their place: twice the distances, or a second copy of the points of
twice the size. Lists whose points fall into more components than a few per core neighbourhood have a larger table too.
"""

from methods.clustering import DENSE_BYTES
from methods.clustering.dense import MOST_TASKS, PADDING, TILE
from methods.clustering.neighbours import GPU_SIZES, Sizes, planned
from methods.clustering.working import CALIBRATED_ROWS

ROW_BYTES = 512
"""Of one point: its order, norms, errors and core distance; edges, dendrogram and condensed tree."""
TABLES = 6
"""Tables of all pairs of components, in float64, that are held at once."""
PASSES = 16
"""Copies of a tile of distances that are held at once where rows are measured against all others."""


def kept_bytes(n: int) -> int:
    """What stays from one unit to the next: the distances of all n points, where they are held at all."""
    return 4 * n * (n + 32 + PADDING) if is_dense(n) else 0


def working_bytes(n: int, d: int, k: int, n_threads: int = 1) -> int:
    """What is held while n points in d dimensions are clustered, their k-th neighbours deciding, beside that."""
    if is_dense(n):
        tasks = 24 * MOST_TASKS * n
        return 4 * n * d + ROW_BYTES * n + tasks + n_threads * (4 * TILE * (TILE + PADDING) + 16 * n)
    sizes = Sizes()
    sample = planned(n, k, sizes).sample
    tiles = 4 * sizes.tile_rows * (2 * max(sizes.tile_columns, sample)) + 4 * 256 * sample * n_threads
    again = PASSES * 4 * sizes.tile_rows * sizes.tile_columns
    return 4 * n * d + lists_bytes(n, k, sizes) + ROW_BYTES * n + max(tiles, again)


def device_bytes(n: int, d: int, k: int) -> int:
    """What a GPU holds while n points in d dimensions are clustered there, the points among it."""
    sizes = GPU_SIZES
    sample = max(planned(n, k, sizes).sample, CALIBRATED_ROWS["cuda"])
    tiles = 4 * sizes.tile_rows * (3 * max(sizes.tile_columns, sample))
    return (4 + 2) * n * d + lists_bytes(n, k, sizes) + ROW_BYTES * n + tiles + PASSES * 8 * sizes.candidates


def lists_bytes(n: int, k: int, sizes: Sizes) -> int:
    """The lists of near neighbours, and the tables of the components that they leave."""
    components = min(n, sizes.components, max(sizes.few_components, 4 * n // (k + 1)))
    return 8 * n * planned(n, k, sizes).capacity + TABLES * 8 * components**2


def is_dense(n: int) -> bool:
    """Whether the distances of all of so many points are held at once."""
    return 4 * n * n <= DENSE_BYTES
