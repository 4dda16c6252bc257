"""The browser, and the server that the search page is opened from."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.server import served

STUB = Path(__file__).with_name("stub_server.py")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--lang=en",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
]


@dataclass
class PageServer:
    """Where the page is served."""

    url: str


@dataclass
class StubServer(PageServer):
    """The stand-in service in a process of its own, which can be told to fail, be killed and come back on its port."""

    url: str = ""
    port: int = 0
    process: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    def start(self) -> None:
        """Start and wait until it listens."""
        command = [sys.executable, str(STUB), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/"

    def kill(self) -> None:
        """End it at once, by its own process id."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def fault(self, **faults: Any) -> None:
        """Set the faults given and no others."""
        httpx.post(f"{self.url}stub/faults", json=faults, timeout=30).raise_for_status()

    def release(self) -> None:
        """Let every held answer go."""
        httpx.post(f"{self.url}stub/release", timeout=30).raise_for_status()

    def log(self) -> list[list[str]]:
        """What was asked and what was answered, as [verb, query] in order."""
        return httpx.get(f"{self.url}stub/log", timeout=30).json()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def stub_process() -> Iterator[StubServer]:
    server = StubServer()
    server.start()
    yield server
    server.kill()


@pytest.fixture
def stub(stub_process: StubServer) -> StubServer:
    """The stand-in without faults; started again where the test before killed it."""
    if stub_process.process is None:
        stub_process.start()
    stub_process.fault()
    return stub_process


@pytest.fixture(scope="module")
def service(shipped_bundles: Path) -> Iterator[PageServer]:
    """The real service over both shipped catalogues."""
    with served(shipped_bundles) as running:
        yield PageServer(running.address + "/")


@pytest.fixture(params=["stub", "service"])
def page_server(request: pytest.FixtureRequest) -> PageServer:
    """Where the main scenarios run: the stand-in, whose answers are known, and the real service."""
    server: PageServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One headless browser with a profile of its own."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield session
    session.quit()
