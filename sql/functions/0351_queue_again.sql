-- Ours: tasks that are over, but not completed, are queued anew.

-- Queues these tasks of a step with fresh messages and a fresh budget of attempts. Caller holds the run's lock.
create or replace function pgflow._queue_again(flow_slug text, run_id uuid, step_slug text, task_indexes int[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_common jsonb := jsonb_build_object('flow_slug', flow_slug, 'run_id', run_id, 'step_slug', step_slug);
  v_queue record;
begin
  for v_queue in
    select t.queue_name, array_agg(t.task_index order by t.task_index) as indexes,
      sum(t.attempts_count - case when t.status = 'completed' then 1 else 0 end) as attempts,
      array_agg(v_common || jsonb_build_object('task_index', t.task_index) order by t.task_index) as messages
    from (select u.i from unnest(task_indexes) u (i) order by u.i) i
    cross join lateral (
      select t.queue_name, t.task_index, t.attempts_count, t.status
      from pgflow.step_tasks t
      where t.run_id = _queue_again.run_id and t.step_slug = _queue_again.step_slug and t.task_index = i.i
      for update
    ) t
    group by t.queue_name
    order by t.queue_name
  loop
    perform pgflow._note_counts(_queue_again.run_id, _queue_again.step_slug, -v_queue.attempts);
    update pgflow.step_tasks t
    set status = 'queued',
        attempts_count = 0,
        requeued_count = 0,
        started_at = null,
        failed_at = null,
        error_message = null,
        output = null,
        last_worker_id = null,
        lease_until = null,
        permanently_stalled_at = null,
        worker_deaths = null,
        condemned = null,
        message_id = sent.message_id
    from rows from (
      pgmq.send_batch(v_queue.queue_name, v_queue.messages), unnest(v_queue.indexes)
    ) sent (message_id, task_index)
    where t.run_id = _queue_again.run_id
      and t.step_slug = _queue_again.step_slug
      and t.task_index = sent.task_index;
  end loop;
end;
$$;
