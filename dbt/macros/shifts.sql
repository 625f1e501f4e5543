{#- The shift that an instant lies in. Shifts come as `08-16,16-24,00-08`, hours of the local day in var time_zone. -#}

{% macro shift_rows() -%}
  {%- for shift in var('shifts').split(',') %}
    {%- set from, to = shift.strip().split('-') %}
    ('{{ shift.strip() }}', {{ from | int }}, {{ to | int }}){{ ',' if not loop.last }}
  {%- endfor %}
{%- endmacro %}

{#- (shift, shift_start, shift_end) of all shifts that touch the day that is being computed -#}
{% macro shifts_of_day() -%}
  select
    shift,
    (local_day + to_hours(from_hour)) at time zone '{{ var("time_zone") }}' as shift_start,
    (local_day + to_hours(to_hour)) at time zone '{{ var("time_zone") }}' as shift_end
  from (values {{ shift_rows() }}) as shifts (shift, from_hour, to_hour)
  cross join (
    select unnest([{{ this_day() }} - 1, {{ this_day() }}, {{ this_day() }} + 1])::timestamp as local_day
  ) as local_days
{%- endmacro %}
