"""Charts: true to scale, readable at any size of figure, and the same facts for those who do not see them."""

import datetime as dt
from xml.etree import ElementTree

import pytest
from django.template.loader import render_to_string
from hypothesis import given
from hypothesis import strategies as st

from portal.charts import (
    SPARK_HEIGHT,
    SPARK_WIDTH,
    BarChart,
    Layer,
    bar_chart,
    compact,
    sparkline,
    stacked_chart,
)

FIRST = dt.date(2026, 10, 26)
COUNTS = st.integers(min_value=0, max_value=2**63 - 1)


def days(number: int) -> list[dt.date]:
    return [FIRST + dt.timedelta(days=index) for index in range(number)]


def rendered(chart: BarChart) -> str:
    return render_to_string("components/chart.html", {"chart": chart})


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (7_500, "7.5k"),
        (9_949, "9.9k"),
        (10_000, "10k"),
        (132_884, "133k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (1_234_567, "1.2M"),
        (-7_500, "-7.5k"),
        (2**63 - 1, "9.2E"),
    ],
)
def test_counts_are_shortened(number: int, text: str) -> None:
    assert compact(number) == text


@given(COUNTS)
def test_a_short_count_has_at_most_four_figures(number: int) -> None:
    assert len(compact(number)) <= 5


def test_a_bar_is_as_high_as_its_count() -> None:
    chart = bar_chart(days(2), [100, 50], [0, 0])
    whole, half = (bar.accepted_part for bar in chart.bars)
    assert whole
    assert half
    assert whole.height == chart.plot_height
    assert half.height == chart.plot_height / 2


def test_the_refused_part_stands_on_the_accepted_one() -> None:
    bar = bar_chart(days(1), [60], [40]).bars[0]
    assert bar.accepted_part
    assert bar.refused_part
    assert bar.refused_part.y < bar.accepted_part.y
    assert bar.refused_part.y + bar.refused_part.height <= bar.accepted_part.y


def test_a_single_call_among_millions_is_seen() -> None:
    bar = bar_chart(days(2), [1, 5_000_000], [0, 0]).bars[0]
    assert bar.accepted_part
    assert bar.accepted_part.height >= 2


def test_a_count_of_zero_draws_nothing() -> None:
    bar = bar_chart(days(2), [0, 10], [0, 0]).bars[0]
    assert bar.accepted_part is None
    assert bar.refused_part is None


def test_the_axis_is_named_in_round_steps() -> None:
    chart = bar_chart(days(1), [8_700], [100])
    assert [tick.text for tick in chart.y_ticks] == ["0", "2.5k", "5k", "7.5k", "10k"]


def test_a_month_of_days_is_named_every_fifth_day() -> None:
    chart = bar_chart(days(30), [1] * 30, [0] * 30)
    assert [tick.text for tick in chart.x_ticks] == [
        "26 Oct",
        "31 Oct",
        "5 Nov",
        "10 Nov",
        "15 Nov",
        "20 Nov",
    ]


@given(st.lists(st.tuples(COUNTS, COUNTS), max_size=60))
def test_nothing_is_drawn_outside_the_plot(counts: list[tuple[int, int]]) -> None:
    chart = bar_chart(days(len(counts)), [a for a, _ in counts], [r for _, r in counts])
    floor = chart.top + chart.plot_height
    for bar in chart.bars:
        assert 0 <= bar.x <= bar.x + bar.width <= 100.1
        for part in filter(None, (bar.accepted_part, bar.refused_part)):
            assert part.height > 0
            # Two bars that are both too low to see are each drawn 2 px high.
            assert chart.top - 4.1 <= part.y <= part.y + part.height <= floor + 0.1


@given(COUNTS)
def test_the_axis_reaches_the_highest_bar_in_few_steps(highest: int) -> None:
    chart = bar_chart(days(1), [highest], [0])
    assert 2 <= len(chart.y_ticks) <= 5
    assert chart.y_ticks[-1].at == chart.top


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        bar_chart(days(2), [1], [0, 0])


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        bar_chart(days(1), [-1], [0])


