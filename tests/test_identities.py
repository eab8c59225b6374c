"""Replies stay with the judge that gave them, also where nothing is left to ask."""

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from misbehaving import MODEL, Answer, Seen, Server, good, grid, presentations, quality_of, refused

from judges.asking import Asked, ask_panel, preflight
from judges.client import Endpoint
from judges.protocol import Claimant, Judge, JudgeError, JudgeKind, Reply, claims_of
from judges.proxies import ProxyJudge
from judges.replies import Replies, RepliesError, stored_identity
from judges.scripted import ScriptedJudge

FAST: dict[str, Any] = {"backoff_seconds": 0.002, "pause_seconds": (0.05,) * 20, "timeout_seconds": 5.0}


@dataclass(frozen=True)
class Plain:
    """A plugin's judge, which says no more than a judge must."""

    name: str = "plain"
    kind: JudgeKind = "proxy"
    n_at_once: int = 1
    unready: str = ""
    prepared: list[str] = field(default_factory=list, compare=False)

    async def prepare(self) -> Mapping[str, Any]:
        self.prepared.append(self.name)
        if self.unready:
            raise JudgeError(self.unready)
        return {"power": 2}

    async def compare(self, grid_a: bytes, grid_b: bytes) -> tuple[Reply, ...]:
        return (Reply('{"answer": "A"}'),)


def endpoint(name: str = "pixels", model: str = MODEL, url: str = "http://127.0.0.1:9/v1", **options: Any) -> Endpoint:
    return Endpoint(name, model, (url,), **{**FAST, **options})


def panel(judges: list[Judge], folder: Path, n: int = 20, **options: Any) -> list[Asked]:
    return asyncio.run(ask_panel(judges, presentations(n), grid, folder, lambda *told: None, **options))


def finished(judge: Judge, folder: Path) -> None:
    """The store of a judge that has answered everything."""
    with Replies(folder, judge.name) as replies:
        replies.identify(asyncio.run(judge.prepare()))
        for one in presentations(20):
            replies.add(one.id, (Reply('{"answer": "A"}'),))


def test_a_finished_proxy_panel_is_no_panel_of_endpoints(tmp_path: Path) -> None:
    finished(ProxyJudge("pixels"), tmp_path)
    assert panel([ProxyJudge("pixels")], tmp_path)[0].n_before == 20
    with pytest.raises(RepliesError, match=r"the name 'pixels' .*kind is 'vlm' and was 'proxy'.*expected the one that"):
        panel([endpoint()], tmp_path)
    assert stored_identity(tmp_path, "pixels") == ProxyJudge("pixels").claims()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", "other"),
        ("revision", "abc"),
        ("flags", "--tp 2"),
        ("max_tokens", 300),
        ("temperature", 0.5),
        ("seed", 1),
        ("reask", False),
        ("schema", True),
    ],
)
def test_a_changed_option_of_a_finished_endpoint_is_noticed(tmp_path: Path, option: str, value: Any) -> None:
    with Server() as server:
        before = endpoint(url=server.url)
        panel([before], tmp_path)
    assert panel([before], tmp_path)[0].n_before == 20  # its server is off
    assert panel([endpoint(n_at_once=3)], tmp_path)[0].failed is None  # what decides nothing may change
    with pytest.raises(RepliesError, match=f"{option} is {value!r} and was "):
        panel([replace(before, **{option: value})], tmp_path)


def test_nobody_is_made_ready_where_one_is_another_judge(tmp_path: Path) -> None:
    def scripted(accuracy: float) -> ScriptedJudge:
        return ScriptedJudge("scripted", accuracy, quality=quality_of)

    panel([scripted(1.0)], tmp_path)
    plain = Plain()
    with pytest.raises(RepliesError, match=r"accuracy is 0\.5 and was 1\.0"):
        panel([plain, scripted(0.5)], tmp_path)
    assert plain.prepared == []


def test_kind_and_name_are_in_every_identity(tmp_path: Path) -> None:
    assert not isinstance(Plain(), Claimant)
    assert claims_of(Plain()) == {"name": "plain", "kind": "proxy"}
    panel([Plain()], tmp_path)
    assert stored_identity(tmp_path, "plain") == {"name": "plain", "kind": "proxy", "power": 2}
    with pytest.raises(RepliesError, match="kind is 'scripted' and was 'proxy'"):
        panel([Plain(kind="scripted")], tmp_path)
    for judge in (ProxyJudge("pixels"), ScriptedJudge("s", quality=quality_of)):
        assert isinstance(judge, Claimant)
        assert asyncio.run(judge.prepare()) == claims_of(judge)


