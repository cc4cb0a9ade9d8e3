-- Ours: which messages of one run a worker gets next, however many of other runs are in the queue before them.

-- Takes up to qty visible messages of a run from a queue, of all its steps or of one, without those in but and those of
-- but_steps: makes them invisible for lease_seconds and answers their ids. The tasks tell which they are, an equal share
-- of each step first. As in _read_fairly, nothing of a map before the number of its done tasks is worth a look, but for
-- retries: these are looked for where is_only, and there is nothing else, among the tasks or in the queue, whichever
-- is shorter. Otherwise they come when the queue is read as a whole.
create or replace function pgflow._take_of_run(
  queue_name text,
  step_slug text,
  run_id uuid,
  qty int,
  lease_seconds int,
  but bigint[],
  but_steps text[],
  is_only boolean
)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
set enable_hashjoin = off
set enable_sort = off
as $$
#variable_conflict use_column
declare
  v_queue text := pgmq.format_table_name(queue_name, 'q');
  v_of_tasks text;
  v_of_queue text;
  v_visible text;
  v_steps text[];
  v_firsts int[];
  v_ends int[];
  v_share int;
  v_taken bigint[] := '{}';
  v_more bigint[];
begin
  -- Of a map in ranges no tasks are spawned: those that it has, its exceptions, are anywhere.
  select array_agg(o.step_slug), array_agg(o.first_index), array_agg(o.end_index)
  into v_steps, v_firsts, v_ends
  from (
    select s.step_slug,
      case when s.spawned_tasks = 0 then s.initial_tasks else s.spawned_tasks end as end_index,
      case
        when s.spawned_tasks = 0 then 0 else greatest(s.initial_tasks - s.remaining_tasks - 1000, 0)
      end as first_index
    from ( -- by its key, whatever the statistics say
      select ss.* from pgflow.step_states ss where ss.run_id = _take_of_run.run_id offset 0
    ) s
    where s.status = 'started'
      and s.remaining_tasks > 0
      and (_take_of_run.step_slug is null or s.step_slug = _take_of_run.step_slug)
      and (but_steps is null or s.step_slug <> all (but_steps))
      and (
        s.spawned_tasks > 0
        or exists (
          select 1 from pgflow.step_tasks t
          where t.run_id = _take_of_run.run_id and t.step_slug = s.step_slug and t.status = 'queued'
        )
      )
  ) o;
  if v_steps is null or qty <= 0 then
    return null;
  end if;

  v_of_tasks := format(
    $query$
      select l.row_id
      from unnest($1, $2, $3) s (step_slug, first_index, end_index)
      cross join lateral (
        select m.row_id
        from pgflow.step_tasks t
        cross join lateral (
          select q.ctid as row_id from pgmq.%I q
          where q.msg_id = t.message_id and q.vt <= clock_timestamp()
          for update skip locked
        ) m
        where t.run_id = $4
          and t.step_slug = s.step_slug
          and t.task_index >= s.first_index
          and t.task_index < s.end_index
          and t.status = 'queued'
          and t.queue_name = $5
          and (t.worker_deaths is null or t.message_id <> all ($6))
        order by t.task_index
        limit $7
      ) l
      limit $8
    $query$,
    v_queue
  );
  v_of_queue := format(
    $query$
      select q.ctid as row_id from pgmq.%I q
      where q.vt <= clock_timestamp()
        and q.message ->> 'run_id' = $4::text
        and q.message ->> 'step_slug' = any ($1)
        and q.msg_id <> all ($6)
      order by q.msg_id
      limit $8
      for update skip locked
    $query$,
    v_queue
  );
  v_visible := v_of_tasks;
  v_share := 1 + (qty - 1) / cardinality(v_steps);
  loop
    execute format(
      $query$
        with visible as materialized (
          %2$s
        ), taken as (
          update pgmq.%1$I q
          set vt = $9, read_ct = q.read_ct + 1
          where q.ctid = any (array(select v.row_id from visible v))
          returning q.msg_id
        )
        select array_agg(t.msg_id) from taken t
      $query$,
      v_queue, v_visible
    ) into v_more
    using v_steps, v_firsts, v_ends, _take_of_run.run_id, _take_of_run.queue_name, but, v_share,
      qty - cardinality(v_taken), clock_timestamp() + make_interval(secs => lease_seconds); -- see _take_messages
    v_taken := v_taken || coalesce(v_more, '{}');
    exit when cardinality(v_taken) >= qty;
    if v_share < qty then -- what some steps do not need, others may
      v_share := qty;
      continue;
    end if;
    exit when is_only is not true or 0 = all (v_firsts);
    v_ends := v_firsts;
    v_firsts := array_fill(0, array[cardinality(v_steps)]);
    if pg_relation_size(format('pgmq.%I', v_queue)::regclass) / 100 < (
      select sum(u.end_index) from unnest(v_ends) u (end_index)
    ) then
      v_visible := v_of_queue;
    end if;
  end loop;
  return v_taken;
end;
$$;
