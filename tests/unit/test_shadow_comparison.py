"""What would have paged beside what did: counted per rule and per shift, and shown."""

from __future__ import annotations

import json
import xml.dom.minidom
from datetime import UTC, datetime
from pathlib import Path

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats.batch import labels_json
from aiops_assets.formats.prometheus_range import host_of
from aiops_assets.shadow.comparison import Comparison, compare, parse_shifts
from aiops_assets.shadow.conversion import Conversion, convert
from aiops_assets.shadow.episodes import EPISODES_SCHEMA, AlertsUnreadable, episodes
from aiops_assets.shadow.judging import PAGES_SCHEMA
from aiops_assets.shadow.report import Imported, markdown, to_dict, write_report
from aiops_assets.shadow.rule_files import AlertRule

START = int(datetime(2026, 3, 28, tzinfo=UTC).timestamp())
END = START + 2 * 86_400
SHIFTS = ((8, 16), (16, 24), (0, 8))


def alert(name: str = "Hot", **labels: str) -> AlertRule:
    return AlertRule(name, "temp > 80", "r.yml", 3, labels=labels)


def labels(host: str, **more: str) -> dict[str, str]:
    return {"instance": f"{host}:9100", **more}


def ours(*rows: tuple[int, int | None, str, str], kind: str = "rule") -> pl.DataFrame:
    """Pages: (minute, last minute, rule, host)."""
    return pl.DataFrame(
        [
            {
                "name": name,
                "kind": kind,
                "host": host,
                "metric": "temp",
                "labels": labels_json(labels(host)),
                "title": f"{host} is hot",
                "starts_at": micros(first),
                "paged_at": micros(first),
                "ends_at": None if last is None else micros(last),
            }
            for first, last, name, host in rows
        ],
        schema=PAGES_SCHEMA,
    )


