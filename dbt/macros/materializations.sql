{#-
  Two kinds of mart. `daily` writes one file for each day of the window (vars first_day and last_day), computing day
  after day, so that a backfill of a month needs the memory of a day. `current` writes one file. A file appears whole,
  in one step: it is written beside its place under a hidden name, forced to disk and renamed (functions of the plugin).
  dbt-duckdb's own `external` writes in place, and a row of nulls where there is no row.
-#}

{% macro mart_folder() -%}
  {%- set folder = var('marts') -%}
  {%- if execute and not folder -%}
    {{ exceptions.raise_compiler_error("say where marts are written: --vars '{marts: /path}'") }}
  {%- endif -%}
  {{ return(folder) }}
{%- endmacro %}

{% macro write_file(sql, folder, name) -%}
  {%- set written = folder ~ '/.' ~ name ~ '.' ~ invocation_id ~ '.writing' -%}
  copy (
    {{ sql }}
  ) to '{{ written | replace("'", "''") }}' (format parquet, compression zstd, row_group_size 122880);
  select publish('{{ written | replace("'", "''") }}', '{{ (folder ~ '/' ~ name ~ '.parquet') | replace("'", "''") }}');
{%- endmacro %}

{% materialization daily, adapter='duckdb' %}
  {%- set target_relation = this.incorporate(type='view') -%}
  {%- set folder = mart_folder() ~ '/' ~ this.identifier -%}
  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {% call statement('folder') -%}
    select prepare_folder('{{ folder | replace("'", "''") }}')
  {%- endcall %}
  {%- for day in days_between(var('first_day'), var('last_day')) %}
    {% call statement('day') -%}
      {{ set_day(day) }}
      {{ write_file(sql, folder, day) }}
    {%- endcall %}
  {%- endfor %}
  {% call statement('main') -%}
    create or replace view {{ target_relation }} as
    select * from read_parquet('{{ folder | replace("'", "''") }}/*.parquet', union_by_name = true)
  {%- endcall %}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {% do adapter.commit() %}
  {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{% materialization current, adapter='duckdb' %}
  {%- set target_relation = this.incorporate(type='view') -%}
  {%- set folder = mart_folder() -%}
  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {% call statement('folder') -%}
    select prepare_folder('{{ folder | replace("'", "''") }}')
  {%- endcall %}
  {% call statement('file') -%}
    {{ write_file(sql, folder, this.identifier) }}
  {%- endcall %}
  {% call statement('main') -%}
    create or replace view {{ target_relation }} as
    select * from read_parquet('{{ (folder ~ '/' ~ this.identifier ~ '.parquet') | replace("'", "''") }}')
  {%- endcall %}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {% do adapter.commit() %}
  {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}
