{{ config(materialized='current') }}
-- What the newest snapshot has unresolved, whenever it was opened: ages are lower bounds of what they will last.
with newest as (select max(snapshot_at) as as_of from {{ source('lake', 'incidents') }})

select
  incidents.incident_id,
  incidents.title,
  incidents.state,
  incidents.priority,
  incidents.assignee,
  incidents.hosts,
  incidents.opened_at,
  incidents.acknowledged_at,
  newest.as_of,
  greatest(0, {{ seconds_between('incidents.opened_at', 'newest.as_of') }}) as age_s
from {{ source('lake', 'incidents') }} as incidents
inner join newest on incidents.snapshot_at = newest.as_of
where incidents.state != 'resolved' and incidents.merged_into is null and incidents.withdrawn_because is null
order by incidents.priority, incidents.opened_at
