"""The manifest: what is saved comes back, a grown pool keeps what was there, damage is noticed."""

import errno
import json
import os
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from judges.drawn import Drawn, merged
from judges.grids import grid_digest
from judges.manifest import HEADER, SCHEMA, Manifest, ManifestError, Saved, load
from judges.pairing import Contestant, tournament
from judges.planted import planted
from judges.protocol import Settings

SETTINGS = Settings(unit_pairs=4, planted=2, cell_px=48)
DIGEST = partial(grid_digest, "data", cell_px=48)
LABELS = np.random.default_rng(0).integers(0, 20, 400)


def contestant(name: str, units: int = 12) -> Contestant:
    rng = np.random.default_rng([*name.encode()])
    exemplars = np.argsort(rng.random((units, 400)), axis=1)[:, :9]
    return Contestant(name, f"method {name}", exemplars, np.arange(units) < units - 1)


def drawn(names: str, settings: Settings = SETTINGS) -> Drawn:
    pool = [contestant(name) for name in names]
    stream: dict[str, str | int] = {"backbone": "vit"}
    parts = [
        tournament(pool, site="block 11", stream=stream, token_seed=seed, settings=settings, digest=DIGEST)
        for seed in range(2)
    ]
    return merged([*parts, planted(LABELS, site="block 11", settings=settings, stream=stream, digest=DIGEST)])


def manifest(names: str, settings: Settings = SETTINGS) -> Manifest:
    pool = [(name, f"method {name}") for name in names]
    return Manifest.of(drawn(names, settings), settings=settings, pool=pool, fingerprints={"data set": "data"})


THREE = manifest("abc")


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    saved = THREE.save(tmp_path / "judging")
    assert saved == Saved(new=len(THREE.presentations), kept=0, gone=0)
    assert load(tmp_path / "judging") == THREE
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "judging").iterdir())
    assert names == [HEADER, "presentations", "recipes"]
    lines = next((tmp_path / "judging").glob("presentations-*")).read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [one.id for one in THREE.presentations]


def test_notes_come_back_where_there_are_reasons(tmp_path: Path) -> None:
    settings = replace(SETTINGS, unit_pairs=30)
    missing = planted(None, site="two", settings=settings, stream={}, digest=DIGEST)
    noted = Manifest.of(merged([drawn("ab", settings), missing]), settings=settings, pool=[("a", "1")], fingerprints={})
    assert noted.notes.planted
    assert noted.notes.pairs[0].reason
    noted.save(tmp_path)
    assert load(tmp_path) == noted


def test_saving_again_changes_nothing(tmp_path: Path) -> None:
    THREE.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert manifest("cab").save(tmp_path) == Saved(new=0, kept=len(THREE.presentations), gone=0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_pool_may_grow(tmp_path: Path) -> None:
    THREE.save(tmp_path)
    four = manifest("abcd")
    # Three new pairs of methods, two token seeds, four unit pairs, two orders.
    assert four.save(tmp_path) == Saved(new=3 * 2 * 4 * 2, kept=len(THREE.presentations), gone=0)
    assert load(tmp_path) == four
    assert len(list(tmp_path.iterdir())) == 3
    assert {one.id for one in THREE.presentations} < {one.id for one in four.presentations}


def test_statistics_may_change_in_the_same_folder(tmp_path: Path) -> None:
    THREE.save(tmp_path)
    settings = replace(SETTINGS, bootstrap="presentation", undecided="half", n_resamples=10, reask=False)
    other = manifest("abc", settings)
    assert other.save(tmp_path).new == 0
    assert load(tmp_path).settings == settings


@pytest.mark.parametrize(
    "changed",
    [
        manifest("ab"),
        manifest("abc", replace(SETTINGS, unit_pairs=5)),
        manifest("abc", replace(SETTINGS, seed=1)),
        replace(THREE, fingerprints={"data set": "other"}),
    ],
    ids=["fewer", "pairs", "seed", "data"],
)
def test_another_tournament_takes_the_place_of_what_was_there(tmp_path: Path, changed: Manifest) -> None:
    THREE.save(tmp_path)
    before, after = ({one.id for one in each.presentations} for each in (THREE, changed))
    saved = changed.save(tmp_path)
    assert saved == Saved(new=len(after - before), kept=len(after & before), gone=len(before - after))
    assert load(tmp_path) == changed
    assert len(list(tmp_path.iterdir())) == 3


def test_what_cannot_be_written_is_told_and_leaves_the_manifest_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ManifestError, match=r"file/presentations-\w+\.jsonl: got File exists; expected \d+ bytes"):
        THREE.save(tmp_path / "file")
    THREE.save(tmp_path / "judging")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ManifestError, match=r"jsonl: got No space left on device; .*; make room or allow writing"):
        manifest("ab").save(tmp_path / "judging")
    assert load(tmp_path / "judging") == THREE
    assert len(list((tmp_path / "judging").iterdir())) == 3


