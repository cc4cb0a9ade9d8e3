-- Ours: how much of a flow with limits may be handed out. Whoever claims locks the limits of the flow first, and waits
-- for nothing while it holds them but, half a second at most, for the row of a map. So claims of one flow with limits
-- follow each other, and nobody else waits for any.

-- Whether a flow, or a step of it, has any limit.
create or replace function pgflow._is_limited(flow_slug text)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return exists (
    select 1 from pgflow.limits l
    where l.flow_slug = _is_limited.flow_slug and (l.at_once is not null or l.rate is not null)
  );
end;
$$;

-- How many items may be handed out at one moment by a rate: a tenth of a second's, unless it is said.
create or replace function pgflow._burst(rate float8, burst int)
returns int
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$ select case when rate is not null then coalesce(burst, greatest(1, floor(rate / 10))::int) end; $$;

-- What might be handed out by a rate at this moment. A little more than a burst is saved up, at most a tenth of a second's
-- and never a whole item: so that who comes a little late for one finds the next one the earlier.
create or replace function pgflow._tokens(limits pgflow.limits, at timestamptz)
returns float8
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select least(
    pgflow._burst((limits).rate, (limits).burst) + least(0.9, (limits).rate / 10),
    coalesce(
      (limits).tokens + (limits).rate * greatest(extract(epoch from at - (limits).filled_at)::float8, 0),
      pgflow._burst((limits).rate, (limits).burst)
    )
  );
$$;

-- How many items of this are in the hands of a worker still.
create or replace function pgflow._still_held(given pgflow.handed_out)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  select case
    when (given).lease_no is null then (
      select count(*)
      from pgflow.step_tasks t
      where t.run_id = (given).run_id
        and t.step_slug = (given).step_slug
        and t.task_index = (given).first_index
        and t.status = 'started'
        and t.permanently_stalled_at is null
    )
    else (
      select coalesce(sum(g.end_index - g.first_index), 0)
      from pgflow.ranges g
      where g.run_id = (given).run_id
        and g.step_slug = (given).step_slug
        and g.first_index >= (given).first_index
        and g.first_index < (given).end_index
        and g.lease_no = (given).lease_no
        and g.worker_id is not null
    )
  end;
$$;

