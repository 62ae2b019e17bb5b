"""Imports run one way, nothing heavy is imported before it is needed, and the wheel holds what it must."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import analyzer

PACKAGE = Path(analyzer.__file__).parent
ORDER = [
    *(
        "model",
        "table",
        "errors",
        "selection",
        "native",
        "kernel",
        "packing",
        "capture.wire",
        "capture.container",
        "capture.keyblock",
        "capture.numbering",
        "sources",
        "series",
        "pool",
        "capture.link",
        "capture.tunnel",
        "capture.checksum",
        "capture.dissect",
    ),
    *(
        "capture.flowtable",
        "capture.fragment",
        "capture.scapy_io",
        "capture.segments",
        "capture.reassemble",
        "capture.frames",
        "capture.suite",
        "capture.sealed",
        "capture.records",
        "capture.keystream",
        "capture.field_line",
        "capture.handshake",
        "capture.head",
        "capture.midstream",
        "capture.dispatch",
    ),
    *("capture.mark", "capture.cipher", "capture.hello", "capture.alert", "capture.keylog", "keys"),
    *("capture.half", "capture.agreement", "capture.tls", "capture.lane"),
    *("capture.http2_event", "capture.http2_frame", "capture.http2_head", "capture.http2"),
    "capture.fate",
    *("capture.unwrap", "capture.finished", "capture.tables", "capture.tracker"),
    *("capture.life", "capture.writer", "capture.extract"),
    *("knowledge.catalogue", "knowledge.language", "knowledge.timers"),
    *("verdict.sealed", "verdict.classify", "verdict.opaque", "verdict.statement"),
    *("verdict.facts", "verdict.streams", "verdict.causes", "verdict.connections"),
    *("logs.timestamp", "logs.record", "logs.scan", "logs.statement", "logs.structured", "logs.format"),
    *("logs.catalogue", "logs.joining", "logs.reader", "logs.check"),
    *(
        "report.text",
        "report.tally",
        "report.counts",
        "report.series",
        "report.redaction",
        "report.rows",
        "report.tables",
    ),
    "report.document",
    *("report.story", "report.markdown", "report.parquet", "report.terminal", "report.reference", "report.condition"),
    *("report.figure", "report.lanes", "report.matrix", "report.sequence", "report.plots"),
    *("report.fragment", "report.drawing", "report.html", "report.schema"),
    *("progress", "connection", "reading", "analysis", "options", "output", "packet_commands", "cli"),
]
"""Modules may import what stands before them; `document` reaches its renderers only when asked to render."""


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name not in ("__init__.py", "__main__.py"):
            yield ".".join(path.relative_to(PACKAGE).with_suffix("").parts), path


def imports_at_import_time(tree):
    """Dotted names below `analyzer` that are imported at module level."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "analyzer":
            base = node.module.removeprefix("analyzer").strip(".")
            for alias in node.names:
                yield f"{base}.{alias.name}".strip("."), base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("analyzer."):
                    yield alias.name.removeprefix("analyzer."), ""


def test_every_module_has_a_place_in_the_order():
    assert {name for name, _ in modules()} == set(ORDER)


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda value: str(value))
def test_imports_run_one_way(name, path):
    place = ORDER.index(name)
    for whole, base in imports_at_import_time(ast.parse(path.read_text(encoding="utf-8"))):
        target = whole if whole in ORDER else base
        if target:
            assert ORDER.index(target) < place, f"{name} imports {target}"


def test_scapy_stands_in_one_module_only():
    users = [name for name, path in modules() if re.search(r"(?:import|from) scapy\b", path.read_text())]
    assert users in ([], ["capture.scapy_io"])


HEAVY = ("pandas", "numba", "scapy", "matplotlib", "cryptography", "numpy.ma", "analyzer.logs.catalogue")


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "normal-1000.pcap"],
        ["report", "normal-1000.pcap", "--format", "json"],
        ["report", "normal-1000.pcap", "--format", "csv"],
        ["closes", "normal-1000.pcap"],
        ["connections", "normal-1000.pcap", "--format", "jsonl"],
        ["explain", "1006"],
        ["extract", "2026", "normal-1000.pcap", "-o", "/dev/null", "-q"],
    ],
    ids=" ".join,
)
def test_small_inputs_import_nothing_heavy(arguments):
    samples = PACKAGE.parent / "sample_captures"
    arguments = [str(samples / a) if a.endswith(".pcap") else a for a in arguments]
    script = (
        "import sys\nfrom analyzer.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as done:\n    assert done.code == 0, done.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_help_of_what_needs_scapy_does_not_wait_for_it():
    script = (
        "import sys\nfrom analyzer.cli import main\n"
        "try:\n    main(['live', '--help'])\nexcept SystemExit:\n    pass\n"
        "import analyzer.analysis\nprint('scapy' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Examples:" in done.stdout
    assert done.stderr.strip() == "False"


def test_importing_the_package_imports_nothing_of_it():
    script = "import sys, analyzer; print([m for m in sys.modules if m.startswith(('analyzer.', 'numpy'))])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names():
    assert sorted(analyzer.__all__) == [
        "Analysis",
        "AnalyzerError",
        "Batch",
        "CaptureError",
        "CatalogueError",
        "Connection",
        "Report",
        "UsageError",
        "WebSocket",
        "__version__",
        "read",
        "read_packets",
        "stream",
    ]
    for name in analyzer.__all__:
        assert getattr(analyzer, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = analyzer.nonsense


@pytest.mark.slow
def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(tmp_path):
    root = PACKAGE.parent
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("wsclose-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"analyzer", f"wsclose-{analyzer.__version__}.dist-info"}
    held = {name for name in names if name.startswith("analyzer/")}
    kept = [p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert held == {f"analyzer/{p.relative_to(PACKAGE).as_posix()}" for p in kept}
    assert {"analyzer/py.typed", "analyzer/knowledge/codes.toml"} <= held


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not show a process's threads so")
def test_the_command_starts_no_threads_for_linear_algebra():
    """They spin while the first rows are read."""
    script = "import os\nimport analyzer.__main__\nprint(len(os.listdir('/proc/self/task')))"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "1"
