"""How long a report takes, and how large its page is: a million rows counted and rendered, the page opened in Chromium.

`python benchmarks/render_report.py [ROWS]`. Times are of one process on one core; what Chromium needs is the time to
its load event, the best of three.
"""

import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from analyzer.knowledge import catalogue
from analyzer.model import CLOSES, CONNECTIONS, INPUTS
from analyzer.report.counts import Counts
from analyzer.report.document import Report
from analyzer.table import Table

ROWS_IN_BATCH = 20_000
KINDS = (
    ("client", 1006, "synthesized", "no_close_fin", "none", "none", "fin", "server"),
    ("client", 1001, "wire", "status", "server", "status", "fin", "server"),
    ("server", 1000, "wire", "status", "client", "status", "fin", "server"),
    ("server", 1006, "synthesized", "no_close_rst", "none", "none", "rst", "client"),
    ("server", 4001, "wire", "status", "client", "status", "fin", "server"),
)
COLUMNS = ("endpoint", "code", "provenance", "evidence", "initiator", "sent", "end", "ended_by")


def make_batch(first: int, n: int, r: random.Random) -> Table:
    """Closes as a capture of a busy service gives them: 20 hosts, 3,000 paths, 65,536 clients, a week."""
    kinds = r.choices(KINDS, weights=(20, 15, 40, 15, 10), k=n)
    columns = dict(zip(COLUMNS, map(list, zip(*kinds, strict=True)), strict=True))
    step_ns = 7 * 86_400 * 10**9 // 1_000_000
    columns |= {
        "source": ["big.pcap"] * n,
        "record": list(range(first, first + n)),
        "time": [1_700_000_000 * 10**9 + (first + i) * step_ns for i in range(n)],
        "connection": [str((first + i) // 2) for i in range(n)],
        "confidence": ["high"] * n,
        "client": [f"10.0.{r.randrange(256)}.{r.randrange(256)}:{r.randrange(1024, 65536)}" for _ in range(n)],
        "server": ["10.9.9.9:443"] * n,
        "host": [f"h{r.randrange(20)}.example.org" for _ in range(n)],
        "path": [f"/rooms/{r.randrange(3000)}?token={i}" for i in range(n)],
        "duration_s": [r.lognormvariate(5, 1) for _ in range(n)],
    }
    return Table(CLOSES, columns)


def opening_s(page: Path) -> float | None:
    """Seconds to the load event in headless Chromium, the best of three; None where there is no Chromium."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        return None
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        times = []
        for _ in range(3):
            driver.get(page.as_uri())
            entry = "performance.getEntriesByType('navigation')[0].loadEventEnd"
            times.append(driver.execute_script(f"return {entry}") / 1000)
        return min(times)
    finally:
        driver.quit()


def main() -> None:
    n_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    r = random.Random(1)
    counts, counting = Counts(), 0.0
    for first in range(0, n_rows, ROWS_IN_BATCH):
        batch = make_batch(first, min(ROWS_IN_BATCH, n_rows - first), r)
        began = time.process_time()
        counts.add(batch, Table(CONNECTIONS), Table(INPUTS))
        counting += time.process_time() - began
    print(f"{n_rows:,} rows counted: {counting:.2f} s")
    began = time.process_time()
    report = Report(counts, catalogue.load())
    document = time.process_time() - began
    for name, render in (("text", report.to_text), ("markdown", report.to_markdown), ("page", report.to_html)):
        began = time.process_time()
        rendered = render()
        spent = time.process_time() - began
        print(f"document {document:.2f} s + {name} {spent:.2f} s, {len(rendered.encode()):,} bytes")
    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory) / "report.html"
        page.write_text(rendered, encoding="utf-8")
        opened = opening_s(page)
        print("Chromium is not here" if opened is None else f"page opens in {opened:.2f} s")


if __name__ == "__main__":
    main()
