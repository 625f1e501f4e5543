-- How much of what a series should have sent arrived. Its interval is the median distance of its points; a distance of
-- more than 2.5 intervals is a gap. Series that sent in the seven days before and nothing at all on this day are listed
-- too, with the interval that their earlier hours tell.
with points as (
  select series_id, ts, ts - lag(ts) over (partition by series_id order by ts) as step
  from {{ source('lake', 'metric_points') }}
  where {{ in_day() }}
),

steps as (
  select
    series_id,
    min(ts) as first_point,
    max(ts) as last_point,
    count(*) as points,
    median(epoch_us(step)) filter (step is not null) / 1e6 as interval_s
  from (select series_id, ts, step from points)
  group by series_id
),

gaps as (
  select
    points.series_id,
    count(*) as gaps,
    max(epoch_us(points.step)) / 1e6 as longest_gap_s,
    sum(epoch_us(points.step) / 1e6 - steps.interval_s) as missing_s
  from points
  inner join steps using (series_id)
  where steps.interval_s > 0 and epoch_us(points.step) / 1e6 > 2.5 * steps.interval_s
  group by points.series_id
),

earlier as (
  select series_id, max(hour_start) as last_hour, 3600 / median(count) as interval_s
  from {{ source('lake', 'baselines') }}
  where hour between strftime({{ this_day() }} - interval 7 day, '%Y-%m-%dT00')
    and strftime({{ this_day() }} - interval 1 day, '%Y-%m-%dT23')
  group by series_id
),

reached as (
  select least(getvariable('day_end'), max(as_of)) as day_end
  from (
    select max(ts) as as_of from {{ source('lake', 'open_points') }}
    union all
    select max(hour_start) + interval 1 hour from {{ source('lake', 'baselines') }}
  )
),

found as (
  select
    coalesce(steps.series_id, earlier.series_id) as series_id,
    coalesce(steps.points, 0) as points,
    steps.first_point,
    steps.last_point,
    coalesce(steps.interval_s, earlier.interval_s) as interval_s,
    case
      when earlier.series_id is not null then getvariable('day_start')
      else steps.first_point
    end as expected_from,
    coalesce(gaps.gaps, 0) as inner_gaps,
    coalesce(gaps.longest_gap_s, 0) as longest_inner_gap_s
  from steps
  full join earlier using (series_id)
  left join gaps on gaps.series_id = coalesce(steps.series_id, earlier.series_id)
),

judged as (
  select
    found.*,
    reached.day_end,
    greatest(0, {{ seconds_between('found.expected_from', 'reached.day_end') }}) as expected_s,
    greatest(0, {{ seconds_between('coalesce(found.first_point, reached.day_end)', 'reached.day_end') }}) as after_first_s,
    case
      when found.first_point is not null
        then greatest(0, {{ seconds_between('found.expected_from', 'found.first_point') }})
      else greatest(0, {{ seconds_between('found.expected_from', 'reached.day_end') }})
    end as before_first_s,
    case
      when found.last_point is not null
        then greatest(0, {{ seconds_between('found.last_point', 'reached.day_end') }})
      else 0
    end as after_last_s
  from found
  cross join reached
)

select
  {{ this_day() }} as day,
  judged.series_id,
  series.host,
  series.metric,
  judged.points,
  judged.first_point,
  judged.last_point,
  judged.interval_s,
  case
    when judged.interval_s > 0 then greatest(judged.points, floor(judged.expected_s / judged.interval_s))::bigint
  end as expected_points,
  case
    when judged.interval_s > 0
      then least(1, judged.points / greatest(judged.points, floor(judged.expected_s / judged.interval_s), 1))
  end as coverage,
  judged.inner_gaps
  + (judged.before_first_s > 2.5 * coalesce(judged.interval_s, 1e18))::int
  + (judged.after_last_s > 2.5 * coalesce(judged.interval_s, 1e18))::int as gaps,
  greatest(
    judged.longest_inner_gap_s,
    case when judged.before_first_s > 2.5 * judged.interval_s then judged.before_first_s else 0 end,
    case when judged.after_last_s > 2.5 * judged.interval_s then judged.after_last_s else 0 end
  ) as longest_gap_s
from judged
left join {{ source('lake', 'series') }} as series using (series_id)
order by judged.series_id
