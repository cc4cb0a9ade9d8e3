-- The names of queues (contract 0.17 section 3). A flow in mode "flow" has one queue, named like it in
-- lower case; in mode "step" each of its steps has one of its own. What is stored and passed to pgmq is
-- always the lower-case name; a queue that an older release made may be listed in another spelling.

-- Definitions of one flow are changed by one transaction at a time.
create or replace function pgflow._lock_definition(flow_slug text)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_advisory_xact_lock(1, hashtext(lower(flow_slug))); $$;

-- A queue that was there before may have triggers and policies of its owner's, which would run with our
-- rights: only that of a role is taken which may act as the owner of our schema anyway.
create or replace function pgflow._require_own_queue(queue_name text)
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
    and c.relname in (pgmq.format_table_name(queue_name, 'q'), pgmq.format_table_name(queue_name, 'a'))
    and not pg_has_role(c.relowner, n.nspowner, 'usage')
  limit 1;
  if found then
    raise exception 'The queue "%" cannot be used: table pgmq.% belongs to role %',
      queue_name, quote_ident(v_table), quote_ident(pg_get_userbyid(v_owner))
      using errcode = 'insufficient_privilege',
            hint = 'Its triggers would run with our rights. Create the flow as the owner of the schema pgflow, or '
              'choose another flow slug.';
  end if;
end;
$$;

