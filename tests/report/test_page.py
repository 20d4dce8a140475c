"""The report in a real browser: it draws, can be used, and shows what the run folder holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from prediction.population import CLASSES
from report.classes import COLORS, looks
from report.preview import SHOWN
from report.report import REPORT, write_report
from results.summary import SUMMARY
from results.table import read_table, read_texts
from scan.channels import Channel, Channels
from tests.report.runs import PIXEL_UM, FakeRun, complete_run, troubled_run

LOOKS: dict[str, tuple[str, dict[str, Any]]] = {  # run, settings of the browser
    "light": ("troubled", {"color_scheme": "light"}),
    "dark": ("calm", {"color_scheme": "dark"}),
    "phone": ("troubled", {"viewport": {"width": 390, "height": 800}, "has_touch": True}),
    "printed": ("calm", {"color_scheme": "dark"}),
}
PLOT = """name => {
    const drawn = figure => figure.renderers.some(each => each.data_source.name === name);
    return Bokeh.documents.flatMap(doc => doc.roots()).find(drawn);
}"""
RANGES = f"""() => {{
    const {{x_range, y_range}} = ({PLOT})("pictures");
    return [x_range.start, x_range.end, y_range.start, y_range.end];
}}"""
SOURCE = "name => ({...modelsNamed(name).find(model => model.data).data})"
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
HARM = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
TRIES = 50  # of two frames each


@dataclass
class Opened:
    """A report in the browser, and what the browser said meanwhile."""

    page: Page
    said: list[str] = field(default_factory=list)

    def open(self, folder: Path) -> Opened:
        """Open the report from disk and wait until it is drawn."""
        page = self.page
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self._hear_of(request.url))
        page.goto((folder / REPORT).as_uri())
        page.wait_for_selector("html[data-drawn=yes]", state="attached")
        return self

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.said.append(f"{kind}: {text}")

    def _hear_of(self, url: str) -> None:
        if url.split(":")[0] not in ("file", "data", "blob"):
            self.said.append(f"asked for {url}")

    def picture(self, of: str = "mosaic") -> np.ndarray:
        """What an element looks like, in RGB."""
        shot = self.page.locator(f"#{of}").screenshot(animations="disabled")
        return cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR_RGB).astype(int)

    def until(self, seen: Callable[[np.ndarray], Any], of: str = "mosaic") -> np.ndarray:
        """The picture of an element once it is as it should be."""
        for _ in range(TRIES):
            self.page.evaluate(DRAWN)
            picture = self.picture(of)
            if seen(picture):
                return picture
        raise AssertionError(f"{of} never looked as expected")

    def at(self, x_um: float, y_um: float) -> tuple[int, int]:
        """Row and column of the mosaic's picture that show a place."""
        left, right, bottom, top = self.page.evaluate(RANGES)
        box = self.page.locator("#mosaic").bounding_box()
        assert box
        column = (x_um - left) / (right - left) * box["width"]
        return round((y_um - top) / (bottom - top) * box["height"]), round(column)


def shown(picture: np.ndarray) -> bool:
    """Whether the mosaic has its bright squares and their yellow outlines, which come apart."""
    grey = picture.min(axis=2) > 150
    yellow = (picture[..., :2].min(axis=2) > 150) & (picture[..., 2] < 90)
    return bool(grey.mean() > 0.01 and yellow.mean() > 0.001)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FakeRun]:
    """A run without faults, and one with each of them, with their reports."""
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "calm": complete_run(folder / "calm"),
        "troubled": troubled_run(folder / "troubled", reason=HARM),
        "classified": complete_run(folder / "classified", "tests.report.runs:in_turn"),
    }
    for run in made.values():
        write_report(run.folder)
    return made


