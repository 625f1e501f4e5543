{% test in_range(model, column_name, least, greatest) %}
select {{ column_name }}
from {{ model }}
where {{ column_name }} < {{ least }} or {{ column_name }} > {{ greatest }} or isnan({{ column_name }}::double)
{% endtest %}
