-- Ours: steps of a run are set back to where they had not begun, since what they were given is computed again.

-- What depends on these steps, however far down.
create or replace function pgflow._following(flow_slug text, step_slugs text[])
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive downstream (slug) as (
    select d.step_slug
    from pgflow.deps d
    where d.flow_slug = _following.flow_slug and d.dep_slug = any (step_slugs)
    union
    select d.step_slug
    from pgflow.deps d
    join downstream w on d.dep_slug = w.slug
    where d.flow_slug = _following.flow_slug
  )
  select coalesce(array_agg(w.slug), '{}') from downstream w;
$$;

-- Removes what one step has: its items, whatever their storage, and their messages. Each row is written once. Caller
-- holds the locks of the run and the step; whoever claims at this moment is waited for.
create or replace function pgflow._clear_step(run_id uuid, step_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_queue record;
begin
  -- The map before its ranges: see _delete_ranges_of_steps.
  delete from pgflow.range_maps m where m.run_id = _clear_step.run_id and m.step_slug = _clear_step.step_slug;
  delete from pgflow.ranges g where g.run_id = _clear_step.run_id and g.step_slug = _clear_step.step_slug;
  delete from pgflow.pages p where p.run_id = _clear_step.run_id and p.step_slug = _clear_step.step_slug;
  delete from pgflow.step_counts c where c.run_id = _clear_step.run_id and c.step_slug = _clear_step.step_slug;
  delete from pgflow.reuses u where u.run_id = _clear_step.run_id and u.step_slug = _clear_step.step_slug;
  for v_queue in
    with gone as (
      delete from pgflow.step_tasks t
      where t.run_id = _clear_step.run_id and t.step_slug = _clear_step.step_slug
      returning t.queue_name, case when t.status in ('queued', 'started') then t.message_id end as message_id
    )
    select g.queue_name, array_agg(g.message_id order by g.message_id) as ids
    from gone g
    where g.message_id is not null
    group by g.queue_name
    order by g.queue_name
  loop
    perform pgmq.archive(v_queue.queue_name, v_queue.ids);
  end loop;
end;
$$;

-- Sets these steps back: nothing of them is left, and they wait for their parents. What they wait for is counted by
-- _recount_steps, once all parents are what they are to be. Caller holds the locks of the run and all its steps.
create or replace function pgflow._reset_steps(flow_slug text, run_id uuid, step_slugs text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_step record;
begin
  for v_step in
    select ss.step_slug
    from pgflow.step_states ss
    where ss.run_id = _reset_steps.run_id and ss.step_slug = any (step_slugs) and ss.status <> 'created'
    order by ss.step_slug collate "C"
  loop
    perform pgflow._clear_step(_reset_steps.run_id, v_step.step_slug);
  end loop;

  update pgflow.step_states ss
  set status = 'created',
      initial_tasks = case when s.step_type = 'single' then 1 end,
      remaining_tasks = null,
      spawned_tasks = 0,
      failed_tasks = 0,
      output = null,
      error_message = null,
      skip_reason = null,
      started_at = null,
      completed_at = null,
      failed_at = null,
      skipped_at = null
  from pgflow.steps s
  where ss.run_id = _reset_steps.run_id
    and ss.step_slug = any (step_slugs)
    and s.flow_slug = _reset_steps.flow_slug
    and s.step_slug = ss.step_slug;
end;
$$;

-- Counts again for how many parents these steps wait, and how many steps of the run are not resolved.
create or replace function pgflow._recount_steps(flow_slug text, run_id uuid, step_slugs text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  update pgflow.step_states ss
  set remaining_deps = (
    select count(*)
    from pgflow.deps d
    join pgflow.step_states p on p.run_id = _recount_steps.run_id and p.step_slug = d.dep_slug
    where d.flow_slug = _recount_steps.flow_slug
      and d.step_slug = ss.step_slug
      and p.status not in ('completed', 'skipped')
  )
  where ss.run_id = _recount_steps.run_id and ss.step_slug = any (step_slugs);

  update pgflow.runs r
  set remaining_steps = (
    select count(*)
    from pgflow.step_states ss
    where ss.run_id = r.run_id and ss.status not in ('completed', 'skipped')
  )
  where r.run_id = _recount_steps.run_id;
end;
$$;
