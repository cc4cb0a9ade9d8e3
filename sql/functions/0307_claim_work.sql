-- Ours: claiming tasks and ranges in one round trip.

-- Leases up to so many items from the flow's maps in ranges, or of one step, from 64 of them at most: those of the runs
-- with the highest priority, an equal share each, and by lot who gets the odd ones. Maps that others lease from at this moment are
-- passed over; only where nothing else of that priority is to be had a patient caller waits for them, one at a time and
-- with nothing leased yet, so that no two wait for each other. A worker that promised no signs of life, or was taken for
-- dead, gets nothing. of_run: from maps of that run alone. Answers the ranges, and before them the pages that they
-- lie in but for those in known.
create or replace function pgflow._claim_ranges(
  flow_slug text,
  step_slug text,
  worker_id uuid,
  items int,
  known bigint[],
  but_steps text[] default null,
  is_patient boolean default true,
  but_runs uuid[] default null,
  of_run uuid default null
)
returns setof pgflow.claimed_work
language plpgsql
rows 10
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_map record;
  v_ranges pgflow.item_range[] := '{}';
  v_sources text[] := '{}'; -- see _lease_from_map
  v_known bigint[] := coalesce(array_remove(known, null), '{}');
  v_left int := items;
  v_bytes bigint := pgflow._claim_bytes();
  v_maps int;
  v_most_maps constant int := 64; -- that anything is leased from
  v_leased_from int := 0;
  v_ranges_before int;
  v_is_locked boolean;
  v_locked_runs uuid[] := '{}';
  v_locked_steps text[] := '{}';
  v_begun_at timestamptz := clock_timestamp();
  v_is_hired boolean;
begin
  for v_map in
    select o.run_id, o.step_slug, o.row_id, o.alike,
      row_number() over (partition by o.priority order by o.at_most, o.lot) as place
    from (
      select c.*, count(*) over (partition by c.priority) as alike,
        -- Those with least to give first: what they do not need goes to the others.
        case when c.lots <= _claim_ranges.items then c.items - c.next_index end as at_most
      from (
        select m.run_id, m.step_slug, m.row_id, m.items, m.next_index,
          coalesce(p.priority, 0) as priority, random() as lot, count(*) over () as lots
        from (
          select m.ctid as row_id, m.*, r.started_at
          from pgflow.range_maps m
          join pgflow.runs r on r.run_id = m.run_id and r.status = 'started'
          where of_run is null and m.flow_slug = _claim_ranges.flow_slug and m.is_open
          union all
          select o.row_id, (o.m).*, r.started_at
          from ( -- by their keys, whatever the statistics say
            select m.ctid as row_id, m from pgflow.range_maps m where m.run_id = of_run offset 0
          ) o
          cross join lateral (select r.* from pgflow.runs r where r.run_id = of_run offset 0) r
          where (o.m).flow_slug = _claim_ranges.flow_slug and (o.m).is_open and r.status = 'started'
        ) m
        left join pgflow.run_priorities p on p.run_id = m.run_id
        where (m.not_before is null or m.not_before <= clock_timestamp())
          and (_claim_ranges.step_slug is null or m.step_slug = _claim_ranges.step_slug)
          and (but_steps is null or m.step_slug <> all (but_steps))
          and (but_runs is null or m.run_id <> all (but_runs))
        order by priority desc, m.started_at
        limit 4 * v_most_maps
      ) c
    ) o
    order by o.priority desc, place
  loop
    if v_is_hired is null then
      select w.stopped_at is null and w.dead_after is not null into v_is_hired
      from pgflow.workers w
      where w.worker_id = _claim_ranges.worker_id;
      if not found then -- nobody would miss the leases of a worker without a row
        perform pgflow._refuse_unknown_worker('ranges', 'worker_id', _claim_ranges.worker_id);
      end if;
    end if;
    exit when not v_is_hired or v_left <= 0 or v_bytes <= 0 or v_leased_from = v_most_maps;
    v_maps := least(v_map.alike - v_map.place + 1, v_most_maps - v_leased_from);
    v_ranges_before := cardinality(v_ranges);
    select l.* into v_ranges, v_sources, v_left, v_bytes, v_is_locked
    from pgflow._lease_from_map(
      _claim_ranges.flow_slug, v_map.run_id, v_map.step_slug, v_map.row_id, _claim_ranges.worker_id,
      1 + (v_left - 1) / v_maps, false, v_ranges, v_sources, v_left, v_bytes
    ) l;
    v_leased_from := v_leased_from + (cardinality(v_ranges) > v_ranges_before)::int;
    if v_is_locked then
      v_locked_runs := v_locked_runs || v_map.run_id;
      v_locked_steps := v_locked_steps || v_map.step_slug;
    end if;
    continue when v_map.place < v_map.alike;

    v_maps := cardinality(v_locked_runs);
    for i in 1 .. case when cardinality(v_ranges) = 0 then v_maps else 0 end loop
      exit when v_left <= 0 or v_bytes <= 0;
      select l.* into v_ranges, v_sources, v_left, v_bytes, v_is_locked
      from pgflow._lease_from_map(
        _claim_ranges.flow_slug, v_locked_runs[i], v_locked_steps[i], null, _claim_ranges.worker_id,
        1 + (v_left - 1) / (v_maps - i + 1),
        is_patient and cardinality(v_ranges) = 0 and clock_timestamp() < v_begun_at + interval '500 ms',
        v_ranges, v_sources, v_left, v_bytes
      ) l;
    end loop;
    v_locked_runs := '{}';
    v_locked_steps := '{}';
  end loop;
  if cardinality(v_ranges) = 0 then
    return;
  end if;

  return query
  select distinct on (g.run_id, g.step_slug, p.page_id) g.run_id, g.step_slug, p.first_index, p.items, p.page_id,
    null::int, p.body, null::jsonb, null::int, null::int
  from rows from (unnest(v_ranges), unnest(v_sources)) g (
    run_id, step_slug, first_index, end_index, worker_id, lease_no, deaths, leased_at, source_step
  )
  cross join lateral pgflow._pages_between(
    g.run_id, coalesce(g.source_step, g.step_slug), g.source_step is not null, g.first_index, g.end_index
  ) p
  where p.page_id <> all (v_known);

  return query
  select g.run_id, g.step_slug, g.first_index, g.end_index - g.first_index, null::bigint, g.lease_no, null::jsonb,
    null::jsonb, coalesce(s.opt_timeout, f.opt_timeout), nullif(g.deaths, 0)
  from unnest(v_ranges) g
  join pgflow.steps s on s.flow_slug = _claim_ranges.flow_slug and s.step_slug = g.step_slug
  join pgflow.flows f on f.flow_slug = s.flow_slug
  order by g.run_id, g.step_slug, g.first_index;
