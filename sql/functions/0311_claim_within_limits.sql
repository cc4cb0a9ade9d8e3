-- Ours: claiming from flows with limits. See 0297_rooms.sql.

-- Of these messages of a queue those that there is room for, in order, the others, of the steps that have none left,
-- and the steps of the former. Messages without a task are kept: whoever claims passes over them.
create or replace function pgflow._within_rooms(
  queue_name text,
  ids bigint[],
  steps text[],
  rooms int[],
  out kept bigint[],
  out others bigint[],
  out kept_steps text[],
  out counts int[]
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_steps text[];
  v_fits boolean[];
begin
  select array_agg(t.step_slug order by m.n) into v_steps
  from unnest(ids) with ordinality m (id, n)
  left join lateral (
    select t.step_slug
    from pgflow.step_tasks t
    where t.queue_name = _within_rooms.queue_name and t.message_id = m.id
    limit 1
  ) t on true;
  select array_agg(
    s.step_slug is null or s.fits and s.place <= pgflow._room(steps, rooms, '')
    order by s.n
  ) into v_fits
  from (
    select o.*, sum(o.fits::int) over (order by o.n) as place
    from (
      select u.step_slug, u.n,
        u.step_slug is not null
          and row_number() over (partition by u.step_slug order by u.n) <= pgflow._room(steps, rooms, u.step_slug)
          as fits
      from unnest(v_steps) with ordinality u (step_slug, n)
    ) o
  ) s;
  select array_agg(u.id order by u.n) filter (where u.fits), array_agg(u.id order by u.n) filter (where not u.fits)
  into kept, others
  from unnest(ids, v_fits) with ordinality u (id, fits, n);
  select array_agg(c.step_slug), array_agg(c.items) into kept_steps, counts
  from (
    select u.step_slug, count(*)::int as items
    from unnest(v_steps, v_fits) u (step_slug, fits)
    where u.fits and u.step_slug is not null
    group by u.step_slug
  ) c;
end;
$$;

-- As _next_messages, as far as there is room. Steps that have none left are passed over.
create or replace function pgflow._next_messages_within(
  flow_slug text,
  queue_name text,
  step_slug text,
  worker_id uuid,
  qty int,
  lease_seconds int,
  but_steps text[],
  but_runs uuid[],
  steps text[],
  rooms int[],
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
  v_rooms int[] := rooms;
  v_but text[];
  v_ids bigint[] := '{}';
  v_found bigint[];
  v_part record;
begin
  loop
    v_but := array(
      select u.step_slug from unnest(steps, v_rooms) u (step_slug, room) where u.step_slug <> '' and u.room <= 0
    );
    exit when least(qty - cardinality(v_ids), pgflow._room(steps, v_rooms, '')) <= 0;
    v_found := pgflow._next_messages(
      _next_messages_within.flow_slug, _next_messages_within.queue_name, _next_messages_within.step_slug,
      _next_messages_within.worker_id, least(qty - cardinality(v_ids), pgflow._room(steps, v_rooms, '')),
      lease_seconds, v_but || coalesce(but_steps, '{}'), but_runs, of_run, is_only
    );
    exit when coalesce(cardinality(v_found), 0) = 0;
    select * into v_part from pgflow._within_rooms(_next_messages_within.queue_name, v_found, steps, v_rooms);
    v_ids := v_ids || coalesce(v_part.kept, '{}');
    v_rooms := pgflow._less_room(steps, v_rooms, v_part.kept_steps, v_part.counts);
    exit when v_part.others is null;
    perform pgflow._put_messages_back(_next_messages_within.queue_name, v_part.others);
  end loop;
  return v_ids;
end;
$$;

-- Notes which tasks behind these messages this transaction has claimed, by their steps.
create or replace function pgflow._note_tasks(
  flow_slug text,
  queue_name text,
  worker_id uuid,
  msg_ids bigint[],
  out steps text[],
  out counts int[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_runs uuid[];
  v_steps text[];
  v_indexes int[];
begin
  select array_agg(t.run_id), array_agg(t.step_slug), array_agg(t.task_index) into v_runs, v_steps, v_indexes
  from unnest(msg_ids) m (id)
  cross join lateral (
    select t.run_id, t.step_slug, t.task_index
    from pgflow.step_tasks t
    where t.queue_name = _note_tasks.queue_name
      and t.message_id = m.id
      and t.flow_slug = _note_tasks.flow_slug
      and t.status = 'started'
      and t.last_worker_id is not distinct from _note_tasks.worker_id
      and t.started_at >= now()
    limit 1
  ) t;
  insert into pgflow.handed_out (flow_slug, run_id, step_slug, first_index, end_index)
  select _note_tasks.flow_slug, u.run_id, u.step_slug, u.task_index, u.task_index + 1
  from unnest(v_runs, v_steps, v_indexes) u (run_id, step_slug, task_index)
  where exists (
    select 1 from pgflow.limits l where l.flow_slug = _note_tasks.flow_slug and l.at_once is not null
  )
  on conflict on constraint handed_out_key do nothing;
  select array_agg(c.step_slug), array_agg(c.items) into steps, counts
  from (select u.step_slug, count(*)::int as items from unnest(v_steps) u (step_slug) group by u.step_slug) c;
end;
$$;

-- Claims from a flow with limits: up to qty tasks and up to so many items in ranges, as far as there is room. usable:
-- see _open_rooms; of_run and is_only: see _next_messages; is_patient: see _claim_ranges. Tasks and each step with limits of its own take turns by lot in being first. Where something was
-- left for want of room, the last row, without a run, says so; its timeout is in how many milliseconds a rate has room
-- again, NULL where only what is held stands in the way.
create or replace function pgflow._claim_within_limits(
  flow_slug text,
  queue_name text,
  step_slug text,
  worker_id uuid,
  qty int,
  items int,
  known bigint[],
  lease_seconds int,
  but_steps text[],
  but_runs uuid[],
  usable int,
  max_bytes bigint,
  without_input boolean,
  of_run uuid default null,
  is_only boolean default false,
  is_patient boolean default true
)
returns setof pgflow.claimed_work
language plpgsql
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_sort = off
as $$
#variable_conflict use_column
declare
  v_steps text[];
  v_rooms int[];
  v_limited text[];
  v_group text;
  v_turn record;
  v_ids bigint[];
  v_noted record;
  v_row pgflow.claimed_work;
  v_left int := items;
  v_bytes bigint := pgflow._claim_bytes();
  v_leased int;
  v_taken_steps text[] := '{}';
  v_taken int[] := '{}';
  v_wait float8;
begin
  select o.steps, o.rooms into v_steps, v_rooms
  from pgflow._open_rooms(_claim_within_limits.flow_slug, _claim_within_limits.queue_name, usable) o;
  v_limited := array_remove(v_steps, '');

  for v_turn in
    select g.step_slug, g.is_tasks
    from (
      select null::text as step_slug, true as is_tasks
      where qty > 0
      union all
      select u.step_slug, false
      from unnest(v_limited || null::text) u (step_slug)
      where items > 0
        and queue_name is not null
        and case
          when _claim_within_limits.step_slug is null then true
          when u.step_slug is null then _claim_within_limits.step_slug <> all (v_limited)
          else u.step_slug = _claim_within_limits.step_slug
        end
    ) g
    order by random()
  loop
    if v_turn.is_tasks then
      v_ids := pgflow._next_messages_within(
        _claim_within_limits.flow_slug, _claim_within_limits.queue_name, _claim_within_limits.step_slug,
        _claim_within_limits.worker_id, qty, lease_seconds, but_steps, but_runs, v_steps, v_rooms,
        of_run, is_only
      );
      continue when cardinality(v_ids) = 0;
      return query
      select c.run_id, c.step_slug, c.task_index, null::int, c.msg_id, c.attempt, c.input, c.flow_input, c.timeout,
        c.deaths
      from pgflow._claim(
        _claim_within_limits.flow_slug, v_ids, _claim_within_limits.worker_id, _claim_within_limits.queue_name,
        max_bytes => _claim_within_limits.max_bytes,
        without_input => _claim_within_limits.without_input
      ) c
      order by c.msg_id;
      select * into v_noted
      from pgflow._note_tasks(
        _claim_within_limits.flow_slug, _claim_within_limits.queue_name, _claim_within_limits.worker_id, v_ids
      );
      v_rooms := pgflow._less_room(v_steps, v_rooms, v_noted.steps, v_noted.counts);
      v_taken_steps := v_taken_steps || v_noted.steps;
      v_taken := v_taken || v_noted.counts;
      continue;
    end if;

    continue when least(v_left, pgflow._room(v_steps, v_rooms, coalesce(v_turn.step_slug, ''))) <= 0
      or v_bytes <= 0
      or v_turn.step_slug = any (but_steps)
      or pgflow._is_to_be_alone(_claim_within_limits.flow_slug, _claim_within_limits.worker_id);
    for v_row in
      select c.*
      from pgflow._claim_ranges(
        _claim_within_limits.flow_slug,
        coalesce(v_turn.step_slug, _claim_within_limits.step_slug),
        _claim_within_limits.worker_id,
        least(v_left, pgflow._room(v_steps, v_rooms, coalesce(v_turn.step_slug, ''))),
        known,
        case when v_turn.step_slug is null then v_limited || coalesce(but_steps, '{}') end,
        is_patient => _claim_within_limits.is_patient and v_left = items,
        but_runs => _claim_within_limits.but_runs,
        of_run => _claim_within_limits.of_run
      ) c
    loop
      return next v_row;
      v_bytes := v_bytes - coalesce(pg_column_size(v_row.input), 0);
      continue when v_row.msg_id is not null; -- a page
      v_left := v_left - v_row.items;
      v_rooms := pgflow._less_room(v_steps, v_rooms, array[v_row.step_slug], array[v_row.items]);
      v_taken_steps := v_taken_steps || v_row.step_slug;
      v_taken := v_taken || v_row.items;
      insert into pgflow.handed_out (flow_slug, run_id, step_slug, first_index, end_index, lease_no)
      select l.flow_slug, v_row.run_id, v_row.step_slug, v_row.task_index, v_row.task_index + v_row.items, v_row.attempt
      from pgflow.limits l
      where l.flow_slug = _claim_within_limits.flow_slug and l.at_once is not null
      limit 1
      on conflict on constraint handed_out_key do nothing;
    end loop;
  end loop;

  v_wait := pgflow._use_rooms(_claim_within_limits.flow_slug, v_taken_steps, v_taken);
  if 0 >= any (v_rooms) then
    return query
    select null::uuid, null::text, null::int, null::int, null::bigint, null::int, null::jsonb, null::jsonb,
      ceil(1000 * v_wait)::int, null::int;
  end if;
end;
$$;
