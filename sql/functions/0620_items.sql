-- Ours: the items of all steps that have started, one row each, whether their map is stored in tasks or in ranges.
--
-- The view pgflow.items is that for people; its columns are stable: new ones may come at their end. The function
-- pgflow._items is the same between two indexes of one step, in a time that goes by their distance and not by the
-- size of the map, and pgflow._item_results what became of them. All are made of one text, of which only the sources
-- differ: tasks; and maps in ranges, and steps whose last tasks are not spawned yet, each with the indexes that are
-- asked for.
--
-- Of a map in ranges, the items from a to b (exclusive) are an interval where they have one fate: a result page, a
-- lease, or else nobody has worked on them. An interval is cut where pages of elements end. Pages are read from
-- where they lie once for each interval and not for each item: #> '{}' answers the whole value, and "offset 0"
-- keeps it from being asked for again.
do $do$
declare
  v_all constant text := $sql$
  with tasks as (
    select * from pgflow.step_tasks t
    where not exists (select 1 from pgflow.leavings l where l.run_id = t.run_id)
  ),
  maps as (
    select m.*, 0 as from_index, m.items as to_index from pgflow.range_maps m
  ),
  tails as (
    select ss.*, ss.spawned_tasks as from_index, ss.initial_tasks as to_index
    from pgflow.step_states ss
  )$sql$;
  v_some constant text := $sql$
  with tasks as (
    select * from pgflow.step_tasks t
    where t.run_id = $1 and t.step_slug = $2 and t.task_index >= $3 and t.task_index < $4
      and not exists (select 1 from pgflow.leavings l where l.run_id = $1)
  ),
  maps as (
    select m.*, greatest($3, 0) as from_index, least($4, m.items) as to_index
    from pgflow.range_maps m
    where m.run_id = $1 and m.step_slug = $2 and $3 < m.items and $4 > 0
  ),
  tails as (
    select ss.*, greatest($3, ss.spawned_tasks) as from_index, least($4, ss.initial_tasks) as to_index
    from pgflow.step_states ss
    where ss.run_id = $1 and ss.step_slug = $2
  )$sql$;
  v_items constant text := $sql$
  select t.run_id, t.flow_slug, t.step_slug, t.task_index as item_index, t.status, t.attempts_count as attempts,
    t.input, t.output, t.error_message as error, t.last_worker_id as worker_id,
    t.queued_at, t.started_at, t.completed_at, t.failed_at,
    case
      when exists (select 1 from pgflow.range_maps m where m.run_id = t.run_id and m.step_slug = t.step_slug)
        then 'ranges'
      else 'tasks'
    end as storage
  from tasks t
  union all
  select ss.run_id, ss.flow_slug, ss.step_slug, i.i,
    case
      when ss.status = 'skipped' then 'skipped'
      when ss.status = 'started' and r.status = 'started' then 'queued'
      else 'cancelled'
    end,
    0, null, null, null, null, ss.started_at, null, null, null, 'tasks'
  from tails ss
  join pgflow.runs r on r.run_id = ss.run_id
  cross join lateral generate_series(ss.from_index, ss.to_index - 1) i (i)
  where ss.spawned_tasks > 0
    and ss.spawned_tasks < ss.initial_tasks
    and not exists (
      select 1 from pgflow.range_maps m where m.run_id = ss.run_id and m.step_slug = ss.step_slug
    )
  union all
  select m.run_id, m.flow_slug, m.step_slug, i.i,
    case
      when n.is_result then 'completed'
      when ss.status = 'skipped' then 'skipped'
      when ss.status <> 'started' or r.status <> 'started' then 'cancelled'
      when n.worker_id is not null then 'started'
      else 'queued'
    end,
    case when n.is_result or n.worker_id is not null then 1 else 0 end,
    e.elements -> (i.i - e.a),
    o.outputs -> (i.i - n.a),
    null, n.worker_id, ss.started_at, n.leased_at, n.written_at, null, 'ranges'
  from maps m
  join pgflow.runs r on r.run_id = m.run_id
  join pgflow.step_states ss on ss.run_id = m.run_id and ss.step_slug = m.step_slug
  -- Where its pages of results, its leases, and its elements begin that from_index may be in.
  cross join lateral (
    select
      coalesce((
        select max(p.first_index) from pgflow.pages p
        where p.run_id = m.run_id and p.step_slug = m.step_slug and p.is_result and p.first_index <= m.from_index
      ), 0) as result,
      coalesce((
        select max(g.first_index) from pgflow.ranges g
        where g.run_id = m.run_id and g.step_slug = m.step_slug and g.first_index <= m.from_index
      ), 0) as lease,
      coalesce(m.source_step, m.step_slug) as source,
      m.source_step is not null as is_result
    offset 0
  ) f
  -- Elements that are not there (yet): those of a parent that is not done, where the map does not wait for it.
  cross join lateral (
    select int4multirange(int4range(m.from_index, m.to_index)) - coalesce(
      (
        select range_agg(int4range(e.first_index, e.first_index + e.items))
        from pgflow.pages e
        where e.run_id = m.run_id and e.step_slug = f.source and e.is_result = f.is_result
          and e.first_index < m.to_index
          and e.first_index >= coalesce((
            select max(b.first_index) from pgflow.pages b
            where b.run_id = m.run_id and b.step_slug = f.source and b.is_result = f.is_result
              and b.first_index <= m.from_index
          ), 0)
      ),
      '{}'
    ) as missing
    offset 0
  ) h
  cross join lateral (
    select p.first_index as a, p.first_index + p.items as b, true as is_result, p.worker_id, p.leased_at,
      p.written_at, p.body
    from pgflow.pages p
    where p.run_id = m.run_id and p.step_slug = m.step_slug and p.is_result
      and p.first_index >= f.result and p.first_index < m.to_index
    union all
    select g.first_index, g.end_index, false, g.worker_id, g.leased_at, null, null
    from pgflow.ranges g
    where g.run_id = m.run_id and g.step_slug = m.step_slug
      and g.first_index >= f.lease and g.first_index < m.to_index
      and g.worker_id is not null
    union all
    select lower(u.u), upper(u.u), false, null, null, null, null
    from unnest(
      int4multirange(int4range(m.from_index, m.to_index)) - coalesce(
        (
          select range_agg(w.w)
          from (
            select int4range(p.first_index, p.first_index + p.items)
            from pgflow.pages p
            where p.run_id = m.run_id and p.step_slug = m.step_slug and p.is_result
              and p.first_index >= f.result and p.first_index < m.to_index
            union all
            select int4range(g.first_index, g.end_index)
            from pgflow.ranges g
            where g.run_id = m.run_id and g.step_slug = m.step_slug
              and g.first_index >= f.lease and g.first_index < m.to_index
              and g.worker_id is not null
            union all
            select int4range(t.task_index, t.task_index + 1)
            from pgflow.step_tasks t
            where t.run_id = m.run_id and t.step_slug = m.step_slug
              and t.task_index >= m.from_index and t.task_index < m.to_index
          ) w (w)
        ),
        '{}'
      )
    ) u (u)
  ) n
  -- An item that is a task as well is that one: the page has no more than its output.
  cross join lateral (
    select n.body #> '{}' as outputs,
      int4multirange(int4range(n.a, n.b)) - coalesce(
        case
          when n.is_result then (
            select range_agg(int4range(t.task_index, t.task_index + 1))
            from pgflow.step_tasks t
            where t.run_id = m.run_id and t.step_slug = m.step_slug and t.task_index >= n.a and t.task_index < n.b
          )
        end,
        '{}'
      ) as own
    offset 0
  ) o
  cross join lateral (
    select e.first_index as a, e.first_index + e.items as b, e.body #> '{}' as elements
    from pgflow.pages e
    where e.run_id = m.run_id and e.step_slug = f.source and e.is_result = f.is_result
      and e.first_index < least(n.b, m.to_index)
      and e.first_index >= coalesce((
        select max(b.first_index) from pgflow.pages b
        where b.run_id = m.run_id and b.step_slug = f.source and b.is_result = f.is_result
          and b.first_index <= greatest(n.a, m.from_index)
      ), 0)
    union all
    select lower(u.u), upper(u.u), null
    from unnest(h.missing * int4multirange(int4range(n.a, n.b))) u (u)
    offset 0
  ) e
  cross join lateral unnest(
    case
      when greatest(n.a, e.a, m.from_index) < least(n.b, e.b, m.to_index) then
        o.own * int4multirange(int4range(greatest(n.a, e.a, m.from_index), least(n.b, e.b, m.to_index)))
    end
  ) w (w)
  cross join lateral generate_series(lower(w.w), upper(w.w) - 1) i (i)$sql$;
