-- From here on no two tasks of a queue have one message id. Some may: where a queue was lost and made again, its
-- ids began anew. They go on after the last one that any task has; of the tasks that share one, that of the
-- message keeps it, those that are over have none, and what is open gets a message of its own. May be run again:
-- on a large database it runs ahead, before the index is built, and only reads where nothing is wrong.
do $$
declare
  v_queue record;
  v_task record;
  v_sequence regclass;
begin
  if exists (
    select from pg_index i
    where i.indexrelid = to_regclass('pgflow.idx_step_tasks_queue_message') and i.indisvalid
  ) then
    return;
  end if;

  for v_queue in
    select pgmq.format_table_name(t.flow_slug, 'q') as name, max(t.message_id) as last_id
    from pgflow.step_tasks t
    group by t.flow_slug
  loop
    continue when to_regclass(format('pgmq.%I', v_queue.name)) is null;
    v_sequence := pg_get_serial_sequence(format('pgmq.%I', v_queue.name), 'msg_id');
    if v_queue.last_id > coalesce(pg_sequence_last_value(v_sequence), 0) then
      perform setval(v_sequence, v_queue.last_id);
    end if;
  end loop;

  for v_task in
    select s.run_id, s.step_slug, s.task_index, s.flow_slug,
      s.is_open and to_regclass(format('pgmq.%I', pgmq.format_table_name(s.flow_slug, 'q'))) is not null as is_open
    from (
      select d.*, row_number() over (
        partition by d.flow_slug, d.message_id order by d.is_open desc, d.queued_at desc, d.run_id
      ) as n
      from (
        select t.run_id, t.step_slug, t.task_index, t.flow_slug, t.message_id, t.queued_at,
          t.status in ('queued', 'started') and t.permanently_stalled_at is null
            and r.status = 'started' and ss.status = 'started' as is_open
        from pgflow.step_tasks t
        join pgflow.runs r on r.run_id = t.run_id
        join pgflow.step_states ss on ss.run_id = t.run_id and ss.step_slug = t.step_slug
        where (t.flow_slug, t.message_id) in (
          select o.flow_slug, o.message_id
          from pgflow.step_tasks o
          where o.message_id is not null
          group by o.flow_slug, o.message_id
          having count(*) > 1
        )
      ) d
    ) s
    where s.n > 1
    order by s.flow_slug, s.run_id, s.step_slug, s.task_index
  loop
    update pgflow.step_tasks t
    set message_id = case
      when v_task.is_open then (
        select m.id
        from pgmq.send(
          lower(v_task.flow_slug),
          jsonb_build_object(
            'flow_slug', v_task.flow_slug,
            'run_id', v_task.run_id,
            'step_slug', v_task.step_slug,
            'task_index', v_task.task_index
          )
        ) m (id)
      )
    end
    where t.run_id = v_task.run_id and t.step_slug = v_task.step_slug and t.task_index = v_task.task_index;
  end loop;
end;
$$;
