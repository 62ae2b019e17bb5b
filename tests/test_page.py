"""The page in a real browser: nothing leaves it, nothing captured acts, everything can be read and followed."""

import base64
import copy
import itertools
import json
import re
import shutil
import time

import pytest
from conftest import SAMPLES

from analyzer.analysis import read
from analyzer.knowledge import language as languages
from analyzer.report import html
from analyzer.report.fragment import linked, said, wireshark_filter

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")

HOSTILE = [
    "<script>document.title='HACKED'</script>",
    '"><img src=x onerror="document.title=\'HACKED\'">',
    "\u202egnp.exe\u202c \u200bhidden",
    "\x1b[31mred\x1b[0m\x07",
    "{{7*7}}{% raw %}${7*7}",
    "</script></style></table><h1>HACKED</h1>",
    "javascript:document.title='HACKED'",
    "' onmouseover='document.title=1' x='",
]


@pytest.fixture(scope="module")
def documents():
    whole = read(SAMPLES, progress=False).report().document
    one = read(SAMPLES / "normal-1000.pcap", progress=False).report().document
    return {"whole": whole, "one": one, "hostile": hostile(whole), "hostile_one": hostile(one)}


def hostile(document):
    """The same with captured texts that try to act; places that readers follow are counted through all of HOSTILE."""
    document = copy.deepcopy(document)
    texts = iter(HOSTILE * 1000)

    def spoil(value):
        if isinstance(value, list):
            for member in value:
                spoil(member)
        elif isinstance(value, dict):
            for name, member in value.items():
                if name in ("reason", "host", "path", "client_close_reason", "raw_code", "peer", "message", "source"):
                    if isinstance(member, str | None):
                        value[name] = next(texts)
                else:
                    spoil(member)

    for block in ("rows", "stories", "log_stories", "troubled"):
        spoil(document[block])
    for entry in document["diagnoses"]:
        spoil(entry["first"])
    for entry in document["by"]:
        entry["value"] = next(texts)
    for entry in document["codes"]:
        for name in ("host", "path", "peer", "subprotocol", "system"):
            entry[name] = [{"value": next(texts), "count": 1}]
    document["troubled"] = [
        {"source": next(texts), "status": "damaged", "message": next(texts), "damaged_at": 7, "lost_bytes": 9}
    ]
    document["rows_beside"] = "<b>rows</b>.csv"
    return document


@pytest.fixture(scope="module")
def driver():
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def browser(driver):
    """The browser as it is fresh, with its logs read."""
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    driver.get("about:blank")
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    return driver


@pytest.fixture(scope="module")
def pages(documents):
    """Pages by document and language, each made once."""
    made = {}

    def page(name, code):
        if (name, code) not in made:
            made[name, code] = html.render_page(documents[name], languages.load(code))
        return made[name, code]

    return page


@pytest.fixture
def opened(browser, pages, tmp_path):
    """Open a page of one of the documents."""

    def open_page(name="whole", code="en", *, text=None):
        path = tmp_path / "page.html"
        path.write_text(text or pages(name, code), encoding="utf-8")
        browser.get(path.as_uri())
        return browser

    return open_page


def prefer(browser, scheme, media="screen"):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def requests(browser):
    """Addresses that were asked for, and not stopped by the page's own policy."""
    asked = {}
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked[message["params"]["requestId"]] = message["params"]["request"]["url"]
        elif message["method"] == "Network.loadingFailed" and message["params"].get("blockedReason") == "csp":
            del asked[message["params"]["requestId"]]
    return set(asked.values())


