-- Ours: policies of map steps: which failures they tolerate, how their items are stored and handed out.

-- Sets all of a step's policy, but for its storage, which stays as it is where none is given.
create or replace function pgflow.set_step_policy(
  flow_slug text,
  step_slug text,
  tolerated_failures int default null,
  tolerated_share numeric default null,
  stop_after_alike int default null,
  storage text default null,
  batch int default null,
  barrier boolean default null
)
returns pgflow.step_policies
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_policy pgflow.step_policies;
begin
  if (tolerated_failures is not null or tolerated_share is not null) and exists (
    select 1 from pgflow.steps s
    where s.flow_slug = set_step_policy.flow_slug
      and s.step_slug = set_step_policy.step_slug
      and s.step_type <> 'map'
  ) then
    raise exception 'Step "%" is not a map step, only those can tolerate failed tasks', set_step_policy.step_slug
      using errcode = 'PF005', hint = 'Use when_exhausted for a single step.';
  end if;
  if (storage is not null or batch is not null or barrier is not null) and exists (
    select 1 from pgflow.steps s
    where s.flow_slug = set_step_policy.flow_slug
      and s.step_slug = set_step_policy.step_slug
      and s.step_type <> 'map'
  ) then
    raise exception 'Step "%" is not a map step, only those have storage, batch and barrier', set_step_policy.step_slug
      using errcode = 'PF005', hint = 'A single step is one task.';
  end if;
  if not barrier and not exists (
    select 1
    from pgflow.steps s
    join pgflow.deps d on d.flow_slug = s.flow_slug and d.step_slug = s.step_slug
    join pgflow.steps parent on parent.flow_slug = d.flow_slug and parent.step_slug = d.dep_slug
    where s.flow_slug = set_step_policy.flow_slug
      and s.step_slug = set_step_policy.step_slug
      and parent.step_type = 'map'
      and s.required_input_pattern is null
      and s.forbidden_input_pattern is null
  ) then
    raise exception 'Step "%" cannot begin before its parent is done', set_step_policy.step_slug
      using errcode = 'PF005', hint = 'Only a map over a map can, and only without conditions: remove barrier => false.';
  end if;
  insert into pgflow.step_policies as p (
    flow_slug, step_slug, tolerated_failures, tolerated_share, stop_after_alike, storage, batch, barrier
  )
  values (
    set_step_policy.flow_slug, set_step_policy.step_slug, set_step_policy.tolerated_failures,
    set_step_policy.tolerated_share, set_step_policy.stop_after_alike,
    set_step_policy.storage, set_step_policy.batch, set_step_policy.barrier
  )
  on conflict on constraint step_policies_pkey do update
    set tolerated_failures = excluded.tolerated_failures,
        tolerated_share = excluded.tolerated_share,
        stop_after_alike = excluded.stop_after_alike,
        storage = coalesce(excluded.storage, p.storage),
        batch = excluded.batch,
        barrier = excluded.barrier
  returning p.* into v_policy;
  return v_policy;
end;
$$;

-- p_is_new: the flow was created from the shape, so its maps are stored as the shape says for those that do not
-- say it themselves. One that was there keeps what it has.
create or replace function pgflow._set_policies_from_shape(p_flow_slug text, p_shape jsonb, p_is_new boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.set_step_policy(
    p_flow_slug,
    e.value ->> 'slug',
    (e.value -> 'options' ->> 'toleratedFailures')::int,
    (e.value -> 'options' ->> 'toleratedShare')::numeric,
    (e.value -> 'options' ->> 'stopAfterAlike')::int,
    s.storage,
    (e.value -> 'options' ->> 'batch')::int,
    (e.value -> 'options' ->> 'barrier')::boolean
  )
  from jsonb_array_elements(coalesce(p_shape -> 'steps', '[]'::jsonb)) e
  cross join lateral (
    select coalesce(
      e.value -> 'options' ->> 'storage',
      case when p_is_new and e.value ->> 'stepType' = 'map' then p_shape -> 'options' ->> 'defaultStorage' end
    ) as storage
  ) s
  where s.storage is not null
    or e.value -> 'options' ?| array['toleratedFailures', 'toleratedShare', 'stopAfterAlike', 'batch', 'barrier'];
end;
$$;

-- How many of a step's tasks may fail for good before the step does.
create or replace function pgflow._tolerated_failures(flow_slug text, step_slug text, initial_tasks int)
returns int
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(max(greatest(
    coalesce(p.tolerated_failures, 0),
    floor(coalesce(p.tolerated_share, 0) * _tolerated_failures.initial_tasks)
  )), 0)::int
  from pgflow.step_policies p
  where p.flow_slug = _tolerated_failures.flow_slug and p.step_slug = _tolerated_failures.step_slug;
$$;

-- True when nothing of the step has succeeded yet and its first failures, as many as its policy says,
-- are all the same error: the code is broken, not the items.
create or replace function pgflow._fails_alike(flow_slug text, run_id uuid, step_slug text)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_limit int;
begin
  select p.stop_after_alike into v_limit
  from pgflow.step_policies p
  where p.flow_slug = _fails_alike.flow_slug and p.step_slug = _fails_alike.step_slug;
  if v_limit is null then
    return false;
  end if;
  return (
    select count(*) >= least(v_limit, ss.initial_tasks)
      and count(distinct split_part(t.error_message, E'\n', 1)) = 1
    from pgflow.step_states ss
    join pgflow.step_tasks t
      on t.run_id = ss.run_id and t.step_slug = ss.step_slug and t.error_message is not null
    where ss.run_id = _fails_alike.run_id
      and ss.step_slug = _fails_alike.step_slug
      and ss.remaining_tasks + ss.failed_tasks = ss.initial_tasks
    group by ss.initial_tasks
  );
end;
$$;
