"""The configuration of golden incidents: what ships, what a short file means, and how mistakes are told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from aiops_assets.config import ConfigError
from aiops_assets.synthetic.golden.config import (
    GoldenConfig,
    default_config,
    digest,
    load_golden_config,
    parse_golden_config,
)
from aiops_assets.synthetic.golden.generate import generate

SMALL = """
company: Harbour Works
start: 2026-03-01
end: 2026-05-01
domains: [Port, Office]
categories:
  - name: Crane
    weight: 3
    subcategories: [Hoist, {name: Remote control, weight: 2}]
    priorities: {1: 1, 3: 3}
  - name: E-mail
    topic: Email and Calendar
    subcategories: [Mailbox full, Calendar]
groups:
  - {name: Help Desk, specialties: ["*"], level: 1, members: 4}
  - {name: Crane Crew, specialties: [Crane], members: 3}
services:
  - {name: Container Cranes, domain: Port, categories: [Crane], items: ["crane-0#"]}
  - {name: Office Mail, domain: Office, categories: [E-mail]}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_golden_config(text, "golden.yaml")
    return caught.value.problems


def test_the_shipped_company_is_rich() -> None:
    config = default_config()
    assert len(config.domains) >= 10
    assert len(config.categories) >= 12
    assert all(5 <= len(category.subcategories) <= 8 for category in config.categories)
    assert len(config.services) >= 25
    assert len(config.groups) >= 15
    spoken = {language for location in config.locations for language in location.languages}
    assert spoken == {"en", "de"}


def test_twenty_lines_are_a_configuration() -> None:
    config = parse_golden_config(SMALL, "small.yaml")
    assert len(SMALL.strip().splitlines()) <= 20
    assert [category.name for category in config.categories] == ["Crane", "E-mail"]
    assert config.sla == default_config().sla
    made = generate(config, count=200, seed=1)
    assert set(made["category"]) == {"Crane", "E-mail"}
    assert set(made["assignment_group"].drop_nulls()) <= {"Help Desk", "Crane Crew"}
    assert set(made.filter(made["category"] == "Crane")["priority"]) <= {1, 3}


def test_categories_alone_get_groups_and_services() -> None:
    config = parse_golden_config("categories:\n  - {name: Lifts, subcategories: [Door, Cable]}\n", "x")
    assert [group.name for group in config.groups] == ["Service Desk"]
    assert [service.name for service in config.services] == ["Lifts service"]
    assert generate(config, count=20, seed=3).height == 20


@pytest.mark.parametrize(
    "text",
    [
        "locations:\n  - {name: Reykjavik, time_zone: Atlantic/Reykjavik}\n",
        "personas:\n  - {name: Nurse, departments: [Ward 3], technical_level: low}\n",
        "domains: [Clinic]\n",
        "services:\n  - {name: Everything, domain: Finance, categories: ['*']}\n",
        "groups:\n  - {name: All of us, specialties: ['*'], level: 1}\n",
        "rates: {reopened: 0.5}\nseasonality: {trend: 0.4}\nsla: {3: {response: 1h, resolution: 4h}}\n",
        "start: 2024-02-29T00:00:00Z\n",
    ],
)
def test_one_section_alone_is_enough(text: str) -> None:
    config = parse_golden_config(text, "x")
    assert generate(config, count=30, seed=1).height == 30


def test_sections_keep_what_they_do_not_name() -> None:
    config = parse_golden_config("rates: {reopened: 0.5}\nsla: {3: {response: 1h, resolution: 4h}}\n", "x")
    assert config.rates.reopened == 0.5
    assert config.rates.misrouted == default_config().rates.misrouted
    assert config.sla[3].resolution == 4 * 3600
    assert config.sla[1] == default_config().sla[1]


def test_a_start_alone_means_a_year() -> None:
    config = parse_golden_config("start: 2027-04-01T00:00:00Z\n", "x")
    assert config.end == datetime(2028, 4, 1, tzinfo=UTC)
    assert config.seen_at == config.end