@pytest.mark.parametrize("code", languages.NAMES)
def test_opens_in_every_language_without_a_message_or_a_request(opened, code):
    browser = opened(code=code)
    assert browser.get_log("browser") == []
    assert requests(browser) == {browser.current_url}
    root = browser.find_element(By.TAG_NAME, "html")
    assert root.get_attribute("lang") == code
    assert root.get_attribute("dir") == ("rtl" if code == "ar" else "ltr")
    direction = browser.execute_script("return getComputedStyle(document.body).direction")
    assert direction == ("rtl" if code == "ar" else "ltr")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_english_that_stands_in_is_marked():
    assert said("Find [en]") == '<span lang="en" dir="ltr">Find [en]</span>'
    assert said("Read sent_code.") == "Read <code>sent_code</code>."
    assert said("call close() or close(1000)") == "call <code>close()</code> or <code>close(1000)</code>"
    assert said("<b>") == "&lt;b&gt;"
    assert said("[::1]:80 at 2026-01-02T03:04:05.678") == (
        '<bdi dir="ltr">[::1]:80</bdi> at <bdi dir="ltr">2026-01-02T03:04:05.678</bdi>'
    )
    assert said("sample_captures/x.pcap and/or /chat?x=1") == (
        'sample_captures/x.pcap and/or <bdi dir="ltr">/chat?x=1</bdi>'
    )
    assert said("see https://example.com/a_b, or not") == 'see <bdi dir="ltr">https://example.com/a_b</bdi>, or not'
    assert linked("RFC 1; https://example.com/a_b") == (
        'RFC 1; <a href="https://example.com/a_b" rel="noreferrer noopener" dir="ltr">https://example.com/a_b</a>'
    )


@pytest.mark.parametrize("part", ["a_", "a(", "a.", "1.", "[:", "/", "http://a", "--a", "a(1"])
def test_identifiers_are_looked_for_in_linear_time(part):
    start = time.perf_counter()
    said(part * 20_000)
    assert time.perf_counter() - start < 2  # 0.2 s at most; a square of the length took 5 s


def test_policy_is_first_and_nothing_is_styled_or_run_inline(documents):
    page = html.render_page(documents["whole"], languages.load("en"))
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', page)
    assert policy
    assert page.index(policy[0]) < page.index("<style>")
    assert re.fullmatch(
        r"default-src &#39;none&#39;; style-src &#39;sha256-[\w+/=]{44}&#39;; script-src &#39;sha256-[\w+/=]{44}&#39;; "
        r"img-src data:; base-uri &#39;none&#39;; form-action &#39;none&#39;",
        policy[1],
    )
    assert page.count("<style") == page.count("<script") == 1
    assert not re.search(r"<[^>]*\s(style|on\w+)\s*=", re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S))
    assert not re.search(r"<(link|iframe|object|embed|img|base)\b", page)


def test_policy_is_effective(opened):
    browser = opened()
    browser.execute_script(
        """
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
        const button = document.createElement("button");
        button.setAttribute("onclick", "window.hacked = 2");
        document.body.append(button);
        button.click();
        const image = document.createElement("img");
        image.src = "https://example.com/x.png";
        document.body.append(image);
        document.body.setAttribute("style", "display: none");
        """
    )
    assert browser.execute_script("return window.hacked") is None
    assert browser.execute_script("return getComputedStyle(document.body).display") == "block"
    assert sum("Content Security Policy" in entry["message"] for entry in browser.get_log("browser")) >= 4
    assert requests(browser) <= {browser.current_url}


@pytest.mark.parametrize("name", ["hostile", "hostile_one"])
def test_hostile_text_stays_text(opened, documents, name):
    browser = opened(name)
    assert browser.title == languages.load("en").label("report.title")
    assert browser.get_log("browser") == []
    assert requests(browser) == {browser.current_url}
    counted = "return document.querySelectorAll(arguments[0]).length"
    assert browser.execute_script(counted, "script") == 1
    assert browser.execute_script(counted, "style") == 1
    assert browser.execute_script(counted, "h1") == 1
    assert browser.execute_script(counted, "img, b, [onerror], [onmouseover], [style], a[href^=javascript]") == 0
    text = browser.execute_script("return document.body.textContent")
    assert "<script>document.title='HACKED'</script>" in text
    assert "{{7*7}}{% raw %}${7*7}" in text
    assert "<b>rows</b>.csv" in text
    assert "\\u{202e}gnp.exe" in text
    assert "\\x1b[31mred" in text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\x00-\x08\x1b]", browser.page_source)
    assert html.render_cell(documents[name], languages.load("en")).count("<script") == 0


