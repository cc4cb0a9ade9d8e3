-- Creates a flow and its queue; one that is there stays as it is, and is answered (contract section 4.1).
create or replace function pgflow.create_flow(
  flow_slug text,
  max_attempts int default null,
  base_delay int default null,
  timeout int default null
)
returns pgflow.flows
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
#variable_conflict use_column
declare
  v_flow pgflow.flows;
  v_queue text := lower(create_flow.flow_slug);
begin
  perform pgflow._lock_definition(create_flow.flow_slug);

  if not exists (select 1 from pgflow.flows f where lower(f.flow_slug) = v_queue)
    and cardinality(pgflow._listed_spellings(v_queue)) > 0
  then
    raise exception 'cannot create flow "%": queue "%" is already in use by another owner',
      create_flow.flow_slug, v_queue
      using errcode = 'unique_violation',
            detail = 'A new flow takes over no queue that is there already.',
            hint = 'Drop that queue or use another flow slug.';
  end if;

  insert into pgflow.flows (flow_slug, opt_max_attempts, opt_base_delay, opt_timeout)
  values (
    create_flow.flow_slug,
    coalesce(max_attempts, 3),
    coalesce(base_delay, 5),
    coalesce(timeout, 60)
  )
  on conflict (flow_slug) do nothing;

  select f.* into v_flow from pgflow.flows f where f.flow_slug = create_flow.flow_slug;
  if v_flow.queue_mode = 'flow' and cardinality(pgflow._listed_spellings(v_queue)) = 0 then
    if length(v_queue) > 47 then
      raise exception 'queue name is too long, maximum length is 47 characters'
        using detail = format('The flow slug %L has %s characters and names the flow''s queue.',
                create_flow.flow_slug, length(v_queue)),
              hint = 'Choose a flow slug of at most 47 characters.';
    end if;
    perform pgflow._create_queue(v_queue);
  elsif v_flow.queue_mode = 'flow' then
    perform pgflow._require_own_queue(v_queue);
  end if;
  return v_flow;
end;
$$;
