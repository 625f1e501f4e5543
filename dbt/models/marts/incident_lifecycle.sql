-- One row for each incident that was opened on the day, as it is known now: its newest row in the daily snapshots.
-- Not incidents: those that another one took over, and those whose alerts were all withdrawn.
with snapshots as (
  select * from {{ source('lake', 'incidents') }}
  where day >= strftime({{ this_day() }} - interval 1 day, '%Y-%m-%d')
),

newest as (
  select max(snapshot_at) as as_of from {{ source('lake', 'incidents') }}
),

known as (
  select *
  from snapshots
  where {{ instant_in_day('opened_at') }}
  qualify row_number() over (partition by incident_id order by snapshot_at desc) = 1
)

select
  {{ this_day() }} as day,
  known.incident_id,
  known.title,
  known.state,
  known.priority,
  known.assignee,
  known.hosts,
  known.kinds,
  known.alert_ids,
  coalesce(known.alerts, len(known.alert_ids)) as alerts,
  known.started_at,
  known.opened_at,
  known.acknowledged_at,
  case when known.state = 'resolved' then known.resolved_at end as resolved_at,
  known.first_resolved_at,
  known.resolved_by,
  known.reopened,
  newest.as_of,
  known.state = 'resolved' as is_resolved,
  known.acknowledged_at is not null as is_acknowledged,
  coalesce(known.first_resolved_at, case when known.state = 'resolved' then known.resolved_at end) is not null
  or known.state = 'reopened' as was_resolved,
  -- lasting until now while it is open: a lower bound, never a result
  greatest(0, {{ seconds_between('known.started_at', 'known.opened_at') }}) as detect_s,
  greatest(0, {{ seconds_between('known.opened_at',
    "coalesce(known.acknowledged_at, case when known.state = 'resolved' then known.resolved_at end, newest.as_of)") }})
    as acknowledge_s,
  greatest(0, {{ seconds_between('known.opened_at',
    "coalesce(case when known.state = 'resolved' then known.resolved_at end, newest.as_of)") }}) as resolve_s
from known
cross join newest
where known.merged_into is null
  and known.withdrawn_because is null
  -- what is not resolved stands in every snapshot; an unresolved one that is missing from the newest was taken over
  and (known.state = 'resolved' or known.snapshot_at = newest.as_of)
order by known.opened_at, known.incident_id
