-- Tasks that nobody reports on (contract section 14.1).

-- Those of one run; how many are queued again. A run that somebody has locked is left, with all its tasks, for
-- the next call: others need not wait for it. What has no queue any more is left, too.
create or replace function pgflow._requeue_stalled_of_run(flow_slug text, run_id uuid)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
#variable_conflict use_column
declare
  v_again tid[];
  v_given_up tid[];
  v_queues text[];
  v_ids bigint[];
  v_step record;
begin
  perform 1
  from pgflow.runs r
  where r.run_id = _requeue_stalled_of_run.run_id and r.status = 'started'
  for update skip locked;
  if not found then
    return 0;
  end if;

  -- Locked by one statement, changed by the next: see _claim.
  select array_agg(l.row_id) filter (where l.requeued_count < 3),
    array_agg(l.row_id) filter (where l.requeued_count >= 3)
  into v_again, v_given_up
  from (
    select t.ctid as row_id, t.requeued_count
    from pgflow.step_tasks t
    join pgflow.step_states ss on ss.run_id = t.run_id and ss.step_slug = t.step_slug
    join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
    join pgflow.flows f on f.flow_slug = ss.flow_slug
    where t.run_id = _requeue_stalled_of_run.run_id
      and ss.status = 'started'
      and t.status = 'started'
      and t.permanently_stalled_at is null
      and t.started_at < now() - make_interval(secs => coalesce(s.opt_timeout, f.opt_timeout) + 30.0)
      and (t.lease_until is null or t.lease_until < clock_timestamp())
      and to_regclass(format('pgmq.%I', pgmq.format_table_name(t.queue_name, 'q'))) is not null
    order by t.step_slug collate "C", t.task_index
    for update of t skip locked
  ) l;

  for v_step in
    select t.step_slug, count(*) as attempts
    from pgflow.step_tasks t
    where t.ctid = any (v_again)
    group by t.step_slug
  loop
    perform pgflow._note_counts(_requeue_stalled_of_run.run_id, v_step.step_slug, v_step.attempts);
  end loop;
  with requeued as (
    update pgflow.step_tasks t
    set status = 'queued',
        started_at = null,
        last_worker_id = null,
        lease_until = null,
        requeued_count = t.requeued_count + 1,
        last_requeued_at = now()
    where t.ctid = any (v_again)
    returning t.queue_name, t.message_id
  )
  select array_agg(q.queue_name), array_agg(q.message_id) into v_queues, v_ids
  from requeued q
  where q.message_id is not null;
  if v_ids is not null then
    perform pgflow._set_vt(v_queues, v_ids, array_fill(0, array[cardinality(v_ids)]));
  end if;

  for v_step in
    with given_up as (
      update pgflow.step_tasks t
      set permanently_stalled_at = now()
      where t.ctid = any (v_given_up)
      returning t.step_slug, t.task_index
    )
    select g.step_slug, array_agg(g.task_index) as indexes
    from given_up g
    group by g.step_slug
    order by g.step_slug collate "C"
  loop
    perform pgflow._archive_task_messages(
      _requeue_stalled_of_run.run_id, v_step.step_slug, v_step.indexes
    );
  end loop;

  if v_again is not null then
    perform pg_notify('pgflow_work', _requeue_stalled_of_run.flow_slug);
  end if;
  return coalesce(cardinality(v_again), 0);
end;
$$;

-- A task that stalls once more after three requeues is marked and leaves the queue, and that is all
-- (contract); what becomes of its step is for fail_stalled_tasks to say.
create or replace function pgflow.requeue_stalled_tasks()
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_run record;
  v_requeued int := 0;
begin
  -- Candidates are found without locks; each run is then locked before its tasks, as everywhere.
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
      and t.started_at < now() - make_interval(secs => coalesce(s.opt_timeout, f.opt_timeout) + 30.0)
      and (t.lease_until is null or t.lease_until < clock_timestamp())
    order by t.run_id
  loop
    begin
      v_requeued := v_requeued + pgflow._requeue_stalled_of_run(v_run.flow_slug, v_run.run_id);
    exception when others then
      perform pgflow._leave_run(v_run.run_id, 'requeue_stalled_tasks', sqlstate, sqlerrm);
    end;
  end loop;
  perform pgflow._free_orphaned_ranges();
  return v_requeued;
end;
$$;

-- Those of one run that were given up by an earlier transaction: done and tolerated, or the end of their step;
-- how many. Those beyond the one that ends the step are not counted.
create or replace function pgflow._fail_stalled_of_run(flow_slug text, run_id uuid)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_step record;
  v_most bigint;
  v_rows tid[];
  v_failed int := 0;
begin
  perform 1
  from pgflow.runs r
  where r.run_id = _fail_stalled_of_run.run_id and r.status = 'started'
  for update skip locked;
  if not found then
    return 0;
  end if;

  for v_step in
    select l.step_slug, array_agg(l.row_id order by l.task_index) as row_ids,
      array_agg(l.task_index order by l.task_index) as indexes,
      array_agg(l.requeued_count order by l.task_index) as requeued
    from (
      select t.ctid as row_id, t.step_slug, t.task_index, t.requeued_count
      from pgflow.step_tasks t
      where t.run_id = _fail_stalled_of_run.run_id
        and t.status = 'started'
        and t.permanently_stalled_at < now()
        and t.failed_at is null
        and (t.lease_until is null or t.lease_until < clock_timestamp())
      order by t.step_slug collate "C", t.task_index
      for update skip locked
    ) l
    group by l.step_slug
    order by l.step_slug collate "C"
  loop
    select 1::bigint + pgflow._tolerated_failures(ss.flow_slug, ss.step_slug, ss.initial_tasks) - ss.failed_tasks
    into v_most
    from pgflow.step_states ss
    join pgflow.runs r on r.run_id = ss.run_id
    where ss.run_id = _fail_stalled_of_run.run_id
      and ss.step_slug = v_step.step_slug
      and ss.status = 'started'
      and r.status = 'started';
    continue when not found; -- one step before has ended this one, or the run
    v_rows := v_step.row_ids[1:greatest(1, least(v_most, cardinality(v_step.row_ids)))];

    update pgflow.step_tasks t
    set failed_at = greatest(now(), t.started_at)
    where t.ctid = any (v_rows);
    perform pgflow._note_counts(_fail_stalled_of_run.run_id, v_step.step_slug, cardinality(v_rows));
    perform pgflow._count_failed(
      _fail_stalled_of_run.flow_slug,
      _fail_stalled_of_run.run_id,
      v_step.step_slug,
      cardinality(v_rows),
      format(
        'Task %s of step %s stalled %s times: no worker reported a result in time',
        v_step.indexes[cardinality(v_rows)], v_step.step_slug, v_step.requeued[cardinality(v_rows)] + 1
      )
    );
    v_failed := v_failed + cardinality(v_rows);
  end loop;
  return v_failed;
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
    begin
      v_failed := v_failed + pgflow._fail_stalled_of_run(v_run.flow_slug, v_run.run_id);
    exception when others then
      perform pgflow._leave_run(v_run.run_id, 'fail_stalled_tasks', sqlstate, sqlerrm);
    end;
  end loop;
  return v_failed;
end;
$$;
