-- Hours merged: counts add up, means are weighted, deviations are merged after Chan, Golub and LeVeque (1979).
with hours as (
  select
    *,
    sum(points * mean) over whole_day / sum(points) over whole_day as day_mean
  from {{ ref('metric_hourly') }}
  where day = {{ this_day() }}
  window whole_day as (partition by series_id)
)

select
  {{ this_day() }} as day,
  series_id,
  any_value(host) as host,
  any_value(metric) as metric,
  any_value(unit) as unit,
  any_value(labels) as labels,
  sum(points)::bigint as points,
  count(*) as hours_with_points,
  any_value(day_mean) as mean,
  case
    when sum(points) > 1 then sqrt(
      sum(coalesce(stddev * stddev, 0) * (points - 1) + points * (mean - day_mean) * (mean - day_mean))
      / (sum(points) - 1)
    )
  end as stddev,
  min(min) as min,
  max(max) as max,
  bool_or(origin = 'points') as has_open_hours
from hours
group by series_id
order by series_id
