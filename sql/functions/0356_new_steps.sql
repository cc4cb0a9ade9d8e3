-- Ours: a run gets the steps that came to its flow after it had been started.

-- The steps of its flow that a run has not got, in their order.
create or replace function pgflow._steps_without_state(flow_slug text, run_id uuid)
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select s.step_slug
    from pgflow.steps s
    where s.flow_slug = _steps_without_state.flow_slug
      and not exists (
        select 1 from pgflow.step_states ss
        where ss.run_id = _steps_without_state.run_id and ss.step_slug = s.step_slug
      )
    order by s.step_index
  );
$$;

-- How many tasks these steps have in the run; NULL where that is not known yet, or where no map can be made of what
-- there is: then why_not says so. A map over a step that was skipped has none, as ever.
create or replace function pgflow._tasks_of_new_steps(flow_slug text, run_id uuid, slugs text[])
returns table (step_slug text, tasks int, why_not text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select s.step_slug,
    case
      when s.step_type <> 'map' then 1
      when s.deps_count = 0 and l.is_started then l.items
      when s.deps_count = 0 then case when jsonb_typeof(r.input) = 'array' then jsonb_array_length(r.input) end
      when parent.status = 'skipped' then 0
      when parent.status <> 'completed' then null
      when p.step_type = 'map' then parent.initial_tasks
      when jsonb_typeof(parent.output) = 'array' then jsonb_array_length(parent.output)
    end,
    case
      when s.step_type <> 'map' then null
      when s.deps_count = 0 and not coalesce(l.is_started, jsonb_typeof(r.input) = 'array')
        then 'the input of the run is no array'
      when parent.status = 'completed' and p.step_type <> 'map'
        and coalesce(jsonb_typeof(parent.output) <> 'array', true)
        then format('the output of step "%s" is no array', parent.step_slug)
    end
  from pgflow.steps s
  join pgflow.runs r on r.run_id = _tasks_of_new_steps.run_id
  left join pgflow.loads l on l.run_id = r.run_id and l.is_started
  left join pgflow.deps d on d.flow_slug = s.flow_slug and d.step_slug = s.step_slug and s.step_type = 'map'
  left join pgflow.step_states parent on parent.run_id = r.run_id and parent.step_slug = d.dep_slug
  left join pgflow.steps p on p.flow_slug = d.flow_slug and p.step_slug = d.dep_slug
  where s.flow_slug = _tasks_of_new_steps.flow_slug and s.step_slug = any (slugs);
$$;

-- A step that was skipped with all that follows from it: what comes to depend on it later is skipped, too.
create or replace function pgflow._skips_what_follows(run_id uuid, step_slug text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select ss.skip_reason = 'dependency_skipped'
        or (ss.skip_reason = 'condition_unmet' and s.when_unmet = 'skip-cascade')
        or (ss.skip_reason = 'handler_failed' and s.when_exhausted = 'skip-cascade')
      from pgflow.step_states ss
      join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
      where ss.run_id = _skips_what_follows.run_id
        and ss.step_slug = _skips_what_follows.step_slug
        and ss.status = 'skipped'
    ),
    false
  );
$$;

-- The items that a run was loaded with as its input are that as one value from now on, for steps that read it. False:
-- there can be no such value.
create or replace function pgflow._make_items_input(run_id uuid)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_input jsonb;
begin
  update pgflow.loads l
  set is_input = false
  where l.run_id = _make_items_input.run_id and l.is_started and l.is_input;
  if not found then
    return true;
  end if;
  v_input := pgflow._collect_pages(_make_items_input.run_id, '');
  update pgflow.runs r set input = v_input where r.run_id = _make_items_input.run_id and v_input is not null;
  return found;
end;
$$;