def theirs(*rows: tuple[int, int | None, str, dict[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (name, labels_json(own), micros(first), None if last is None else micros(last))
            for first, last, name, own in rows
        ],
        schema=EPISODES_SCHEMA,
        orient="row",
    )


def micros(minute: int) -> int:
    return (START + 60 * minute) * 1_000_000


def compared(conversion: Conversion, pages: pl.DataFrame, found: pl.DataFrame, zone: str = "UTC") -> Comparison:
    return compare(
        conversion, pages, found, start=START, end=END, shifts=SHIFTS, zone=zone, watched={"hot": 2},
        host_of=lambda own: host_of(own) if "instance" in own else None,
    )  # fmt: skip


def test_episodes_are_both_or_of_one_side_only_and_lead_is_ours_before_theirs() -> None:
    conversion = convert([alert(severity="warning")])
    result = compared(
        conversion,
        ours((60, 90, "hot", "a"), (300, 320, "hot", "a"), (600, None, "hot", "b")),
        theirs(
            (62, 95, "Hot", labels("a", severity="warning")),
            (400, 410, "Hot", labels("a", severity="warning")),
            (598, None, "Hot", labels("b", severity="warning")),
        ),
    )
    (entry,) = result.rules
    assert (entry.both, entry.both_of_ours, entry.warm_up) == (2, 2, 0)
    assert [episode.start for episode in entry.only_ours] == [micros(300)]
    assert [episode.start for episode in entry.only_theirs] == [micros(400)]
    assert entry.leads == [120.0, -120.0]
    assert entry.lead_seconds == 0.0


def test_another_host_at_the_same_time_is_not_the_same_event() -> None:
    result = compared(convert([alert()]), ours((60, 90, "hot", "a")), theirs((60, 90, "Hot", labels("b"))))
    assert (result.rules[0].both, len(result.rules[0].only_ours), len(result.rules[0].only_theirs)) == (0, 1, 1)


def test_alerts_belong_to_the_rule_with_most_labels_in_common() -> None:
    conversion = convert([alert(), alert(severity="critical"), alert("Sum", team="x")])
    assert [entry.rule.name for entry in conversion.converted] == ["hot", "hot-critical", "sum"]
    result = compared(
        conversion,
        ours(),
        theirs(
            (10, 20, "Hot", labels("a")),
            (30, 40, "Hot", labels("a", severity="critical")),
            (50, 60, "Sum", {"team": "y"}),
            (70, 80, "Unknown", {}),
        ),
    )
    assert [len(entry.theirs) for entry in result.rules] == [1, 1, 0]
    assert {name: len(found) for name, found in result.without_twin.items()} == {"Sum": 1, "Unknown": 1}


def test_alerts_of_a_rule_that_was_not_converted_are_not_taken_for_a_namesakes() -> None:
    other = AlertRule("Hot", "sum(temp) > 3", "r.yml", 9, labels={"scope": "all"})
    result = compared(convert([alert(), other]), ours(), theirs((10, 20, "Hot", {"scope": "all"})))
    assert len(result.rules[0].theirs) == 0
    assert list(result.without_twin) == ["Hot"]


def test_templates_in_labels_do_not_hide_the_series() -> None:
    conversion = convert([alert(where="{{ $labels.instance }}", severity="warning")])
    own = labels("a", where="a:9100", severity="warning")
    result = compared(conversion, ours((60, 90, "hot", "a")), theirs((60, 90, "Hot", own)))
    assert result.rules[0].both == 1


def test_what_ended_before_ours_could_know_is_counted_apart_and_what_began_before_has_no_lead() -> None:
    rule = AlertRule("Hot", "temp > 80", "r.yml", 3, hold=1800.0)
    result = compared(
        convert([rule]),
        ours((30, 50, "hot", "b")),
        theirs((0, 10, "Hot", labels("a")), (0, 50, "Hot", labels("b"))),
    )
    (entry,) = result.rules
    assert (entry.both, entry.warm_up, entry.only_theirs, entry.leads) == (1, 1, [], [])


def test_an_absence_is_compared_by_its_rule() -> None:
    rule = AlertRule("Gone", "absent(up)", "r.yml", 3)
    conversion = convert([rule], hosts_of=lambda metric, patterns: {"a"})
    result = compared(
        conversion, ours((60, 90, "gone", "a"), kind="absence"), theirs((58, 90, "Gone", {"job": "node"}))
    )
    assert (result.rules[0].both, result.rules[0].lead_seconds) == (1, -120.0)


def test_pages_belong_to_the_shift_of_their_beginning_in_local_time() -> None:
    # Summer time begins in Berlin on 29 March 2026: 23:30 UTC on the 28th is 00:30, 21:30 UTC on the 29th is 23:30.
    result = compared(
        convert([alert()]),
        ours((23 * 60 + 30, None, "hot", "a"), (45 * 60 + 30, None, "hot", "a")),
        theirs((7 * 60 + 1, None, "Hot", labels("a"))),
        "Europe/Berlin",
    )
    assert {(day, shift): (a, b) for day, shift, a, b in result.by_day if a or b} == {
        ("2026-03-28", "08–16"): (1, 0),
        ("2026-03-29", "00–08"): (0, 1),
        ("2026-03-29", "16–24"): (0, 1),
    }
    assert [(load.shift, load.theirs, load.ours) for load in result.shifts] == [
        ("08–16", 1, 0), ("16–24", 0, 1), ("00–08", 0, 1),
    ]  # fmt: skip


def test_a_shift_over_midnight_belongs_to_the_day_it_begins() -> None:
    result = compare(
        convert([alert()]), ours((2 * 60, None, "hot", "a"), (23 * 60, None, "hot", "b")), theirs(), start=START,
        end=END, shifts=parse_shifts("06-22"), zone="UTC", watched={}, host_of=lambda own: None,
    )  # fmt: skip
    assert {(day, shift): b for day, shift, _, b in result.by_day if b} == {
        ("2026-03-27", "22–06"): 1,
        ("2026-03-28", "22–06"): 1,
    }


@pytest.mark.parametrize(
    ("text", "shifts"),
    [
        ("08-16,16-24,00-08", [(8, 16), (16, 24), (0, 8)]),
        ("08-16-24", [(8, 16), (16, 24), (0, 8)]),
        ("06-22", [(6, 22), (22, 6)]),
        ("7-19", [(7, 19), (19, 7)]),
        ("00-24", [(0, 24)]),
        ("8", [(8, 8)]),
        ("00-12-24", [(0, 12), (12, 24)]),
    ],
)
def test_shifts_are_read_in_both_forms(text: str, shifts: list[tuple[int, int]]) -> None:
    assert sorted(parse_shifts(text)) == sorted(shifts)


@pytest.mark.parametrize(
    "text", ["", "08-16,16-24", "08-16,15-24,00-08", "a-b", "08-25", "08:00-16:00", "08-16,16-24,00-08,"]
)
def test_shifts_that_do_not_cover_a_day_once_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected hours that cover a day once"):
        parse_shifts(text)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40)), max_size=60), st.integers(1, 39))
