-- Ours: runs with keys. Whoever starts a run with a key that its flow has gets the run of it, if that was given the
-- same, and nothing is started. What a run was given is compared by a hash that its starter made of it, or, where it
-- was one value, as that value.

-- Takes a key for the run to come of this id, or answers the run that has it. Only a key that is being taken by
-- another transaction is waited for.
create or replace function pgflow._take_key(
  flow_slug text,
  key text,
  run_id uuid,
  input_hash bytea,
  out known pgflow.run_keys
)
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
#variable_conflict use_column
begin
  if key is null or length(key) not between 1 and 200 or key <> btrim(key)
    or key collate "C" ~ '[\x01-\x1f\x7f]'
  then
    raise exception 'A key has 1 to 200 characters, no control characters, and no spaces at its ends'
      using errcode = 'invalid_parameter_value';
  end if;
  for i in 1..5 loop
    insert into pgflow.run_keys (flow_slug, key, run_id, input_hash)
    values (_take_key.flow_slug, _take_key.key, _take_key.run_id, _take_key.input_hash)
    on conflict on constraint run_keys_pkey do nothing;
    if found then
      return;
    end if;
    select k.* into known
    from pgflow.run_keys k
    where k.flow_slug = _take_key.flow_slug and k.key = _take_key.key;
    if found then
      return;
    end if; -- it was pruned in between
  end loop;
  raise exception 'The key "%" is being taken or given back by others', key using errcode = 'serialization_failure';
end;
$$;

create or replace function pgflow._refuse_other_input(known pgflow.run_keys)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'Run % of flow "%" has the key "%", and was started with another input',
    known.run_id, known.flow_slug, known.key
    using errcode = 'PF007', hint = 'Give another key, or the input that it was started with.';
end;
$$;

-- Starts a run with this key, or finds the one that has it. Raises PF007 where that was given another input.
create or replace function pgflow.start_keyed_run(
  flow_slug text,
  key text,
  input jsonb,
  input_hash bytea default null,
  priority int default 0,
  out run_id uuid,
  out is_new boolean
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_known pgflow.run_keys;
  v_run_id uuid := gen_random_uuid();
begin
  perform pgflow._require_flow('start_keyed_run', start_keyed_run.flow_slug);
  v_known := pgflow._take_key(start_keyed_run.flow_slug, start_keyed_run.key, v_run_id, start_keyed_run.input_hash);
  start_keyed_run.is_new := v_known.run_id is null;
  if start_keyed_run.is_new then
    start_keyed_run.run_id := pgflow.start_run(
      start_keyed_run.flow_slug, start_keyed_run.input, v_run_id, start_keyed_run.priority
    );
    return;
  end if;
  start_keyed_run.run_id := v_known.run_id;
  if v_known.input_hash = start_keyed_run.input_hash then
    return;
  end if;
  if not exists (
    select 1 from pgflow.runs r where r.run_id = v_known.run_id and r.input = start_keyed_run.input
  ) or exists (
    select 1 from pgflow.loads l where l.run_id = v_known.run_id and l.is_started
  ) then
    perform pgflow._refuse_other_input(v_known);
  end if;
end;
$$;

-- The same of a load (functions/0235_loads.sql), which is dropped where there is a run with the key.
create or replace function pgflow.start_keyed_load(
  load_id uuid,
  key text,
  input_hash bytea,
  params jsonb default '{}',
  priority int default 0,
  out run_id uuid,
  out is_new boolean
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_known pgflow.run_keys;
  v_load record;
begin
  select * into v_load from pgflow._lock_load('start_keyed_load', start_keyed_load.load_id);
  if start_keyed_load.input_hash is null then
    raise exception 'A load has a key only with a hash of its items' using errcode = 'invalid_parameter_value';
  end if;
  v_known := pgflow._take_key(
    v_load.flow_slug, start_keyed_load.key, start_keyed_load.load_id, start_keyed_load.input_hash
  );
  start_keyed_load.is_new := v_known.run_id is null;
  if start_keyed_load.is_new then
    start_keyed_load.run_id := pgflow.start_loaded_run(
      start_keyed_load.load_id, start_keyed_load.params, start_keyed_load.priority
    );
    return;
  end if;
  if v_known.input_hash is distinct from start_keyed_load.input_hash then
    perform pgflow._refuse_other_input(v_known);
  end if;
  start_keyed_load.run_id := v_known.run_id;
  perform pgflow._drop_loads(array[start_keyed_load.load_id]);
end;
$$;

-- The run that has a key; no row without one.
create or replace function pgflow.run_of_key(flow_slug text, key text)
returns table (run_id uuid, input_hash bytea)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pgflow._require_flow('run_of_key', run_of_key.flow_slug);
  return query
    select k.run_id, k.input_hash
    from pgflow.run_keys k
    where k.flow_slug = run_of_key.flow_slug and k.key = run_of_key.key;
end;
$$;

-- The keys of those runs that have one.
create or replace function pgflow.keys_of_runs(run_ids uuid[])
returns table (run_id uuid, key text)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select k.run_id, k.key
  from pgflow.run_keys k
  where k.run_id = any (keys_of_runs.run_ids)
    and coalesce(k.flow_slug = any ((select pgflow._granted_flows('keys_of_runs'))::text[]), true);
$$;
