"""The charts of the report: Bokeh figures over named data sources, which a live page updates."""

from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.embed import json_item
from bokeh.models import (
    BasicTicker,
    BoxZoomTool,
    ColorBar,
    ColumnDataSource,
    HoverTool,
    LinearColorMapper,
    PanTool,
    Range1d,
    ResetTool,
    ScaleBar,
    WheelZoomTool,
)
from bokeh.palettes import Colorblind8, Viridis256
from bokeh.plotting import figure
from bokeh.transform import factor_cmap, linear_cmap

from report.columns import Columns, Geometry

KINDS = {  # of bars in the timeline, in colours for colour-blind readers
    "autofocus": Colorblind8[4],
    "capture": Colorblind8[0],
    "hold": Colorblind8[1],
    "stack": Colorblind8[3],
    "match": Colorblind8[2],
    "place": Colorblind8[7],
    "detect": Colorblind8[6],
    "describe": Colorblind8[5],
    "warm up": "#bbbbbb",
}
TOOLS = "pan,wheel_zoom,box_zoom,reset,save"
FLATTEST, TALLEST = 2.6, 1.9  # of the mosaic's frame, width over height: it fits on a screen
EDGES: Any = {"left": "left", "right": "right", "top": "top", "bottom": "bottom"}
WHITE, BLACK = "#eeeeee", "#111111"