def test_everything_is_there_without_scripts(opened, browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    opened()
    assert not browser.find_element(By.ID, "tools").is_displayed()
    assert not browser.find_elements(By.TAG_NAME, "button")
    rows = browser.find_elements(By.CSS_SELECTOR, "#ends-table tbody tr")
    assert len(rows) > 50
    assert rows[0].is_displayed()
    assert browser.find_element(By.ID, "code-1006").is_displayed()
    for link in browser.find_elements(By.CSS_SELECTOR, "nav a")[:30]:
        assert browser.find_elements(By.CSS_SELECTOR, link.get_dom_attribute("href"))
    summary = browser.find_element(By.CSS_SELECTOR, "#timeline summary")
    summary.click()
    assert browser.find_element(By.CSS_SELECTOR, "#timeline table").is_displayed()


def test_every_link_on_the_page_has_a_target(opened):
    browser = opened()
    assert (
        browser.execute_script(
            """
            return Array.from(document.querySelectorAll('a[href^="#"]'), (link) => link.getAttribute("href").slice(1))
              .filter((id) => !document.getElementById(id));
            """
        )
        == []
    )
    ids = browser.execute_script("return Array.from(document.querySelectorAll('[id]'), (one) => one.id)")
    assert len(ids) == len(set(ids))


def test_links_lead_somewhere_where_codes_are_many(opened, documents):
    document = copy.deepcopy(documents["whole"])
    example = next(entry for entry in document["codes"] if entry["code"] == 4000)
    text = next(entry for entry in document["diagnoses"] if entry["code"] == 4000)
    for code in range(4100, 4300):
        document["codes"].append({**example, "code": code})
        document["diagnoses"].append({**text, "code": code})
        document["frequencies"].append({**document["frequencies"][0], "code": code, "name": "Private Use"})
    page = html.render_page(document, languages.load("en"))
    left_out = languages.load("en").count(
        "report.more_texts", 200 - (html.CODES_SHOWN - len(documents["whole"]["codes"]))
    )
    assert str(said(left_out)) in page
    test_every_link_on_the_page_has_a_target(lambda: opened(text=page))


def cells(browser, table, column):
    return browser.execute_script(
        "const rows = document.querySelector(arguments[0]).tBodies[0].rows;"
        "return Array.from(rows, (row) => row.cells[arguments[1]].textContent)",
        table,
        column,
    )


def test_tables_sort_numbers_as_numbers_and_tell_how(opened):
    browser = opened()
    table = "#frequencies table"
    button = browser.find_elements(By.CSS_SELECTOR, f"{table} thead button")[4]
    heading = button.find_element(By.XPATH, "..")
    button.send_keys(Keys.ENTER)
    assert heading.get_attribute("aria-sort") == "ascending"
    up = [int(text) for text in cells(browser, table, 4)]
    assert up == sorted(up)
    assert up[0] < up[-1]
    button.send_keys(Keys.SPACE)
    assert heading.get_attribute("aria-sort") == "descending"
    assert [int(text) for text in cells(browser, table, 4)] == up[::-1]
    assert len(browser.find_elements(By.CSS_SELECTOR, f"{table} [aria-sort]")) == 1


def test_durations_sort_by_their_length(opened):
    browser = opened()
    headings = [h.text.split("\n")[0] for h in browser.find_elements(By.CSS_SELECTOR, "#ends-table thead th")]
    column = headings.index("duration")
    browser.find_elements(By.CSS_SELECTOR, "#ends-table thead button")[column].click()
    found = browser.execute_script(
        "const rows = document.querySelectorAll('#ends-table tbody tr');"
        "return Array.from(rows, (row) => Number(row.cells[arguments[0]].dataset.sort))",
        column,
    )
    assert found == sorted(found)
    assert found[0] < 0 < found[-1]


def shown_rows(browser):
    return browser.execute_script(
        "const rows = Array.from(document.querySelectorAll('#ends-table tbody tr'));"
        "return rows.filter((row) => !row.hidden).map((row) => row.dataset.code)"
    )


def test_rows_are_found_by_text_and_by_code(opened, documents):
    browser = opened()
    everything = len(documents["whole"]["rows"])
    assert len(shown_rows(browser)) == everything
    Select(browser.find_element(By.ID, "pick")).select_by_value("1005")
    assert set(shown_rows(browser)) == {"1005"}
    browser.find_element(By.ID, "find").send_keys("AIOHTTP 1005")
    found = shown_rows(browser)
    assert 0 < len(found) < everything
    assert browser.find_element(By.ID, "found").text == f"{len(found)} shown"
    browser.find_element(By.ID, "find").send_keys(Keys.CONTROL, "a")
    browser.find_element(By.ID, "find").send_keys("no such text")
    assert shown_rows(browser) == []


def test_a_code_is_followed_from_the_chart_to_its_text_and_to_its_rows(opened):
    browser = opened()
    links = browser.find_elements(By.CSS_SELECTOR, '#frequencies svg a[href="#code-1006"]')
    assert len(links) >= 4  # a bar and its name, for clients and for servers
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", links[-1])
    links[-1].click()
    assert browser.current_url.endswith("#code-1006")
    browser.find_element(By.CSS_SELECTOR, "#code-1006 a[data-show]").click()
    assert browser.current_url.endswith("#rows")
    assert set(shown_rows(browser)) == {"1006"}
    assert browser.find_element(By.ID, "pick").get_attribute("value") == "1006"


def test_the_filter_for_wireshark_is_copied_or_selected(opened):
    browser = opened()
    rows = browser.find_elements(By.CSS_SELECTOR, "#ends-table tbody tr[data-filter]")
    wanted = rows[0].get_attribute("data-filter")
    assert re.fullmatch(r"ip\.addr==\S+ && ip\.addr==\S+ && tcp\.port==\d+ && tcp\.port==\d+", wanted)
    assert len(browser.find_elements(By.CSS_SELECTOR, "button.copy")) == len(rows)
    browser.execute_script("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
    browser.execute_script("arguments[0].click()", rows[0].find_element(By.CSS_SELECTOR, "button.copy"))
    selected = "const f = document.getElementById('copy-field'); return f.value.slice(f.selectionStart, f.selectionEnd)"
    assert browser.execute_script(selected) == wanted
    assert browser.switch_to.active_element.get_attribute("id") == "copy-field"
    assert browser.find_element(By.ID, "copy-status").text
    browser.execute_script(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { window.copied = text; }}})"
    )
    browser.execute_script("arguments[0].click()", rows[1].find_element(By.CSS_SELECTOR, "button.copy"))
    assert browser.execute_script("return window.copied") == rows[1].get_attribute("data-filter")
    assert browser.find_element(By.ID, "copy-status").text == languages.load("en").label("page.copied")