-- A queue by pgmq, whose table is then made for being claimed from. A claim changes vt: where the page has
-- room and no B-tree has that column, the row is rewritten in place (from PostgreSQL 16 on). Nothing looks
-- messages up by vt: pgmq reads in the order of msg_id. Where a queue was lost, the ids of the new one go on
-- after those that tasks have: an id is looked for in all of them, and is unique among them.
create or replace function pgflow._create_queue(queue_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
  v_table text := pgmq.format_table_name(queue_name, 'q');
  v_sequence regclass;
  v_last_id bigint;
begin
  perform pgmq.create(queue_name);
  perform pgflow._require_own_queue(queue_name); -- its tables may have been there, though it was not listed
  select max(t.message_id) into v_last_id
  from pgflow.step_tasks t
  where t.queue_name = lower(_create_queue.queue_name);
  v_sequence := pg_get_serial_sequence(format('pgmq.%I', v_table), 'msg_id');
  if v_last_id > coalesce(pg_sequence_last_value(v_sequence), 0) then
    perform setval(v_sequence, v_last_id);
  end if;
  execute format('drop index if exists pgmq.%I', v_table || '_vt_idx');
  execute format('create index %I on pgmq.%I using brin (vt)', v_table || '_vt_idx', v_table);
  execute format('alter table pgmq.%I set (fillfactor = 50)', v_table);
end;
$$;

-- The spellings in which a queue is listed, "ambcase" before "AmbCase" whatever the database's collation.
create or replace function pgflow._listed_spellings(queue_name text)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
begin
  return array(
    select q.queue_name::text
    from pgmq.list_queues() q
    where lower(q.queue_name) = lower(_listed_spellings.queue_name)
    order by translate(
      q.queue_name,
      'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ',
      'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
    ) collate "C"
  );
end;
$$;

create or replace function pgflow._listed_queue_name(p_queue_name text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spellings text[] := pgflow._listed_spellings(p_queue_name);
begin
  if cardinality(v_spellings) > 1 then
    raise exception 'queue name "%" is ambiguous: it matches listed queues %', p_queue_name, v_spellings
      using errcode = 'ambiguous_alias';
  end if;
  return coalesce(v_spellings[1], p_queue_name);
end;
$$;

create or replace function pgflow._resolve_step_queue_name(p_flow_slug text, p_step_slug text, p_step_index int)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_readable text := lower(p_flow_slug || '__' || p_step_slug);
  v_fallback text := lower(p_flow_slug || '__' || p_step_index);
  v_shortest text := lower(p_flow_slug || '__0');
begin
  if length(v_readable) <= 47 then
    return v_readable;
  elsif length(v_shortest) > 47 then
    raise exception 'Flow "%" cannot use per-step queues.', p_flow_slug
      using detail = format('The shortest required queue "%s" is %s characters; PGMQ allows at most 47.',
              v_shortest, length(v_shortest)),
            hint = 'Shorten the concrete flow slug or use the default single queue.';
  elsif length(v_fallback) <= 47 then
    return v_fallback;
  end if;
  raise exception 'Cannot derive a queue for step "%" at index % in flow "%".',
    p_step_slug, p_step_index, p_flow_slug
    using detail = format(
            'The readable name is %s characters and the index fallback is %s; PGMQ allows at most 47.',
            length(v_readable), length(v_fallback)),
          hint = 'Shorten the concrete flow slug, shorten the step slug enough for the readable name, or use the default single queue.';
end;
$$;

-- The route map of a shape: which queue each step has, in order. Slugs that are stored already were valid
-- when that happened.
create or replace function pgflow._derive_queue_routes(p_flow_slug text, p_shape jsonb, p_queue_mode text)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
  v_rules constant text := 'Slugs are 1-128 characters of letters, digits, and single underscores, must start with a letter, cannot end with an underscore, cannot contain ''__'', and cannot be the reserved word ''run''.';
  v_slugs text[] := array(
    select e.value ->> 'slug'
    from jsonb_array_elements(coalesce(p_shape -> 'steps', '[]'::jsonb)) with ordinality e (value, n)
    order by e.n
  );
  v_slug text;
  v_queue text := lower(p_flow_slug);
  v_queues text[] := '{}';
  v_routes jsonb := '[]';
  v_before int;
begin
  if p_queue_mode not in ('flow', 'step') then
    raise exception 'Unknown queue mode "%".', p_queue_mode
      using hint = 'Queue mode must be ''flow'' or ''step''.';
  end if;
  if p_queue_mode = 'step' and cardinality(v_slugs) = 0 then
    raise exception 'Flow "%" cannot use per-step queues: it has no steps.', p_flow_slug
      using detail = 'Per-step queue mode requires at least one step.',
            hint = 'Add a step or keep the flow on the default single queue.';
  end if;
  if not pgflow.is_valid_slug(p_flow_slug)
    and not exists (select 1 from pgflow.flows f where f.flow_slug = p_flow_slug)
  then
    raise exception 'Flow slug "%" is not valid.', p_flow_slug
      using detail = v_rules, hint = 'Fix the flow slug in the flow definition.';
  end if;
  foreach v_slug in array v_slugs loop
    if not pgflow.is_valid_slug(v_slug) and not exists (
      select 1 from pgflow.steps s where s.flow_slug = p_flow_slug and s.step_slug = v_slug
    ) then
      raise exception 'Step slug "%" in flow "%" is not valid.', v_slug, p_flow_slug
        using detail = v_rules, hint = 'Fix the step slug in the flow definition.';
    end if;
  end loop;

  for v_index in 1 .. cardinality(v_slugs) loop
    v_slug := v_slugs[v_index];
    select min(b.n) into v_before
    from unnest(v_slugs[: v_index - 1]) with ordinality b (slug, n)
    where lower(b.slug) = lower(v_slug);
    if v_before is not null then
      raise exception 'Steps "%" and "%" in flow "%" conflict case-insensitively.',
        v_slugs[v_before], v_slug, p_flow_slug
        using detail = 'Step slugs must be unique case-insensitively.',
              hint = 'Rename one of the colliding steps.';
    end if;
    if p_queue_mode = 'step' then
      v_queue := pgflow._resolve_step_queue_name(p_flow_slug, v_slug, v_index - 1);
      perform pgmq.validate_queue_name(v_queue);
      v_before := array_position(v_queues, v_queue);
      if v_before is not null then
        raise exception 'Steps "%" and "%" in flow "%" both resolve to queue "%".',
          v_slugs[v_before], v_slug, p_flow_slug, v_queue
          using detail = 'Generated queue names must be unique per flow.',
                hint = 'Step slugs must be unique case-insensitively; rename one of the colliding steps.';
      end if;
    end if;
    v_queues := v_queues || v_queue;
    v_routes := v_routes || jsonb_build_object('stepSlug', v_slug, 'queueName', v_queue);
  end loop;
  return v_routes;
end;
$$;

-- True: the queue must still be made; false: it is there and this flow's. Anything else is an error.
create or replace function pgflow._assert_step_queue_available(p_flow_slug text, p_queue_name text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_other text;
  v_spellings text[];
  v_owned boolean;
begin
  select o.flow_slug into v_other
  from (
    select s.flow_slug from pgflow.steps s where s.queue_name = p_queue_name
    union
    select f.flow_slug from pgflow.flows f
    where f.queue_mode = 'flow' and lower(f.flow_slug) = p_queue_name
  ) o
  where lower(o.flow_slug) <> lower(p_flow_slug)
  order by o.flow_slug collate "C"
  limit 1;
  if found then
    raise exception 'cannot create flow "%": queue "%" is already used by another flow ("%")',
      p_flow_slug, p_queue_name, v_other
      using detail = 'Generated per-step queue names must belong to exactly one concrete flow.',
            hint = 'Use a different concrete flow slug, or drop the conflicting definition.';
  end if;

  v_spellings := pgflow._listed_spellings(p_queue_name);
  if cardinality(v_spellings) > 1 then
    raise exception 'queue "%" matches multiple listed PGMQ queues (%)', p_queue_name, v_spellings
      using detail = 'An ambiguous case-insensitive match is external damage.',
            hint = 'Resolve the duplicate queue spellings manually, then retry.';
  end if;

  v_owned := exists (
    select 1 from pgflow.steps s where s.flow_slug = p_flow_slug and s.queue_name = p_queue_name
  );
  if v_owned and cardinality(v_spellings) = 0 then
    raise exception 'queue "%" owned by flow "%" is not listed in PGMQ', p_queue_name, p_flow_slug
      using detail = 'The queue was dropped by hand; its messages are gone, and its tasks cannot be claimed.',
            hint = 'Drop the definition (pgflow.delete_flow_and_data) and compile the flow again.';
  elsif v_owned then
    return false;
  elsif cardinality(v_spellings) > 0 then
    raise exception 'cannot create flow "%": queue "%" is already listed in PGMQ and not owned by this flow',
      p_flow_slug, p_queue_name
      using detail = 'A missing definition must not adopt an already listed queue.',
            hint = 'Drop the conflicting queue or use a different concrete flow slug.';
  end if;
  return true;
end;
$$;

-- Ours: the queues of a flow, each with the step that it is for (null: all of them). No row: no such flow.
create or replace function pgflow.flow_queues(flow_slug text)
returns table (queue_name text, step_slug text)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select q.queue_name, q.step_slug
  from pgflow.flows f
  cross join lateral (
    select lower(f.flow_slug), null::text, 0
    where f.queue_mode = 'flow'
    union all
    select s.queue_name, s.step_slug, s.step_index
    from pgflow.steps s
    where s.flow_slug = f.flow_slug and f.queue_mode = 'step'
  ) q (queue_name, step_slug, place)
  where f.flow_slug = flow_queues.flow_slug
    and coalesce(f.flow_slug = any ((select pgflow._granted_flows('flow_queues'))::text[]), true)
  order by q.place;
$$;

-- Ours: the queue that this worker serves: the flow's, or that of one step, for which it is registered.
create or replace function pgflow._served_queue(
  flow_slug text,
  worker_id uuid,
  out queue_name text,
  out step_slug text
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_mode text;
begin
  select f.queue_mode into v_mode from pgflow.flows f where f.flow_slug = _served_queue.flow_slug;
  if v_mode = 'flow' then
    _served_queue.queue_name := lower(_served_queue.flow_slug);
  elsif found then
    select s.queue_name, s.step_slug into _served_queue.queue_name, _served_queue.step_slug
    from pgflow.workers w
    join pgflow.steps s on s.flow_slug = _served_queue.flow_slug and s.queue_name = w.queue_name
    where w.worker_id = _served_queue.worker_id;
  end if;
end;
$$;