class Charts:
    """The figures of one page; their data are in `sources`, by name."""

    def __init__(self, sources: Mapping[str, Columns]) -> None:
        self._sources = sources

    def __getitem__(self, name: str) -> ColumnDataSource:
        """Return a data source for one figure; Bokeh does not share sources between documents."""
        return ColumnDataSource(dict(self._sources[name]), name=name)

    def mosaic(self, geometry: Geometry, depth_um: tuple[float, float]) -> Any:
        """Return the mosaic with its layers, each of which can be shown or hidden."""
        width_um, height_um = geometry.width_um, geometry.height_um
        aspect = min(max(width_um / height_um, TALLEST), FLATTEST)
        half = max(width_um, height_um * aspect) / 2
        middle_x, middle_y = geometry.left_um + width_um / 2, geometry.top_um + height_um / 2
        plot = figure(
            x_range=Range1d(middle_x - half, middle_x + half),
            y_range=Range1d(middle_y + half / aspect, middle_y - half / aspect),
            aspect_ratio=aspect,
            sizing_mode="stretch_width",
            tools=TOOLS,
            active_scroll="wheel_zoom",
            toolbar_inner=True,
            min_border=0,
        )
        _darken(plot)
        plot.axis.visible = plot.grid.visible = False
        plot.toolbar.autohide = True
        plot.select_one(BoxZoomTool).match_aspect = True
        pictures = self["pictures"]
        place: Any = {"x": "x", "y": "y", "w": "w", "h": "h", "anchor": "top_left"}
        for layer, alpha in (("image", 1.0), ("depth", 0.6), ("outlines", 1.0)):
            name = f"layer {layer}"
            plot.image_url(url=layer, source=pictures, name=name, alpha=alpha, **place)
        self._borders(plot)
        plot.scatter(
            x="x_um", y="y_um", source=self["classes"], name="layer classes", marker="marker",
            size=5, color="color",
        )  # fmt: skip
        self._hovered_objects(plot)
        plot.add_layout(
            ScaleBar(
                unit="µm", background_fill_alpha=0.5, background_fill_color=BLACK,
                bar_line_color=WHITE, label_text_color=WHITE, border_line_color=None,
                location="bottom_right",
            )
        )  # fmt: skip
        low, high = _apart(depth_um)
        scale = LinearColorMapper(Viridis256, low=low, high=high, name="depth_um")
        plot.add_layout(_color_bar(scale, name="depth_scale", height=70, location="top_left"))
        return plot

    def _borders(self, plot: Any) -> None:
        fields = plot.quad(
            **EDGES, source=self["fields"], name="layer fields", fill_alpha=0, line_color="#56b4e9",
            line_alpha=0.8,
        )  # fmt: skip
        plot.quad(
            **EDGES, source=self["stripes"], name="layer stripes", fill_alpha=0, line_color=WHITE,
            line_width=2,
        )  # fmt: skip
        plot.quad(
            **EDGES, source=self["lost"], fill_alpha=0, line_color="#ff5555",
            hatch_pattern="/", hatch_color="#ff5555", hatch_alpha=0.5,
        )  # fmt: skip
        tooltips = [("field", "@name"), ("", "@state @reason"), ("objects", "@objects")]
        plot.add_tools(HoverTool(renderers=[fields], tooltips=tooltips, visible=False))

    def _hovered_objects(self, plot: Any) -> None:
        discs = plot.circle(
            x="x_um", y="y_um", radius="radius_um", source=self["objects"],
            fill_alpha=0, line_alpha=0,
        )  # fmt: skip
        tooltips = [
            ("object", "@label{0}"),
            ("x, y, height", "@x_um{0.0}, @y_um{0.0}, @z_um{0.00} µm"),
            ("diameter", "@diameter_um{0.0} µm"),
            ("mean intensity", "@intensity{0}"),
            ("score", "@score{0.00}"),
        ]
        plot.add_tools(HoverTool(renderers=[discs], tooltips=tooltips, visible=False))

    def histogram(self, name: str, x_label: str, y_label: str, scale: str = "linear") -> Any:
        """Return a histogram."""
        plot = _chart(x_label, y_label, 220, x_axis_type=scale)
        plot.quad(
            left="left", right="right", top="count", bottom=0, source=self[name],
            fill_color=Colorblind8[0], line_color="white",
        )  # fmt: skip
        plot.y_range.start = 0
        plot.add_tools(HoverTool(tooltips=[("", "@left{0.[00]} to @right{0.[00]}: @count")]))
        return plot

    def surface(self) -> Any:
        """Return the focus surface from above, with kept and rejected samples."""
        heights = linear_cmap("z_um", Viridis256, *_apart(self._sources["surface"]["z_um"]))
        plot = _chart("x, µm", "y, µm", 260)
        plot.y_range.flipped = True
        plot.quad(**EDGES, source=self["surface"], color=heights)
        self._samples(plot, "y_um")
        plot.add_layout(_color_bar(heights["transform"]), "right")
        _darken(plot)
        return plot

    def registration(self) -> Any:
        """Return where fields lie: arrows from the word of the stage, with their scale; crosses
        without a match."""
        plot = _chart("x, µm", "y, µm", 300, match_aspect=True)
        plot.y_range.flipped = True
        plot.quad(
            **EDGES, source=self["fields"], fill_alpha=0, line_color="#888888", line_alpha=0.5
        )
        arrows = plot.segment(
            x0="x_um", y0="y_um", x1="to_x", y1="to_y", source=self["offsets"], line_width=2,
            line_color=Colorblind8[0],
        )  # fmt: skip
        plot.scatter(x="to_x", y="to_y", source=self["offsets"], size=6, color=Colorblind8[0])
        self._arrow_scale(plot)
        crosses = plot.scatter(
            x="x_um", y="y_um", source=self["by_stage"], marker="x", size=11,
            line_color="#d55e00", line_width=3,
        )  # fmt: skip
        tooltips = [("", "@name"), ("right, down", "@text")]
        plot.add_tools(HoverTool(renderers=[arrows, crosses], tooltips=tooltips))
        return plot

    def _arrow_scale(self, plot: Any) -> None:
        """An arrow of a round length, and what it stands for."""
        scale, color = self["arrow_scale"], Colorblind8[0]
        plot.segment(
            x0="x_um", y0="y_um", x1="to_x", y1="to_y", source=scale, line_width=2, line_color=color
        )
        plot.scatter(x="to_x", y="to_y", source=scale, size=6, color=color)
        plot.text(
            x="to_x", y="to_y", text="text", source=scale, x_offset=8, text_baseline="middle",
            text_font_size="12px", text_color=color,
        )  # fmt: skip

    def profile(self) -> Any:
        """Return the focus surface from the side, one line per stripe, with the samples."""
        plot = _chart("x, µm", "height, µm", 260)
        plot.multi_line(
            xs="x_um", ys="z_um", source=self["profile"], line_color=Colorblind8[0], line_alpha=0.6
        )
        self._samples(plot, "z_um")
        return plot

    def _samples(self, plot: Any, y: str) -> None:
        """Kept samples as dots, rejected ones as crosses."""
        kept = plot.scatter(
            x="x_um", y=y, source=self["kept"], size=8, fill_color="white", line_color="black",
        )  # fmt: skip
        rejected = plot.scatter(
            x="x_um", y=y, source=self["rejected"], marker="x", size=11, line_color="#d55e00",
            line_width=3,
        )  # fmt: skip
        tooltips = [("", "@name"), ("height", "@z_um{0.00} µm"), ("", "@reason")]
        plot.add_tools(HoverTool(renderers=[kept, rejected], tooltips=tooltips))

    def timeline(self, lanes: Sequence[str]) -> Any:
        """Return the timeline: one lane per camera and per CPU slot, with faults as triangles."""
        height = min(60 + 24 * len(lanes), 900)
        plot = _chart("seconds from the start", None, height, y_range=[*reversed(lanes), ""])
        bars = plot.hbar(
            y="lane", left="left", right="right", height=0.8, source=self["timeline"],
            color=factor_cmap("kind", list(KINDS.values()), list(KINDS)),
        )  # fmt: skip
        faults = plot.scatter(
            x="left", y="lane", source=self["faults"], marker="inverted_triangle", size=12,
            fill_color="#d00000", line_color="white",
        )  # fmt: skip
        tooltips = [("", "@text"), ("", "@left{0.000} to @right{0.000} s")]
        plot.add_tools(HoverTool(renderers=[bars, faults], tooltips=tooltips))
        plot.x_range.start = 0
        if not self._sources["timeline"]["left"]:
            plot.x_range.end = 1
        plot.add_tools(PanTool(dimensions="width"), WheelZoomTool(dimensions="width"), ResetTool())
        plot.toolbar_location = "above"
        return plot


