-- create_flow (contract section 4.1).

-- A queue by pgmq, whose table is then made for being claimed from. A claim changes vt: where the page has
-- room and no B-tree has that column, the row is rewritten in place (from PostgreSQL 16 on). Nothing looks
-- messages up by vt: pgmq reads in the order of msg_id.
create or replace function pgflow._create_queue(flow_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
  v_table text := pgmq.format_table_name(flow_slug, 'q');
begin
  perform pgmq.create(flow_slug);
  execute format('drop index if exists pgmq.%I', v_table || '_vt_idx');
  execute format('create index %I on pgmq.%I using brin (vt)', v_table || '_vt_idx', v_table);
  execute format('alter table pgmq.%I set (fillfactor = 50)', v_table);
end;
$$;

-- A queue that was there before may have triggers and policies of its owner's, which would run with our
-- rights: only that of a role is taken which may act as the owner of our schema anyway.
create or replace function pgflow._require_own_queue(flow_slug text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
  v_table text;
  v_owner oid;
begin
  select c.relname, c.relowner into v_table, v_owner
  from pg_catalog.pg_namespace q
  join pg_catalog.pg_class c on c.relnamespace = q.oid
  join pg_catalog.pg_namespace n on n.nspname = 'pgflow'
  where q.nspname = 'pgmq'
    and c.relname in (pgmq.format_table_name(flow_slug, 'q'), pgmq.format_table_name(flow_slug, 'a'))
    and not pg_has_role(c.relowner, n.nspowner, 'usage')
  limit 1;
  if found then
    raise exception 'The queue of flow "%" is not ours: table pgmq.% belongs to role %',
      flow_slug, quote_ident(v_table), quote_ident(pg_get_userbyid(v_owner))
      using errcode = 'insufficient_privilege',
            hint = 'Its triggers would run with our rights. Create the flow as the owner of the schema pgflow, or '
              'choose another flow slug.';
  end if;
end;
$$;

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
    perform pgflow._create_queue(create_flow.flow_slug);
  end if;
  perform pgflow._require_own_queue(create_flow.flow_slug);

  select f.* into v_flow from pgflow.flows f where f.flow_slug = create_flow.flow_slug;
  return v_flow;
end;
$$;
