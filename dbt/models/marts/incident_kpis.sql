{{ incident_kpis("(select * from " ~ ref('incident_lifecycle') ~ " where day = getvariable('day'))", 'day') }}