@pytest.mark.parametrize(
    ("client", "server", "wanted"),
    [
        (
            "10.0.0.1:5000",
            "192.0.2.1:443",
            "ip.addr==10.0.0.1 && ip.addr==192.0.2.1 && tcp.port==5000 && tcp.port==443",
        ),
        ("[::1]:5000", "[fe80::2]:80", "ipv6.addr==::1 && ipv6.addr==fe80::2 && tcp.port==5000 && tcp.port==80"),
        ("10.0.0.1:5000", None, None),
        ("example.com:5000", "10.0.0.1:80", None),
        ("10.0.0.1:5000 || frame", "10.0.0.1:80", None),
    ],
)
def test_display_filter(client, server, wanted):
    assert wireshark_filter(client, server) == wanted


@pytest.mark.parametrize("name", ["whole", "one"])
def test_structure_is_told_to_those_who_do_not_see_it(opened, name):
    browser = opened(name)
    levels = browser.execute_script(
        "return Array.from(document.querySelectorAll('h1,h2,h3,h4,h5,h6'), (one) => Number(one.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    wrong = browser.execute_script(
        """
        const wrong = [];
        for (const table of document.querySelectorAll("table")) {
          if (!table.caption?.textContent.trim()) wrong.push(["caption", table.outerHTML.slice(0, 99)]);
          const width = table.tHead.rows[0].cells.length;
          for (const row of table.tBodies[0].rows) if (row.cells.length !== width) wrong.push(["width", row.outerHTML]);
          for (const row of table.tBodies[0].rows)
            if (row.querySelectorAll('th[scope="row"]').length !== 1) wrong.push(["row", row.outerHTML]);
        }
        for (const heading of document.querySelectorAll("th"))
          if (!heading.scope) wrong.push(["scope", heading.outerHTML]);
        for (const region of document.querySelectorAll(".scroll"))
          if (region.tabIndex !== 0 || region.getAttribute("role") !== "region") wrong.push(["region", region.id]);
        for (const svg of document.querySelectorAll("svg.plot"))
          for (const name of ["aria-labelledby", "aria-describedby"])
            if (!document.getElementById(svg.getAttribute(name)).textContent.trim()) wrong.push([name, svg.id]);
        for (const figure of document.querySelectorAll("figure"))
          if (!figure.closest("section").querySelector("table")) wrong.push(["numbers", figure.outerHTML.slice(0, 99)]);
        for (const field of document.querySelectorAll("input, select"))
          if (!field.labels.length) wrong.push(["label", field.outerHTML]);
        for (const name of ["header", "main", "nav", "footer"])
          if (document.querySelectorAll(name).length !== 1) wrong.push(["landmark", name]);
        return wrong;
        """
    )
    assert wrong == []


