{#-
  The Kaplan-Meier median: the shortest time by which at least half of the incidents are over, where those that are not
  over yet count as "lasted at least so long" (right-censored; Kaplan and Meier, 1958). Null while more than half of the
  estimate still runs. `relation` has one row for each group member: the group columns, `seconds`, `over` (boolean).
-#}
{% macro kaplan_meier_median(relation, group, name) -%}
  select {{ group }}, min(seconds) as {{ name }}
  from (
    select
      {{ group }},
      seconds,
      exp(sum(case when ended = at_risk then -1e9 else ln(1 - ended / at_risk) end)
        over (partition by {{ group }} order by seconds)) as surviving
    from (
      select
        {{ group }},
        seconds,
        ended,
        sum(leaving) over (
          partition by {{ group }} order by seconds rows between current row and unbounded following
        ) as at_risk
      from (
        select {{ group }}, seconds, count(*) filter (over_now)::double as ended, count(*)::double as leaving
        from {{ relation }}
        group by {{ group }}, seconds
      )
    )
  )
  where surviving <= 0.5 + 1e-12
  group by {{ group }}
{%- endmacro %}