def test_a_stored_identity_that_is_lost_or_broken_is_named(tmp_path: Path) -> None:
    assert stored_identity(tmp_path / "none", "plain") == {}
    panel([Plain()], tmp_path)
    path = tmp_path / "plain.identity.json"
    for text in ("nonsense", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(RepliesError, match=r"plain\.identity\.json: got no JSON object; expected one"):
            panel([Plain()], tmp_path)
    path.unlink()
    with pytest.raises(RepliesError, match="got none; expected what the replies beside it follow from"):
        panel([Plain()], tmp_path)


def test_judges_are_made_ready_once_for_several_sites(tmp_path: Path) -> None:
    judges = [Plain("one"), Plain("two")]
    ready = asyncio.run(preflight(judges))
    assert ready == {"one": {"power": 2}, "two": {"power": 2}}
    for site in ("a", "b"):
        panel([*judges], tmp_path / site, prepared=ready)
    assert [judge.prepared for judge in judges] == [["one"], ["two"]]
    assert json.loads((tmp_path / "b" / "two.identity.json").read_text())["name"] == "two"
    panel([*judges], tmp_path / "c", prepared={"one": ready["one"]})
    assert [judge.prepared for judge in judges] == [["one"], ["two", "two"]]
    with pytest.raises(JudgeError, match="one is off\ntwo is off"):
        asyncio.run(preflight([Plain("one", unready="one is off"), Plain("two", unready="two is off")]))


def away(server: Server, after: int, change: Mapping[str, Any]) -> None:
    """Have a server die after some completions and come back with other attributes."""

    def back() -> None:
        for name, value in change.items():
            setattr(server, name, value)
        server.revive()

    def plan(seen: Seen) -> Answer:
        if len(server.seen) == after:
            server.die()
            threading.Timer(0.15, back).start()
        return replace(good(seen), delay=0.002)

    server.plan = plan


OTHERS = [
    ({"models": [{"id": MODEL, "root": "big", "max_model_len": 32768}]}, "root is 'big' and was 'tiny'"),
    ({"models": [{"id": MODEL, "root": "tiny", "max_model_len": 8192}]}, "max_model_len is 8192 and was 32768"),
    ({"version": "0.33.0"}, "server_version is '0.33.0' and was '0.32.0'"),
    ({"models": [{"id": "big"}]}, "serves ['big']; expected 'tiny-judge'"),
]


@pytest.mark.parametrize(("change", "words"), OTHERS)
def test_a_server_that_comes_back_as_another_one_ends_its_judge(
    tmp_path: Path, change: Mapping[str, Any], words: str
) -> None:
    with Server() as server:
        away(server, 30, change)
        (asked,) = panel([endpoint(url=server.url, n_at_once=2)], tmp_path, 100)
        n_seen = len(server.seen)
    assert words in str(asked.failed)
    assert asked.n_answered <= 30 <= n_seen <= 31  # three of them are the preflight's, and none came after


def test_the_same_server_that_comes_back_is_asked_on(tmp_path: Path) -> None:
    with Server() as server:
        away(server, 30, {})
        (asked,) = panel([endpoint(url=server.url, n_at_once=2)], tmp_path, 100)
    assert (asked.failed, asked.n_answered) == (None, 100)


def test_one_replica_that_comes_back_as_another_one_is_noticed_beside_one_that_stayed(tmp_path: Path) -> None:
    with Server() as stays, Server() as leaves:
        stays.plan = lambda seen: replace(good(seen), delay=0.02)
        away(leaves, 10, {"version": "0.33.0"})
        judge = Endpoint("two", MODEL, (stays.url, leaves.url), n_at_once=2, **FAST)
        (asked,) = panel([judge], tmp_path, 400)
    assert "server_version is '0.33.0' and was '0.32.0'" in str(asked.failed)


def test_a_server_changed_between_preflight_and_sitting_is_noticed(tmp_path: Path) -> None:
    with Server() as server:
        judge = endpoint(url=server.url)
        ready = asyncio.run(preflight([judge]))
        (first,) = panel([judge], tmp_path / "a", prepared=ready)
        server.version = "0.33.0"
        (second,) = panel([judge], tmp_path / "b", prepared=ready)
    assert (first.failed, first.n_answered, second.n_answered) == (None, 20, 0)
    assert "came back as another server (server_version" in str(second.failed)


def test_faults_are_those_of_one_sitting(tmp_path: Path) -> None:
    with Server() as server:
        server.plan = lambda seen: refused(500, "later") if len(server.seen) in (1, 10, 11) else good(seen)
        judge = endpoint(url=server.url, n_at_once=1)
        (first,) = panel([judge], tmp_path / "a")
        (second,) = panel([judge], tmp_path / "b")
    assert (first.faults, second.faults) == ({"status 500": 2}, {})
    assert judge.faults == {"status 500": 3}  # one was the preflight's
