{#- The figures of a group of incidents (rows of incident_lifecycle), for all of them and for each priority. -#}
{% macro incident_kpis(relation, period) -%}
with incidents as (
  select {{ period }}, 'all' as scope, * exclude ({{ period }}) from {{ relation }}
  union all
  select {{ period }}, 'P' || priority as scope, * exclude ({{ period }}) from {{ relation }}
),

for_acknowledgement as (select *, acknowledge_s as seconds, is_acknowledged as over_now from incidents),

for_resolution as (select *, resolve_s as seconds, is_resolved as over_now from incidents),

acknowledged as ({{ kaplan_meier_median('for_acknowledgement', period ~ ', scope', 'mtta_median_s') }}),

resolved as ({{ kaplan_meier_median('for_resolution', period ~ ', scope', 'mttr_median_s') }}),

counted as (
  select
    {{ period }},
    scope,
    max(as_of) as as_of,
    count(*) as incidents,
    count(*) filter (not is_resolved) as still_open,
    count(*) filter (is_acknowledged) as acknowledged,
    count(*) filter (not is_acknowledged and is_resolved) as resolved_unacknowledged,
    count(*) filter (is_resolved) as resolved,
    avg(detect_s) as mttd_mean_s,
    median(detect_s) as mttd_median_s,
    avg(acknowledge_s) filter (is_acknowledged) as mtta_mean_s,
    avg(resolve_s) filter (is_resolved) as mttr_mean_s,
    max(resolve_s) filter (not is_resolved) as oldest_open_s,
    count(*) filter (was_resolved and reopened is not null) as ever_resolved,
    count(*) filter (was_resolved and reopened > 0) as reopened
  from incidents
  group by {{ period }}, scope
)

select
  counted.{{ period }},
  counted.scope,
  counted.as_of,
  counted.incidents,
  counted.still_open,
  counted.acknowledged,
  counted.resolved_unacknowledged,
  counted.resolved,
  counted.mttd_mean_s,
  counted.mttd_median_s,
  counted.mtta_mean_s,
  acknowledged.mtta_median_s,
  counted.mttr_mean_s,
  resolved.mttr_median_s,
  counted.oldest_open_s,
  counted.ever_resolved,
  counted.reopened,
  case when counted.ever_resolved > 0 then counted.reopened / counted.ever_resolved end as reopen_rate
from counted
left join acknowledged using ({{ period }}, scope)
left join resolved using ({{ period }}, scope)
order by counted.{{ period }}, counted.scope
{%- endmacro %}