def test_the_first_stop_of_the_keyboard_skips_to_the_report(opened):
    browser = opened()
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    link = browser.switch_to.active_element
    assert link.get_dom_attribute("href") == "#main"
    assert link.rect["y"] >= 0
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.execute_script(outline) == "solid"


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(opened, scheme):
    browser = opened("one")
    prefer(browser, scheme)
    names = [
        "paper",
        "raised",
        "ink",
        "muted",
        "link",
        "green",
        "orange",
        "sky",
        "pink",
        "grey",
        "yellow",
        "red",
        "blue",
    ]
    names += [f"heat-{n}" for n in range(1, 10)]
    colours = browser.execute_script(
        "const s = getComputedStyle(document.documentElement);"
        "return Object.fromEntries(arguments[0].map((n) => [n, s.getPropertyValue(`--${n}`).trim()]))",
        names,
    )
    dark = colours["paper"] != "#ffffff"
    assert dark == (scheme == "dark")
    for text in ("ink", "muted", "link"):
        for ground in ("paper", "raised"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for name in names[5:13]:
        assert contrast(colours[name], colours["paper"]) >= 3, name
    for n in range(1, 10):
        assert max(contrast(colours[f"heat-{n}"], colours[text]) for text in ("ink", "paper")) >= 4.5, n
    used = browser.execute_script("return getComputedStyle(document.body).color")
    assert [int(part) for part in re.findall(r"\d+", used)] == [int(colours["ink"][i : i + 2], 16) for i in (1, 3, 5)]


def test_numbers_in_a_matrix_can_be_read_in_both_schemes(opened):
    browser = opened()
    for scheme in ("light", "dark"):
        prefer(browser, scheme)
        pairs = browser.execute_script(
            """
            const found = [];
            for (const text of document.querySelectorAll("#ends svg text, #views svg text")) {
              if (!/^\\d+$/.test(text.textContent)) continue;
              const box = text.getBoundingClientRect();
              const point = [box.x + box.width / 2, box.y + box.height / 2];
              for (const path of text.ownerSVGElement.querySelectorAll('[class*="heat-"]')) {
                const at = new DOMPoint(...point).matrixTransform(path.getScreenCTM().inverse());
                if (path.isPointInFill(at)) found.push([getComputedStyle(text).fill, getComputedStyle(path).fill]);
              }
            }
            return found;
            """
        )
        assert len(pairs) > 8
        for pair in pairs:
            text, ground = ("#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", one)) for one in pair)
            assert contrast(text, ground) >= 4.5, (scheme, pair)


def test_print(opened):
    browser = opened()
    prefer(browser, "dark", "print")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not browser.find_element(By.TAG_NAME, "nav").is_displayed()
    assert not browser.find_element(By.ID, "tools").is_displayed()
    assert (
        browser.execute_script("return document.querySelector('#timeline table').getBoundingClientRect().height") > 50
    )
    assert (
        browser.execute_script("return getComputedStyle(document.querySelector('#rows .scroll')).maxHeight") == "none"
    )
    assert browser.execute_script("return getComputedStyle(document.querySelector('tr')).breakInside") == "avoid"
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


