"""Values to HTML: the one place where text meets markup.

Every text is escaped, its control characters are shown as escapes, and credentials of URIs are hidden. The page asks no network for anything and a
policy in its head allows nothing but what is inside: its style, its own script by hash, pictures as data.
"""

import base64
import hashlib
import itertools
import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from engine.ground.progress import format_duration, printable
from engine.report.figures import shown
from engine.report.page.charts import themed
from engine.report.page.page import Page
from engine.settings.credentials import hide_credentials

UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
NOTHING = "-"


def render_page(page: Page, refresh: int | None = None) -> str:
    """The page of a run as one HTML file. `refresh`: seconds after which a browser reads it again, of one that is rewritten."""
    return render("page.html", f"Run {page.run}", page=page, refresh=refresh)


def render(template: str, title: str, **values: Any) -> str:
    """A template with its values, in the frame that all pages share."""
    source = environment().loader
    assert source is not None, "templates are part of the package"
    style, script = (source.get_source(environment(), name)[0] for name in ("style.css", "script.js"))
    frame = {"refresh": None, "style": Markup(style), "script": Markup(script), "script_hash": script_hash(script)}
    text = environment().get_template(template).render(title=title, **(frame | values))
    numbers = itertools.count()
    return re.sub(r"<svg .*?</svg>", lambda match: with_own_names(match.group(), next(numbers)), text, flags=re.DOTALL)


def with_own_names(svg: str, number: int) -> str:
    """The drawing with names that no other drawing of the page has: equal figures have equal ones."""
    return re.sub(r'(\bid="|url\(#|xlink:href="#)(?=[mp][0-9a-f])', rf"\g<1>f{number}-", svg)


@cache
def environment() -> Environment:
    """The templates, with autoescape."""
    made = Environment(
        loader=PackageLoader("engine.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    made.filters |= {
        "count": count,
        "percent": percent,
        "points": points,
        "size": size,
        "duration": lambda seconds: NOTHING if seconds is None else format_duration(seconds),
        "short": short,
        "drawing": lambda chart: svg(chart.svg),
        "svg": svg,
        "interval": interval,
        "cell": cell,
    }
    return made


def finalize(value: Any) -> Any:
    """How a value is shown in the page; it is escaped afterwards unless it is markup of our own."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return hide_credentials(printable(value))


def script_hash(script: str) -> str:
    """The name of the page's script in its policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def svg(text: str) -> Markup:
    """A figure of `engine.report.figures`, in which matplotlib escaped every text, in the colours of the page."""
    return Markup(themed(text))


def interval(found: Sequence[float] | None, sign: str = "") -> str:
    """(value, low, high) as fractions: `80.0 [71.1, 86.7]`; a dash for nothing."""
    if found is None:
        return NOTHING
    value, low, high = (100 * one for one in found)
    around = f" [{low:{sign}.2f}, {high:{sign}.2f}]" if math.isfinite(low) else ""
    return f"{value:{sign}.2f}{around}"


def short(text: str, longest: int = 60) -> str:
    """A text as one short line, control characters as escapes, a long one shortened in the middle."""
    return shown(printable(text), longest)


def count(value: float | None) -> str:
    """`1,234`; a dash for nothing."""
    return NOTHING if value is None else f"{value:,.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def points(share: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    return NOTHING if share is None else f"{100 * share:+.1f}"


def size(value: float) -> str:
    """Bytes in a unit that suits them."""
    for unit, name in UNITS:
        if value >= unit:
            return f"{value / unit:.1f} {name}"
    return f"{value:.0f} B"


def cell(value: Any) -> str:
    """A cell of a table behind a figure."""
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else str(value)
