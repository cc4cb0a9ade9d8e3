-- Ours: what workers tell is added up: times of items by bucket, the slowest items, spans of lanes.

-- The lower edge of a bucket in seconds: eight for each power of ten, from a microsecond on. The last one, 87, and
-- the first have no bounds. pgflow_mp/time_buckets.py has the same.
create or replace function pgflow.time_bucket_edge(bucket int)
returns float8
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$ select 1e-6 * power(10::float8, bucket / 8.0::float8); $$;

create or replace function pgflow._add_counts(counts bigint[], more bigint[])
returns bigint[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select coalesce(u.a, 0) + coalesce(greatest(u.b, 0), 0)
    from unnest(counts, more[1:88]) with ordinality u (a, b, n)
    order by u.n
  );
$$;

-- The ten slowest of these and of more, each item once.
create or replace function pgflow._slowest(
  indexes int[],
  seconds float8[],
  more_indexes int[],
  more_seconds float8[],
  out slowest_indexes int[],
  out slowest_seconds float8[]
)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(s.index order by s.seconds desc, s.index), '{}'),
    coalesce(array_agg(s.seconds order by s.seconds desc, s.index), '{}')
  from (
    select u.index, max(u.seconds) as seconds
    from (
      select a.index, a.seconds from unnest(indexes, seconds) a (index, seconds)
      union all
      select b.index, b.seconds from unnest(more_indexes[1:100], more_seconds[1:100]) b (index, seconds)
    ) u
    where u.index is not null and u.seconds is not null
    group by u.index
    order by 2 desc, 1
    limit 10
  ) s;
$$;

-- Spans of a lane that begin in the same stretch of time become one, the longer the stretch the fewer remain, until
-- there are at most so many.
create or replace function pgflow._coarsen_spans(run_id uuid, process_id uuid, most int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_cell float8;
  v_left int;
begin
  select greatest(0.5, extract(epoch from max(s.ended_at) - min(s.started_at)) * count(distinct s.lane) / most)
  into v_cell
  from pgflow.lane_spans s
  where s.run_id = _coarsen_spans.run_id and s.process_id = _coarsen_spans.process_id;
  for v_try in 1 .. 40 loop
    with gone as (
      delete from pgflow.lane_spans s
      where s.run_id = _coarsen_spans.run_id and s.process_id = _coarsen_spans.process_id
      returning s.*
    )
    insert into pgflow.lane_spans (
      run_id, process_id, lane, step_slug, first_index, items, failed, outcome, seconds, started_at, ended_at
    )
    select _coarsen_spans.run_id, _coarsen_spans.process_id, g.lane, g.step_slug,
      (array_agg(g.first_index order by g.started_at))[1],
      least(sum(g.items), 2147483647), least(sum(g.failed), 2147483647),
      case
        when bool_or(g.outcome = 'died') then 'died'
        when bool_or(g.outcome = 'failed') then 'failed'
        else 'completed'
      end,
      sum(g.seconds), min(g.started_at), max(g.ended_at)
    from gone g
    group by g.lane, g.step_slug, floor(extract(epoch from g.started_at) / v_cell);
    get diagnostics v_left = row_count;
    exit when v_left <= most;
    v_cell := 2 * v_cell;
  end loop;
end;
$$;
