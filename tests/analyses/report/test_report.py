"""The report against the truth: its numbers, its warnings, its verdicts, and the file that people open."""

import json
import re
import subprocess
from base64 import b64decode
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import circuits
import numpy as np
import pandas as pd
import pytest
from same_documents import assert_same_document

from analyses.report import files, page
from analyses.report.agreement import overlap, rank_correlation
from analyses.report.caveats import caveats
from analyses.report.claims import claims
from analyses.report.emergence import onsets
from analyses.report.evidence import gather, pool, together_and_alone
from analyses.report.report import report as make_report
from analyses.report.tables import tables
from interp.ablation.ablate import ablate
from interp.display import svg
from interp.model.heads import Head, show
from interp.scores.score import score, selection_scores
from training.checkpoints.checkpoint import load, snapshot_steps
from training.common.errors import UserError
from training.common.output import plain
from training.loop.trainer import train

ODD = '<script>alert("heads & tails")</script>'


@pytest.fixture(scope="module")
def planted(tmp_path_factory, quick):
    """Head 0.1 does the work, 0.3 only looks as if it did."""
    checkpoint = circuits.planted(tmp_path_factory.mktemp("planted"))
    return gather([replace(checkpoint, name=ODD)], replace(quick, n_prompts=128))


@pytest.mark.slow
def test_the_numbers_are_those_of_the_library(report):
    _, given, target = report
    checkpoint = load("zoo:mixed-0")
    mine = given["checkpoints"][0]
    assert mine["selection_scores"] == selection_scores(checkpoint, 48, 0).tolist()
    scores = score(checkpoint, ["linear", "cubic"], n_prompts=48)
    assert mine["scores"]["retrospective"]["cubic"] == scores.values["cubic"].tolist()
    assert mine["found"] == ["0.1"]
    expected = ablate(
        checkpoint, [(Head(0, 1),)], ["linear", "cubic"], n_controls=12, matches=("layer", "size"), n_prompts=48
    )
    for row, same in zip(given["ablation"], expected.table.to_dict("records"), strict=True):
        assert row["checkpoint"] == "zoo:mixed-0"
        assert {key: row[key] for key in same} == plain(same)
    null = pd.read_csv(files.data_directory(target) / "ablation_null.csv")
    assert np.allclose(null["effect"], expected.null["effect"], rtol=1e-7, equal_nan=True)
    alone = ablate(checkpoint, [(Head(2, 3),)], ["linear"], modes=["mean"], n_controls=0, matches=(), n_prompts=48)
    (single,) = (
        row
        for row in given["single_heads"]
        if (row["checkpoint"], row["function_class"], row["head"]) == ("zoo:mixed-0", "linear", "2.3")
    )
    assert single["effect"] == pytest.approx(alone.table["effect"][0], rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_every_table_of_the_json_is_also_a_csv_and_nothing_else_is_left(report, shipped, written):
    _, given, target = report
    directory = files.data_directory(target)
    whole = tables(shipped)
    assert sorted(one.name for one in directory.iterdir()) == sorted(
        ["report.json", *(f"{name}.csv" for name in whole)]
    )
    assert [one.name for one in target.parent.iterdir() if one.name.startswith(".")] == []
    models = pd.read_csv(directory / "models.csv")
    assert models["effect"].iloc[0] == pytest.approx(given["models"][0]["effect"], rel=1e-7)
    assert (directory / "emergence.csv").exists()  # of this report, and of an older one where there are no snapshots
    (directory / "mine.txt").write_text("not the report's\n")
    written(replace(shipped, models=tuple(replace(one, emergence=pd.DataFrame()) for one in shipped.models)), target)
    assert not (directory / "emergence.csv").exists()
    written(shipped, target)
    assert (directory / "mine.txt").exists()
    (directory / "mine.txt").unlink()


@pytest.mark.slow
def test_warnings_are_those_that_apply(shipped, planted):
    kinds = {(one.kind, one.models) for one in caveats(shipped)}
    both, learned, not_learned = ("zoo:mixed-0", "zoo:cubic-0"), ("zoo:mixed-0",), ("zoo:cubic-0",)
    expected = {
        ("few independent seeds", learned),
        ("few independent seeds", not_learned),
        ("unconverged", not_learned),
        ("few controls", learned),
        ("no head found", not_learned),
        ("few prompts", both),
    }
    measured = {("unconverged", learned), ("replacements disagree", learned)}
    measured |= {("effect undefined", models) for models in (learned, not_learned, both)}  # few prompts show no gain
    assert expected <= kinds <= expected | measured
    assert not any(kind == "shared streams" for kind, _ in kinds)
    of_planted = {one.kind for one in caveats(planted)}
    assert "few controls" not in of_planted or planted.models[0].ablation.table["smallest_p"].iloc[0] > 0.05
    assert "unconverged" not in of_planted
    assert "no head found" not in of_planted


@pytest.mark.slow
def test_models_that_share_a_stream_are_one_seed(shipped, quick):
    first = shipped.models[0]
    twins = tuple(
        replace(first, checkpoint=replace(first.checkpoint, name=name)) for name in ("first", "second", "third")
    )
    evidence = replace(shipped, models=twins, pooled=pool(twins), settings=replace(quick, n_prompts=1024))
    found = {one.kind: one for one in caveats(evidence)}
    assert found["shared streams"].models == ("first", "second", "third")
    assert "few prompts" not in found
    assert set(evidence.pooled.query("function_class == 'linear'")["n_seeds"]) == {1}
    assert claims(evidence)[-1].verdict == "fails"
    seeds = first.checkpoint.config.seeds
    apart = tuple(
        replace(
            one,
            checkpoint=replace(
                one.checkpoint,
                config=replace(one.checkpoint.config, seeds=replace(seeds, init=place, data=place, task=place)),
            ),
        )
        for place, one in enumerate(twins)
    )
    evidence = replace(evidence, models=apart, pooled=pool(apart))
    assert "shared streams" not in {one.kind for one in caveats(evidence)}
    assert "few independent seeds" not in {one.kind for one in caveats(evidence)}
    assert set(evidence.pooled.query("function_class == 'linear'")["n_seeds"]) == {3}
    assert claims(evidence)[-1].verdict == "holds"


@pytest.mark.slow
def test_a_decoy_is_found_out(planted):
    """Both heads attend; the score does not tell them apart, and the report says so."""
    (model,) = planted.models
    assert show(model.chosen_heads) == "0.1,0.3"
    assert [show(one) for one in together_and_alone(model.chosen_heads)] == ["0.1,0.3", "0.1", "0.3"]
    verdicts = {claim.statement[:12]: claim for claim in claims(planted)}
    assert verdicts["Models that "].verdict == "holds"
    assert verdicts["Removing the"].verdict == "holds"
    assert verdicts["The score te"].verdict == "in part"
    assert verdicts["The score te"].evidence.startswith("1 of 2 that attend")
    assert any("a decoy" in one for one in page.sentences_of(model))


@pytest.mark.slow
def test_who_reads_a_planted_head(planted):
    """Head 0.1 writes into the stream that the first MLP multiplies, and nobody else reads it."""
    paths = planted.models[0].paths
    of_writer = paths[(paths["sender"] == "0.1") & (paths["receiver"] != "all")]
    assert of_writer.loc[of_writer["effect"].abs().idxmax(), "receiver"] == "0.mlp"


class Outline(HTMLParser):
    """Open elements, headings, identifiers and everything that points elsewhere."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self):
        super().__init__()
        self.open, self.headings, self.ids, self.links, self.tags, self.text = [], [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.ids += [value for key, value in attrs if key == "id"]
        self.links += [value for key, value in attrs if key in ("href", "src", "xlink:href", "action", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def outline(html: str) -> Outline:
    parsed = Outline()
    parsed.feed(html)
    parsed.close()
    assert not parsed.open
    return parsed


@pytest.mark.slow
def test_the_page_is_well_formed_and_needs_nothing_else(report):
    html, _, _ = report
    parsed = outline(html)
    images = [link for link in parsed.links if link.startswith("data:image/svg+xml;base64,")]
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links if link not in images)
    drawings = [b64decode(image.partition(",")[2]).decode() for image in images]
    assert all(svg.count("<svg") == 1 for svg in drawings)
    assert not any(re.search(r'(href|src)="(?!#|data:)|<script|@import', svg) for svg in drawings)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert not re.search(r"https?://|@import|url\(|//cdn|{{|{%", html)
    assert parsed.headings[0] == 1
    assert parsed.headings.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in zip(parsed.headings, parsed.headings[1:], strict=False))
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in parsed.tags if tag == "th")
    assert all(attrs.get("aria-label") for tag, attrs in parsed.tags if tag == "svg")
    assert all(attrs.get("alt") for tag, attrs in parsed.tags if tag == "img")
    assert "nan" not in re.findall(r"\bnan\b", " ".join(parsed.text).lower())


@pytest.mark.slow
def test_names_are_escaped(planted, written, tmp_path):
    html, given = written(planted, tmp_path / "odd.html")
    parsed = outline(html)
    assert ODD not in html
    assert ODD in " ".join(parsed.text)
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert given["checkpoints"][0]["checkpoint"] == ODD


@pytest.mark.slow
def test_the_summary_comes_first_and_says_what_the_json_says(report):
    html, given, _ = report
    assert [html.index(f'id="{part}"') for part in ("summary", "warnings", "look", "cost", "protocol")] == sorted(
        html.index(f'id="{part}"') for part in ("summary", "warnings", "look", "cost", "protocol")
    )
    text = " ".join(outline(html).text)
    for claim in given["claims"]:
        assert claim["statement"] in text
    for warning in given["warnings"]:
        assert warning["text"] in text
    row = given["models"][0]
    assert f"{row['effect']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]" in text
    assert given["protocol"]["command"] == "interp report --ckpt 'a b'"


@pytest.mark.slow
def test_snapshots_become_emergence(quick_config, quick, written, tmp_path):
    train(quick_config, tmp_path / "run")
    checkpoint = load(tmp_path / "run")
    evidence = gather([checkpoint], replace(quick, n_prompts=16, paths=False))
    table = tables(evidence)["emergence"]
    assert sorted(set(table["step"])) == sorted({*snapshot_steps(tmp_path / "run"), 60})
    best = table[(table["head"] == "best other") & (table["step"] == 60)]["score"].item()
    found = evidence.models[0].chosen_heads
    others = evidence.models[0].retrospective.values["linear"].copy()
    for head in found:
        others[head] = 0
    assert best == pytest.approx(others.max(), rel=1e-6)
    html, _ = written(evidence, tmp_path / "report.html")
    assert "by training step" in html


def test_onsets_are_the_steps_from_which_it_stays_so():
    rows = [(0, 0.1, 1.0), (10, 0.6, 0.9), (20, 0.4, 0.8), (30, 0.7, 0.4), (40, 0.9, 0.1)]
    table = pd.DataFrame(rows, columns=["step", "score", "error"]).assign(function_class="linear", head="0.1")
    (row,) = onsets(table).to_dict("records")
    assert (row["attends_at"], row["learns_at"]) == (30, 30)
    (row,) = onsets(table.assign(score=0.1)).to_dict("records")
    assert np.isnan(row["attends_at"])


def test_agreement_of_known_maps(rng):
    first = rng.normal(size=(3, 8))
    assert rank_correlation(first, np.exp(first)) == 1
    assert rank_correlation(first, -first) == -1
    assert np.isnan(rank_correlation(first, np.zeros((3, 8))))
    assert overlap(np.array([[0.9, 0.6, 0.1]]), np.array([[0.9, 0.1, 0.6]])) == pytest.approx(1 / 3)
    scipy_stats = pytest.importorskip("scipy.stats")
    second = rng.integers(4, size=(3, 8)).astype(float)
    assert rank_correlation(first, second) == pytest.approx(
        scipy_stats.spearmanr(first.ravel(), second.ravel()).statistic
    )


def variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block))


def contrast(colour: str, background: str) -> float:
    """Of WCAG: 4.5 is readable."""
    low, high = sorted(svg.luminance("#" + text[1:] * (2 if len(text) == 4 else 1)) for text in (colour, background))
    return (high + 0.05) / (low + 0.05)


def test_a_dark_screen_gets_readable_colours_and_figures_on_white():
    """Only screens: on paper the page stays light."""
    light, _, rest = page.asset("style.css").partition("@media screen and (prefers-color-scheme: dark) {")
    dark, _, after = rest.partition("\n}\n")
    assert "color-scheme: light;" in light
    assert "color-scheme: dark;" in dark
    assert ".panels > svg, .panels > img { background: #fff;" in dark
    assert variables(light).keys() == variables(dark).keys()
    for names in (variables(light), variables(dark)):
        for name in ("ink", "soft", "blue"):
            assert contrast(names[name], names["page"]) >= 4.5, name
        for name in ("holds", "in-part", "fails", "open"):
            assert contrast(names[name], names[f"{name}-wash"]) >= 4.5, name
    written = re.findall(r"(?<![-\w])(?:color|background): (#\w+)", after)
    assert written == [], "a colour that does not change with the scheme"


def test_headings_stay_with_what_follows_on_paper_and_rows_and_figures_are_whole():
    printed = page.asset("style.css").partition("@media print {")[2]
    rules = {
        value: set(names.split(", ")) for names, value in re.findall(r"^  ([^{@]+) \{ (break-.*?); \}", printed, re.M)
    }
    headings = {*re.findall(r"<(h[1-6]|summary|caption|thead)\b", page.asset("template.html.j2"))}
    assert {"h1", "h2", "h3", "caption"} <= headings <= rules["break-after: avoid"]
    assert {"tr", "figure", "svg", "img"} <= rules["break-inside: avoid"]


def test_colours_are_those_of_the_other_figures():
    import seaborn as sns
    from matplotlib.colors import to_hex

    for stops, name in ((svg.SEQUENTIAL, "mako_r"), (svg.DIVERGING, "vlag")):
        palette = sns.color_palette(name, as_cmap=True)
        assert list(stops) == [to_hex(palette(place / 8)) for place in range(9)]


@pytest.mark.parametrize(
    ("name", "message"),
    [("report.pdf", "ends in .html"), ("blocked.html", "which is a file"), ("file/report.html", "is a file; a")],
)
def test_places_that_cannot_be_written_are_refused_and_left_alone(name, message, tmp_path):
    (tmp_path / "blocked").write_text("")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=message):
        files.check_writable(files.page_path(tmp_path / name))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["blocked", "file"]


def test_out_may_be_a_page_or_a_directory(tmp_path):
    assert files.page_path(tmp_path / "a.html") == tmp_path / "a.html"
    assert files.page_path(tmp_path) == tmp_path / "report.html"
    assert files.page_path(tmp_path / "new") == tmp_path / "new" / "report.html"
    files.check_writable(tmp_path / "new" / "deep" / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ckpt", "zoo:mixed-0"], "--out is missing"),
        (["--ckpt", "zoo:mixed-0", "--out", "report.docx"], "ends in .html"),
        (["--ckpt", "zoo:nothing", "--out", "r.html"], "unknown zoo checkpoint"),
        (["--ckpt", "zoo:mixed-0", "--classes", "linear,linear", "--out", "r.html"], "named twice"),
        (["--ckpt", "zoo:mixed-0", "--classes", "sine", "--out", "r.html"], "unknown function class"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(arguments, message, interp, tmp_path):
    process = interp("report", *arguments, cwd=tmp_path)
    _, said = process.communicate()
    assert process.returncode == 2
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_writes_one_page_and_its_numbers(interp, tmp_path):
    common = ["--prompts", 16, "--controls", 4, "--classes", "linear", "--no-paths"]
    process = interp(
        "report", "--ckpt", "zoo:[lm]i*-0", *common, "--json", "--out", "r.html", cwd=tmp_path, stdout=subprocess.PIPE
    )
    printed, said = process.communicate()
    assert process.returncode == 0, said
    given = json.loads(printed)
    assert [one["checkpoint"] for one in given["checkpoints"]] == ["zoo:linear-0", "zoo:mixed-0"]
    assert [model["name"] for model in given.pop("run")["checkpoints"]] == ["zoo:linear-0", "zoo:mixed-0"]
    assert given == json.loads((tmp_path / "r" / "report.json").read_text())
    assert "--ckpt 'zoo:[lm]i*-0'" in given["protocol"]["command"]
    outline((tmp_path / "r.html").read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("all_reference_prompts")
def test_a_report_from_python_names_the_command_that_gives_its_numbers(quick, tmp_path, interp):
    checkpoint, settings = load("zoo:mixed-0"), replace(quick, paths=False)
    made = make_report([checkpoint], settings)
    assert made.write(tmp_path / "mine") == tmp_path / "mine" / "report.html"
    command = made.protocol.command.removeprefix("interp ").replace("report.html", str(tmp_path / "same.html"))
    with interp(*command.split()) as process:
        process.communicate()
    assert process.returncode == 0
    pages = (tmp_path / "mine" / "report", tmp_path / "same")
    ours, theirs = (json.loads((one / "report.json").read_text()) for one in pages)
    for document in (ours, theirs):
        document.pop("protocol")
    assert_same_document(ours, theirs)
    assert list(made.claims["verdict"]) == [claim["verdict"] for claim in theirs["claims"]]
    assert all(claim.statement in unescape(made._repr_html_()) for claim in made.account.claims)
