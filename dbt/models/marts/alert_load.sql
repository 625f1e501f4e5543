-- What reached people, shift by shift. A shift that passes midnight UTC has a row in both days; its rows add up.
with alerts_now as (
  select
    alert_id,
    arg_max(state, revision) as state,
    arg_max(suppressed_by, revision) as suppressed_by,
    arg_max(host, revision) as host,
    max(severity_number) as severity_number,
    min(starts_at) as starts_at,
    min(changed_at) filter (state = 'firing') as fired_at
  from {{ source('lake', 'alerts') }}
  where {{ since_days_before(7) }}
  group by alert_id
),

counted as (
  select
    coalesce(fired_at, starts_at) as at,
    host,
    case
      when state = 'withdrawn' then 'withdrawn'
      when fired_at is null then 'suppressed'
      else 'fired'
    end as outcome,
    severity_number
  from alerts_now
  where {{ instant_in_day('coalesce(fired_at, starts_at)') }}
),

owners as (
  select name as host, min(owner) as team
  from {{ source('lake', 'entities') }}
  where owner is not null
  group by name
),

shifts as ({{ shifts_of_day() }}),

alert_rows as (
  select
    shifts.shift,
    shifts.shift_start,
    coalesce(owners.team, 'nobody') as team,
    count(*) filter (counted.outcome = 'fired' and counted.severity_number >= 13) as pages,
    count(*) filter (counted.outcome = 'fired' and counted.severity_number >= 21) as critical,
    count(*) filter (counted.outcome = 'fired' and counted.severity_number between 17 and 20) as error,
    count(*) filter (counted.outcome = 'fired' and counted.severity_number between 13 and 16) as warning,
    count(*) filter (counted.outcome = 'fired' and counted.severity_number < 13) as below_warning,
    count(*) filter (counted.outcome = 'suppressed') as suppressed,
    count(*) filter (counted.outcome = 'withdrawn') as withdrawn,
    0 as incidents_opened
  from counted
  inner join shifts on counted.at >= shifts.shift_start and counted.at < shifts.shift_end
  left join owners using (host)
  group by all
),

incident_rows as (
  select
    shifts.shift,
    shifts.shift_start,
    coalesce(owners.team, 'nobody') as team,
    0 as pages,
    0 as critical,
    0 as error,
    0 as warning,
    0 as below_warning,
    0 as suppressed,
    0 as withdrawn,
    count(*) as incidents_opened
  from {{ ref('incident_lifecycle') }} as incidents
  inner join shifts on incidents.opened_at >= shifts.shift_start and incidents.opened_at < shifts.shift_end
  left join owners on owners.host = incidents.hosts[1]
  where incidents.day = {{ this_day() }}
  group by all
)

select
  {{ this_day() }} as day,
  shift,
  shift_start,
  team,
  sum(pages)::bigint as pages,
  sum(critical)::bigint as critical,
  sum(error)::bigint as error,
  sum(warning)::bigint as warning,
  sum(below_warning)::bigint as below_warning,
  sum(suppressed)::bigint as suppressed,
  sum(withdrawn)::bigint as withdrawn,
  sum(incidents_opened)::bigint as incidents_opened
from (
  select * from alert_rows
  union all
  select * from incident_rows
)
group by shift, shift_start, team
order by shift_start, team
