-- Tasks that nobody reports on (contract section 14.1).

-- A task that stalls once more after three requeues is marked and leaves the queue, and that is all
-- (contract); what becomes of its step is for fail_stalled_tasks to say.
create or replace function pgflow.requeue_stalled_tasks()
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set jit = off
as $$
declare
  v_run record;
  v_task record;
  v_requeued int := 0;
begin
  -- Candidates are found without locks; each run is then locked before its tasks, as everywhere. A run
  -- that somebody has locked is left, with all its tasks, for the next call: others need not wait for it.
  for v_run in
    select distinct t.run_id, t.flow_slug
    from pgflow.step_states ss
    join pgflow.runs r on r.run_id = ss.run_id and r.status = 'started'
    join pgflow.step_tasks t on t.run_id = ss.run_id and t.step_slug = ss.step_slug
    join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
    join pgflow.flows f on f.flow_slug = ss.flow_slug
    where ss.status = 'started'
      and t.status = 'started'
      and t.permanently_stalled_at is null
      and t.started_at < now() - make_interval(secs => coalesce(s.opt_timeout, f.opt_timeout) + 30)
      and (t.lease_until is null or t.lease_until < clock_timestamp())
    order by t.run_id
  loop
    perform 1
    from pgflow.runs r
    where r.run_id = v_run.run_id and r.status = 'started'
    for update skip locked;
    continue when not found;

    -- Locked by this statement, changed by later ones: those see what others did before the lock. What has no
    -- queue any more is left: no other flow's tasks should wait because of it.
    for v_task in
      select t.run_id, t.step_slug, t.task_index, t.queue_name, t.message_id, t.requeued_count
      from pgflow.step_tasks t
      join pgflow.step_states ss on ss.run_id = t.run_id and ss.step_slug = t.step_slug
      join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
      join pgflow.flows f on f.flow_slug = ss.flow_slug
      where t.run_id = v_run.run_id
        and ss.status = 'started'
        and t.status = 'started'
        and t.permanently_stalled_at is null
        and t.started_at < now() - make_interval(secs => coalesce(s.opt_timeout, f.opt_timeout) + 30)
        and (t.lease_until is null or t.lease_until < clock_timestamp())
        and to_regclass(format('pgmq.%I', pgmq.format_table_name(t.queue_name, 'q'))) is not null
      order by t.step_slug collate "C", t.task_index
      for update of t skip locked
    loop
      if v_task.requeued_count < 3 then
        update pgflow.step_tasks t
        set status = 'queued',
            started_at = null,
            last_worker_id = null,
            lease_until = null,
            requeued_count = t.requeued_count + 1,
            last_requeued_at = now()
        where t.run_id = v_task.run_id
          and t.step_slug = v_task.step_slug
          and t.task_index = v_task.task_index;
        perform pgflow.set_vt_batch(v_task.queue_name, array[v_task.message_id], array[0]);
        v_requeued := v_requeued + 1;
      else
        update pgflow.step_tasks t
        set permanently_stalled_at = now()
        where t.run_id = v_task.run_id
          and t.step_slug = v_task.step_slug
          and t.task_index = v_task.task_index;
        perform pgflow._archive_task_message(v_task.run_id, v_task.step_slug, v_task.task_index);
      end if;
    end loop;
  end loop;

  perform pgflow._free_orphaned_ranges();
  if v_requeued > 0 then
    perform pg_notify('pgflow_work', f.flow_slug) from pgflow.flows f;
  end if;
  return v_requeued;
end;
$$;

-- Ours: a task that an earlier transaction gave up and that is still without a result counts as a failed
-- task of its step, so that no run waits for it for ever; its failed_at says that it was counted. Not
-- part of requeue_stalled_tasks, whose later calls must ignore such a task. Answers how many.
create or replace function pgflow.fail_stalled_tasks()
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_run record;
  v_task record;
  v_failed int := 0;
begin
  for v_run in
    select distinct t.run_id, t.flow_slug
    from pgflow.step_states ss
    join pgflow.runs r on r.run_id = ss.run_id and r.status = 'started'
    join pgflow.step_tasks t on t.run_id = ss.run_id and t.step_slug = ss.step_slug
    where ss.status = 'started'
      and t.status = 'started'
      and t.permanently_stalled_at < now()
      and t.failed_at is null
      and (t.lease_until is null or t.lease_until < clock_timestamp())
    order by t.run_id
  loop
    perform 1
    from pgflow.runs r
    where r.run_id = v_run.run_id and r.status = 'started'
    for update skip locked;
    continue when not found;

    for v_task in
      select t.run_id, t.step_slug, t.task_index, t.requeued_count
      from pgflow.step_tasks t
      where t.run_id = v_run.run_id
        and t.status = 'started'
        and t.permanently_stalled_at < now()
        and t.failed_at is null
        and (t.lease_until is null or t.lease_until < clock_timestamp())
      order by t.step_slug collate "C", t.task_index
      for update skip locked
    loop
      -- One task before may have ended the step, or the run.
      continue when not exists (
        select 1
        from pgflow.step_states ss
        join pgflow.runs r on r.run_id = ss.run_id
        where ss.run_id = v_task.run_id
          and ss.step_slug = v_task.step_slug
          and ss.status = 'started'
          and r.status = 'started'
      );
      update pgflow.step_tasks t
      set failed_at = greatest(now(), t.started_at)
      where t.run_id = v_task.run_id
        and t.step_slug = v_task.step_slug
        and t.task_index = v_task.task_index;
      perform pgflow._count_failed(
        v_run.flow_slug,
        v_task.run_id,
        v_task.step_slug,
        1,
        format(
          'Task %s of step %s stalled %s times: no worker reported a result in time',
          v_task.task_index, v_task.step_slug, v_task.requeued_count + 1
        )
      );
      v_failed := v_failed + 1;
    end loop;
  end loop;
  return v_failed;
end;
$$;