@pytest.mark.parametrize("code", ["en", "ar"])
def test_a_narrow_screen_does_not_scroll_sideways(opened, code):
    browser = opened(code=code)
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("name", ["whole", "one"])
def test_the_same_input_gives_the_same_bytes(documents, name):
    language = languages.load("en")
    assert html.render_page(documents[name], language) == html.render_page(documents[name], language)


def test_says_what_was_left_out_and_what_was_not_seen(documents):
    document = copy.deepcopy(documents["whole"])
    english = languages.load("en")
    page = html.render_page(document, english)
    assert str(said(english.label("report.redacted"))) not in page
    assert "rows_beside" not in page
    document |= {"redacted": True, "rows_beside": "report.csv", "unseen": {}, "sealed": [], "troubled": []}
    document |= {"partial": True}
    page = html.render_page(document, english)
    assert str(said(english.label("report.redacted"))) in page
    assert english.label("report.rows_beside", file="report.csv") in page
    assert english.label("report.nothing_unseen") in page
    assert english.label("report.interrupted") in page
    assert document["catalogue"] in page
    assert document["version"] in page


def test_every_code_that_occurs_is_explained(documents):
    document = documents["whole"]
    page = html.render_page(document, languages.load("en"))
    for entry in document["codes"]:
        section = page.split(f'id="code-{entry["code"]}"')[1].split('<section class="about"')[0]
        for text in (entry["meaning"], entry["seen"], entry["fix"], *(pair["differ"] for pair in entry["pairs"])):
            assert str(said(text)) in section
    for entry in document["diagnoses"]:
        for name in ("title", "cause", "check", "fix"):
            assert str(said(entry[name] or "")) in page
        assert str(linked(entry["source"])) in page


def test_no_websocket_at_all(opened, tmp_path):
    log = tmp_path / "empty.log"
    log.write_text("2026-01-01T00:00:00Z INFO nothing to see here\n", encoding="utf-8")
    document = read(log, progress=False).report().document
    browser = opened(text=html.render_page(document, languages.load("en")))
    assert browser.get_log("browser") == []
    assert languages.load("en").label("report.no_close") in browser.find_element(By.ID, "answer").text
    assert languages.load("en").label("report.nothing_unseen") in browser.find_element(By.ID, "unseen").text


def test_a_page_of_many_rows_is_small_and_opens_fast(opened, documents):
    document = copy.deepcopy(documents["whole"])
    document["rows"] = (document["rows"] * 10)[:500]
    text = html.render_page(document, languages.load("en"))
    assert len(text.encode()) < 1_500_000
    browser = opened(text=text)
    took = browser.execute_script(
        "const t = performance.getEntriesByType('navigation')[0]; return t.domContentLoadedEventEnd - t.startTime"
    )
    assert took < 3000  # measured: 0.2 s; machines that run tests are busy
    start = time.perf_counter()
    Select(browser.find_element(By.ID, "pick")).select_by_value("1006")
    assert time.perf_counter() - start < 2


def test_cell_for_a_notebook(opened, documents):
    cell = html.render_cell(documents["whole"], languages.load("en"))
    assert "<script" not in cell
    assert "href=" not in cell
    assert not re.search(r'\sid="', cell)
    selectors = re.findall(r"^(.*?)\{", cell.split("<style>")[1].split("</style>")[0], flags=re.M)
    assert all(part.strip().startswith(".wsclose-cell") for line in selectors for part in line.split(","))
    browser = opened(text=f'<!DOCTYPE html><meta charset="utf-8"><body>{cell}</body>')
    assert browser.find_element(By.CLASS_NAME, "headline").text.startswith("64 WebSocket connections")
    assert len(browser.find_elements(By.TAG_NAME, "table")) == 3
    assert "1006 Abnormal Closure" in browser.find_element(By.CLASS_NAME, "findings").text
    one = html.render_cell(documents["one"], languages.load("en"))
    assert "The client sent Close 1000" in one
