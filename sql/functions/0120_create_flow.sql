-- create_flow (contract section 4.1).
create or replace function pgflow.create_flow(
  flow_slug text,
  max_attempts int default null,
  base_delay int default null,
  timeout int default null
)
returns pgflow.flows
language plpgsql
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_flow pgflow.flows;
  v_other text;
begin
  if pgflow.is_valid_slug(create_flow.flow_slug) then
    if length(create_flow.flow_slug) > 47 then
      raise exception 'queue name is too long, maximum length is 47 characters'
        using detail = format('The flow slug %L has %s characters and names the flow''s queue.',
                create_flow.flow_slug, length(create_flow.flow_slug)),
              hint = 'Choose a flow slug of at most 47 characters.';
    end if;
    select f.flow_slug into v_other
    from pgflow.flows f
    where lower(f.flow_slug) = lower(create_flow.flow_slug)
      and f.flow_slug <> create_flow.flow_slug
    limit 1;
    if found then
      raise exception 'Flow slug "%" differs only in case from the existing flow "%"',
        create_flow.flow_slug, v_other
        using errcode = 'PF001',
              detail = 'Queue tables have lower-case names, so both flows would share one queue.',
              hint = 'Rename one of the flows.';
    end if;
  end if;

  insert into pgflow.flows (flow_slug, opt_max_attempts, opt_base_delay, opt_timeout)
  values (
    create_flow.flow_slug,
    coalesce(max_attempts, 3),
    coalesce(base_delay, 5),
    coalesce(timeout, 60)
  )
  on conflict (flow_slug) do nothing;

  if not exists (select 1 from pgmq.list_queues() q where q.queue_name = create_flow.flow_slug) then
    perform pgmq.create(create_flow.flow_slug);
  end if;

  select f.* into v_flow from pgflow.flows f where f.flow_slug = create_flow.flow_slug;
  return v_flow;
end;
$$;
