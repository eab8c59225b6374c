"""The mark of tests that take a minute or more and say little that a quicker one beside them does not."""

import os

import pytest

LARGE = pytest.mark.skipif(
    "ELUDEBENCH_LARGE" not in os.environ, reason="takes long, a quicker one like it runs; ELUDEBENCH_LARGE=1 runs it"
)