-- Notes what is held of a flow and was not noted: by claims that were under way when its first limit was set.
create or replace function pgflow._find_handed_out(flow_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set enable_mergejoin = off
set enable_hashjoin = off
as $$
#variable_conflict use_column
declare
  v_queue text;
  v_ids bigint[];
begin
  for v_queue in
    select distinct s.queue_name from pgflow.steps s where s.flow_slug = _find_handed_out.flow_slug
  loop
    begin
      execute format(
        'select array_agg(q.msg_id) from pgmq.%I q where q.read_ct > 0', pgmq.format_table_name(v_queue, 'q')
      ) into v_ids;
    exception when undefined_table then
      continue; -- dropped with its flow, maybe while it was waited for
    end;
    insert into pgflow.handed_out (flow_slug, run_id, step_slug, first_index, end_index)
    select t.flow_slug, t.run_id, t.step_slug, t.task_index, t.task_index + 1
    from unnest(v_ids) m (id)
    cross join lateral (
      select t.*
      from pgflow.step_tasks t
      where t.queue_name = v_queue
        and t.message_id = m.id
        and t.flow_slug = _find_handed_out.flow_slug
        and t.status = 'started'
        and t.permanently_stalled_at is null
      offset 0
    ) t
    on conflict on constraint handed_out_key do nothing;
  end loop;

  insert into pgflow.handed_out (flow_slug, run_id, step_slug, first_index, end_index, lease_no)
  select m.flow_slug, g.run_id, g.step_slug, g.first_index, g.end_index, g.lease_no
  from pgflow.runs r
  join pgflow.range_maps m on m.run_id = r.run_id
  join pgflow.ranges g on g.run_id = m.run_id and g.step_slug = m.step_slug and g.worker_id is not null
  where r.flow_slug = _find_handed_out.flow_slug
    and r.status = 'started'
    and not exists (
      select 1 from pgflow.handed_out h
      where h.flow_slug = m.flow_slug
        and h.run_id = g.run_id
        and h.step_slug = g.step_slug
        and h.lease_no = g.lease_no
        and h.first_index <= g.first_index
        and h.end_index > g.first_index
    )
  on conflict on constraint handed_out_key do nothing;
end;
$$;

-- Of items that are held of these runs and steps: how many of each step, and of the flow as a whole (''), are worked on, or are
-- about to be. What a worker holds back until nothing else of the run is left (0370_parked.sql) does not count, or
-- that would never be; it is known by the run: where several of its steps have some, it is of the flow only until
-- all that is held of the run is held back.
create or replace function pgflow._not_parked(
  runs uuid[],
  inout steps text[],
  inout held bigint[]
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  with parked as materialized (
    select p.run_id, sum(p.tasks) as tasks
    from pgflow.parked p
    join pgflow.workers w on w.worker_id = p.worker_id
    where p.run_id = any (runs)
      and w.stopped_at is null
      and (w.dead_after is null or w.last_heartbeat_at > clock_timestamp() - w.dead_after)
    group by p.run_id
  ), of_steps as (
    select u.run_id, u.step_slug, sum(u.held) as held
    from unnest(runs, steps, _not_parked.held) u (run_id, step_slug, held)
    where u.held > 0
    group by u.run_id, u.step_slug
  ), of_runs as (
    select o.run_id, sum(o.held) as held, count(*) as steps, least(sum(o.held), coalesce(min(p.tasks), 0)) as parked
    from of_steps o
    left join parked p on p.run_id = o.run_id
    group by o.run_id
  ), counted as (
    select o.step_slug,
      sum(o.held - case when r.steps = 1 then r.parked when r.parked = r.held then o.held else 0 end) as held
    from of_steps o
    join of_runs r on r.run_id = o.run_id
    group by o.step_slug
    union all
    select '', sum(r.held - r.parked) from of_runs r
  )
  select array_agg(c.step_slug), array_agg(coalesce(c.held, 0)::bigint) into steps, held from counted c;
end;
$$;

-- Locks the limits of a flow. Answers for the flow as a whole ('') and each step that has any how many items may be
-- handed out now to one worker of this queue: what is left by the number at once and by the rate. usable: how many it could
-- work on at this moment; where it does not know (NULL), it gets a share of what is left by the number at once, as if
-- the workers of the queue all came for more, so that none keeps what others could work on. Where somebody keeps the limits locked,
-- there is nothing.
create or replace function pgflow._open_rooms(
  flow_slug text,
  queue_name text,
  usable int,
  out steps text[],
  out rooms int[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_timeout text := current_setting('lock_timeout');
  v_now timestamptz;
  v_counts boolean;
  v_is_new boolean;
  v_rows tid[];
  v_runs uuid[];
  v_steps text[];
  v_held bigint[];
  v_workers int;
begin
  begin
    perform set_config('lock_timeout', '500ms', true);
    perform 1 from pgflow.limits l
    where l.flow_slug = _open_rooms.flow_slug
    order by l.step_slug collate "C"
    for update;
    perform set_config('lock_timeout', v_timeout, true);
  exception when lock_not_available then
    steps := array[''];
    rooms := array[0];
    return;
  end;

  v_now := clock_timestamp();
  select bool_or(l.at_once is not null), bool_or(l.changed_at > v_now - interval '10 seconds')
  into v_counts, v_is_new
  from pgflow.limits l
  where l.flow_slug = _open_rooms.flow_slug;
  if v_counts then
    if v_is_new then
      perform pgflow._find_handed_out(_open_rooms.flow_slug);
    end if;
    select array_agg(h.ctid), array_agg(h.run_id), array_agg(h.step_slug), array_agg(pgflow._still_held(h))
    into v_rows, v_runs, v_steps, v_held
    from pgflow.handed_out h
    where h.flow_slug = _open_rooms.flow_slug;
    delete from pgflow.handed_out h
    where h.ctid = any (array(select u.row_id from unnest(v_rows, v_held) u (row_id, held) where u.held = 0));
    select n.steps, n.held into v_steps, v_held from pgflow._not_parked(v_runs, v_steps, v_held) n;
    if usable is null then
      select count(*) into v_workers
      from pgflow.workers w
      where w.queue_name = _open_rooms.queue_name
        and w.stopped_at is null
        and w.last_heartbeat_at > v_now - coalesce(w.dead_after, interval '1 minute');
    end if;
  end if;

  select array_agg(r.step_slug), array_agg(greatest(least(r.by_number, r.by_rate), 0)) into steps, rooms
  from (
    select l.step_slug, floor(pgflow._tokens(l, v_now))::int as by_rate,
      least(l.at_once - h.held, coalesce(usable, ceil((l.at_once - h.held) / (1.0 + v_workers))))::int as by_number
    from pgflow.limits l
    cross join lateral (
      select coalesce(sum(u.held), 0) as held
      from unnest(v_steps, v_held) u (step_slug, held)
      where u.step_slug = l.step_slug
    ) h
    where l.flow_slug = _open_rooms.flow_slug and num_nonnulls(l.at_once, l.rate) > 0
  ) r;
end;
$$;

-- How many items of this step may be handed out.
create or replace function pgflow._room(steps text[], rooms int[], step_slug text)
returns int
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select least(
    rooms[array_position(steps, '')], rooms[array_position(steps, step_slug)], 2147483647
  );
$$;

-- The rooms without so many items of these steps.
create or replace function pgflow._less_room(steps text[], rooms int[], taken_steps text[], taken int[])
returns int[]
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(
    r.room - coalesce(
      (
        select sum(t.taken)::int from unnest(taken_steps, taken) t (step_slug, taken)
        where r.step_slug in ('', t.step_slug)
      ),
      0
    )
    order by r.n
  )
  from unnest(steps, rooms) with ordinality r (step_slug, room, n);
$$;

-- Books so many items of these steps as handed out; in how many seconds a rate that has nothing left has one again, that
-- of the flow first of all (NULL: all have some left). Caller has opened the rooms.
create or replace function pgflow._use_rooms(flow_slug text, taken_steps text[], taken int[])
returns float8
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
begin
  if cardinality(taken_steps) > 0 then
    update pgflow.limits l
    set tokens = pgflow._tokens(l, v_now) - u.taken, filled_at = v_now, turns = l.turns + 1
    from (
      select k.step_slug, (
          select coalesce(sum(t.taken), 0) from unnest(taken_steps, taken) t (step_slug, taken)
          where k.step_slug in ('', t.step_slug)
        ) as taken
      from pgflow.limits k
      where k.flow_slug = _use_rooms.flow_slug
    ) u
    where l.flow_slug = _use_rooms.flow_slug and l.step_slug = u.step_slug;
  end if;
  return (
    select coalesce(min(w.seconds) filter (where w.step_slug = ''), min(w.seconds))
    from (
      select l.step_slug, (1 - pgflow._tokens(l, v_now)) / l.rate as seconds
      from pgflow.limits l
      where l.flow_slug = _use_rooms.flow_slug and l.rate is not null
    ) w
    where w.seconds > 0
  );
end;
$$;
