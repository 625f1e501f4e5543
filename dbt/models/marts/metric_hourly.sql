-- Closed hours come from `baselines` (count, mean, least and greatest are exact there, and it is a thousandth of the
-- rows); hours that are still open come from the points themselves.
with closed as (
  select
    hour_start,
    series_id,
    count as points,
    mean,
    case when count > 1 then sqrt(m2 / (count - 1)) end as stddev,
    min,
    max,
    quantiles[4] as p50,
    quantiles[6] as p95,
    'baselines' as origin
  from {{ source('lake', 'baselines') }}
  where {{ in_day() }}
  qualify row_number() over (partition by series_id, hour order by baseline_version desc) = 1
),

still_open as (
  select
    date_trunc('hour', ts) as hour_start,
    series_id,
    count(*) as points,
    avg(value) as mean,
    case when count(*) > 1 then stddev_samp(value) end as stddev,
    min(value) as min,
    max(value) as max,
    quantile_cont(value, 0.5) as p50,
    quantile_cont(value, 0.95) as p95,
    'points' as origin
  from {{ source('lake', 'open_points') }}
  where {{ in_day() }}
  group by all
)

select
  {{ this_day() }} as day,
  hours.hour_start,
  hours.series_id,
  series.host,
  series.metric,
  series.unit,
  series.labels,
  hours.points,
  hours.mean,
  hours.stddev,
  hours.min,
  hours.max,
  hours.p50,
  hours.p95,
  hours.origin
from (select * from closed union all by name select * from still_open) as hours
left join {{ source('lake', 'series') }} as series using (series_id)
order by hours.hour_start, hours.series_id