def test_presentations_that_vanish_are_counted(tmp_path: Path) -> None:
    THREE.save(tmp_path)
    fewer = replace(THREE, presentations=THREE.presentations[2:])
    assert fewer.save(tmp_path) == Saved(new=0, kept=len(THREE.presentations) - 2, gone=2)


def test_the_pool_s_id_follows_from_methods_and_settings() -> None:
    assert manifest("cba").pool_id == THREE.pool_id
    assert replace(THREE, pool=(("c", "x"), ("a", "y"), ("b", "z"))).pool_id == THREE.pool_id
    assert len(THREE.pool_id) == 32
    others = [manifest("abcd").pool_id, manifest("ab").pool_id]
    changes: dict[str, Any] = {
        "unit_pairs": 5,
        "cell_px": 49,
        "eligible": "any",
        "bootstrap": "presentation",
        "n_resamples": 1,
        "undecided": "half",
        "reask": False,
        "planted": 3,
        "seed": 9,
    }
    assert set(changes) == {field.name for field in fields(Settings)}
    others += [
        replace(THREE, settings=Settings(**{**asdict(SETTINGS), name: to})).pool_id for name, to in changes.items()
    ]
    assert len({THREE.pool_id, *others}) == 1 + len(others)


def test_no_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="got no such file; expected a manifest; draw the tournament first"):
        load(tmp_path)


def test_a_newer_schema_is_an_error(tmp_path: Path) -> None:
    THREE.save(tmp_path)
    header = json.loads((tmp_path / HEADER).read_text())
    (tmp_path / HEADER).write_text(json.dumps({**header, "schema": SCHEMA + 1}))
    with pytest.raises(ManifestError, match=rf"got schema {SCHEMA + 1}; expected {SCHEMA} or older; use the program"):
        load(tmp_path)
    with pytest.raises(ManifestError, match=f"got schema {SCHEMA + 1}"):
        THREE.save(tmp_path)


@pytest.mark.parametrize("name", [HEADER, "presentations", "recipes"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "emptied"])
def test_damage_is_noticed(tmp_path: Path, name: str, damage: str) -> None:
    THREE.save(tmp_path)
    path = next(tmp_path.glob(f"{name}*"))
    body = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        harmed = {"cut": body[:-20], "changed": body.replace(b'"', b"'", 1).replace(b"1", b"2", 1), "emptied": b""}
        path.write_bytes(harmed[damage])
    with pytest.raises(
        ManifestError, match=r"(draw the tournament first|draw the tournament again: replies stay good)$"
    ):
        load(tmp_path)
    if not (name == HEADER and damage == "gone"):
        with pytest.raises(ManifestError):
            THREE.save(tmp_path)


def test_every_digit_of_the_header_is_held_by_its_hash(tmp_path: Path) -> None:
    THREE.save(tmp_path)
    whole = (tmp_path / HEADER).read_bytes()
    for position in [i for i, byte in enumerate(whole) if chr(byte).isdigit()][::40]:
        digit = b"7" if whole[position] != ord("7") else b"8"
        (tmp_path / HEADER).write_bytes(whole[:position] + digit + whole[position + 1 :])
        with pytest.raises(ManifestError):
            load(tmp_path)


def test_a_save_that_dies_leaves_the_manifest_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    THREE.save(tmp_path)
    four = manifest("abcd")
    replace_file = Path.replace
    for n in range(3):
        left = [n]

        def dying(self: Path, target: Path, left: list[int] = left) -> Path:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return replace_file(self, target)

        monkeypatch.setattr(Path, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            four.save(tmp_path)
        assert load(tmp_path) == THREE
    monkeypatch.setattr(Path, "replace", replace_file)
    four.save(tmp_path)
    assert load(tmp_path) == four
