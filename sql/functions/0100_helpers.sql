-- Small helpers without state (contract section 3).

-- A letter, then letters, digits and single underscores between them: two join the slugs of a flow and a step
-- in the name of a queue. The migration that made the tables made this one too, because their checks call it. Here again: what a
-- migration defined is replaced by an upgrade only so.
create or replace function pgflow.is_valid_slug(slug text)
returns boolean
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select slug is not null
    and slug <> 'run'
    and length(slug) <= 128
    and slug collate "C" ~ '^[a-zA-Z](_?[a-zA-Z0-9])*$';
$$;

-- The object of these outputs by slug; NULL of none. jsonb_object_agg takes a time that grows with the square of the
-- texts in one output, and so does jsonb_agg: to_jsonb(array_agg()) does not.
create or replace function pgflow._object_of(slugs text[], outputs jsonb[])
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_object jsonb;
  v_slug text;
  v_output jsonb;
begin
  for v_slug, v_output in
    select u.slug, u.output from unnest(slugs, outputs) u (slug, output)
  loop
    v_object := coalesce(v_object, '{}'::jsonb) || jsonb_build_object(v_slug, v_output);
  end loop;
  return v_object;
end;
$$;

-- Whether this database is a local Supabase stack, told by the secret that these are made with (contract
-- section 3).
create or replace function pgflow.is_local()
returns boolean
language sql
stable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(current_setting('app.settings.jwt_secret', true), '')
    = 'super-secret-jwt-token-with-at-least-32-characters-long';
$$;

-- floor(base_delay * 2^attempts_count) seconds, clamped to what an int holds.
create or replace function pgflow.calculate_retry_delay(base_delay numeric, attempts_count int)
returns int
language sql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when base_delay <= 0 then 0
    when attempts_count > 62 then 2147483647
    else least(floor(base_delay * power(2::numeric, attempts_count)), 2147483647)::int
  end;
$$;

-- Raises unless this schema, and what has these names in it, belongs to a role that may act as our caller
-- anyway: whoever may create a schema could lie in wait with one of a well-known name.
create or replace function pgflow._require_trusted(schema_name text, names text[])
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_what text;
  v_owner oid;
begin
  select o.what, o.owner into v_what, v_owner
  from pg_catalog.pg_namespace n
  cross join lateral (
    select format('Schema %I', n.nspname) as what, n.nspowner as owner
    union all
    select format('Function %I.%I', n.nspname, p.proname), p.proowner
    from pg_catalog.pg_proc p
    where p.pronamespace = n.oid and p.proname = any (names)
    union all
    select format('Relation %I.%I', n.nspname, c.relname), c.relowner
    from pg_catalog.pg_class c
    where c.relnamespace = n.oid and c.relname = any (names)
  ) o
  where n.nspname = schema_name and not pg_has_role(o.owner, current_user, 'usage')
  limit 1;
  if found then
    raise exception '% belongs to role %, whose code would run with the rights of %',
      v_what, quote_ident(pg_get_userbyid(v_owner)), quote_ident(current_user)
      using errcode = 'insufficient_privilege',
            hint = 'It is used only where its owner is a superuser, or may act as this role anyway.';
  end if;
end;
$$;

-- How far the tasks of one map are spawned once spawned_tasks of them exist and done_tasks are done.
-- A map is spawned window by window, so that a start answers fast and the queue stays short; a window
-- is large enough that cutting it out of the array costs little (at most a microsecond a task). Fewer
-- than one window means that rows were written by hand: those are taken as they are.
create or replace function pgflow._spawn_target(initial_tasks int, spawned_tasks int, done_tasks int)
returns int
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when spawned_tasks = 0 and done_tasks = 0 then least(initial_tasks, 20000)
    when spawned_tasks < 20000 or spawned_tasks - done_tasks > 10000 then spawned_tasks
    else least(initial_tasks, spawned_tasks + greatest(20000, least(initial_tasks / 10, 200000)))
  end;
$$;

-- The bytes that a jsonb value may hold: PostgreSQL refuses more (jsonb.h, JENTRY_OFFLENMASK). Whatever is
-- put together from outputs is held to this, so that a large one is missing by rule and never an error.
create or replace function pgflow._largest_json()
returns bigint
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 268435455::bigint $$;

-- Ours: a standby that lags does not know what it has not heard of: no answer about it is true there.
create or replace function pgflow._refuse_standby()
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_is_in_recovery() then
    raise exception 'Results cannot be recorded during recovery' using errcode = 'read_only_sql_transaction';
  end if;
end;
$$;

-- Ours: what was to be done for a run, by a function that does it for all, has ended with this error: the run is left
-- for the next call and the server's log says so, as others need not suffer for it. An error that is about the
-- server goes on to whoever called: connections, a server that only reads, resources, the system.
create or replace function pgflow._leave_run(run_id uuid, doing text, state text, message text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if left(state, 2) in ('08', '25', '53', '57', '58') then
    raise exception using errcode = state, message = _leave_run.message;
  end if;
  raise warning 'pgflow: run % is left as it is for now, % failed: %', run_id, doing, message
    using errcode = state;
end;
$$;
