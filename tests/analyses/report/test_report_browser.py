"""The report in a real browser: a script beside its own opens, sorts and measures, and writes down what it saw.

Chromium prints the page as it is in the end (`--dump-dom`), so nothing has to be installed but the browser.
"""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from analyses.report.evidence import pool

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)

LISTEN = """<script>
window.seen = { errors: [] };
addEventListener("error", (event) => seen.errors.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.violatedDirective));
for (const kind of ["error", "warn"]) console[kind] = (...what) => seen.errors.push(what.join(" "));
</script>"""

LOOK = """<script>
for (const one of document.querySelectorAll("details")) one.open = true;
const table = [...document.querySelectorAll(".sortable")].find((one) => one.tBodies[0].rows.length > 9);
const column = [...table.querySelectorAll("thead th")].findIndex((one) => one.classList.contains("number"));
const title = table.querySelectorAll("thead th")[column];
const values = () => [...table.tBodies[0].rows].map((row) => row.children[column].dataset.value);
title.querySelector("button").click();
seen.ascending = values();
seen.states = [title.getAttribute("aria-sort")];
title.querySelector("button").click();
seen.descending = values();
seen.states.push(title.getAttribute("aria-sort"));
const figures = [...document.querySelectorAll("svg, img")];
seen.n_figures = figures.length;
const boxes = figures.map((one) => one.getBoundingClientRect());
seen.empty = boxes.filter((box) => box.width < 5 || box.height < 5).length;
const written = [...document.querySelectorAll("svg text")];
const inside = (box, of) => box.left >= of.left - 1 && box.right <= of.right + 1 && box.bottom <= of.bottom + 1;
const cut = written.filter((one) => !inside(one.getBoundingClientRect(), one.ownerSVGElement.getBoundingClientRect()));
seen.cut = cut.map((one) => one.textContent);
seen.width = innerWidth;
seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
const result = document.createElement("pre");
result.id = "seen";
result.textContent = JSON.stringify(seen);
document.body.append(result);
</script>"""


def look_at(html: str, width: int, directory: Path) -> dict[str, Any]:
    """What the page reports of itself, at a window of this width."""
    probed = directory / "probed.html"
    probed.write_text(html.replace("<head>", f"<head>{LISTEN}", 1).replace("</body>", f"{LOOK}</body>", 1))
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={directory / 'profile'}", f"--window-size={width},1000"]
    done = subprocess.run([*command, "--dump-dom", f"file://{probed}"], capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(unescape(found[1])) | {"console": [one for one in done.stderr.splitlines() if "CONSOLE" in one]}


@pytest.mark.skipif(BROWSER is None, reason="no browser here (apt-get install chromium)")
@pytest.mark.parametrize("width", [1400, 800])
def test_a_browser_shows_the_report(report, width, tmp_path):
    seen = look_at(report[0], width, tmp_path)
    assert seen["width"] == width
    assert seen["errors"] == seen["console"] == []
    assert seen["n_figures"] > 20
    assert seen["empty"] == 0
    assert seen["cut"] == []
    assert seen["overflow"] <= 0
    assert seen["states"] == ["ascending", "descending"]
    defined = [float(value) for value in seen["ascending"] if value]
    assert defined == sorted(defined)
    assert len(set(defined)) > 1
    assert [value for value in seen["ascending"] if not value] == seen["ascending"][len(defined) :]
    assert [float(value) for value in seen["descending"] if value] == defined[::-1]


@pytest.mark.skipif(BROWSER is None, reason="no browser here (apt-get install chromium)")
@pytest.mark.parametrize("width", [1400, pytest.param(800, marks=pytest.mark.slow)])
def test_a_browser_shows_many_models(shipped, written, width, tmp_path):
    """Folded details, small multiples, and a name that has no place to break."""
    models = tuple(
        replace(one, checkpoint=replace(one.checkpoint, name=f"{'long' * 6}-{place}"))
        for place, one in enumerate(shipped.models * 6)
    )
    html, _ = written(replace(shipped, models=models, pooled=pool(models)), tmp_path / "many.html")
    seen = look_at(html, width, tmp_path)
    assert seen["errors"] == seen["console"] == []
    assert (seen["empty"], seen["cut"]) == (0, [])
    assert seen["overflow"] <= 0


@pytest.mark.skipif(BROWSER is None, reason="no browser here (apt-get install chromium)")
def test_the_probe_sees_what_is_wrong(tmp_path):
    """Errors, wide pages, empty figures and cut labels would not go unnoticed."""
    wrong = """<!DOCTYPE html><html><head></head><body><div style="width: 3000px">wide</div>
    <svg width="0" height="0"></svg>
    <svg width="20" height="20"><text x="10" y="10">too long a label</text></svg>
    <table class="sortable"><thead><tr><th class="number"><button>a</button></th></tr></thead>
    <tbody>ROWS</tbody></table>
    <script>undefined_function()</script></body></html>""".replace("ROWS", "<tr><td data-value=1>1</td></tr>" * 12)
    seen = look_at(wrong, 1000, tmp_path)
    assert "undefined_function" in seen["errors"][0]
    assert (seen["empty"], seen["cut"]) == (1, ["too long a label"])
    assert seen["overflow"] > 0
    assert seen["states"] == [None, None]