@settings(deadline=None)
def test_episodes_follow_from_the_samples_however_answers_are_cut(samples: list[tuple[str, int]], cut: int) -> None:
    step, end = 60, START + 60 * 41
    minutes = {host: sorted({minute for name, minute in samples if name == host}) for host in "ab"}

    def document(part: range) -> bytes:
        result = [
            {"metric": {"__name__": "ALERTS", "alertname": "Hot", "alertstate": "firing", "instance": host},
             "values": [[START + 60 * m, "1"] for m in own if m in part]}
            for host, own in minutes.items()
        ]  # fmt: skip
        result = [entry for entry in result if entry["values"]]
        return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()

    found = episodes([document(range(cut)), document(range(cut, 41))], step, end)
    expected = []
    for host, own in minutes.items():
        runs: list[list[int]] = []
        for minute in own:
            if runs and minute == runs[-1][-1] + 1:
                runs[-1].append(minute)
            else:
                runs.append([minute])
        expected += [
            ("Hot", labels_json({"instance": host}), micros(run[0]), micros(run[-1] + 1) if run[-1] < 40 else None)
            for run in runs
        ]
    assert sorted(found.rows(), key=str) == sorted(expected, key=str)


def test_answers_about_alerts_that_are_none_are_named() -> None:
    with pytest.raises(AlertsUnreadable, match="not JSON"):
        episodes([b"<html>"], 60, END)
    assert episodes([b'{"status":"success","data":{"resultType":"matrix","result":[]}}'], 60, END).is_empty()


def example() -> tuple[Imported, Conversion, Comparison]:
    conversion = convert([alert(severity="warning"), AlertRule("Bad|<b>", "sum(x) > `1`", "r|.yml", 7)])
    comparison = compared(
        conversion,
        pl.concat(
            [ours((60, 90, "hot", "a"), (700, 720, "hot", "<i>|")), ours((61, 70, "spike", "a"), kind="anomaly")]
        ),
        theirs((62, 95, "Hot", labels("a", severity="warning")), (80, 90, "Other", {})),
    )
    imported = Imported("http://prom:9090", "abc", "prometheus", START, END, 60, 5, 12_345, 3, partial=1)
    return imported, conversion, comparison


def test_the_report_says_what_was_found_and_stays_whole_whatever_names_hold(tmp_path: Path) -> None:
    paths = write_report(tmp_path / "out" / "shadow.md", *example()[:2], 4, example()[2])
    assert [path.name for path in paths] == ["shadow.md", "shadow-pages.svg", "shadow-episodes.svg"]
    text = paths[0].read_text()
    assert "**1 of 2 alert rules were converted** (recording rules beside them: 4)" in text
    assert "They paged 1 times in Prometheus; ours would have paged 2 times" in text
    assert "Median lead: 0:02:00 earlier" in text
    assert "3 not stored" in text
    assert "1 answers were called incomplete" in text
    assert "<i>" not in text.replace("\\<i\\>", "")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 6
    for rows in tables:
        assert len({row.replace("\\|", "").count("|") for row in rows}) == 1
    for path in paths[1:]:
        xml.dom.minidom.parseString(path.read_text())  # noqa: S318 - our own
        assert f"({path.name})" in text
    assert "rules:\n- name: hot\n" in text


def test_the_json_holds_every_number_of_the_report() -> None:
    imported, conversion, comparison = example()
    values = orjson.loads(orjson.dumps(to_dict(imported, conversion, 4, comparison)))
    (rule,) = values["comparison"]["rules"]
    assert (rule["theirs"], rule["ours"], rule["both"], rule["only_ours"]) == (1, 2, 1, 1)
    assert rule["median_lead_seconds"] == 120.0
    assert rule["differences"]["only_ours"][0]["paged_at"] == "2026-03-28T11:40:00+00:00"
    assert values["comparison"]["without_twin"] == {"Other": 1}
    assert values["comparison"]["statistics"] == {
        "findings": 1, "beside_an_alert": 1, "alerts_with_host": 1, "alerts_also_found": 1,
    }  # fmt: skip
    assert values["rules"]["not_converted"][0]["place"] == "r|.yml:7"
    assert values["import"]["from"] == "2026-03-28T00:00:00+00:00"


def test_a_comparison_without_any_page_still_makes_a_report() -> None:
    conversion = convert([])
    comparison = compared(conversion, ours(), theirs())
    imported = Imported("http://prom:9090", "abc", "prometheus", START, END, 60, 0, 0, 0)
    assert "0 of 0 alert rules" in markdown(imported, conversion, 0, comparison, ["a.svg", "b.svg"])