-- Gives a run the steps that its flow has by now, and answers them. A run that has ended goes on with them, a failed one
-- also with what failed in it, as by retry_failed_tasks. What is done stays as it is. Does nothing where there are none.
create or replace function pgflow.add_new_steps(run_id uuid)
returns text[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run record;
  v_new text[];
  v_refused record;
  v_skipped text;
begin
  select r.flow_slug, r.status into v_run
  from pgflow.runs r
  where r.run_id = add_new_steps.run_id
  for update;
  if not found then
    raise exception 'There is no run % in this database', add_new_steps.run_id using errcode = 'PF003';
  end if;
  perform pgflow._require_flow('add_new_steps', v_run.flow_slug);
  v_new := pgflow._steps_without_state(v_run.flow_slug, add_new_steps.run_id);
  if cardinality(v_new) = 0 then
    return v_new;
  end if;
  select t.* into v_refused
  from pgflow._tasks_of_new_steps(v_run.flow_slug, add_new_steps.run_id, v_new) t
  where t.why_not is not null
  limit 1;
  if found then
    raise exception 'Run % cannot get the new step "%": it maps over items, and %',
      add_new_steps.run_id, v_refused.step_slug, v_refused.why_not
      using errcode = 'PF007', hint = 'Runs that are started from now on have the step.';
  end if;

  if exists (
    select 1 from pgflow.steps s
    where s.flow_slug = v_run.flow_slug
      and s.step_slug = any (v_new)
      and s.deps_count = 0
      and (s.step_type <> 'map' or num_nonnulls(s.required_input_pattern, s.forbidden_input_pattern) > 0)
  ) and not pgflow._make_items_input(add_new_steps.run_id) then
    raise exception 'Run % cannot get steps that read its input: it is too large for one JSON value', add_new_steps.run_id
      using errcode = 'PF007', hint = 'Runs that are started from now on have the steps.';
  end if;

  insert into pgflow.step_states (flow_slug, run_id, step_slug, remaining_deps, initial_tasks)
  select s.flow_slug, add_new_steps.run_id, s.step_slug,
    (
      select count(*)
      from pgflow.deps d
      left join pgflow.step_states parent on parent.run_id = add_new_steps.run_id and parent.step_slug = d.dep_slug
      where d.flow_slug = s.flow_slug
        and d.step_slug = s.step_slug
        and coalesce(parent.status not in ('completed', 'skipped'), true)
    ),
    t.tasks
  from pgflow._tasks_of_new_steps(v_run.flow_slug, add_new_steps.run_id, v_new) t
  join pgflow.steps s on s.flow_slug = v_run.flow_slug and s.step_slug = t.step_slug
  order by s.step_slug collate "C";

  update pgflow.runs r
  set remaining_steps = r.remaining_steps + cardinality(v_new),
      status = case when r.status = 'completed' then 'started' else r.status end,
      completed_at = null,
      output = null
  where r.run_id = add_new_steps.run_id;

  -- Arrays that nobody needed before.
  update pgflow.step_states ss
  set output = pgflow._collect_pages(ss.run_id, ss.step_slug)
  where ss.run_id = add_new_steps.run_id
    and ss.status = 'completed'
    and ss.output is null
    and pgflow._is_in_ranges(ss.run_id, ss.step_slug)
    and exists (
      select 1 from pgflow.deps d
      where d.flow_slug = ss.flow_slug and d.dep_slug = ss.step_slug and d.step_slug = any (v_new)
    )
    and pgflow._needs_array(ss.flow_slug, ss.run_id, ss.step_slug);

  foreach v_skipped in array v_new loop
    if exists (
      select 1
      from pgflow.deps d
      where d.flow_slug = v_run.flow_slug
        and d.step_slug = v_skipped
        and d.dep_slug <> all (v_new)
        and pgflow._skips_what_follows(add_new_steps.run_id, d.dep_slug)
    ) then
      perform pgflow._cascade_force_skip_steps(add_new_steps.run_id, v_skipped, 'dependency_skipped');
    end if;
  end loop;

  if v_run.status = 'failed' then
    perform pgflow.retry_failed_tasks(add_new_steps.run_id);
  else
    perform pgflow._advance_run(add_new_steps.run_id);
  end if;
  perform pg_notify('pgflow_work', v_run.flow_slug);
  return v_new;
end;
$$;
