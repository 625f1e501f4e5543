{{ config(materialized='current') }}
{{ incident_kpis(
  "(select date_trunc('week', day)::date as week, * exclude (day) from " ~ ref('incident_lifecycle') ~ ")", 'week'
) }}
