-- Ours: what is set for a flow and its steps, as reports tell it.

-- Options of the flow (step_slug is null, first) and of its steps, in definition order, that are set to something, as
-- people read them; of steps with conditions these, too, as JSON, and what happens where they are not met.
create or replace function pgflow.flow_settings(flow_slug text)
returns table (step_slug text, option text, value text)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select u.step_slug, u.option, u.value
  from (
    select o.step_slug, o.option, o.was as value, 1 as place, o.place as at
    from pgflow._compare_flow_options(
      flow_settings.flow_slug, pgflow._get_flow_shape(flow_settings.flow_slug)
    ) with ordinality o (step_slug, option, was, wanted, place)
    where o.was is not null
    union all
    select s.step_slug, c.option, c.value, 2, c.at
    from pgflow.steps s
    cross join lateral (
      values
        (1, 'when', s.required_input_pattern::text),
        (2, 'unless', s.forbidden_input_pattern::text),
        (3, 'when_unmet', case
          when s.required_input_pattern is not null or s.forbidden_input_pattern is not null then s.when_unmet
        end),
        (4, 'when_exhausted', nullif(s.when_exhausted, 'fail'))
    ) c (at, option, value)
    where s.flow_slug = flow_settings.flow_slug and c.value is not null
  ) u
  left join pgflow.steps s on s.flow_slug = flow_settings.flow_slug and s.step_slug = u.step_slug
  where coalesce(flow_settings.flow_slug = any ((select pgflow._granted_flows('flow_settings'))::text[]), true)
  order by coalesce(s.step_index, -1), u.place, u.at;
$$;
