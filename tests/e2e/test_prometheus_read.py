"""The Prometheus API against a real Prometheus: the same samples, the same questions, the same answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from aiops_assets.gateway.app import create_app
from aiops_assets.lake.tables import Lake
from aiops_assets.settings import Settings
from tests import lake_samples, real_prometheus
from tests.gateway_process import served
from tests.lake_samples import Stored
from tests.real_prometheus import Sampled, needs_prometheus
from tests.stack import wait_until

pytestmark = needs_prometheus

START = 1_772_409_600_000
MINUTE = 60_000
LENGTH = 150


def names_of(entry: Stored) -> dict[str, str]:
    """The labels that the documentation promises, worked out here by hand."""
    fixed = {
        "http.server.requests": "http_server_requests",
        "system.cpu.utilization": "system_cpu_utilization",
        "aligned.load": "aligned_load",
        "odd.values": "odd_values",
        "host.info": "host_info",
        "sparse.value": "sparse_value",
        "latency.bucket": "latency_bucket",
        "disk.free": "disk_free",
    }
    labels = {name.replace(".", "_"): value for name, value in entry.labels.items()}
    own = {"__name__": fixed[entry.metric], "host": entry.host, "unit": entry.unit, "source": entry.source}
    return {name: value for name, value in {**labels, **own}.items() if value}


def samples() -> list[Stored]:
    """Two and a half hours with jitter, resets, gaps, aligned points, odd numbers and buckets."""
    random = np.random.default_rng(7)
    found = []
    minutes = START + np.arange(LENGTH) * MINUTE
    for number, host in enumerate(["web-1", "web-2", "web-3", "db-1"]):
        jitter = np.sort(random.integers(0, 59_000, LENGTH))
        ts = minutes + random.integers(0, 20_000, LENGTH)
        for code in ("200", "500"):
            counts = np.cumsum(random.integers(0, 90, LENGTH)) + int(code) / 1024
            for reset in random.integers(10, LENGTH, 2):
                counts[reset:] -= counts[reset] - random.integers(0, 5)
            keep = np.ones(LENGTH, bool)
            keep[60 + 3 * number : 72 + 3 * number] = False
            labels = {"http.route": f"/{'ab'[number % 2]}", "http.response.status_code": code}
            found.append(
                Stored(host, "http.server.requests", ts[keep], counts[keep], labels, "{request}", kind="counter")
            )
        for cpu in ("0", "1"):
            values = np.round(random.normal(0.4, 0.2, LENGTH), 4)
            found.append(Stored(host, "system.cpu.utilization", minutes + jitter, values, {"cpu": cpu}, "1"))
        found.append(Stored(host, "aligned.load", minutes, np.round(random.uniform(0, 9, LENGTH), 2)))
        found.append(
            Stored(host, "host.info", minutes, np.ones(LENGTH), {"site": f"s{number % 2}", "rack": str(number)})
        )
        found.append(Stored(host, "sparse.value", minutes[::7] + 1_234, random.uniform(-5, 5, len(minutes[::7]))))
        free = 1e12 - np.arange(LENGTH) * 3e9 - random.uniform(0, 1e9, LENGTH)
        found.append(Stored(host, "disk.free", ts, free, {"system.filesystem.mountpoint": "/"}, "By"))
        per_bucket = random.integers(0, 9, (5, LENGTH)).cumsum(axis=1).cumsum(axis=0).astype(float)
        for bound, counts in zip(("0.1", "0.5", "1", "5", "+Inf"), per_bucket, strict=True):
            found.append(Stored(host, "latency.bucket", minutes + 500, counts, {"le": bound}, kind="counter"))
    odd = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e300, 5e-324, 1e21, 1e-9, 3.0] * (LENGTH // 10)
    found.append(Stored("odd-1", "odd.values", minutes + 1, odd, {"case": "special"}))
    found.append(Stored("odd-1", "odd.values", minutes + 1, np.full(LENGTH, 3.25), {"case": "constant"}))
    return found


class Both:
    """Asks the real Prometheus and the gateway the same."""

    def __init__(self, real: httpx.Client, ours: httpx.Client) -> None:
        self.real, self.ours = real, ours

    def ask(self, path: str, **parameters: Any) -> tuple[httpx.Response, httpx.Response]:
        return self.real.get(path, params=parameters), self.ours.get(path, params=parameters)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("prometheus")
    series = samples()
    settings = Settings(home=folder / "home")
    settings.paths.create()
    lake_samples.write(Lake(settings.paths.lake), series, shuffle=3)
    real_prometheus.write_blocks(
        folder / "data", [Sampled(names_of(entry), entry.ts, entry.values) for entry in series]
    )
    with (
        served(settings) as (url, key),
        real_prometheus.running(folder / "data") as real,
        httpx.Client(base_url=real, timeout=30) as asks_real,
        httpx.Client(base_url=url, timeout=30, headers={"authorization": f"Bearer {key}"}) as asks_ours,
    ):
        yield Both(asks_real, asks_ours)


def comparable(body: dict[str, Any]) -> Any:
    """An answer with label sets as keys, so that order does not matter."""
    data = body["data"]
    if data["resultType"] in {"scalar", "string"}:
        return {data["resultType"]: [data["result"]]}
    return {tuple(sorted(entry["metric"].items())): entry.get("values") or [entry["value"]] for entry in data["result"]}


def same(real: Any, ours: Any) -> bool:
    """Equal times, and values equal within 1e-9."""
    if isinstance(real, list):
        return len(real) == len(ours) and all(map(same, real, ours))
    if isinstance(real, str):
        return same_number(float(real), float(ours))
    return bool(real == ours)


def same_number(real: float, ours: float) -> bool:
    if math.isnan(real) or math.isinf(real):
        return real == ours or (math.isnan(real) and math.isnan(ours))
    return math.isclose(real, ours, rel_tol=1e-9, abs_tol=1e-12)


EXPRESSIONS = """
system_cpu_utilization
system_cpu_utilization{host="web-1"}
system_cpu_utilization{host!="web-1",cpu="0"}
system_cpu_utilization{host=~"web-.*"}
system_cpu_utilization{host=~"web-[12]|db-\\\\d"}
system_cpu_utilization{host!~"web-.+"}
system_cpu_utilization{host=~"eb-1"}
system_cpu_utilization{nothing=""}
system_cpu_utilization{nothing!=""}
{__name__=~"aligned.*|sparse_value"}
{host="web-1",__name__!~".*bucket"}
{__name__="http_server_requests",http_route="/a"}
aligned_load
aligned_load offset 7m
aligned_load offset -3m
aligned_load @ 1772412000
aligned_load @ start()
aligned_load @ end() offset 2m
sparse_value
rate(http_server_requests[5m])
rate(http_server_requests[90s])
rate(http_server_requests[17m])
rate(aligned_load[5m])
increase(http_server_requests[10m])
increase(http_server_requests[1h]) offset 5m
increase(http_server_requests[1h] offset 5m)
irate(http_server_requests[5m])
idelta(aligned_load[5m])
delta(aligned_load[5m])
delta(disk_free[20m])
deriv(disk_free[30m])
predict_linear(disk_free[1h], 3600)
predict_linear(disk_free[30m] offset 10m, 4 * 3600)
rate(http_server_requests[10m] @ 1772413000)
avg_over_time(system_cpu_utilization[10m])
sum_over_time(aligned_load[10m])
sum_over_time(odd_values[10m])
min_over_time(odd_values[10m])
max_over_time(odd_values[3m])
count_over_time(http_server_requests[15m])
last_over_time(sparse_value[20m])
present_over_time(http_server_requests[5m])
quantile_over_time(0.9, system_cpu_utilization[20m])
quantile_over_time(scalar(aligned_load{host="web-1"}) / 10, system_cpu_utilization[20m])
quantile_over_time(1.5, aligned_load[5m])
stddev_over_time(system_cpu_utilization[20m])
stdvar_over_time(aligned_load[7m])
changes(http_server_requests[20m])
changes(odd_values[10m])
resets(http_server_requests[1h])
absent(system_cpu_utilization)
absent(nothing{a="b",c=~"d",e="f",e="g"})
absent(http_server_requests{host="web-1"})
absent_over_time(http_server_requests{host="web-1"}[5m])
absent_over_time(nothing{a="b"}[5m])
sum(system_cpu_utilization)
sum by (host) (rate(http_server_requests[5m]))
sum by (http_route, nothing) (http_server_requests)
sum without (cpu, source) (system_cpu_utilization)
avg by (host) (system_cpu_utilization)
avg(odd_values)
min by (host) (system_cpu_utilization)
max without (host) (system_cpu_utilization)
max(odd_values)
count(http_server_requests)
count by (__name__) ({__name__=~".+"})
group by (host) (aligned_load)
stddev(system_cpu_utilization)
stdvar by (host) (system_cpu_utilization)
quantile(0.75, system_cpu_utilization)
quantile by (host) (0.5, system_cpu_utilization)
quantile(-1, aligned_load)
topk(2, system_cpu_utilization)
topk by (host) (1, http_server_requests)
bottomk(3, aligned_load)
topk(0, aligned_load)
count_values("code", round(aligned_load))
system_cpu_utilization * 100
100 - system_cpu_utilization
-system_cpu_utilization
-1 ^ 2
2 ^ 3 ^ 2
aligned_load % 3
-aligned_load % 3
aligned_load / 0
1 / odd_values
aligned_load > 5
aligned_load > bool 5
5 < aligned_load
aligned_load != bool 5
odd_values == odd_values
http_server_requests / http_server_requests
http_server_requests{unit!="1"} / ignoring(http_response_status_code) http_server_requests{http_route="/c"}
sum by (host, source) (http_server_requests) - ignoring(source) sum by (host) (http_server_requests)
aligned_load + on(host) sparse_value
aligned_load > on(host) sparse_value
aligned_load > ignoring(unit) sparse_value
aligned_load == bool on(host) sparse_value
system_cpu_utilization * on(host) group_left(site) host_info
host_info * on(host) group_right(rack, site) system_cpu_utilization
system_cpu_utilization > on(host) group_left() aligned_load
sum by (host) (rate(http_server_requests{http_response_status_code="500"}[10m])) / sum by (host) (aligned_load)
system_cpu_utilization * on(source) aligned_load
http_server_requests * on(host) aligned_load
aligned_load and on(host) (sparse_value > 0)
aligned_load unless on(host) (sparse_value > 0)
sparse_value or aligned_load
(aligned_load > 5) or on(host) sparse_value
aligned_load and http_server_requests
aligned_load atan2 on(host) sparse_value
abs(sparse_value)
ceil(sparse_value)
floor(sparse_value)
round(sparse_value)
round(sparse_value, 0.3)
sgn(sparse_value)
clamp(sparse_value, -1, 2)
clamp(sparse_value, 2, -1)
clamp_min(sparse_value, 0)
clamp_max(sparse_value, scalar(aligned_load{host="db-1"}) - 3)
exp(sparse_value)
ln(aligned_load)
log2(aligned_load)
log10(sparse_value)
sqrt(sparse_value)
sin(aligned_load) + cos(aligned_load) + tan(aligned_load)
asin(aligned_load / 10) + acos(aligned_load / 10) + atan(aligned_load)
sinh(aligned_load) + cosh(aligned_load) + tanh(aligned_load)
asinh(aligned_load) + acosh(aligned_load + 1) + atanh(aligned_load / 10)
deg(aligned_load) + rad(aligned_load) + pi()
timestamp(aligned_load)
timestamp(aligned_load offset 3m)
timestamp(aligned_load * 2)
time()
time() - 1772409600
vector(7)
vector(time())
scalar(aligned_load{host="web-1"})
scalar(aligned_load)
1 + 1
1 == bool 1
minute() + hour() * 100
day_of_week() + day_of_month() * 10 + day_of_year() * 1000 + month() * 1e6 + year() * 1e8
days_in_month(vector(1709210000))
hour(timestamp(sparse_value))
sort(aligned_load)
sort_desc(aligned_load)
label_replace(aligned_load, "short", "$1", "host", "(.*)-.*")
label_replace(aligned_load, "short", "x-${2}-$1", "host", "([a-z]+)-(.)")
label_replace(aligned_load, "host", "", "host", "db.*")
label_replace(aligned_load, "host", "same", "host", ".*")
label_join(host_info, "both", "/", "site", "rack", "none")
histogram_quantile(0.9, rate(latency_bucket[10m]))
histogram_quantile(0.5, sum by (le) (rate(latency_bucket[10m])))
histogram_quantile(0.99, latency_bucket{le!="+Inf"})
histogram_quantile(2, latency_bucket)
max_over_time(rate(http_server_requests[5m])[30m:1m])
avg_over_time(aligned_load[20m:3m])
sum_over_time((aligned_load > 3)[17m:])
max_over_time(aligned_load[10m:1m] offset 4m)
sum_over_time(aligned_load[10m:1m] @ 1772413000)
quantile_over_time(0.5, sum(rate(http_server_requests[5m]))[1h:5m])
rate({__name__=~"aligned_load|sparse_value"}[10m])
sum by (host) (avg_over_time(system_cpu_utilization[5m])) > bool 0.8 and on(host) aligned_load > 4
http_server_requests{http_response_status_code=~"5.."} > 100
system_cpu_utilization{host=~"web-1|web-2|"}
ALERTS
""".strip().splitlines()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_instant_query_gives_what_prometheus_gives(both: Both, expression: str) -> None:
    for at in (
        START + 1,
        START + 61 * MINUTE,
        START + 67 * MINUTE + 31_500,
        START + 149 * MINUTE,
        START + 156 * MINUTE,
    ):
        real, ours = both.ask("/api/v1/query", query=expression, time=at / 1000)
        assert ours.status_code == real.status_code, (at, real.text[:300], ours.text[:300])
        if real.status_code != 200:
            assert ours.json()["errorType"] == real.json()["errorType"]
            continue
        expected, found = comparable(real.json()), comparable(ours.json())
        assert found.keys() == expected.keys()
        assert all(same(expected[key], found[key]) for key in expected), (at, expected, found)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_range_query_gives_what_prometheus_gives(both: Both, expression: str) -> None:
    for start, end, step in ((-10, 160, "60"), (0, 130, "137.5"), (37.25, 149, "9m")):
        parameters = {"start": START / 1000 + start * 60, "end": START / 1000 + end * 60, "step": step}
        real, ours = both.ask("/api/v1/query_range", query=expression, **parameters)
        assert ours.status_code == real.status_code, (step, real.text[:300], ours.text[:300])
        if real.status_code != 200:
            assert ours.json()["errorType"] == real.json()["errorType"]
            continue
        expected, found = comparable(real.json()), comparable(ours.json())
        assert found.keys() == expected.keys(), step
        for key, values in expected.items():
            assert same(values, found[key]), (step, key, differences(values, found[key]))


def differences(real: list[Any], ours: list[Any]) -> list[Any]:
    ours_at, real_at = dict(ours), dict(real)
    times = sorted({*ours_at, *real_at})
    return [
        (at, real_at.get(at), ours_at.get(at))
        for at in times
        if not same(real_at.get(at, "-99"), ours_at.get(at, "-98"))
    ][:5]


@pytest.mark.parametrize(
    "expression",
    ["aligned_load[5m]", "http_server_requests{host='web-1'}[10m] offset 3m", "aligned_load[10m:3m]", '"text"'],
)
def test_what_is_no_vector_comes_as_it_is(both: Both, expression: str) -> None:
    real, ours = both.ask("/api/v1/query", query=expression, time=START / 1000 + 3601)
    assert comparable(ours.json()) == comparable(real.json())
    assert ours.json()["data"]["resultType"] == real.json()["data"]["resultType"]


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/api/v1/query", {"query": "sum("}),
        ("/api/v1/query", {"query": ""}),
        ("/api/v1/query", {"query": "rate(aligned_load)"}),
        ("/api/v1/query", {"query": 'aligned_load{host=~"["}'}),
        ("/api/v1/query", {"query": "{host=~'.*'}"}),
        ("/api/v1/query", {"query": "1", "time": "yesterday"}),
        ("/api/v1/query", {"query": "1", "timeout": "soon"}),
        ("/api/v1/query_range", {"query": "1", "start": "0", "end": "10"}),
        ("/api/v1/query_range", {"query": "1", "start": "0", "end": "10", "step": "0"}),
        ("/api/v1/query_range", {"query": "1", "start": "10", "end": "0", "step": "1"}),
        ("/api/v1/query_range", {"query": "1", "start": "0", "end": "11001", "step": "1"}),
        ("/api/v1/query_range", {"query": "aligned_load[5m]", "start": "0", "end": "10", "step": "1"}),
        ("/api/v1/query_range", {"query": "'text'", "start": "0", "end": "10", "step": "1"}),
        ("/api/v1/series", {}),
        ("/api/v1/series", {"match[]": "aligned_load[5m]"}),
        ("/api/v1/label/bad-name/values", {}),
        ("/api/v1/labels", {"match[]": "{}"}),
        ("/api/v1/query", {"query": "label_replace(aligned_load, 'a-b', '', 'host', '')", "time": START / 1000 + 60}),
    ],
)
def test_what_prometheus_refuses_is_refused_with_the_same_code(
    both: Both, path: str, parameters: dict[str, Any]
) -> None:
    real, ours = both.ask(path, **parameters)
    assert real.status_code >= 400
    assert (ours.status_code, ours.json()["errorType"]) == (real.status_code, real.json()["errorType"])
    assert ours.json()["status"] == "error"
    assert ours.json()["error"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"time": "1772412000"},
        {"time": "1772412000.4567"},
        {"time": "2026-03-02T00:40:00Z"},
        {"time": "2026-03-02T02:40:00.5+02:00"},
        {"time": "1772412000", "timeout": "5s"},
    ],
)
def test_times_are_read_as_prometheus_reads_them(both: Both, parameters: dict[str, Any]) -> None:
    real, ours = both.ask("/api/v1/query", query="time()", **parameters)
    assert ours.json()["data"] == real.json()["data"]


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/api/v1/series", {"match[]": ["aligned_load", 'host_info{host=~"web.*"}']}),
        ("/api/v1/series", {"match[]": '{__name__=~".+"}', "start": START / 1000, "end": START / 1000 + 3600}),
        ("/api/v1/labels", {}),
        ("/api/v1/labels", {"match[]": "latency_bucket"}),
        ("/api/v1/label/__name__/values", {}),
        ("/api/v1/label/host/values", {"match[]": "http_server_requests"}),
        ("/api/v1/label/http_route/values", {}),
        ("/api/v1/label/nothing/values", {}),
    ],
)
def test_series_and_labels_are_those_of_prometheus(both: Both, path: str, parameters: dict[str, Any]) -> None:
    real, ours = both.ask(path, **parameters)

    def order(entry: Any) -> Any:
        return sorted(entry.items()) if isinstance(entry, dict) else entry

    assert sorted(ours.json()["data"], key=order) == sorted(real.json()["data"], key=order)


def test_a_real_prometheus_scrapes_the_federation_page(tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000
    ts = [now - 60_000, now - 20_000]
    settings = Settings(home=tmp_path / "home")
    settings.paths.create()
    series = [
        Stored("web-1", "system.cpu.utilization", ts, [0.25, 0.5], {"cpu": "0", "note": 'a "b" \\ c'}, "1"),
        Stored("web-2", "system.cpu.utilization", ts, [0.75, 1.0], {"cpu": "0"}, "1"),
        Stored("web-1", "http.server.requests", ts, [7, 9], kind="counter"),
        Stored("web-1", "left.out", ts, [1, 1]),
    ]
    lake_samples.write(Lake(settings.paths.lake), series)
    with served(settings) as (url, key):
        address = url.removeprefix("http://")
        configuration = f"""
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: lake
    honor_labels: true
    metrics_path: /federate
    params: {{"match[]": ["system_cpu_utilization", '{{__name__="http_server_requests"}}']}}
    basic_auth: {{username: grafana, password: {key}}}
    static_configs: [{{targets: ["{address}"]}}]
