"""The service as a process: one printed address, a drain, a scrape by a real Prometheus, errors in one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.app.server import served
from tests.conftest import ROOT

_PATIENCE_S = 60.0


def test_one_address_is_printed_and_answers(tiny_bundles: Path) -> None:
    """Page, API and probes on it."""
    with served(tiny_bundles) as service:
        assert sum("http://" in line for line in service.lines) == 1
        assert "<title>aisle" in httpx.get(service.address).text
        answer = httpx.post(f"{service.address}/v1/search", json={"query": "steel mug", "k": 3}).json()
        assert len(answer["hits"]) == 3
        assert [httpx.get(f"{service.address}/{probe}").status_code for probe in ("livez", "readyz", "startupz")] == [
            200
        ] * 3
        assert service.stop() == 0


@pytest.mark.promise(
    "C2", "after SIGTERM every search of the drain is answered", control="/readyz 503 was seen meanwhile"
)
def test_a_stop_drains_first_and_loses_nothing(tiny_bundles: Path) -> None:
    """After SIGTERM it says "not ready" and still answers; every search sent until the end of the drain is answered."""
    with served(tiny_bundles, AISLE_DRAIN_S="1") as service, httpx.Client(base_url=service.address) as http:
        statuses: list[int] = []
        stopping = threading.Event()
        threading.Thread(target=lambda: (stopping.wait(), service.process.terminate()), daemon=True).start()
        ready: list[int] = []
        began = time.monotonic()
        for number in range(10_000):
            if number == 20:
                stopping.set()
                began = time.monotonic()
            if number > 20 and time.monotonic() - began > 0.8:
                break
            statuses.append(http.post("/v1/search", json={"query": f"mug {number}"}).status_code)
            if number > 20:
                ready.append(http.get("/readyz").status_code)
        assert set(statuses) == {200}
        assert 503 in ready, "the drain was not seen"
        assert service.process.wait(timeout=30) == 0


def test_prometheus_scrapes_it(tiny_bundles: Path, tmp_path: Path) -> None:
    """Debian's Prometheus finds the target up and holds the searches that were counted; promtool finds no fault."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        pytest.skip("needs prometheus and promtool")
    with served(tiny_bundles) as service:
        for number in range(3):
            httpx.post(f"{service.address}/v1/search", json={"query": f"steel mug {number}"}).raise_for_status()
        exposed = httpx.get(f"{service.address}/metrics").text
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=exposed, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
        target = service.address.removeprefix("http://")
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: aisle, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        port = _free_port()
        scraper = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        )  # fmt: skip
        try:
            assert _eventually(f"http://127.0.0.1:{port}", 'up{job="aisle"}') == 1.0
            assert _eventually(f"http://127.0.0.1:{port}", 'sum(aisle_searches_total{tier="hybrid"})') == 3.0
        finally:
            scraper.terminate()
            scraper.wait(timeout=30)


@pytest.mark.promise("C1", "nothing to serve: exit 1, one clear line")
def test_nothing_to_serve_ends_with_one_clear_line(tmp_path: Path) -> None:
    """No traceback; exit code 1."""
    done = _serve("--bundles", str(tmp_path), "--port", "0")
    assert done.returncode == 1
    assert "aisle build" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_file_of_keys_that_is_none_ends_with_one_clear_line(tiny_bundles: Path, tmp_path: Path) -> None:
    """Missing or garbled, in one process or several: it does not start half locked, and repeats nothing of the file."""
    (tmp_path / "garbled").write_text("shop search a-key-where-its-digest-belongs\n")
    for name, processes in (("missing", "1"), ("garbled", "2")):
        done = _serve(
            "--bundles", str(tiny_bundles), "--port", "0",
            AISLE_API_KEYS_FILE=str(tmp_path / name), AISLE_PROCESSES=processes,
        )  # fmt: skip
        assert done.returncode == 1
        assert "AISLE_API_KEYS_FILE" in done.stderr and "a-key-where" not in done.stderr
        assert "Traceback" not in done.stderr + done.stdout


def test_an_unknown_setting_refuses_to_start(tiny_bundles: Path) -> None:
    """With the one that may have been meant; wrong usage is exit code 2."""
    done = _serve("--bundles", str(tiny_bundles), AISLE_CACHE_MBS="3")
    assert done.returncode == 2
    assert "AISLE_CACHE_MB?" in done.stderr


def _serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "scripts.cli", "serve", *arguments],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, check=False, timeout=_PATIENCE_S,
    )  # fmt: skip


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _eventually(address: str, query: str) -> float | None:
    """The query's value once it has one."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            result = httpx.get(f"{address}/api/v1/query", params={"query": query}).json()["data"]["result"]
        except (httpx.HTTPError, KeyError, ValueError):
            result = []
        if result and float(result[0]["value"][1]) > 0:
            return float(result[0]["value"][1])
        time.sleep(0.2)
    return None