begin
  -- Whoever may select from it sees the items of flows that it may use: see pgflow._granted_flows, by whose rule
  -- this goes. A function in its place would be called with the rights of who asks.
  execute format(
    $sql$
    create or replace view pgflow.items with (security_barrier) as
    select u.*
    from (%s %s) u
    where coalesce(
      u.flow_slug = any ((
        select case
          when not exists (select 1 from pgflow.flow_grants) or pg_has_role(c.caller, c.owner, 'usage') then null
          else coalesce(
            (
              select array_agg(distinct g.flow_slug)
              from pgflow.flow_grants g
              where pg_has_role(c.caller, g.role_id, 'usage')
            ),
            case when not has_table_privilege(c.caller, c.view_id, 'select') then '{}'::text[] end
          )
        end
        from (
          select v.oid as view_id, v.relowner as owner,
            coalesce(nullif(current_setting('role'), 'none'), session_user)::name as caller
          from pg_catalog.pg_class v
          join pg_catalog.pg_namespace n on n.oid = v.relnamespace
          where n.nspname = 'pgflow' and v.relname = 'items'
        ) c
      )::text[]),
      true
    )
    $sql$,
    v_all, v_items
  );
  execute format(
    $sql$
    create or replace function pgflow._items(run_id uuid, step_slug text, from_index int, to_index int)
    returns setof pgflow.items
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
    set jit = off
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
    set plan_cache_mode = force_generic_plan
    as $body$
    #variable_conflict use_column
    begin
      return query %s %s;
    end;
    $body$
    $sql$,
    v_some, v_items
  );
  -- Elements are not read here.
  execute format(
    $sql$
    create or replace function pgflow._item_results(run_id uuid, step_slug text, from_index int, to_index int)
    returns table (task_index int, status text, output jsonb, error_message text)
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
    set jit = off
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
    set plan_cache_mode = force_generic_plan
    as $body$
    #variable_conflict use_column
    begin
      return query select u.item_index, u.status, u.output, u.error from (%s %s) u;
    end;
    $body$
    $sql$,
    v_some, v_items
  );
end;
$do$;

-- One item of a step that has started, in milliseconds whatever the size of its map.
create or replace function pgflow.item(run_id uuid, step_slug text, item_index int)
returns setof pgflow.items
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select i.*
  from pgflow._items(
    item.run_id, item.step_slug, item.item_index, least(item.item_index, 2147483646) + 1
  ) i
  where coalesce(i.flow_slug = any ((select pgflow._granted_flows('item'))::text[]), true);
$$;