def test_days_without_a_call_show_an_empty_state() -> None:
    html = rendered(bar_chart(days(30), [0] * 30, [0] * 30))
    assert "No calls in this period" in html
    assert "<rect" not in html


def test_a_chart_tells_its_figures_without_being_seen() -> None:
    html = rendered(bar_chart([dt.date(2026, 11, 9)], [7_298], [161]))
    assert "Mon 9 Nov: 7,298 accepted, 161 refused" in html
    assert '<td class="number">7,298</td>' in html


def test_a_chart_has_no_inline_style_and_is_well_formed() -> None:
    html = rendered(bar_chart(days(30), [5] * 30, [1] * 30))
    assert "style=" not in html
    figure = html[html.index("<figure") :].replace(" hidden>", ">")
    assert ElementTree.fromstring(figure).tag == "figure"


def test_a_sparkline_begins_left_and_ends_right() -> None:
    points = [point.split(",") for point in sparkline([0, 5, 10]).split()]
    assert [float(x) for x, _ in points] == [2, SPARK_WIDTH / 2, SPARK_WIDTH - 2]
    assert [float(y) for _, y in points] == [SPARK_HEIGHT - 2, SPARK_HEIGHT / 2, 2]


def test_a_silent_key_draws_a_line_on_the_ground() -> None:
    assert {point.split(",")[1] for point in sparkline([0, 0, 0]).split()} == {str(SPARK_HEIGHT - 2.0)}


def test_a_sparkline_of_one_day_is_a_line() -> None:
    assert len(sparkline([3]).split()) == 2


def test_no_values_draw_no_sparkline() -> None:
    assert sparkline([]) == ""


def heights(path: str) -> list[float]:
    """Of a path's rectangles."""
    return [float(each.split("v")[1].split("h")[0]) for each in path.split("M")[1:]]


def test_parts_stand_on_each_other_and_are_true_to_scale() -> None:
    chart = stacked_chart(["Mon", "Tue"], ["M", "T"], [Layer("a", "1", [60, 0]), Layer("b", "2", [40, 50])])
    (_, ground), (_, above) = chart.layers
    assert heights(ground) == [0.6 * chart.plot_height - 1]
    assert heights(above) == [0.4 * chart.plot_height - 1, 0.5 * chart.plot_height - 1]
    assert [column.tip for column in chart.columns] == ["Mon\n40 b\n60 a\n100 in all", "Tue\n50 b"]


def test_the_period_before_is_a_line_on_the_same_scale() -> None:
    chart = stacked_chart(["Mon", "Tue"], ["M", "T"], [Layer("a", "1", [50, 0])], [100, 0, 999])
    assert chart.line == f"250.0,{float(chart.top)} 750.0,{float(chart.top + chart.plot_height)}"
    assert chart.y_ticks[-1].text == "100"
    assert chart.columns[1].tip == "Tue\n0\n0 in the period before"


def test_figures_are_written_in_the_meters_unit() -> None:
    chart = stacked_chart(
        ["Mon"], ["M"], [Layer("a", "1", [1500])], text=lambda figure: f"{figure / 1000:.3f}"
    )
    assert [tick.text for tick in chart.y_ticks] == ["0", "0.5", "1", "1.5"]
    assert chart.summary == "Mon to Mon: 1.500"


@given(st.lists(st.tuples(COUNTS, COUNTS, COUNTS), max_size=30))
def test_a_stacked_bar_never_leaves_its_plot(values: list[tuple[int, int, int]]) -> None:
    names = [str(number) for number in range(len(values))]
    layers = [Layer(str(n), str(n), [each[n] for each in values]) for n in range(2)]
    chart = stacked_chart(names, names, layers, [each[2] for each in values])
    html = render_to_string("components/stacked_chart.html", {"chart": chart, "label": "Calls"})
    assert "inf" not in html
    assert "nan" not in html
    for _, path in chart.layers:
        for part in path.split("M")[1:]:
            y = float(part.split(" ")[1].split("h")[0])
            assert chart.top - 1 <= y <= chart.top + chart.plot_height
