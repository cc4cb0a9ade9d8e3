-- Ours: what is due by the server's clock is started, once: the row of a time and its run are written by one
-- transaction, under the lock of the schedule. Any worker calls this, and pg_cron where it is there
-- (functions/0520_cron.sql); several at once do not wait for each other.

-- Why this role cannot start runs of this flow; NULL: it can. As pgflow._require_flow would have it, had it called.
create or replace function pgflow._cannot_start(owner_id oid, flow_slug text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_role text;
begin
  select quote_ident(r.rolname) into v_role from pg_catalog.pg_roles r where r.oid = _cannot_start.owner_id;
  if not found then
    return 'The role that owns the schedule is gone';
  end if;
  if pg_has_role(
    _cannot_start.owner_id,
    (select n.nspowner from pg_catalog.pg_namespace n where n.nspname = 'pgflow'),
    'usage'
  ) then
    return null;
  end if;
  if not exists (
    select 1 from pg_catalog.pg_proc p
    where p.pronamespace = 'pgflow'::regnamespace
      and p.proname = 'set_schedule'
      and has_function_privilege(_cannot_start.owner_id, p.oid, 'execute')
  ) then
    return format('Role %s, which owns the schedule, may not schedule runs', v_role);
  end if;
  if exists (
    select 1 from pgflow.flow_grants g where pg_has_role(_cannot_start.owner_id, g.role_id, 'usage')
  ) and not exists (
    select 1 from pgflow.flow_grants g
    where g.flow_slug = _cannot_start.flow_slug and pg_has_role(_cannot_start.owner_id, g.role_id, 'usage')
  ) then
    return format('Role %s, which owns the schedule, may not use flow %s', v_role, quote_ident(flow_slug));
  end if;
  return null;
end;
$$;

-- Starts the run of one time. A key names it, so that no time has two runs, not even when nothing else is known of
-- the first any more. Raises what starting raises.
create or replace function pgflow._start_scheduled(schedule pgflow.schedules, due_at timestamptz, local_time text)
returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_reason text := pgflow._cannot_start(schedule.owner_id, schedule.flow_slug);
  v_key text := format(
    'schedule:%s@%s', schedule.name, to_char(due_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')
  );
  v_input jsonb := case
    when schedule.due_as is null then schedule.input
    else schedule.input || jsonb_build_object(schedule.due_as, local_time)
  end;
  v_run_id uuid := gen_random_uuid();
  v_known pgflow.run_keys;
begin
  if v_reason is not null then
    raise exception '%', v_reason using errcode = 'insufficient_privilege';
  end if;
  if not exists (select 1 from pgflow.flows f where f.flow_slug = schedule.flow_slug) then
    raise exception 'There is no flow "%" in this database', schedule.flow_slug using errcode = 'PF009';
  end if;
  v_known := pgflow._take_key(schedule.flow_slug, v_key, v_run_id, null);
  if v_known.run_id is not null then
    if not exists (select 1 from pgflow.runs r where r.run_id = v_known.run_id and r.input = v_input) then
      perform pgflow._refuse_other_input(v_known);
    end if;
    return v_known.run_id;
  end if;
  perform pgflow.start_flow(schedule.flow_slug, v_input, v_run_id);
  if schedule.priority <> 0 then
    insert into pgflow.run_priorities (run_id, priority) values (v_run_id, schedule.priority);
  end if;
  insert into pgflow.run_tags (run_id, tag, started_at)
  select r.run_id, 'schedule:' || schedule.name, r.started_at
  from pgflow.runs r
  where r.run_id = v_run_id
    and length(schedule.name) <= 50 and schedule.name collate "C" ~ '^[A-Za-z0-9._:/=@+-]*$'; -- as of its check
  return v_run_id;
end;
$$;

-- Puts aside what is due of a schedule and is not to be started: of several times that are due, all but the last,
-- unless all are wanted, and then all but the last 100; where missed ones are to be skipped, also the last, if that
-- is more than five minutes ago.
create or replace function pgflow._skip_missed(schedule pgflow.schedules, due timestamptz)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  update pgflow.schedule_times t
  set state = 'skipped',
      handled_at = clock_timestamp(),
      error = case when d.nth > 1 then 'A later time was due, too' else 'Nobody was there in time to start it' end
  from (
    select o.due_at, row_number() over (order by o.due_at desc) as nth
    from pgflow.schedule_times o
    where o.schedule_id = schedule.schedule_id
      and o.state = 'planned'
      and o.asked_at is null
      and o.due_at <= due
  ) d
  where t.schedule_id = schedule.schedule_id
    and t.due_at = d.due_at
    and t.state = 'planned'
    and case schedule.missed
      when 'all' then d.nth > 100
      when 'once' then d.nth > 1
      else d.nth > 1 or d.due_at < due - interval '5 minutes'
    end;
$$;

-- Starts up to max_runs of what is due, for about a second, of the flows that the caller may use; call it again until
-- it answers nothing. Answers what was started, and what could not be, with why: that is kept with the time and not
-- tried again. What is locked, or ran into locks, is left for the next call: whoever may start runs could keep the
-- key of a time in a transaction of their own for ever.
create or replace function pgflow.fire_schedules(max_runs int default 20)
returns table (flow_slug text, name text, due_at timestamptz, run_id uuid, error text)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '200ms'
as $$
#variable_conflict use_column
declare
  v_flows text[] := pgflow._granted_flows('fire_schedules');
  v_now timestamptz := clock_timestamp();
  v_left int := least(greatest(max_runs, 1), 1000);
  v_id uuid;
  v_schedule pgflow.schedules;
  v_time record;
  v_state text;
begin
  for v_id in
    select s.schedule_id
    from pgflow.schedules s
    join (
      select t.schedule_id, min(t.due_at) filter (where t.asked_at is null) as first, min(t.due_at) as asked
      from pgflow.schedule_times t
      where t.state = 'planned' and t.due_at <= v_now
      group by t.schedule_id
    ) d on d.schedule_id = s.schedule_id
    where s.paused_at is null and coalesce(s.flow_slug = any (v_flows), true)
    order by d.first nulls last, d.asked, s.schedule_id
  loop
    select s.* into v_schedule
    from pgflow.schedules s
    where s.schedule_id = v_id and s.paused_at is null
    for update skip locked;
    continue when not found;
    perform pgflow._skip_missed(v_schedule, v_now);
    for v_time in
      select t.due_at, t.local_time
      from pgflow.schedule_times t
      where t.schedule_id = v_id and t.state = 'planned' and t.due_at <= v_now
      order by t.asked_at is not null, t.due_at
      limit v_left
    loop
      flow_slug := v_schedule.flow_slug;
      name := v_schedule.name;
      due_at := v_time.due_at;
      run_id := null;
      error := null;
      begin
        run_id := pgflow._start_scheduled(v_schedule, v_time.due_at, v_time.local_time);
      exception when others then
        get stacked diagnostics v_state = returned_sqlstate, error = message_text;
        if left(v_state, 2) in ('08', '25', '53', '57', '58') then
          raise;
        end if;
        if left(v_state, 2) in ('40', '55') then
          raise warning 'pgflow: schedule "%" of flow "%" is left for now: %', name, flow_slug, error;
          exit;
        end if;
      end;
      update pgflow.schedule_times t
      set state = case when fire_schedules.error is null then 'started' else 'failed' end,
          handled_at = clock_timestamp(),
          run_id = fire_schedules.run_id,
          error = left(fire_schedules.error, 2000)
      where t.schedule_id = v_id and t.due_at = v_time.due_at and t.state = 'planned';
      if not found then
        raise exception 'Time % of schedule "%" was handled by others', due_at, name
          using errcode = 'serialization_failure';
      end if;
      v_left := v_left - 1;
      return next;
    end loop;
    delete from pgflow.schedule_times t
    where t.schedule_id = v_id
      and t.state <> 'planned'
      and t.handled_at < (
        select o.handled_at
        from pgflow.schedule_times o
        where o.schedule_id = v_id and o.state <> 'planned'
        order by o.handled_at desc
        offset 999 limit 1
      );
    exit when v_left <= 0 or clock_timestamp() > v_now + interval '1 second';
  end loop;
end;
$$;

-- Whether times are to be computed, and in how many seconds the next one is due: NULL where none is.
create or replace function pgflow.schedules_wait(out is_to_plan boolean, out seconds float8)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
as $$
#variable_conflict use_column
declare
  v_flows text[] := pgflow._granted_flows('schedules_wait');
  v_now timestamptz := clock_timestamp();
begin
  is_to_plan := exists (
    select 1 from pgflow.schedules s
    where s.paused_at is null and s.plan_again_at <= v_now and coalesce(s.flow_slug = any (v_flows), true)
  );
  select extract(epoch from t.due_at - v_now) into seconds
  from pgflow.schedule_times t
  join pgflow.schedules s on s.schedule_id = t.schedule_id
  where t.state = 'planned' and s.paused_at is null and coalesce(s.flow_slug = any (v_flows), true)
  order by t.due_at
  limit 1;
end;
$$;

-- Schedules that soon have no times left. They are computed from after on, and are to be told as they come.
create or replace function pgflow.schedules_to_plan()
returns table (schedule_id uuid, revision int, cron text, time_zone text, after timestamptz, now timestamptz)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select s.schedule_id, s.revision, s.cron, s.time_zone, s.planned_until, clock_timestamp()
  from pgflow.schedules s
  where s.paused_at is null
    and s.plan_again_at <= clock_timestamp()
    and coalesce(s.flow_slug = any ((select pgflow._granted_flows('schedules_to_plan'))::text[]), true)
  order by s.plan_again_at
  limit 100;
$$;

-- Keeps the next times of a schedule, unless it has changed meanwhile, or somebody else was quicker. With a problem
-- there are none: it is shown, and they are to be computed again in an hour. Answers whether they were kept.
create or replace function pgflow.plan_schedule(
  schedule_id uuid,
  revision int,
  planned_until timestamptz,
  times timestamptz[],
  local_times text[],
  problem text default null
)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_schedule pgflow.schedules;
begin
  select s.* into v_schedule
  from pgflow.schedules s
  where s.schedule_id = plan_schedule.schedule_id
  for update skip locked;
  if v_schedule.schedule_id is null then
    return false;
  end if;
  perform pgflow._require_flow('plan_schedule', v_schedule.flow_slug);
  if v_schedule.revision <> plan_schedule.revision or v_schedule.planned_until <> plan_schedule.planned_until then
    return false;
  end if;
  if plan_schedule.problem is not null then
    update pgflow.schedules s
    set problem = left(plan_schedule.problem, 2000), plan_again_at = clock_timestamp() + interval '1 hour'
    where s.schedule_id = v_schedule.schedule_id;
    return false;
  end if;
  perform pgflow._plan_times(
    v_schedule.schedule_id, coalesce(plan_schedule.times, '{}'), coalesce(plan_schedule.local_times, '{}')
  );
  return true;
end;
$$;
