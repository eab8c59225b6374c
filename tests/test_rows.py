"""Rows over shards: whatever they are read by, they are the rows of one array, and no more than a window is mapped."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import bench.activations
import bench.rows
from bench.activations import TensorSource
from bench.rehearsal import RehearsalSource
from bench.rows import Rows, Shard
from bench.stopwatch import Stopwatch
from methods.protocol import ActivationSource

WIDTH = 5
FUZZ = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), max_examples=60)


def written(folder: Path, values: np.ndarray, rows_a_shard: int, name: str = "inputs") -> Rows:
    for number, start in enumerate(range(0, len(values), rows_a_shard)):
        np.save(folder / f"{name}-{number:05d}.npy", values[start : start + rows_a_shard])
    return Rows.of(sorted(folder.glob(f"{name}-*.npy")))


def numbers(n: int, width: int = WIDTH) -> np.ndarray:
    found: np.ndarray = np.random.default_rng(0).standard_normal((n, width)).astype(np.float16)
    return found


@pytest.fixture(params=["kept", "let go of"])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether files count as large: then a window has three rows."""
    if request.param != "kept":
        monkeypatch.setattr(bench.rows, "KEPT_BYTES", 0)
        monkeypatch.setattr(bench.rows, "WINDOW_BYTES", 3 * 2 * WIDTH)
        monkeypatch.setattr(bench.rows, "BLOCK_ROWS", 2)
    return bool(request.param != "kept")


