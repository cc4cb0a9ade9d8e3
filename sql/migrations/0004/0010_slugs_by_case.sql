-- From here on slugs are unique whatever their case (contract 0.17 sections 2.1 and 2.2). Where some are
-- not, nothing is changed, and they are named.
do $$
declare
  v_flows text;
  v_steps text;
begin
  select string_agg(same.slugs, '; ' order by same.slugs) into v_flows
  from (
    select string_agg(format('"%s"', f.flow_slug), ', ' order by f.flow_slug collate "C") as slugs
    from pgflow.flows f
    group by lower(f.flow_slug)
    having count(*) > 1
  ) same;
  select string_agg(same.slugs, '; ' order by same.slugs) into v_steps
  from (
    select format('%s of flow "%s"',
      string_agg(format('"%s"', s.step_slug), ', ' order by s.step_slug collate "C"), s.flow_slug) as slugs
    from pgflow.steps s
    group by s.flow_slug, lower(s.step_slug)
    having count(*) > 1
  ) same;
  if v_flows is not null or v_steps is not null then
    raise exception 'slugs that differ only by case: %',
      concat_ws('; ', 'flows ' || v_flows, 'steps ' || v_steps)
      using errcode = 'unique_violation',
            hint = 'Delete one flow of each group, with its runs (select pgflow.delete_flow_and_data(''...'')), then upgrade again.';
  end if;
end;
$$;
