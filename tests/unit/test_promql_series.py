"""How our series become Prometheus series: names, labels, collisions, selection."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.formats.batch import labels_json
from aiops_assets.telemetry.promql.index import SeriesIndex, build
from aiops_assets.telemetry.promql.names import is_classic, is_label, label_name, label_names, metric_name
from aiops_assets.telemetry.promql.plan import selector
from aiops_assets.telemetry.series import series_ids

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def index(*series: tuple[str, str, dict[str, str]], unit: str = "", source: str = "s") -> SeriesIndex:
    rows = pl.DataFrame(
        [(host, metric, unit or None, labels_json(labels), "gauge", source, EPOCH) for host, metric, labels in series],
        schema={
            "host": pl.String,
            "metric": pl.String,
            "unit": pl.String,
            "labels": pl.String,
            "kind": pl.String,
            "source": pl.String,
            "first_seen": pl.Datetime("us", "UTC"),
        },
        orient="row",
    )
    return build(rows.with_columns(pl.Series("series_id", series_ids(rows.with_columns(pl.col("unit").fill_null(""))))))


def chosen(found: SeriesIndex, text: str) -> list[dict[str, str]]:
    return [found.labels(position) for position in found.select(selector(text)).tolist()]


def test_names_lose_what_prometheus_cannot_have() -> None:
    assert metric_name("system.cpu.utilization") == "system_cpu_utilization"
    assert metric_name("a:b_c") == "a:b_c"
    assert metric_name("5xx.rate") == "_5xx_rate"
    assert metric_name("température") == "temp_rature"
    assert label_name("network.interface.name") == "network_interface_name"
    assert label_name("a:b") == "a_b"
    assert label_name("host") == "exported_host"
    assert label_name("__name__") == "exported___name__"


def test_host_unit_and_source_are_labels() -> None:
    found = index(("web-1", "system.cpu.utilization", {"cpu": "0"}), unit="1")
    assert found.labels(0) == {
        "__name__": "system_cpu_utilization",
        "cpu": "0",
        "host": "web-1",
        "source": "s",
        "unit": "1",
    }


def test_a_metric_label_named_like_a_column_is_kept_apart() -> None:
    found = index(("web-1", "m", {"host": "inner", "unit": "x", "series_id": "y", "metric": "z"}))
    assert found.labels(0) == {
        "__name__": "m",
        "exported_host": "inner",
        "exported_metric": "z",
        "exported_series_id": "y",
        "exported_unit": "x",
        "host": "web-1",
        "source": "s",
    }


def test_metrics_whose_names_become_equal_are_both_there_and_told_apart() -> None:
    found = index(("h", "a.b", {}), ("h", "a_b", {}), ("h", "c.d", {}))
    assert sorted(entry["metric"] for entry in chosen(found, "a_b")) == ["a.b", "a_b"]
    assert "metric" not in chosen(found, "c_d")[0]
    assert [entry["metric"] for entry in chosen(found, '{"a.b"}')] == ["a.b"]
    assert [entry["metric"] for entry in chosen(found, '{metric="a_b"}')] == ["a_b"]


def test_labels_whose_names_become_equal_are_both_there() -> None:
    assert label_names({"a.b": "1", "a_b": "2", "a-b": "3"}) == {"a_b": "2", "a_b_2": "3", "a_b_3": "1"}


def test_series_that_would_become_equal_get_their_identifier() -> None:
    found = index(("h", "m", {"a.b": "1"}), ("h", "m", {"a_b": "1"}), ("h", "m", {"a_b": "2"}))
    equal = chosen(found, '{a_b="1"}')
    assert len({entry["series_id"] for entry in equal}) == 2
    assert "series_id" not in chosen(found, '{a_b="2"}')[0]


def test_a_missing_label_is_the_empty_text() -> None:
    found = index(("a", "m", {"x": "1"}), ("b", "m", {}))
    assert [entry["host"] for entry in chosen(found, 'm{x=""}')] == ["b"]
    assert [entry["host"] for entry in chosen(found, 'm{x!=""}')] == ["a"]
    assert [entry["host"] for entry in chosen(found, 'm{x!="1"}')] == ["b"]
    assert len(chosen(found, 'm{x=~".*"}')) == 2
    assert [entry["host"] for entry in chosen(found, 'm{x!~".+"}')] == ["b"]
    assert len(chosen(found, 'm{never=~"|a"}')) == 2


def test_label_names_and_values_are_those_of_the_series() -> None:
    found = index(("a", "m", {"x": "1"}), ("b", "n", {"y": "2"}))
    everything = found.select(())
    assert found.label_names(everything) == ["__name__", "host", "source", "x", "y"]
    assert found.label_values("__name__", everything) == ["m", "n"]
    assert found.label_values("x", found.select(selector("n"))) == []
    assert found.label_values("nothing", everything) == []


def test_an_empty_lake_has_no_series() -> None:
    found = index()
    assert len(found) == 0
    assert chosen(found, "m") == []
    assert found.label_names(found.select(())) == []


names = st.text(alphabet="ab._-:1é", min_size=1, max_size=4)


@given(
    st.lists(st.tuples(st.sampled_from(["h", "i"]), names, st.dictionaries(names, st.sampled_from("xy"))), max_size=12)
)
def test_no_two_series_ever_have_the_same_labels(series: list[tuple[str, str, dict[str, str]]]) -> None:
    found = index(*series)
    labels = [tuple(sorted(found.labels(position).items())) for position in range(len(found))]
    assert len(set(labels)) == len(labels) == len({(host, metric, labels_json(rest)) for host, metric, rest in series})
    for entry in labels:
        assert all(is_label(name) for name, _ in entry)
        assert is_classic(dict(entry)["__name__"])
