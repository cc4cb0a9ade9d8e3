-- Ours: what steps require of a worker, and what workers have.

-- Texts that may be labels, each once, in order; NULL where there are none.
create or replace function pgflow._checked_labels(labels text[])
returns text[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wrong text;
begin
  select l.label into v_wrong
  from unnest(labels) l (label)
  where l.label is null or l.label collate "C" !~ '^[A-Za-z0-9][A-Za-z0-9._:/=@+-]{0,63}$'
  limit 1;
  if found then
    raise exception 'A label is 1 to 64 letters, digits and ._:/=@+-, the first a letter or a digit, not %',
      coalesce(quote_literal(left(v_wrong, 100)), 'NULL')
      using errcode = 'invalid_parameter_value';
  end if;
  if cardinality(labels) > 100 then
    raise exception 'There may be 100 labels at most, not %', cardinality(labels)
      using errcode = 'invalid_parameter_value';
  end if;
  return (select array_agg(distinct l.label order by l.label) from unnest(labels) l (label));
end;
$$;

-- Sets what a step requires of a worker; nothing where there are no labels. It holds from the next claim on.
create or replace function pgflow.set_requirements(flow_slug text, step_slug text, labels text[] default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_labels text[] := pgflow._checked_labels(set_requirements.labels);
begin
  perform pgflow._require_stored_step(set_requirements.flow_slug, coalesce(set_requirements.step_slug, ''));
  if v_labels is null then
    delete from pgflow.step_requirements r
    where r.flow_slug = set_requirements.flow_slug and r.step_slug = set_requirements.step_slug;
  else
    insert into pgflow.step_requirements as r (flow_slug, step_slug, labels)
    values (set_requirements.flow_slug, set_requirements.step_slug, v_labels)
    on conflict on constraint step_requirements_pkey do update
      set labels = excluded.labels
      where r.labels <> excluded.labels;
  end if;
  if found then
    perform pg_notify('pgflow_work', set_requirements.flow_slug);
  end if;
end;
$$;

-- What a step of a shape requires.
create or replace function pgflow._requirements_in(p_step jsonb)
returns text[]
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(e.label)
  from jsonb_array_elements_text(
    case when jsonb_typeof(p_step -> 'options' -> 'requires') = 'array' then p_step -> 'options' -> 'requires' end
  ) e (label);
$$;

-- Makes what steps of a flow require what its shape says, of all its steps or of these.
create or replace function pgflow._set_requirements_from_shape(
  p_flow_slug text,
  p_shape jsonb,
  p_steps text[] default null
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.set_requirements(p_flow_slug, e.value ->> 'slug', pgflow._requirements_in(e.value))
  from jsonb_array_elements(coalesce(p_shape -> 'steps', '[]'::jsonb)) e
  where (p_steps is null or e.value ->> 'slug' = any (p_steps))
    and pgflow._checked_labels(pgflow._requirements_in(e.value)) is distinct from (
      select r.labels from pgflow.step_requirements r
      where r.flow_slug = p_flow_slug and r.step_slug = e.value ->> 'slug'
    );
end;
$$;

-- The steps of a flow that require what this worker does not have; NULL: none.
create or replace function pgflow._barred_steps(flow_slug text, worker_id uuid)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  return (
    select array_agg(r.step_slug)
    from pgflow.step_requirements r
    where r.flow_slug = _barred_steps.flow_slug
      and not r.labels <@ coalesce(
        (select w.labels from pgflow.workers w where w.worker_id = _barred_steps.worker_id), '{}'
      )
  );
end;
$$;

-- Writes a worker's row as register_worker does, with what it has.
create or replace function pgflow.register_worker(
  worker_id uuid,
  queue_name text,
  function_name text,
  dead_after interval,
  labels text[]
)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_labels text[] := coalesce(pgflow._checked_labels(register_worker.labels), '{}');
begin
  perform pgflow.register_worker(
    register_worker.worker_id, register_worker.queue_name, register_worker.function_name, register_worker.dead_after
  );
  update pgflow.workers w
  set labels = v_labels
  where w.worker_id = register_worker.worker_id
    and w.labels <> v_labels
    and coalesce(lower(w.queue_name) = any (pgflow._granted_queues('register_worker')), true);
end;
$$;

-- What steps of these flows require, as far as the caller may use them.
create or replace function pgflow.list_requirements(flow_slugs text[])
returns table (flow_slug text, step_slug text, labels text[])
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select r.flow_slug, r.step_slug, r.labels
  from pgflow.step_requirements r
  where r.flow_slug = any (flow_slugs)
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('list_requirements'))::text[]), true)
  order by r.flow_slug collate "C", r.step_slug collate "C";
$$;
