{#- The day that is being computed, as DuckDB variables: `day` (date), `first_hour` and `last_hour` (names of hour
    partitions), `day_start` and `day_end` (instants, UTC). Filters on them leave out files of other days. -#}

{% macro set_day(day) -%}
  set variable day = date '{{ day }}';
  set variable first_hour = '{{ day }}T00';
  set variable last_hour = '{{ day }}T23';
  set variable day_start = timestamptz '{{ day }} 00:00:00+00';
  set variable day_end = timestamptz '{{ day }} 00:00:00+00' + interval 1 day;
{%- endmacro %}

{% macro days_between(first, last) -%}
  {%- set start = modules.datetime.datetime.strptime(first | string, '%Y-%m-%d') -%}
  {%- set end = modules.datetime.datetime.strptime(last | string, '%Y-%m-%d') -%}
  {%- set days = [] -%}
  {%- for number in range((end - start).days + 1) -%}
    {%- do days.append((start + modules.datetime.timedelta(days=number)).strftime('%Y-%m-%d')) -%}
  {%- endfor -%}
  {{ return(days) }}
{%- endmacro %}

{% macro this_day() -%} getvariable('day') {%- endmacro %}

{#- rows of the day's hour partitions -#}
{% macro in_day(column='hour') -%}
  {{ column }} between getvariable('first_hour') and getvariable('last_hour')
{%- endmacro %}

{#- rows of hour partitions of some days before the day, and of the day itself -#}
{% macro since_days_before(days, column='hour') -%}
  {{ column }} between strftime(getvariable('day') - interval {{ days }} day, '%Y-%m-%dT00') and getvariable('last_hour')
{%- endmacro %}

{#- an instant (timestamptz) that lies in the day -#}
{% macro instant_in_day(column) -%}
  {{ column }} >= getvariable('day_start') and {{ column }} < getvariable('day_end')
{%- endmacro %}

{#- what a test of a daily mart looks at: the days of this run (variables of the plugin), not years of files -#}
{% macro window() -%}
  day between getvariable('window_first_day') and getvariable('window_last_day')
{%- endmacro %}

{#- seconds from one instant to another, with microseconds -#}
{% macro seconds_between(start, end) -%}
  (epoch_us({{ end }}) - epoch_us({{ start }})) / 1e6
{%- endmacro %}