def _chart(x_label: str | None, y_label: str | None, height: int, **more: Any) -> Any:
    plot = figure(
        height=height, sizing_mode="stretch_width", tools="", toolbar_location=None, **more
    )
    plot.xaxis.axis_label, plot.yaxis.axis_label = x_label, y_label
    plot.axis.axis_label_text_font_style = "normal"
    return plot


def _apart(values: Sequence[float]) -> tuple[float, float]:
    """The ends of a scale, at least a micrometre apart."""
    middle, half = (min(values) + max(values)) / 2, max(0.5, (max(values) - min(values)) / 2)
    return middle - half, middle + half


def _color_bar(scale: LinearColorMapper, **more: Any) -> ColorBar:
    return ColorBar(
        color_mapper=scale, title="height, µm", width=10, ticker=BasicTicker(),
        background_fill_color=BLACK, background_fill_alpha=0.5, title_text_color=WHITE,
        major_label_text_color=WHITE, title_text_font_style="normal", **more,
    )  # fmt: skip


def _darken(plot: Any) -> None:
    """Make the frame dark in light and dark pages alike, because images are not inverted."""
    plot.background_fill_color = plot.border_fill_color = BLACK
    plot.outline_line_color = plot.grid.grid_line_color = None
    plot.axis.axis_label_text_color = plot.axis.major_label_text_color = WHITE
    plot.axis.axis_line_color = plot.axis.major_tick_line_color = WHITE
    plot.axis.minor_tick_line_color = None


def as_json(plots: Mapping[str, Any]) -> list[Any]:
    """Return the figures as Bokeh's script embeds them, each into the element of its name."""
    return [json_item(plot, name) for name, plot in plots.items()]
