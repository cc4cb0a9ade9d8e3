-- Ours: what workers tell of themselves and of the time that items take, each process of its own work only.

-- Records one report of a process; each once, by its number, whatever has become of the connection meanwhile. about:
-- what does not change. state: how it is now, with an object for each lane. timed: items of steps since the last
-- report. spans: of lanes. "age" and "since" are seconds before this call. Answers false, and nothing is recorded, as
-- long as none of worker_ids is that of a worker.
--
-- A role that is limited to some flows tells of workers, runs and lanes of these only, and goes on with no process of
-- another role; nothing of others is locked. Texts and arrays are cut, what would be too many is left out.
create or replace function pgflow.report_worker(
  process_id uuid,
  report_no bigint,
  worker_ids uuid[],
  about jsonb,
  state jsonb default null,
  timed jsonb default '[]',
  spans jsonb default '[]'
)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
  v_flows text[] := pgflow._granted_flows('report_worker');
  v_queues text[] := pgflow._granted_queues('report_worker');
  v_role name := coalesce(nullif(current_setting('role'), 'none'), session_user);
  v_now timestamptz := clock_timestamp();
  v_last bigint;
  v_ours boolean;
  v_run uuid;
  v_spans int;
begin
  select p.report_no, v_flows is null or p.role_name = v_role into v_last, v_ours
  from pgflow.worker_processes p
  where p.process_id = report_worker.process_id;
  if not v_ours then
    return false;
  end if;
  select p.report_no into v_last
  from pgflow.worker_processes p
  where p.process_id = report_worker.process_id
  for update;
  if report_worker.report_no <= v_last then
    return true;
  end if;

  update pgflow.workers w
  set process_id = report_worker.process_id
  where w.worker_id = any (report_worker.worker_ids)
    and w.process_id is null
    and (v_queues is null or lower(w.queue_name) = any (v_queues));
  if v_ours is null then
    insert into pgflow.worker_processes (
      process_id, role_name, report_no, host, pid, version, executor, lanes, labels, flows, started_at
    )
    select report_worker.process_id, v_role, 0, left(coalesce(a.host, ''), 200), coalesce(a.pid, 0),
      left(coalesce(a.version, ''), 50), left(coalesce(a.executor, ''), 100), coalesce(a.lanes, 0),
      array(select left(l, 100) from unnest(a.labels[1:50]) l where l is not null limit 50),
      array(
        select left(f, 128) from unnest(a.flows[1:200]) f
        where f is not null and (v_flows is null or f = any (v_flows))
        limit 200
      ),
      v_now - make_interval(secs => least(greatest(coalesce(a.age, 0), 0), 1e9))
    from jsonb_to_record(report_worker.about) a (
      host text, pid int, version text, executor text, lanes int, labels text[], flows text[], age float8
    )
    where exists (
      select 1 from pgflow.workers w
      where w.process_id = report_worker.process_id
        and (v_queues is null or lower(w.queue_name) = any (v_queues))
    )
    on conflict on constraint worker_processes_pkey do nothing;
    if not found then
      return false;
    end if;
  end if;

  if state is null then
    update pgflow.worker_processes p
    set report_no = report_worker.report_no
    where p.process_id = report_worker.process_id;
  else
    update pgflow.worker_processes p
    set report_no = report_worker.report_no,
        state_at = v_now,
        lanes = coalesce(s.lanes, p.lanes),
        busy_lanes = s.busy_lanes,
        utilisation = s.utilisation,
        cpu = s.cpu,
        rss = s.rss,
        claimed = s.claimed,
        unsettled = s.unsettled,
        lane_states = coalesce(
          (
            select jsonb_agg(
              jsonb_strip_nulls(jsonb_build_object(
                'lane', l.lane, 'pid', l.pid, 'cpu', l.cpu, 'rss', l.rss, 'flow', left(l.flow, 128),
                'run', l.run, 'step', left(l.step, 128), 'index', l.index, 'attempt', l.attempt,
                'since', case
                  when l.since is not null then v_now - make_interval(secs => least(greatest(l.since, 0), 1e9))
                end
              ))
              order by l.lane
            )
            from jsonb_to_recordset(s.lane_states) l (
              lane int, pid int, cpu float8, rss bigint, flow text, run uuid, step text, index int, attempt int,
              since float8
            )
            where l.lane between 0 and 1023 and (v_flows is null or l.flow is null or l.flow = any (v_flows))
          ),
          '[]'
        )
    from jsonb_to_record(report_worker.state) s (
      lanes int, busy_lanes int, utilisation float8, cpu float8, rss bigint, claimed int, unsettled int,
      lane_states jsonb
    )
    where p.process_id = report_worker.process_id;
  end if;
  if timed = '[]' and spans = '[]' then
    return true;
  end if;

  -- A run that is being removed is waited for, and nothing of it comes after that.
  perform 1
  from pgflow.runs r
  where r.run_id in (
      select x.run from jsonb_to_recordset(report_worker.timed) x (run uuid)
      union
      select y.run from jsonb_to_recordset(report_worker.spans) y (run uuid)
    )
    and (v_flows is null or r.flow_slug = any (v_flows))
  order by r.run_id
  for key share;

  insert into pgflow.step_times as t (
    run_id, step_slug, process_id, items, failed, seconds, counts, slowest_indexes, slowest_seconds, first_at, last_at
  )
  select ss.run_id, ss.step_slug, report_worker.process_id, x.items, x.failed, x.seconds,
    x.counts[1:88], x.indexes[1:10], x.slowest[1:10],
    v_now - make_interval(secs => least(greatest(x.age, 0), 1e9)), v_now
  from jsonb_to_recordset(report_worker.timed) x (
    run uuid, step text, items bigint, failed bigint, seconds float8, counts bigint[], indexes int[], slowest float8[],
    age float8
  )
  join pgflow.step_states ss on ss.run_id = x.run and ss.step_slug = x.step
  where (v_flows is null or ss.flow_slug = any (v_flows))
    -- A slice of several dimensions is as long as the others are.
    and greatest(array_ndims(x.counts), array_ndims(x.indexes), array_ndims(x.slowest), 1) = 1
  on conflict on constraint step_times_pkey do update
    set items = t.items + excluded.items,
        failed = t.failed + excluded.failed,
        seconds = t.seconds + excluded.seconds,
        counts = pgflow._add_counts(t.counts, excluded.counts),
        (slowest_indexes, slowest_seconds) = (
          select w.slowest_indexes, w.slowest_seconds
          from pgflow._slowest(
            t.slowest_indexes, t.slowest_seconds, excluded.slowest_indexes, excluded.slowest_seconds
          ) w
        ),
        last_at = excluded.last_at;

  for v_run, v_spans in
    with written as (
      insert into pgflow.lane_spans (
        run_id, process_id, lane, step_slug, first_index, items, failed, outcome, seconds, started_at, ended_at
      )
      select ss.run_id, report_worker.process_id, y.lane, ss.step_slug, y.index, y.items, y.failed, y.outcome,
        y.seconds, v_now - make_interval(secs => least(greatest(y.start, 0), 1e9)),
        v_now - make_interval(secs => least(greatest(y."end", 0), 1e9))
      from jsonb_to_recordset(report_worker.spans) y (
        run uuid, step text, lane int, index int, items int, failed int, outcome text, seconds float8, start float8,
        "end" float8
      )
      join pgflow.step_states ss on ss.run_id = y.run and ss.step_slug = y.step
      where v_flows is null or ss.flow_slug = any (v_flows)
      returning run_id
    )
    select w.run_id, count(*) from written w group by w.run_id order by w.run_id
  loop
    continue when v_spans < 5 and report_worker.report_no % 16 <> 0; -- of short runs, of which there are many
    select count(*) into v_spans
    from pgflow.lane_spans s
    where s.run_id = v_run and s.process_id = report_worker.process_id;
    if v_spans > 4000 then
      perform pgflow._coarsen_spans(v_run, report_worker.process_id, 2000);
    end if;
  end loop;
  return true;
end;
$$;
