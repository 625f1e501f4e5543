select
  {{ this_day() }} as day,
  hour_start,
  host,
  metric,
  any_value(unit) as unit,
  count(*) as series,
  sum(points)::bigint as points,
  sum(points * mean) / sum(points) as mean,
  min(min) as min,
  max(max) as max
from {{ ref('metric_hourly') }}
where day = {{ this_day() }} and host is not null
group by hour_start, host, metric
order by hour_start, host, metric
