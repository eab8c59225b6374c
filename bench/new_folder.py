"""A folder that is there whole or not at all: filled aside, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import UsageError
from bench.cache import storage_error


@contextmanager
def new_folder(folder: Path, argument: str) -> Iterator[Path]:
    """An empty folder to fill, which becomes `folder` when the block ends without an error and is gone otherwise.

    Args:
        folder: A new folder, or an empty one.
        argument: What named it, for errors.

    Raises:
        UsageError: It is a file, or is not empty.
        StorageError: It cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{argument}: got {folder}, which exists and is not empty; expected a new folder; name another"
        )
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        aside.mkdir(parents=True)
        yield aside
        if folder.exists():
            folder.rmdir()
        aside.rename(folder)
    except OSError as error:
        raise storage_error(argument, folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
