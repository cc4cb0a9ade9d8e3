-- Ours: what workers have told, for whoever watches; of the flows that the caller may use.

-- The processes that these workers are of: what they told of themselves, and how they were at state_at. A lane that
-- works for a flow that the caller may not use is shown without what it does.
create or replace function pgflow.worker_processes(worker_ids uuid[])
returns table (
  worker_id uuid,
  process_id uuid,
  host text,
  pid int,
  version text,
  executor text,
  lanes int,
  labels text[],
  flows text[],
  started_at timestamptz,
  state_at timestamptz,
  busy_lanes int,
  utilisation float8,
  cpu float8,
  rss bigint,
  claimed int,
  unsettled int,
  lane_states jsonb
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
  v_flows text[] := pgflow._granted_flows('worker_processes');
  v_queues text[] := pgflow._granted_queues('worker_processes');
begin
  return query
  select w.worker_id, p.process_id, p.host, p.pid, p.version, p.executor, p.lanes, p.labels,
    case
      when v_flows is null then p.flows
      else array(select f from unnest(p.flows) f where f = any (v_flows))
    end,
    p.started_at, p.state_at, p.busy_lanes, p.utilisation, p.cpu, p.rss, p.claimed, p.unsettled,
    case
      when v_flows is null then p.lane_states
      else coalesce(
        (
          select jsonb_agg(
            case
              when l ->> 'flow' <> all (v_flows) then l - '{flow,run,step,index,attempt,since}'::text[]
              else l
            end
          )
          from jsonb_array_elements(p.lane_states) l
        ),
        '[]'
      )
    end
  from pgflow.workers w
  join pgflow.worker_processes p on p.process_id = w.process_id
  where w.worker_id = any (worker_processes.worker_ids)
    and (v_queues is null or lower(w.queue_name) = any (v_queues));
end;
$$;

-- Of each step of a run that has any: attempts that were timed, the failed ones among them, their seconds together,
-- and how many fell into each bucket (pgflow.time_bucket_edge), over all workers.
create or replace function pgflow.item_times(run_id uuid)
returns table (
  step_slug text,
  processes int,
  items bigint,
  failed bigint,
  seconds float8,
  counts bigint[],
  first_at timestamptz,
  last_at timestamptz
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
  select t.step_slug, count(*)::int, sum(t.items)::bigint, sum(t.failed)::bigint, sum(t.seconds),
    array(
      select sum(coalesce(c.counts[b.n], 0))::bigint
      from pgflow.step_times c
      cross join generate_series(1, max(cardinality(t.counts))) b (n)
      where c.run_id = item_times.run_id and c.step_slug = t.step_slug
      group by b.n
      order by b.n
    ),
    min(t.first_at), max(t.last_at)
  from pgflow.step_times t
  join pgflow.step_states ss on ss.run_id = t.run_id and ss.step_slug = t.step_slug
  join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
  where t.run_id = item_times.run_id
    and coalesce(ss.flow_slug = any ((select pgflow._granted_flows('item_times'))::text[]), true)
  group by t.step_slug, s.step_index
  order by s.step_index;
$$;

-- The items of a run that took longest, of one step or of all, each with its slowest attempt and who ran it.
create or replace function pgflow.slowest_items(run_id uuid, step_slug text default null, max_rows int default 10)
returns table (step_slug text, item_index int, seconds float8, process_id uuid)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
  select d.step_slug, d.index, d.seconds, d.process_id
  from (
    select distinct on (t.step_slug, u.index) t.step_slug, u.index, u.seconds, t.process_id
    from pgflow.step_times t
    join pgflow.step_states ss on ss.run_id = t.run_id and ss.step_slug = t.step_slug
    cross join lateral unnest(t.slowest_indexes, t.slowest_seconds) u (index, seconds)
    where t.run_id = slowest_items.run_id
      and (slowest_items.step_slug is null or t.step_slug = slowest_items.step_slug)
      and coalesce(ss.flow_slug = any ((select pgflow._granted_flows('slowest_items'))::text[]), true)
    order by t.step_slug, u.index, u.seconds desc
  ) d
  order by d.seconds desc, d.step_slug, d.index
  limit greatest(max_rows, 0);
$$;

-- What lanes did of a run and when, in the order of beginnings: at most so many stretches, those of one chunk or of
-- several. pid and host are null once the worker is forgotten.
create or replace function pgflow.run_spans(run_id uuid, max_rows int default 20000)
returns table (
  process_id uuid,
  host text,
  pid int,
  lane int,
  step_slug text,
  first_index int,
  items int,
  failed int,
  outcome text,
  seconds float8,
  started_at timestamptz,
  ended_at timestamptz
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
  select s.process_id, p.host, p.pid, s.lane, s.step_slug, s.first_index, s.items, s.failed, s.outcome, s.seconds,
    s.started_at, s.ended_at
  from pgflow.runs r
  join pgflow.lane_spans s on s.run_id = r.run_id
  left join pgflow.worker_processes p on p.process_id = s.process_id
  where r.run_id = run_spans.run_id
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('run_spans'))::text[]), true)
  order by s.started_at, s.span_no
  limit greatest(max_rows, 0);
$$;
