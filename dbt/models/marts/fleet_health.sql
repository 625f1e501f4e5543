{{ config(materialized='current') }}
-- Every host that was seen in the last 30 days of event time, with a score. `as_of` is event time: the newest point.
with reached as (
  select max(as_of) as as_of
  from (
    select max(ts) as as_of from {{ source('lake', 'open_points') }}
    union all
    select max(hour_start) + interval 1 hour from {{ source('lake', 'baselines') }}
  )
),

latest as (
  select strftime(reached.as_of - interval 1 day, '%Y-%m-%dT%H') as since_hour, reached.as_of
  from reached
),

hosts as (
  select host, max(hour_start) as last_hour, count(distinct series_id) as series
  from {{ ref('metric_hourly') }}
  where host is not null and day >= (select (as_of - interval 30 day)::date from reached)
  group by host
),

exact as (
  select host, max(ts) as last_point from {{ source('lake', 'open_points') }} group by host
),

coverage as (
  select
    host,
    sum(points) / nullif(sum(expected_points), 0) as coverage,
    median(interval_s) as interval_s
  from {{ ref('series_coverage') }}
  where day = (select as_of::date from reached)
  group by host
),

open_alerts as (
  select
    host,
    count(*) filter (severity_number >= 21) as critical,
    count(*) filter (severity_number between 17 and 20) as error,
    count(*) filter (severity_number between 13 and 16) as warning
  from (
    select
      alert_id,
      arg_max(host, revision) as host,
      arg_max(state, revision) as state,
      arg_max(severity_number, revision) as severity_number
    from {{ source('lake', 'alerts') }}
    group by alert_id
  )
  where state = 'firing'
  group by host
),

events as (
  select host, count(*) as anomaly_events
  from {{ source('lake', 'anomalies') }}
  where opens_event
    and hour >= (select since_hour from latest)
    and ts > (select as_of - interval 1 day from reached)
  group by host
),

scored as (
  select
    hosts.host,
    reached.as_of,
    coalesce(exact.last_point, hosts.last_hour + interval 1 hour) as last_seen,
    exact.last_point is not null as last_seen_is_exact,
    hosts.series,
    coverage.coverage,
    coalesce(open_alerts.critical, 0) as open_critical,
    coalesce(open_alerts.error, 0) as open_error,
    coalesce(open_alerts.warning, 0) as open_warning,
    coalesce(events.anomaly_events, 0) as anomaly_events_24h,
    greatest(900, 3 * coalesce(coverage.interval_s, 300)) as silent_after_s
  from hosts
  cross join reached
  left join exact using (host)
  left join coverage using (host)
  left join open_alerts using (host)
  left join events using (host)
)

select
  host,
  as_of,
  last_seen,
  last_seen_is_exact,
  {{ seconds_between('last_seen', 'as_of') }} > silent_after_s as is_silent,
  series,
  coverage,
  open_critical,
  open_error,
  open_warning,
  anomaly_events_24h,
  round(greatest(
    0,
    100
    - case when {{ seconds_between('last_seen', 'as_of') }} > silent_after_s then 40 else 0 end
    - least(60, 30 * open_critical + 20 * open_error + 8 * open_warning)
    - least(20, 2 * anomaly_events_24h)
    - 20 * (1 - coalesce(coverage, 1))
  ))::int as health_score
from scored
order by health_score, host
