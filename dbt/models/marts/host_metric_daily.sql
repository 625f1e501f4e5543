select
  {{ this_day() }} as day,
  host,
  metric,
  any_value(unit) as unit,
  count(distinct series_id) as series,
  sum(points)::bigint as points,
  sum(points * mean) / sum(points) as mean,
  min(min) as min,
  max(max) as max
from {{ ref('metric_hourly') }}
where day = {{ this_day() }} and host is not null
group by host, metric
order by host, metric