@pytest.fixture
def opening(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Opens reports, each in a window of its own."""
    contexts = []

    def open_in_window(run: FakeRun, **look: Any) -> Opened:
        contexts.append(browser.new_context(**{"viewport": {"width": 1000, "height": 1300}} | look))
        return Opened(contexts[-1].new_page()).open(run.folder)

    yield open_in_window
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def troubled(browser: Browser, runs: dict[str, FakeRun]) -> Iterator[Opened]:
    """The report of the troubled run, for tests that only read it."""
    context = browser.new_context(viewport={"width": 1000, "height": 1300})
    yield Opened(context.new_page()).open(runs["troubled"].folder)
    context.close()


@pytest.fixture
def mosaic(opening: Callable[..., Opened], runs: dict[str, FakeRun]) -> Opened:
    """The report of a run without faults, with its mosaic on the screen."""
    opened = opening(runs["calm"])
    opened.page.locator("#mosaic").scroll_into_view_if_needed()
    opened.until(shown)
    return opened


# -------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("name", LOOKS)
def test_it_draws_everywhere(
    opening: Callable[..., Opened], runs: dict[str, FakeRun], name: str
) -> None:
    """By day, at night, on a phone and on paper every chart is drawn within the width of the page;
    the browser has nothing to complain of and asks for nothing beyond the file."""
    run, look = LOOKS[name]
    opened = opening(runs[run], **look)
    page = opened.page
    if name == "printed":
        page.emulate_media(media="print")

    size = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert size[0] <= size[1]
    charts = page.locator(".chart, .mosaic")
    for box in [chart.bounding_box() for chart in charts.all()]:
        assert box
        assert box["width"] > 200 or name != "phone"
        assert box["height"] > 80
    opened.until(shown)
    ground = opened.picture("timeline").mean()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground < 80) == (name == "dark")
    assert (paper == "rgb(255, 255, 255)") == (name != "dark")
    assert page.locator(".layers").is_visible() == (name != "printed")
    assert opened.said == []


def test_hostile_text_does_nothing(troubled: Opened) -> None:
    """A reason that is markup stays text, also when it is shown under the pointer."""
    page = troubled.page
    assert HARM in page.locator("#verdict").inner_text()
    page.locator("#timeline").scroll_into_view_if_needed()
    box = page.locator("#timeline").bounding_box()
    x, y = page.evaluate(f"""() => {{
        const {{frame}} = Bokeh.index.find_one(({PLOT})("faults"));
        const {{left, lane}} = ({SOURCE})("faults");
        return [frame.x_scale.compute(left.at(-1)), frame.y_scale.compute(lane.at(-1))];
    }}""")
    assert box
    page.mouse.move(box["x"] + x, box["y"] + y)

    expect(page.locator(".bk-Tooltip, bk-tooltip")).to_contain_text(
        f"lost stripe 1 field 2: {HARM}"
    )
    assert troubled.said == []


# -------------------------------------------------------------------------------------- numbers


def test_numbers_are_those_of_the_summary(troubled: Opened, runs: dict[str, FakeRun]) -> None:
    """Each number on the page is that of `summary.json`, to the digits shown."""
    summary = json.loads((runs["troubled"].folder / SUMMARY).read_text())
    page = troubled.page
    written = page.eval_on_selector_all(
        "[data-key]", "all => all.map(e => [e.dataset.key, e.innerText])"
    )

    assert len(dict(written)) == len(written) >= 15
    for key, text in written:
        value: Any = summary
        for part in key.split("."):
            value = value[part]
        decimals = len(text.partition(".")[2])
        assert float(text.replace(",", "")) == pytest.approx(value, abs=0.5001 * 10**-decimals), key


def test_lanes_are_cameras_and_cpu_slots(troubled: Opened) -> None:
    """The timeline has a lane per camera and per CPU slot; all bars lie in lanes and in view."""
    page = troubled.page
    lanes = page.evaluate(f"({PLOT})('timeline').y_range.factors")
    start, end = page.evaluate(
        f"(({{x_range}}) => [x_range.start, x_range.end])(({PLOT})('timeline'))"
    )
    bars, faults = (page.evaluate(SOURCE, name) for name in ("timeline", "faults"))

    assert [lane for lane in lanes if lane] == ["CPU slot 1", "CPU slot 0", "camera 1", "camera 0"]
    assert set(bars["lane"]) == set(filter(None, lanes))
    assert set(faults["lane"]) <= set(lanes)
    assert start <= 0 <= min(bars["left"])
    assert max(bars["right"]) <= end
    assert {"autofocus", "capture", "hold", "stack", "detect"} == set(bars["kind"])
    assert len(faults["text"]) == 3


# --------------------------------------------------------------------------------------- mosaic


def squares(run: FakeRun) -> list[tuple[np.ndarray, np.ndarray]]:
    """First and last row and column of every bright square, in pixels of the mosaic."""
    places = [np.argwhere(run.labels == k) for k in np.unique(run.labels)[1:]]
    return [(place.min(axis=0), place.max(axis=0)) for place in places]


def test_pixels_lie_where_their_coordinates_say(mosaic: Opened, runs: dict[str, FakeRun]) -> None:
    """Just inside of its borders each square is bright, just outside of them it is dark: nothing is
    shifted, turned over or stretched."""
    picture = mosaic.picture().max(axis=2)

    assert len(squares(runs["calm"])) == 12
    for first, last in squares(runs["calm"]):
        middle, off = (first + last) / 2, 3 * np.eye(2)
        inside = [middle, *(first + 3 + (middle - first - 3) * way for way in off / 3),
                  *(last - 3 - (last - 3 - middle) * way for way in off / 3)]  # fmt: skip
        outside = [*(np.where(way, first - way, middle) for way in off),
                   *(np.where(way, last + way, middle) for way in off)]  # fmt: skip
        bright = [picture[mosaic.at(x * PIXEL_UM, y * PIXEL_UM)] for y, x in inside]
        dark = [picture[mosaic.at(x * PIXEL_UM, y * PIXEL_UM)] for y, x in outside]
        assert min(bright) > 150
        assert max(dark) < 80


def test_objects_lie_under_the_pointer(mosaic: Opened, runs: dict[str, FakeRun]) -> None:
    """The table's objects are where the mosaic shows them."""
    page, (first, last) = mosaic.page, squares(runs["calm"])[0]
    row, column = mosaic.at(*((first + last)[::-1] / 2 * PIXEL_UM))
    box = page.locator("#mosaic").bounding_box()
    assert box
    page.mouse.move(box["x"] + column, box["y"] + row)

    label = int(runs["calm"].labels[tuple((first + last) // 2)])
    page.wait_for_function(
        f"""label => {{
            const source = ({PLOT})("objects").renderers.find(
                each => each.data_source.name === "objects").data_source;
            const {{indices}} = source.inspected;
            return indices.length === 1 && source.data.label[indices[0]] === label;
        }}""",
        arg=label,
    )


def alike(picture: np.ndarray, other: np.ndarray) -> bool:
    """Whether they look the same, except at their rims, which blend with the page."""
    return picture.shape == other.shape and np.abs(picture - other)[3:-3, 3:-3].max() <= 10


@pytest.mark.parametrize("layer", ["outlines", "fields", "depth"])
def test_a_layer_can_be_shown_and_hidden(mosaic: Opened, layer: str) -> None:
    """A click on its box changes the mosaic, and another gives the same picture as before."""
    box = mosaic.page.locator(f'[data-layers*="layer {layer}"]')
    before, ticked = mosaic.picture(), box.is_checked()

    box.click()
    mosaic.until(lambda picture: not alike(picture, before))
    assert box.is_checked() is not ticked
    box.click()
    mosaic.until(lambda picture: alike(picture, before))
    assert box.is_checked() is ticked


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_classes_are_marked(
    opening: Callable[..., Opened], runs: dict[str, FakeRun], scheme: str
) -> None:
    """Each object has a mark of the colour that the key under the mosaic names, which also counts
    the classes; marks can be hidden; the count stands there with its interval."""
    run = runs["classified"]
    opened = opening(run, color_scheme=scheme)
    key = opened.page.locator(".classes span")
    assert key.all_inner_texts() == [f"{name}: 3" for name in CLASSES]
    number = opened.page.locator('div:has(> [data-key="prediction.count"])')
    assert number.inner_text().split("\n") == ["1,234", "estimated count; 90 %: 1,200 to 1,300.5"]
    opened.page.locator("#mosaic").scroll_into_view_if_needed()
    opened.until(shown)

    table = read_table(run.folder, ["x_um", "y_um"])
    classes = read_texts(run.folder, "class")
    marked = opened.picture()
    for name, x_um, y_um in zip(classes, table["x_um"], table["y_um"], strict=True):
        row, column = opened.at(x_um, y_um)
        colour = np.array([int(COLORS[CLASSES.index(name)][k : k + 2], 16) for k in (1, 3, 5)])
        near = marked[row - 5 : row + 6, column - 5 : column + 6]
        assert np.abs(near - colour).max(axis=2).min() <= 40

    opened.page.locator('[data-layers="layer classes"]').click()
    opened.until(lambda picture: not alike(picture, marked))
    assert opened.said == []


def test_other_classes_have_looks_of_their_own() -> None:
    """A user's classes get a colour each, and none where there are more than can be told apart."""
    found = looks(["b", "a", "single", "b"])

    assert list(found) == ["single", "a", "b"]
    assert len(set(found.values())) == 3
    assert looks([str(k) for k in range(9)]) == looks([]) == {}


def spans(ranges: list[float]) -> tuple[float, float]:
    """How much of x and of y is in view."""
    return ranges[1] - ranges[0], ranges[2] - ranges[3]


def changed(opened: Opened, before: list[float]) -> list[float]:
    """The ranges once they are others."""
    start = json.dumps(before)
    opened.page.wait_for_function(f"JSON.stringify(({RANGES})()) !== JSON.stringify({start})")
    return opened.page.evaluate(RANGES)


def middle_of(opened: Opened) -> tuple[float, float]:
    """The middle of the mosaic on the screen."""
    box = opened.page.locator("#mosaic").bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_micrometre_is_as_wide_as_it_is_high(troubled: Opened) -> None:
    """All of the mosaic is in view, and pixels are square."""
    box = troubled.page.locator("#mosaic").bounding_box()
    x_um, y_um = spans(troubled.page.evaluate(RANGES))
    assert box
    assert box["width"] / x_um == pytest.approx(box["height"] / y_um, rel=0.01)


def test_the_wheel_zooms(mosaic: Opened) -> None:
    """The wheel over the mosaic shows less of it, in both directions alike."""
    before = mosaic.page.evaluate(RANGES)
    mosaic.page.mouse.move(*middle_of(mosaic))
    mosaic.page.mouse.wheel(0, -300)

    after = changed(mosaic, before)
    x_times, y_times = np.divide(spans(after), spans(before))
    assert x_times < 0.95
    assert x_times == pytest.approx(y_times, rel=1e-6)


def test_dragging_pans(mosaic: Opened) -> None:
    """What is under the pointer goes with it, and nothing becomes larger or smaller."""
    before, (x, y) = mosaic.page.evaluate(RANGES), middle_of(mosaic)
    um_a_pixel = spans(before)[0] / mosaic.page.locator("#mosaic").bounding_box()["width"]
    mouse = mosaic.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 60, y - 40, steps=4)
    mouse.up()
    mosaic.page.wait_for_function(
        f"start => Math.abs(({RANGES})()[0] - start) < {um_a_pixel}",
        arg=before[0] - 60 * um_a_pixel,
    )

    after = mosaic.page.evaluate(RANGES)
    assert spans(after) == pytest.approx(spans(before), rel=1e-6)
    assert after[2] - before[2] == pytest.approx(40 * um_a_pixel, abs=um_a_pixel)


def test_a_box_zooms_without_distortion(mosaic: Opened) -> None:
    """Pixels stay square for a box of any shape, so one scale bar is valid."""
    before, (x, y) = mosaic.page.evaluate(RANGES), middle_of(mosaic)
    mosaic.page.evaluate(
        f"({PLOT})('pictures').toolbar.tools.find(t => t.type === 'BoxZoomTool').active = true"
    )
    mouse = mosaic.page.mouse
    mouse.move(x - 150, y - 20)
    mouse.down()
    mouse.move(x + 150, y + 20, steps=4)
    mouse.up()

    x_times, y_times = np.divide(spans(changed(mosaic, before)), spans(before))
    assert x_times < 0.9
    assert x_times == pytest.approx(y_times, rel=0.02)


def test_scales_tell_micrometres(mosaic: Opened, runs: dict[str, FakeRun]) -> None:
    """There is a scale bar in µm, and the scale of the depth map, shown with it, ends where its
    colours do."""
    page = mosaic.page
    low, high, bar, *legend = page.evaluate(f"""() => {{
        const scale = modelsNamed("depth_um")[0], bars = ({PLOT})("pictures").center;
        const bar = bars.find(each => each.type === "ScaleBar" && each.visible);
        const depth = modelsNamed("depth_scale")[0], before = depth.visible;
        document.querySelector('[data-layers*=depth_scale]').click();
        return [scale.low, scale.high, bar.unit, depth.title, before, depth.visible];
    }}""")

    assert [low, high] == pytest.approx(np.percentile(runs["calm"].depth, SHOWN), abs=1e-3)
    assert bar == "µm"
    assert legend == ["height, µm", False, True]


def test_a_lost_field_is_marked(troubled: Opened, runs: dict[str, FakeRun]) -> None:
    """The core of the lost field, and no other, is hatched in red."""
    troubled.page.locator("#mosaic").scroll_into_view_if_needed()
    picture = troubled.until(shown)
    red = picture[..., 0] > picture[..., 1] + 60

    for place in runs["troubled"].plan.fields:
        top, left = troubled.at(place.columns[0] * PIXEL_UM, place.rows[0] * PIXEL_UM)
        below, right = troubled.at(place.columns[1] * PIXEL_UM, place.rows[1] * PIXEL_UM)
        share = red[top + 5 : below - 5, left + 5 : right - 5].mean()
        assert (share > 0.02) == (place.name == "stripe 1 field 2")
        assert share > 0.02 or share < 0.001
    names = troubled.page.evaluate(SOURCE, "lost")["name"]
    assert names == re.findall(r"stripe \d field \d", troubled.page.locator("h1").inner_text())


# ------------------------------------------------------------------------------------- channels


TWO = Channels((Channel(HARM, "0000FF", 1), Channel("GFP", "00FF00", 1)))


def test_channels_are_switched_and_mixed(opening: Callable[..., Opened], tmp_path: Path) -> None:
    """Ticked channels are shown in their colours, which add up; without any the mosaic is black,
    and all of them together look as at first. A name that is markup stays text."""
    run = complete_run(tmp_path / "run", channels=TWO)
    write_report(run.folder)
    opened = opening(run)
    opened.page.locator("#mosaic").scroll_into_view_if_needed()
    boxes = opened.page.locator("[data-channel]")

    def looks(upper: str, lower: str) -> Callable[[np.ndarray], bool]:
        """Whether squares of both stripes have these colours; the second channel lacks the upper
        ones."""
        colours = {"blue": (0, 0, 1), "green": (0, 1, 0), "cyan": (0, 1, 1), "black": (0, 0, 0)}
        wanted = {0: colours[upper], 1: colours[lower]}

        def seen(picture: np.ndarray) -> bool:
            for stripe, colour in wanted.items():
                field = run.plan.stripes[stripe][1]
                middle = field.columns[0] + 27, field.rows[0] + 30
                row, column = opened.at(*(PIXEL_UM * pixel for pixel in middle))
                found = picture[row - 2 : row + 3, column - 2 : column + 3].mean(axis=(0, 1))
                if not ((found > 130) == np.array(colour, bool)).all():
                    return False
            return True

        return seen

    opened.until(looks("blue", "cyan"))
    boxes.nth(0).uncheck()
    opened.until(looks("black", "green"))
    boxes.nth(1).uncheck()
    opened.until(looks("black", "black"))
    boxes.nth(0).check()
    opened.until(looks("blue", "blue"))
    boxes.nth(1).check()
    opened.until(looks("blue", "cyan"))
    assert HARM in opened.page.locator("#mosaic").locator("xpath=..").inner_text()
    assert opened.said == []


def test_one_channel_has_nothing_to_switch(mosaic: Opened) -> None:
    """A run of one channel has no boxes for channels."""
    assert mosaic.page.locator("[data-channel]").count() == 0
