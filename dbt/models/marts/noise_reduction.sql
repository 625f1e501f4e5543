-- From what detectors saw to what people were asked to look at.
with anomalies as (
  select count(*) as anomaly_points, count(*) filter (opens_event) as anomaly_events
  from {{ source('lake', 'anomalies') }}
  where {{ in_day() }}
),

alerts_now as (
  select
    arg_max(state, revision) as state,
    arg_max(kind, revision) as kind,
    bool_or(state = 'firing') as fired
  from {{ source('lake', 'alerts') }}
  where {{ in_day() }}
  group by alert_id
),

alerts as (
  select
    count(*) filter (state = 'withdrawn') as alerts_withdrawn,
    count(*) filter (state != 'withdrawn') as alerts,
    count(*) filter (state != 'withdrawn' and not fired) as alerts_suppressed,
    count(*) filter (state != 'withdrawn' and kind != 'anomaly') as alerts_not_from_anomalies
  from alerts_now
),

incidents as (
  select count(*) as incidents, coalesce(sum(alerts), 0)::bigint as alerts_in_incidents
  from {{ ref('incident_lifecycle') }}
  where day = {{ this_day() }}
)

select
  {{ this_day() }} as day,
  anomalies.anomaly_points,
  anomalies.anomaly_events,
  alerts.alerts,
  alerts.alerts_suppressed,
  alerts.alerts_withdrawn,
  anomalies.anomaly_events + alerts.alerts_not_from_anomalies as signals,
  incidents.incidents,
  incidents.alerts_in_incidents,
  case
    when anomalies.anomaly_events + alerts.alerts_not_from_anomalies > 0
      then 1 - incidents.incidents / (anomalies.anomaly_events + alerts.alerts_not_from_anomalies)
  end as noise_reduction
from anomalies
cross join alerts
cross join incidents