"""
        with real_prometheus.running(tmp_path / "data", configuration) as real:

            def scraped() -> list[dict[str, Any]]:
                answer = httpx.get(f"{real}/api/v1/query", params={"query": '{host!=""}'}, timeout=5)
                found: list[dict[str, Any]] = answer.json()["data"]["result"]
                return found

            wait_until(lambda: len(scraped()) == 3, 30, "three series were scraped")
            found = {entry["metric"]["__name__"] + entry["metric"]["host"]: entry for entry in scraped()}
            assert found["system_cpu_utilizationweb-1"]["metric"]["note"] == 'a "b" \\ c'
            assert found["system_cpu_utilizationweb-2"]["value"][1] == "1"
            assert found["http_server_requestsweb-1"]["value"][1] == "9"
            at = httpx.get(
                f"{real}/api/v1/query", params={"query": "timestamp(http_server_requests)"}, timeout=5
            ).json()["data"]["result"][0]["value"][1]
            assert float(at) == ts[1] / 1000
            metadata = httpx.get(f"{real}/api/v1/targets/metadata", timeout=5).json()["data"]
            assert {entry["metric"]: entry["type"] for entry in metadata}["http_server_requests"] == "counter"


def test_many_clients_at_once_get_the_same_answers(both: Both) -> None:
    expressions = EXPRESSIONS[:24]

    def ask(expression: str) -> Any:
        parameters = {"query": expression, "start": START / 1000, "end": START / 1000 + 6000, "step": "60"}
        return both.ours.get("/api/v1/query_range", params=parameters).json()

    alone = [ask(expression) for expression in expressions]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, expressions)) == alone


def test_the_gateway_starts_and_stops_without_a_lake(tmp_path: Path) -> None:
    async def run() -> None:
        gateway = create_app(Settings(home=tmp_path / "home"))
        await gateway.start()
        await gateway.stop()

    asyncio.run(run())