end;
$$;

-- Claims up to qty tasks, as claim_tasks does, and up to so many items in ranges; nothing of but_steps, which the
-- worker does not know, and of steps that require what it does not have. usable: how many items it could work on at this moment, for flows with limits, of which it gets
-- no more (_open_rooms); a last row without a run tells of them (_claim_within_limits). See the type claimed_work.
create or replace function pgflow.claim_work(
  flow_slug text,
  worker_id uuid,
  qty int,
  items int,
  known bigint[],
  lease_seconds int,
  but_steps text[],
  usable int
)
returns setof pgflow.claimed_work
language plpgsql
security definer
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_sort = off
as $$
#variable_conflict use_column
declare
  v_queue text;
  v_step text;
  v_but text[] := but_steps;
  v_has_pauses boolean;
  v_is_limited boolean;
  v_has_requirements boolean;
  v_paused uuid[];
begin
  perform pgflow._require_flow('claim_work', claim_work.flow_slug);
  -- One look at tables that are empty, mostly, or small.
  select exists (select 1 from pgflow.pauses p where p.flow_slug = claim_work.flow_slug),
    exists (
      select 1 from pgflow.limits l
      where l.flow_slug = claim_work.flow_slug and (l.at_once is not null or l.rate is not null)
    ),
    exists (select 1 from pgflow.step_requirements r where r.flow_slug = claim_work.flow_slug)
  into v_has_pauses, v_is_limited, v_has_requirements;
  if v_has_pauses then
    v_paused := pgflow._paused_runs(claim_work.flow_slug);
    if v_paused is null then
      return;
    end if;
  end if;
  if v_has_requirements then
    v_but := v_but || pgflow._barred_steps(claim_work.flow_slug, claim_work.worker_id);
  end if;
  select q.queue_name, q.step_slug into v_queue, v_step
  from pgflow._served_queue(claim_work.flow_slug, claim_work.worker_id) q;
  if v_is_limited then
    return query
    select c.*
    from pgflow._claim_within_limits(
      claim_work.flow_slug, v_queue, v_step, claim_work.worker_id, qty, claim_work.items, known, lease_seconds,
      v_but, v_paused, usable, pgflow._claim_bytes(), false
    ) c;
    return;
  end if;

  return query
  select c.run_id, c.step_slug, c.task_index, null::int, c.msg_id, c.attempt, c.input, c.flow_input, c.timeout,
    c.deaths
  from pgflow._claim(
    claim_work.flow_slug,
    pgflow._next_messages(
      claim_work.flow_slug, v_queue, v_step, claim_work.worker_id, qty, lease_seconds, v_but,
      v_paused
    ),
    claim_work.worker_id,
    v_queue,
    max_bytes => pgflow._claim_bytes()
  ) c
  order by c.msg_id;

  if claim_work.items > 0
    and v_queue is not null
    and not pgflow._is_to_be_alone(claim_work.flow_slug, claim_work.worker_id)
  then
    return query
    select c.*
    from pgflow._claim_ranges(
      claim_work.flow_slug, v_step, claim_work.worker_id, claim_work.items, known, v_but,
      but_runs => v_paused
    ) c;
  end if;
end;
$$;

-- The same for who does not tell what it could work on, such as workers of before.
create or replace function pgflow.claim_work(
  flow_slug text,
  worker_id uuid,
  qty int,
  items int,
  known bigint[] default '{}',
  lease_seconds int default null,
  but_steps text[] default null
)
returns setof pgflow.claimed_work
language plpgsql
security definer
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
  return query
  select c.*
  from pgflow.claim_work(
    claim_work.flow_slug, claim_work.worker_id, qty, claim_work.items, known, lease_seconds, but_steps, null
  ) c
  where c.run_id is not null;
end;
$$;

-- The pages of these items of a map, for a worker that leases them and has not kept a page.
create or replace function pgflow.range_pages(run_id uuid, step_slug text, first_index int, items int)
returns setof pgflow.claimed_work
language plpgsql
stable
security definer
rows 10
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pgflow._require_flow(
    'range_pages', (select r.flow_slug from pgflow.runs r where r.run_id = range_pages.run_id)
  );
  return query
  select range_pages.run_id, range_pages.step_slug, p.first_index, p.items, p.page_id, null::int, p.body,
    null::jsonb, null::int, null::int
  from pgflow._pages_of(
    range_pages.run_id, range_pages.step_slug, range_pages.first_index,
    range_pages.first_index + range_pages.items
  ) p;
end;
$$;
