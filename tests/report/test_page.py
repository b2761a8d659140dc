"""The page of a run: what it says, that it is whole and harmless whatever the names are, and that a missing part does not cost the page."""

import base64
import hashlib
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.ground.steps import Output, Step, StepRecord, Store
from engine.report.page.page import Page, make_page
from engine.report.page.render import render_page
from engine.report.page.thumbnails import SIDE, PictureBudget
from tests.report.page_run import PageRun, Plan, page_run

SCRIPT = "<script>alert(1)</script>"
NAMES = (
    SCRIPT,
    "\"quoted\" 'name' & more",
    "two\nlines\x1b[31m",
    "שלום",
    "evil\u202egnp.exe",
    "x" * 300,
    '=HYPERLINK("http://evil")',
    "plain $x_1$",
)
KEYS = ('"><img src=x onerror=alert(2)>', "pixel", "new\nline\x1b]0;title\x07", "\u202etxt.gpj", "javascript:alert(3)")
SECTIONS = ["verdict", "generations", "labels", "pictures", "data", "cost", "lineage"]
VOID = {"meta", "link", "img", "br", "input", "path", "circle", "use", "rect", "stop"}


@dataclass
class Parsed(HTMLParser):
    """Every element with its attributes, all text outside of scripts and styles, and the text of scripts."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    open_: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open_.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open_, f"</{tag}> closes nothing"
        assert self.open_.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        inside = self.open_[-1] if self.open_ else ""
        (self.scripts if inside == "script" else self.text).append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def parsed(html: str) -> Parsed:
    found = Parsed()
    found.feed(html)
    found.close()
    assert not found.open_, f"never closed: {found.open_}"
    return found


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> PageRun:
    return page_run(tmp_path_factory.mktemp("page") / "hostile", Plan(NAMES, KEYS))


@pytest.fixture(scope="module")
def page(hostile: PageRun) -> Page:
    return make_page(hostile.store, "r")


@pytest.fixture(scope="module")
def html(page: Page) -> str:
    return render_page(page)


def test_the_sections_come_in_their_order_and_none_has_a_problem(html: str) -> None:
    found = parsed(html)
    assert [one["id"] for one in found.of("section")] == SECTIONS
    assert 'class="problem"' not in html


def test_the_verdict_names_the_model_its_score_and_the_difference(page: Page) -> None:
    verdict = page.verdict.value
    assert verdict is not None
    assert verdict.sentence.startswith("Use generation 2: ")
    assert "(95 % CI 75.8 to 96.8; 32 validation images)" in verdict.sentence
    assert "better than the teacher by 37.5 points" in verdict.sentence
    assert [one.action for one in verdict.decisions] == ["continue", "continue"]
    assert not any(one.is_warning for one in verdict.decisions)
    assert verdict.path is not None
    assert verdict.path.startswith("/")


def test_names_are_text_and_nothing_else(html: str) -> None:
    found = parsed(html)
    assert len(found.of("script")) == 1
    assert "alert" not in found.scripts[0]
    assert SCRIPT in "".join(found.text)
    names = {name for _, attributes in found.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    assert len(found.of("img")) == len(re.findall(r"<img src=\"data:image/jpeg;base64,", html))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", html), (
        "control characters reach a reader"
    )
    assert "evil\\u202egnp.exe" in "".join(found.text)
    assert "plain $x_1$" in "".join(found.text)


def test_nothing_is_asked_of_a_network(html: str) -> None:
    found = parsed(html)
    for _, attributes in found.elements:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            if name in attributes:
                assert attributes[name].startswith(("#", "data:")), attributes[name][:80]
    assert "url(http" not in html
    assert "@import" not in html
    policy = next(one["content"] for one in found.of("meta") if one.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(found.scripts[0].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_every_link_has_its_place_and_every_figure_its_words_and_numbers(html: str) -> None:
    found = parsed(html)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {one["href"] for one in found.of("a") if "href" in one}
    assert {link[1:] for link in links} <= set(ids)
    assert sum(link.startswith("#step-") for link in links) == 15
    assert all(one.get("alt") for one in found.of("img"))
    assert all(one.get("role") and one.get("aria-label") for one in found.of("svg"))
    figures = re.findall(r"<figure>.*?</figure>", html, re.DOTALL)
    assert len(figures) == 10
    assert all("<table>" in one and "<figcaption>" in one and "<svg" in one for one in figures)


def test_figures_take_the_colours_of_the_page(html: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert "var(--blue, #0072b2)" in drawn
    assert "#ffffff" not in drawn
    variables = set(re.findall(r"var\((--\w+)", drawn))
    style = html[html.index("<style>") : html.index("</style>")]
    dark = style[style.index("prefers-color-scheme: dark") :]
    assert all(f"{name}:" in dark for name in variables - {"--ink"})


def test_pictures_are_encoded_anew_and_a_single_pixel_says_so(html: str, hostile: PageRun) -> None:
    original = set(pq.read_table(hostile.pool.manifest.uri)["image"].to_pylist())
    uris = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert len(uris) > 20
    for uri in uris:
        data = base64.b64decode(uri)
        image = Image.open(io.BytesIO(data))
        assert data not in original
        assert max(image.size) <= SIDE
        assert not image.getexif()
    assert "too small" in html


def test_rejected_images_are_listed_by_reason_with_their_keys(page: Page, html: str) -> None:
    assert page.pictures.value is not None
    unused = page.pictures.value.unused.value
    assert unused is not None
    assert [(one.reason, one.count) for one in unused] == [("truncated", 1), ("truncated", 1)]
    assert "too\\x1b[31m red" in html
    assert "(&lt;b&gt;3&lt;/b&gt; bytes)" in html


def test_credentials_of_settings_and_stores_are_not_shown(tmp_path: Path) -> None:
    settings = (("data", {"labelled": "s3://key:secret@bucket/l?region=x", "pool": "s3://key:secret@bucket/p"}),)
    made = page_run(tmp_path, Plan(("a", "b"), generations=1, settings=settings))
    made.run.put("settings.yaml", b"run: r\nstore: s3://key:secret@bucket/s\n")
    text = render_page(make_page(made.store, "r"))
    assert "secret" not in text
    assert "s3://bucket/s" in text


def test_a_run_that_failed_says_how_far_it_came(tmp_path: Path) -> None:
    made = page_run(tmp_path, Plan(("a", "b"), generations=1))
    made.store.fs.delete_file(f"{made.run.folder}/metrics.json")
    record = StepRecord("predict", 1, {}, {"model": "0" * 64})
    with pytest.raises(RuntimeError):
        made.run.find_or_run_step("generation 2 predict", record, fail)
    page = make_page(made.store, "r")
    assert page.verdict.value is not None
    assert page.verdict.value.sentence.startswith("This run is not finished: 9 of the 10 steps that it began are done")
    assert [one.label for one in page.verdict.value.unfinished] == ["generation 2 predict"]
    assert page.generations.value is not None
    assert [one.name for one in page.generations.value.models] == ["teacher", "generation 1"]
    text = render_page(page)
    assert "The same command resumes it." in text
    assert 'class="problem"' not in text


def fail(step: Step) -> Output:
    raise RuntimeError(f"{step.name} failed")


def test_a_part_that_cannot_be_made_says_so_in_its_place(tmp_path: Path) -> None:
    made = page_run(tmp_path, Plan(("a", "b")))
    Path(made.pool.manifest.uri).unlink()
    made.store.fs.delete_file(f"{made.predictions[0].folder}/parts.parquet")
    page = make_page(Store(made.store.uri), "r")
    labels = page.pseudo_labels.value
    assert labels is not None
    assert labels[0].confidences.problem is not None
    assert labels[1].confidences.problem is None
    assert page.spending.problem is not None
    text = render_page(page)
    assert text.count('class="problem"') >= 2
    assert "not readable" in text
    assert "Use generation 2" in text
    parsed(text)


def test_pictures_have_a_budget(hostile: PageRun) -> None:
    text = render_page(make_page(hostile.store, "r", PictureBudget(seconds=0)))
    assert "data:image" not in text
    assert "the 0 s for pictures were used up" in text
    few = render_page(make_page(hostile.store, "r", PictureBudget(bytes=3000)))
    assert 0 < few.count("data:image") < 9
    assert "room for pictures is used up" in few
