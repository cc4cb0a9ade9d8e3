-- Ours: which messages of a queue a worker gets next.

-- Makes up to qty visible messages invisible for lease_seconds and answers their ids: the first ones of
-- ids, or, where ids is null, of the queue, without those in but and those of but_steps and but_runs. Does what pgmq.read
-- does, which joins the queue with itself: with the statistics of a queue that was empty a moment ago, each claim
-- then reads all of it for each message. Here rows are found by an index and changed where they were found,
-- whatever the statistics say. All are invisible until one moment: with one for each, the index of these would be
-- written for each, too.
create or replace function pgflow._take_messages(
  queue_name text,
  ids bigint[],
  qty int,
  lease_seconds int,
  but bigint[],
  but_steps text[] default null,
  but_runs uuid[] default null
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
declare
  v_taken bigint[];
begin
  execute format(
    $query$
      with visible as materialized (
        %2$s
      ), taken as (
        update pgmq.%1$I q
        set vt = $3, read_ct = q.read_ct + 1
        where q.ctid = any (array(select v.row_id from visible v))
        returning q.msg_id
      )
      select array_agg(t.msg_id) from taken t
    $query$,
    pgmq.format_table_name(queue_name, 'q'),
    format(
      case
        when ids is null then $query$
          select q.ctid as row_id from pgmq.%1$I q
          where q.vt <= clock_timestamp() %2$s
          order by q.msg_id
          limit $2
          for update skip locked
        $query$
        else $query$
          select l.row_id
          from unnest($1) i (id)
          cross join lateral (
            select q.ctid as row_id from pgmq.%1$I q
            where q.msg_id = i.id and q.vt <= clock_timestamp()
            for update skip locked
          ) l
          limit $2
        $query$
      end,
      pgmq.format_table_name(queue_name, 'q'),
      concat(
        case when cardinality(but) > 0 then 'and q.msg_id <> all ($4)' end,
        case when cardinality(but_steps) > 0 then ' and q.message ->> ''step_slug'' <> all ($5)' end,
        case when cardinality(but_runs) > 0 then ' and q.message ->> ''run_id'' <> all ($6)' end
      )
    )
  ) into v_taken
  using ids, qty, clock_timestamp() + make_interval(secs => lease_seconds), but, but_steps, but_runs::text[];
  return v_taken;
end;
$$;

-- Takes messages of many runs fairly: the runs of the highest priority first, oldest first among them,
-- an equal share each, and by lot who gets the odd ones: a small claim may be for fewer tasks than there
-- are runs. Claims of one step go in index order, so nothing before the number of its done tasks is worth
-- a look, but for retries, which the plain read picks up. Answers the message ids, made invisible for
-- lease_seconds.
create or replace function pgflow._read_fairly(
  flow_slug text,
  queue_name text,
  step_slug text,
  qty int,
  lease_seconds int,
  but bigint[],
  but_steps text[] default null,
  but_runs uuid[] default null
)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_mergejoin = off
set enable_hashjoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_ids bigint[];
begin
  with candidates as materialized (
    select c.run_id, c.started_at, coalesce(p.priority, 0) as priority
    from (
      (
        select r.run_id, r.started_at
        from pgflow.runs r
        where r.flow_slug = _read_fairly.flow_slug
          and r.status = 'started'
          and (but_runs is null or r.run_id <> all (but_runs))
        order by r.started_at, r.run_id
        limit 200
      )
      union
      select r.run_id, r.started_at
      from pgflow.run_priorities p
      join pgflow.runs r on r.run_id = p.run_id
      where r.flow_slug = _read_fairly.flow_slug
        and r.status = 'started'
        and p.priority > 0
        and (but_runs is null or r.run_id <> all (but_runs))
    ) c
    left join pgflow.run_priorities p on p.run_id = c.run_id
  ), running as materialized (
    select c.run_id
    from candidates c
    where c.priority = (select max(m.priority) from candidates m)
    order by c.started_at, c.run_id
    limit 32
  ), open_steps as materialized (
    -- Of a map in ranges no tasks are spawned: those that it has, its exceptions, are anywhere.
    select ss.run_id, ss.step_slug,
      case when ss.spawned_tasks = 0 then ss.initial_tasks else ss.spawned_tasks end as end_index,
      case
        when ss.spawned_tasks = 0 then 0 else greatest(ss.initial_tasks - ss.remaining_tasks - 1000, 0)
      end as first_index,
      1 + qty / count(*) over () as share,
      random() as lot
    from running g
    cross join lateral (
      select s.* from pgflow.step_states s
      where s.run_id = g.run_id
        and s.status = 'started'
        and s.remaining_tasks > 0
        and (_read_fairly.step_slug is null or s.step_slug = _read_fairly.step_slug)
        and (but_steps is null or s.step_slug <> all (but_steps))
      offset 0
    ) ss
  )
  select array_agg(picked.message_id order by picked.message_id) into v_ids
  from (
    select t.message_id
    from open_steps o
    cross join lateral (
      select t.message_id, row_number() over (order by t.task_index) as turn
      from pgflow.step_tasks t
      where t.run_id = o.run_id
        and t.step_slug = o.step_slug
        and t.task_index >= o.first_index
        and t.task_index < o.end_index
        and t.status = 'queued'
        and t.message_id is not null
        and t.queue_name = _read_fairly.queue_name
        and (t.worker_deaths is null or t.message_id <> all (but))
      order by t.task_index
      limit o.share
    ) t
    order by t.turn, o.lot
    limit qty
  ) picked;
  if v_ids is null then
    return null;
  end if;

  return pgflow._take_messages(queue_name, v_ids, cardinality(v_ids), lease_seconds, null);
end;
$$;

-- Takes up to qty messages from a queue for a worker, of all steps or of the one that it is for. lease_seconds is
-- the visibility timeout; by default that of the flow's slowest step. Of but_steps and of but_runs it gets nothing.
-- of_run: of that run alone; where is_only is not set, some of its retries may be left (_take_of_run).
create or replace function pgflow._next_messages(
  flow_slug text,
  queue_name text,
  step_slug text,
  worker_id uuid,
  qty int,
  lease_seconds int,
  but_steps text[] default null,
  but_runs uuid[] default null,
  of_run uuid default null,
  is_only boolean default false
)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_lease int := lease_seconds;
  v_suspects bigint[];
  v_ids bigint[];
  v_more bigint[];
begin
  -- One that was taken for dead has been told so, or will be: what it took now would be lost with it. And a
  -- flow that was deleted has no queue to look at.
  if queue_name is null or exists (
    select 1 from pgflow.workers w
    where w.worker_id = _next_messages.worker_id and w.stopped_at is not null and w.dead_after is not null
  ) then
    return null;
  end if;
  if of_run is not null then -- asked first: the query is run, also where it has nothing to look at
    if not exists ( -- how far the runs of other flows are is not for this worker to measure
      select 1
      from ( -- by its key, whatever the statistics say
        select r.* from pgflow.runs r where r.run_id = of_run offset 0
      ) r
      where r.flow_slug = _next_messages.flow_slug and r.status = 'started'
    ) then
      return null;
    end if;
  end if;
  -- Where nothing but those steps has begun there may be many messages, none of which is wanted.
  if coalesce(cardinality(but_steps), 0) > 0 and of_run is null then
    if _next_messages.step_slug = any (but_steps) or not exists (
      select 1
      from pgflow.runs r
      cross join lateral ( -- by its key, whatever the statistics say
        select ss.step_slug
        from pgflow.step_states ss
        where ss.run_id = r.run_id and ss.status = 'started' and ss.remaining_tasks > 0
        offset 0
      ) ss
      where r.flow_slug = _next_messages.flow_slug and r.status = 'started' and ss.step_slug <> all (but_steps)
    ) then
      return null;
    end if;
  end if;
  if v_lease is null then
    select 2 + least(greatest(f.opt_timeout, max(s.opt_timeout)), 2147483645) into v_lease
    from pgflow.flows f
    left join pgflow.steps s on s.flow_slug = f.flow_slug
    where f.flow_slug = _next_messages.flow_slug
    group by f.flow_slug;
    if not found then
      return null;
    end if;
  end if;

  if exists (
    select 1 from pgflow.step_tasks t
    where t.flow_slug = _next_messages.flow_slug
      and t.worker_deaths >= 2
      and t.status in ('queued', 'started')
  ) then
    if pgflow._is_to_be_alone(_next_messages.flow_slug, _next_messages.worker_id) then
      return null;
    end if;
    select s.queued, s.taken into v_suspects, v_ids
    from pgflow._suspects(
      _next_messages.flow_slug, _next_messages.queue_name, _next_messages.worker_id, qty, v_lease, but_steps,
      but_runs, of_run
    ) s;
    if exists (
      select 1 from pgflow.step_tasks t
      where t.flow_slug = _next_messages.flow_slug
        and t.worker_deaths >= 2
        and t.status = 'queued'
        and not t.condemned
        and t.message_id = any (v_ids)
    ) then
      return v_ids;
    end if;
  end if;
  v_ids := coalesce(v_ids, '{}');
  if of_run is not null then
    return v_ids || coalesce(
      pgflow._take_of_run(
        _next_messages.queue_name, _next_messages.step_slug, of_run, qty - cardinality(v_ids), v_lease,
        coalesce(v_suspects, '{}'), but_steps, is_only
      ),
      '{}'
    );
  end if;
  if cardinality(v_ids) < qty and (
    select count(*) > 1 from (
      select 1 from pgflow.runs r
      where r.flow_slug = _next_messages.flow_slug and r.status = 'started'
      limit 2
    ) running
  ) then
    v_more := pgflow._read_fairly(
      _next_messages.flow_slug, _next_messages.queue_name, _next_messages.step_slug,
      qty - cardinality(v_ids), v_lease, coalesce(v_suspects, '{}'), but_steps,
      but_runs
    );
    v_ids := v_ids || coalesce(v_more, '{}');
  end if;
  if cardinality(v_ids) < qty then
    v_more := pgflow._take_messages(
      _next_messages.queue_name, null, qty - cardinality(v_ids), v_lease, v_suspects, but_steps,
      but_runs
    );
    v_ids := v_ids || coalesce(v_more, '{}');
  end if;
  return v_ids;
end;
$$;
