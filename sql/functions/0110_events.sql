-- Events (contract section 12). One place sends them all: realtime.send where Supabase provides it, that is,
-- where it and its schema belong to a role that may act as ours anyway (a superuser, there), for it runs with
-- our rights; else NOTIFY pgflow_events, which every role that can log in may listen to: there they tell ids, slugs,
-- status and times. Inputs, outputs, errors and reasons are told only where the schema's owner wants it:
-- insert into pgflow.settings values ('events', 'full'). A notification holds at most 8000 bytes, so the
-- bulky key is left out then where it does not fit, long texts are cut, and "truncated": true says so.

create or replace function pgflow._events_in_full()
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (select 1 from pgflow.settings s where s.name = 'events' and s.value = 'full');
end;
$$;

-- Whether Supabase's own function sends the events.
create or replace function pgflow._sends_realtime()
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return to_regnamespace('realtime') is not null and exists (
    select 1
    from pg_catalog.pg_namespace n
    join pg_catalog.pg_proc p on p.pronamespace = n.oid
    where n.nspname = 'realtime'
      and p.proname = 'send'
      and array(select unnest(p.proargtypes)) = '{jsonb, text, text, bool}'::regtype[]::oid[]
      and pg_has_role(n.nspowner, current_user, 'usage')
      and pg_has_role(p.proowner, current_user, 'usage')
      and has_schema_privilege(n.oid, 'usage')
      and has_function_privilege(p.oid, 'execute')
  );
end;
$$;

-- The payload without content: a list of what is harmless, not of what is not.
create or replace function pgflow._without_content(payload jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(e.key, e.value)
  from jsonb_each(payload) e
  where e.key in (
    'event_type', 'run_id', 'flow_slug', 'step_slug', 'status',
    'started_at', 'completed_at', 'failed_at', 'skipped_at'
  );
$$;

-- The payload with its long texts cut to 1000 characters together, which are 6000 bytes at most
-- ("\u0001"). Ids, slugs and times are shorter than what counts as long.
create or replace function pgflow._cut_long_texts(payload jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select payload || coalesce(jsonb_object_agg(t.key, left(t.value, 1000 / t.texts)), '{}'::jsonb)
  from (
    select e.key, e.value #>> '{}' as value, count(*) over ()::int as texts
    from jsonb_each(payload) e
    where jsonb_typeof(e.value) = 'string' and length(e.value #>> '{}') > 128
  ) t;
$$;

create or replace function pgflow._emit_event(
  run_id uuid,
  event text,
  payload jsonb,
  body_key text default null,
  body jsonb default null
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text;
begin
  if to_regnamespace('realtime') is not null and pgflow._sends_realtime() then
    if body_key is not null then
      payload := payload || jsonb_build_object(body_key, body);
    end if;
    begin
      execute 'select realtime.send($1, $2, $3, false)'
        using payload, event, 'pgflow:run:' || run_id::text;
    exception when others then -- what is told of a run is no part of it
      raise warning 'Event % of run % was not sent: %', event, run_id, sqlerrm;
    end;
    return;
  end if;

  if not pgflow._events_in_full() then
    perform pg_notify('pgflow_events', pgflow._without_content(payload)::text);
    return;
  end if;

  if body_key is not null and (body is null or pg_column_size(body) < 6000) then
    v_text := (payload || jsonb_build_object(body_key, body))::text;
  elsif body_key is null then
    v_text := payload::text;
  end if;
  if v_text is null or octet_length(v_text) > 7900 then
    payload := payload || '{"truncated": true}';
    v_text := payload::text;
  end if;
  if octet_length(v_text) > 7900 then
    v_text := pgflow._cut_long_texts(payload)::text;
  end if;
  perform pg_notify('pgflow_events', v_text);
end;
$$;

create or replace function pgflow._emit_run_event(
  run_id uuid,
  status text,
  payload jsonb,
  body_key text default null,
  body jsonb default null
)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow._emit_event(
    run_id,
    'run:' || status,
    jsonb_build_object('event_type', 'run:' || status, 'run_id', run_id, 'status', status) || payload,
    body_key,
    body
  );
$$;

create or replace function pgflow._emit_step_event(
  run_id uuid,
  step_slug text,
  status text,
  payload jsonb,
  body_key text default null,
  body jsonb default null
)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow._emit_event(
    run_id,
    'step:' || step_slug || ':' || status,
    jsonb_build_object(
      'event_type', 'step:' || status,
      'run_id', run_id,
      'step_slug', step_slug,
      'status', status
    ) || payload,
    body_key,
    body
  );
$$;
