{{ config(meta={'dagster': {'ref': {'name': 'metric_daily'}}}) }}
-- The points of a day's hours are those of the day: a rollup that lost some would lie.
with hourly as (
  select day, sum(points) as points from {{ ref('metric_hourly') }} where {{ window() }} group by day
),

daily as (
  select day, sum(points) as points from {{ ref('metric_daily') }} where {{ window() }} group by day
)

select *
from hourly
full join daily using (day)
where hourly.points is distinct from daily.points
