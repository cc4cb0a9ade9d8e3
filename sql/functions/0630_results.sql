-- Ours: what became of the items of a run: outputs by pages of a stream, failures, and how many ended how.

-- What became of a step's items from from_index on, in index order, at most so many. Of a map in ranges each item
-- has a row, of one in tasks each that is spawned.
create or replace function pgflow._results(run_id uuid, step_slug text, from_index int, max_rows int)
returns table (task_index int, status text, output jsonb, error_message text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  if pgflow._is_in_ranges(_results.run_id, _results.step_slug) then
    return query
    select r.task_index, r.status, r.output, r.error_message
    from pgflow._item_results(
      _results.run_id, _results.step_slug, from_index,
      least(greatest(from_index, 0)::bigint + max_rows, 2147483647)::int
    ) r
    order by r.task_index;
  else
    return query
    select t.task_index, t.status, t.output, t.error_message
    from pgflow.step_tasks t
    where t.run_id = _results.run_id
      and t.step_slug = _results.step_slug
      and t.task_index >= _results.from_index
    order by t.task_index
    limit max_rows;
  end if;
end;
$$;

-- How many items from from_index on have their results in pages of so many bytes, or in one page; max_rows at most.
create or replace function pgflow._fitting_results(
  run_id uuid,
  step_slug text,
  from_index int,
  max_rows int,
  max_bytes bigint
)
returns int
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(min(p.first_index) filter (where p.bytes > max_bytes and p.n > 1) - from_index, max_rows)
  from (
    select p.first_index, row_number() over (order by p.first_index) as n,
      sum(pg_column_size(p.body)) over (order by p.first_index) as bytes
    from pgflow._pages_between(
      _fitting_results.run_id, _fitting_results.step_slug, true, from_index,
      least(from_index::bigint + max_rows, 2147483647)::int
    ) p
  ) p
  where p.first_index > from_index or p.n = 1;
$$;

-- A page of a stream: the outputs of one step.
create or replace function pgflow.run_results(
  run_id uuid,
  step_slug text,
  from_index int default 0,
  max_rows int default 10000
)
returns table (task_index int, status text, output jsonb, error_message text)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select t.task_index, t.status, t.output, t.error_message
  from pgflow.runs r
  cross join lateral pgflow._results(
    r.run_id, run_results.step_slug, run_results.from_index, run_results.max_rows
  ) t
  where r.run_id = run_results.run_id
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('run_results'))::text[]), true);
$$;

-- The same, but at most so many bytes of output as stored, or one row. Nothing is read for being counted: of a map
-- in ranges no more pages are looked into than have so many bytes.
create or replace function pgflow.run_results_page(
  run_id uuid,
  step_slug text,
  from_index int,
  max_rows int,
  max_bytes bigint
)
returns table (task_index int, status text, output jsonb, error_message text)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select t.task_index, t.status, t.output, t.error_message
  from pgflow.runs r
  cross join lateral (
    select t.*, sum(coalesce(pg_column_size(t.output), 0)) over (order by t.task_index) as bytes,
      row_number() over (order by t.task_index) as n
    from pgflow._results(
      r.run_id, run_results_page.step_slug, run_results_page.from_index,
      pgflow._fitting_results(
        r.run_id, run_results_page.step_slug, greatest(run_results_page.from_index, 0),
        run_results_page.max_rows, run_results_page.max_bytes
      )
    ) t
  ) t
  where r.run_id = run_results_page.run_id
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('run_results_page'))::text[]), true)
    and (t.bytes <= run_results_page.max_bytes or t.n = 1)
  order by t.task_index;
$$;

-- The items of a run that failed for good, at most so many, those of steps that failed first, then earliest first;
-- and of how many these are the first.
create or replace function pgflow.run_failures(run_id uuid, max_rows int default 20)
returns table (step_slug text, task_index int, attempts int, error_message text, failures bigint)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select t.step_slug, t.task_index, t.attempts_count, t.error_message, count(*) over ()
  from pgflow.runs r
  join pgflow.step_tasks t on t.run_id = r.run_id
  join pgflow.step_states ss on ss.run_id = t.run_id and ss.step_slug = t.step_slug
  where r.run_id = run_failures.run_id
    and t.status = 'failed'
    and coalesce(t.flow_slug = any ((select pgflow._granted_flows('run_failures'))::text[]), true)
  order by ss.status <> 'failed', t.failed_at, t.step_slug, t.task_index
  limit max_rows;
$$;

-- How many items of a started step failed, and how many ended unfinished with their run (cancelled) or their step
-- (skipped). No item is looked at that is neither a task nor an exception.
create or replace function pgflow._step_tallies(run_id uuid, step_slug text)
returns table (failed bigint, cancelled bigint, skipped bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  select t.failed,
    t.cancelled + case when r.status <> 'started' and ss.status <> 'skipped' then l.items else 0 end,
    t.skipped + case when ss.status = 'skipped' then l.items else 0 end
  from pgflow.step_states ss
  join pgflow.runs r on r.run_id = ss.run_id
  left join pgflow.range_maps m on m.run_id = ss.run_id and m.step_slug = ss.step_slug
  cross join lateral (
    select count(*) filter (where t.status = 'failed') as failed,
      count(*) filter (where t.status = 'cancelled') as cancelled,
      count(*) filter (where t.status = 'skipped') as skipped,
      range_agg(int4range(t.task_index, t.task_index + 1)) filter (where m.items is not null) as indexes
    from pgflow.step_tasks t
    where t.run_id = ss.run_id and t.step_slug = ss.step_slug
  ) t
  -- Items without a task that are not done.
  cross join lateral (
    select case
      when m.items is not null then (
        select coalesce(sum(upper(u.u) - lower(u.u)), 0)
        from unnest(
          int4multirange(int4range(0, m.items)) - coalesce(t.indexes, '{}') - coalesce(
            (
              select range_agg(int4range(p.first_index, p.first_index + p.items))
              from pgflow.pages p
              where p.run_id = ss.run_id and p.step_slug = ss.step_slug and p.is_result
            ),
            '{}'
          )
        ) u (u)
      )
      when ss.spawned_tasks > 0 then greatest(ss.initial_tasks - ss.spawned_tasks, 0)
      else 0
    end as items
  ) l
  where ss.run_id = _step_tallies.run_id
    and ss.step_slug = _step_tallies.step_slug
    and ss.started_at is not null;
$$;

-- The same of each started step of a run.
create or replace function pgflow.run_tallies(run_id uuid)
returns table (step_slug text, failed bigint, cancelled bigint, skipped bigint)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select ss.step_slug, t.failed, t.cancelled, t.skipped
  from pgflow.step_states ss
  cross join lateral pgflow._step_tallies(ss.run_id, ss.step_slug) t
  where ss.run_id = run_tallies.run_id
    and coalesce(ss.flow_slug = any ((select pgflow._granted_flows('run_tallies'))::text[]), true);
$$;