@FUZZ
@given(data=st.data())
def test_rows_are_those_of_one_array(
    large: bool, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    n, size = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    dtype = data.draw(st.sampled_from([np.float16, np.float32]))
    rows = written(tmp_path_factory.mktemp("shards"), numbers(n).astype(dtype), size)
    expected = torch.from_numpy(numbers(n)).float()
    assert (len(rows), rows.shape) == (n, (n, WIDTH))
    index = torch.tensor(data.draw(st.lists(st.integers(-n, n - 1))), dtype=torch.int64)
    bounds = st.one_of(st.none(), st.integers(-n - 2, n + 2))
    some = slice(data.draw(bounds), data.draw(bounds), data.draw(st.sampled_from([None, 1, 2, 7])))
    first, last = sorted((data.draw(st.integers(0, WIDTH)), data.draw(st.integers(0, WIDTH))))
    for found, right in (
        (rows[index], expected[index]),
        (rows[some], expected[some]),
        (rows.taken(index, slice(first, last)), expected[index, first:last]),
        (rows.columns(first, last), expected[:, first:last]),
    ):
        assert found.dtype == torch.float32
        assert torch.equal(found, right)
    assert rows.columns(first, last).T.is_contiguous()


@pytest.mark.parametrize("bad", [8, -9])
def test_rows_that_are_not_there_are_refused_as_tensors_refuse_them(tmp_path: Path, bad: int) -> None:
    rows, index = written(tmp_path, numbers(8), 3), torch.tensor([0, bad])
    with pytest.raises(IndexError):
        torch.zeros(8, 1)[index]
    with pytest.raises(IndexError, match=f"rows: got {bad}; expected -8 to 7; there are 8 rows"):
        rows[index]
    with pytest.raises(ValueError, match="rows: got a step of -1; expected one above 0"):
        rows[::-1]


def test_consecutive_rows_of_one_float32_shard_are_no_copy(tmp_path: Path) -> None:
    rows = written(tmp_path, numbers(10).astype(np.float32), 4)
    assert rows[5:8].data_ptr() == rows.shards[1].values[1:].data_ptr()
    assert rows[3:5].data_ptr() != rows.shards[0].values[3:].data_ptr()
    rows[torch.tensor([5])][:] = 7
    rows[3:5][:] = 7
    assert torch.equal(rows[:], torch.from_numpy(numbers(10)).float())


@pytest.mark.parametrize(
    ("shapes", "dtypes", "message"),
    [
        ([], [], "paths: got none; expected at least one .npy file"),
        ([(4, 2), (5, 2)], "ee", r"inputs-00001.npy: got torch.float16 of shape (5, 2) beside torch.float16 of shape"),
        ([(4, 2), (3, 2), (4, 2)], "eee", r"inputs-00001.npy: got torch.float16 of shape (3, 2)"),
        ([(4, 2), (4, 3)], "ee", r"inputs-00001.npy: got torch.float16 of shape (4, 3)"),
        ([(4, 2), (4, 2)], "ef", r"inputs-00001.npy: got torch.float32 of shape (4, 2) beside torch.float16"),
        ([(4, 2)], "d", r"inputs-00000.npy: got float64 of shape (4, 2); expected rows of float32 or float16"),
        ([(4,)], "f", r"inputs-00000.npy: got float32 of shape (4,); expected rows of float32 or float16"),
    ],
)
def test_shards_that_do_not_belong_together_are_refused(
    tmp_path: Path, shapes: list[tuple[int, ...]], dtypes: str, message: str
) -> None:
    paths = [tmp_path / f"inputs-{number:05d}.npy" for number in range(len(shapes))]
    for path, shape, dtype in zip(paths, shapes, dtypes, strict=True):
        np.save(path, np.zeros(shape, dtype))
    with pytest.raises(ValueError, match=re.escape(message)):
        Rows.of(paths)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_source_gives_the_same_bits_from_shards_as_from_tensors(
    tmp_path: Path, large: bool, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.activations, "BLOCK_TOKENS", 8)
    monkeypatch.setattr(bench.activations, "POOL_BYTES", 100 * 4 * 2 * WIDTH)
    values: np.ndarray = numbers(333).astype(dtype)
    others: np.ndarray = numbers(666)[333:].astype(dtype)
    plain = TensorSource(torch.from_numpy(values).float(), torch.from_numpy(others).float())
    stored = TensorSource(written(tmp_path, values, 100), written(tmp_path, others, 100, "outputs"))
    assert stored.token_bytes == plain.token_bytes
    for size, seed in ((32, None), (32, 0), (50, 1)):
        for one, other in zip(plain.batches(size, seed=seed), stored.batches(size, seed=seed), strict=True):
            assert torch.equal(one.needed_inputs(), other.needed_inputs())
            assert torch.equal(one.outputs, other.outputs)
    rows = torch.tensor([300, 2, 2, 110])
    assert torch.equal(plain.inputs_at(rows), stored.inputs_at(rows))
    assert torch.equal(plain.inputs_at(rows, slice(1, 3)), stored.inputs_at(rows, slice(1, 3)))
    assert torch.equal(plain.outputs_of(slice(2, 4)), stored.outputs_of(slice(2, 4)))
    assert stored.only(frozenset({"outputs"})).inputs is None


def sources(folder: Path) -> list[ActivationSource]:
    values = numbers(40, 2 * WIDTH)
    inputs, outputs = (torch.from_numpy(some).float() for some in np.split(values, 2, axis=1))
    plain = TensorSource(inputs, outputs)
    left, right = np.split(values, 2, axis=1)
    stored = TensorSource(written(folder, left, 12, "inputs"), written(folder, right, 12, "outputs"))
    return [plain, stored, RehearsalSource(plain, 100, Stopwatch()), RehearsalSource(stored, 100, Stopwatch())]


@pytest.mark.parametrize("which", range(4), ids=["tensors", "shards", "rehearsed", "rehearsed from shards"])
def test_parts_of_a_source_are_parts_of_what_it_reads(tmp_path: Path, which: int) -> None:
    source = sources(tmp_path)[which]
    assert isinstance(source, ActivationSource)
    rows, whole = torch.tensor([39, 0, source.n_tokens - 1]), source.read(slice(None))
    assert torch.equal(source.inputs_at(rows), whole.needed_inputs()[rows])
    assert torch.equal(source.inputs_at(rows, slice(2, 4)), whole.needed_inputs()[rows, 2:4])
    assert torch.equal(source.outputs_of(slice(1, 3)), whole.outputs[:, 1:3])
    copy = source.inputs_at(rows)
    copy += 1
    assert torch.equal(source.inputs_at(rows) + 1, copy)


def test_inputs_that_were_not_read_are_asked_for_in_vain() -> None:
    with pytest.raises(ValueError, match='inputs: not read at this site; expected them; declare "inputs"'):
        TensorSource(None, torch.zeros(3, 2)).inputs_at(torch.tensor([0]))


def resident_bytes(path: Path) -> int:
    """Pages of a file that this process has mapped in."""
    text, total = Path("/proc/self/smaps").read_text(encoding="ascii"), 0
    for block in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text):
        if block.partition("\n")[0].endswith(str(path)):
            total += 1024 * int(re.search(r"\nRss:\s+(\d+) kB", block)[1])  # type: ignore[index]
    return total


def reads_of(rows: Rows, everything: Tensor) -> Iterator[Tensor]:
    yield rows.taken(everything, slice(0, 8))
    yield rows.columns(0, 8)
    yield rows[:]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="pages are counted in /proc")
def test_no_more_than_a_window_of_a_large_file_stays_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n, width = 20_000, 1024
    rows = written(tmp_path, np.zeros((n, width), np.float16), n)
    (path,) = tmp_path.glob("*.npy")
    most: list[int] = []
    whole = Shard.let_go

    def watched(self: Shard, start: int, stop: int) -> None:
        most.append(resident_bytes(path))
        whole(self, start, stop)

    monkeypatch.setattr(Shard, "let_go", watched)
    everything = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    for found in reads_of(rows, everything):
        assert len(found) == n
    assert max(most, default=0) == 0  # files so small are never let go of
    assert resident_bytes(path) >= n * width * 2
    rows.let_go()
    most.clear()
    monkeypatch.setattr(bench.rows, "KEPT_BYTES", 0)
    monkeypatch.setattr(bench.rows, "WINDOW_BYTES", 4 * 2**20)
    again = Rows.of([path])
    for found in reads_of(again, everything):
        assert len(found) == n
        assert 0 < max(most) <= bench.rows.mapped_bytes(n, width, 2)
        assert resident_bytes(path) == 0
        most.clear()