def test_mistakes_name_file_line_field_and_what_is_allowed() -> None:
    found = problems("company: X\nlocations:\n  - name: A\n    hours:\n      opens: 9:00\n")
    assert found == ["golden.yaml:5: locations.0.hours.opens: unknown field; allowed: open, close, days"]
    found = problems("company: X\nsla:\n  3: {response: soon, resolution: 1h}\n")
    assert found == ["golden.yaml:3: sla.3.response: a duration such as 30s, 5m, 2h or 1d"]
    found = problems("persona: []\n")
    assert found[0].startswith("golden.yaml:1: persona: unknown field; allowed: company, start")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("groups:\n  - {name: G, specialties: [Foo]}\n", ("'Foo' is unknown", "Network")),
        ("services:\n  - {name: S, domain: Nowhere, categories: ['*']}\n", ("'Nowhere' is unknown", "Finance")),
        ("services:\n  - {name: S, domain: Finance, categories: [ERP]}\n", ("none covers Access and Identity",)),
        ("categories:\n  - {name: A, subcategories: [x, x]}\n", ("'A' has a subcategory twice",)),
        ("categories:\n  - {name: A, subcategories: []}\n", ("categories.0.subcategories",)),
        ("categories:\n  - {name: A, weight: 0, subcategories: [x]}\n", ("at least one weight must be above 0",)),
        ("end: 2024-01-01T00:00:00Z\n", ("end: must be later than 'start'",)),
        ("as_of: 2025-06-01T00:00:00Z\n", ("as_of: must not be before 'end'",)),
        ("matrix: [[1, 1, 2], [2, 3, 4]]\n", ("matrix",)),
        ("locations:\n  - {name: A, time_zone: Mars/Base}\n", ("a time zone such as UTC",)),
        ("locations:\n  - {name: A, hours: {open: '18:00', close: '08:00'}}\n", ("'close' must be later",)),
        ("resolution: {3: [8h, 1h]}\n", ("'low' must not be above 'high'",)),
        ("rates: {reopened: 1.5}\n", ("rates.reopened",)),
        ("- a\n", ("expected a mapping",)),
        ("company: [\n", ("not valid YAML or JSON",)),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, named: tuple[str, ...]) -> None:
    told = "\n".join(problems(text))
    assert told.startswith("golden.yaml:")
    for part in named:
        assert part in told


def test_what_does_not_fit_elsewhere_is_told_with_its_line() -> None:
    found = problems("company: X\ngroups:\n  - name: G\n    specialties: ['*']\n  - name: H\n    specialties: [Foo]\n")
    assert found[0].startswith("golden.yaml:6: groups.1.specialties: 'Foo' is unknown; allowed: *, Access and Identity")


def test_times_of_day_may_stand_without_quotes() -> None:
    config = parse_golden_config("locations:\n  - {name: A, hours: {open: 8:30, close: 18:00}}\n", "x")
    assert (config.locations[0].hours.open, config.locations[0].hours.close) == (510, 1080)


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    as_yaml, as_json = tmp_path / "a.yaml", tmp_path / "a.json"
    as_yaml.write_text(SMALL, "utf-8")
    values = yaml.safe_load(SMALL)
    values["start"], values["end"] = "2026-03-01T00:00:00Z", "2026-05-01T00:00:00Z"
    as_json.write_text(json.dumps(values), "utf-8")
    assert digest(load_golden_config(as_yaml)) == digest(load_golden_config(as_json))


def test_the_digest_is_of_the_content() -> None:
    config = default_config()
    assert digest(config) == digest(GoldenConfig.model_validate(config.model_dump(by_alias=True)))
    assert digest(config) != digest(config.model_copy(update={"callers": config.callers + 1}))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read"):
        load_golden_config(tmp_path / "missing.yaml")
