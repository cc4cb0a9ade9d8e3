-- Ours: what has ended of a step while it runs, for whoever follows it.

-- Items of a step that have ended, completed or failed for good, among those that the caller lacks: indexes without
-- those that it has had. A row is one item (items is NULL; outputs is its output), or a page of a map in ranges:
-- inputs and outputs are arrays of items from first_index on, of which those with these indexes count, also where
-- the caller has had some. They come in order of first_index. The last row has no status: all below its first_index was looked at. That is everything, or
-- max_rows tasks, or what has max_bytes, or one row: the work goes by that, and not by the size of the map.
create or replace function pgflow.finished_items(
  run_id uuid,
  step_slug text,
  missing int4multirange,
  with_inputs boolean default false,
  max_rows int default 5000,
  max_bytes bigint default 1048576
)
returns table (
  first_index int,
  items int,
  status text,
  attempts int,
  inputs jsonb,
  outputs jsonb,
  error_message text,
  started_at timestamptz,
  finished_at timestamptz,
  indexes int4multirange
)
language plpgsql
stable
security definer
rows 100
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_map pgflow.range_maps;
  v_gap int4range;
  v_from int;
  v_to int;
  v_left int := greatest(max_rows, 1);
  v_bytes bigint := greatest(max_bytes, 1);
  v_seen record;
begin
  if not exists (
    select 1
    from pgflow.runs r
    where r.run_id = finished_items.run_id
      and coalesce(r.flow_slug = any ((select pgflow._granted_flows('finished_items'))::text[]), true)
  ) then
    return;
  end if;
  select m.* into v_map
  from pgflow.range_maps m
  where m.run_id = finished_items.run_id and m.step_slug = finished_items.step_slug;

  for v_gap in select g.g from unnest(missing * int4multirange(int4range(0, null))) g (g) order by g.g loop
    v_from := lower(v_gap);
    v_to := coalesce(upper(v_gap), 2147483647);

    -- As far as there are not too many tasks, whatever their state, nor too many bytes in those that have ended.
    select count(*)::int as tasks, coalesce(sum(s.size), 0)::bigint as bytes,
      min(s.task_index) filter (where s.bytes > v_bytes and s.bytes > s.size) as cut, max(s.task_index) as last
    into v_seen
    from (
      select t.task_index, t.size, sum(t.size) over (order by t.task_index) as bytes
      from (
        select t.task_index,
          case
            when t.status in ('completed', 'failed') then
              coalesce(pg_column_size(t.output), 0) + coalesce(pg_column_size(t.error_message), 0)
                + case when with_inputs then coalesce(pg_column_size(t.input), 0) else 0 end
            else 0
          end as size
        from pgflow.step_tasks t
        where t.run_id = finished_items.run_id
          and t.step_slug = finished_items.step_slug
          and t.task_index >= v_from
          and t.task_index < v_to
        order by t.task_index
        limit v_left
      ) t
    ) s;
    if v_seen.cut is not null then
      v_to := v_seen.cut;
    elsif v_seen.tasks = v_left then
      v_to := v_seen.last + 1;
    end if;
    v_left := v_left - v_seen.tasks;
    v_bytes := v_bytes - v_seen.bytes;

    if v_map.run_id is not null then
      select coalesce(sum(s.size), 0)::bigint as bytes,
        min(s.first_index) filter (where s.bytes > greatest(v_bytes, 1) and s.bytes > s.size) as cut,
        count(*) as pages, max(s.first_index + s.items) as behind
      into v_seen
      from (
        select p.first_index, p.items, p.size, sum(p.size) over (order by p.first_index) as bytes
        from (
          select p.first_index, p.items,
            pg_column_size(p.body)::bigint * case when with_inputs then 2 else 1 end as size
          from pgflow.pages p
          where p.run_id = finished_items.run_id
            and p.step_slug = finished_items.step_slug
            and p.is_result
            and p.first_index >= v_from
            and p.first_index < v_to
          order by p.first_index
          limit 1000
        ) p
      ) s;
      if v_seen.cut is not null then
        v_to := v_seen.cut;
        v_left := 0;
      elsif v_seen.pages = 1000 then
        v_to := least(v_to, v_seen.behind);
        v_left := 0;
      end if;
      v_bytes := v_bytes - v_seen.bytes;
    end if;

    return query
    select f.*
    from (
      select t.task_index as first_index, null::int, t.status, t.attempts_count,
        case when with_inputs then t.input end, t.output, t.error_message, t.started_at,
        coalesce(t.completed_at, t.failed_at), null::int4multirange
      from pgflow.step_tasks t
      where t.run_id = finished_items.run_id
        and t.step_slug = finished_items.step_slug
        and t.task_index >= v_from
        and t.task_index < v_to
        and t.status in ('completed', 'failed')
      union all
      -- A page of what tasks have returned is of these: it begins with one.
      select p.first_index, p.items, 'completed', 1,
        case
          when with_inputs then (
            select to_jsonb(array_agg(e.e))
            from pgflow._page_elements(
              p.run_id, coalesce(v_map.source_step, p.step_slug), v_map.source_step is not null,
              p.first_index, p.first_index + p.items
            ) e (e)
          )
        end,
        p.body, null, p.leased_at, p.written_at,
        int4multirange(int4range(p.first_index, p.first_index + p.items)) - coalesce(
          (
            select range_agg(int4range(t.task_index, t.task_index + 1))
            from pgflow.step_tasks t
            where t.run_id = p.run_id
              and t.step_slug = p.step_slug
              and t.task_index >= p.first_index
              and t.task_index < p.first_index + p.items
          ),
          '{}'
        )
      from pgflow.pages p
      where v_map.run_id is not null
        and p.run_id = finished_items.run_id
        and p.step_slug = finished_items.step_slug
        and p.is_result
        and p.first_index >= v_from
        and p.first_index < v_to
        and not exists (
          select 1
          from pgflow.step_tasks t
          where t.run_id = p.run_id and t.step_slug = p.step_slug and t.task_index = p.first_index
        )
    ) f
    order by f.first_index;
    exit when v_left <= 0 or v_bytes <= 0 or v_to < coalesce(upper(v_gap), 2147483647);
    v_to := 2147483647;
  end loop;
  first_index := coalesce(v_to, 2147483647);
  return next;
end;
$$;
