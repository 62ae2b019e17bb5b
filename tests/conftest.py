"""Fixtures, and the choice whether kernels run as written or compiled."""

import os
import shutil
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from reading import gather

from analyzer import kernel
from analyzer.analysis import stream

os.environ["LC_ALL"] = "C.UTF-8"  # reports speak the locale's language

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
SAMPLES = Path(__file__).resolve().parent.parent / "sample_captures"
FLAGS = {"ports": "--port", "keys": "--keys", "ws_ports": "--ws-port"}

settings.register_profile(
    "wsclose", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("wsclose")


def options_of(capture: Path) -> dict[str, tuple]:
    """What is to be given to read a sample, by its metadata; keys within a capture are found without."""
    about = tomllib.loads(capture.with_suffix(".toml").read_text(encoding="utf-8"))
    keys = [SAMPLES / name for name in [about.get("keys", "")] if name.endswith(".keys")]
    return {"ports": tuple(about.get("ports", ())), "keys": tuple(keys), "ws_ports": tuple(about.get("ws_ports", ()))}


def flags_of(capture: Path) -> list[str]:
    """The same as options of the command."""
    named = options_of(capture)
    return [word for name, flag in FLAGS.items() for value in named[name] for word in (flag, str(value))]


def pytest_addoption(parser):
    parser.addoption(
        "--kernels",
        choices=("interpreted", "compiled"),
        default="interpreted",
        help="run every kernel as plain Python, or compiled by Numba (slow to start the first time)",
    )


def pytest_configure(config):
    kernel.set_automatic(False)
    if config.getoption("--kernels") == "compiled":
        kernel.compile_all()


def pytest_report_header(config):
    return f"kernels: {config.getoption('--kernels')}"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the captures of ../shared are not here")
    return SHARED


@pytest.fixture(scope="session")
def tshark() -> str:
    found = shutil.which("tshark")
    if found is None:
        pytest.skip("tshark is not installed")
    return found


@pytest.fixture
def read_rows():
    """Rows of captures on disk: (closes, connections, inputs) as lists of dicts."""

    def read(*paths, **more):
        return gather(stream(*paths, **more))

    return read
