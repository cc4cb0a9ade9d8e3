-- Ours: schedules are made and changed here; functions/0682_fire_schedules.sql starts what is due.
--
-- Who may start runs of a flow may schedule them. A schedule is changed by the role that made it, its members, and
-- whoever may cancel runs of its flow (access "operator"); who sets it anew is its owner from then on.

-- The role on whose behalf a granted function runs (see pgflow._granted_flows).
create or replace function pgflow._caller()
returns oid
language sql
stable
set search_path = pg_catalog, pg_temp
as $$ select quote_ident(coalesce(nullif(current_setting('role'), 'none'), session_user))::regrole::oid $$;

-- The schedule, locked, if the caller of the function of this name may change it. NULL: there is none.
create or replace function pgflow._lock_schedule(function_name text, flow_slug text, name text)
returns pgflow.schedules
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_schedule pgflow.schedules;
begin
  perform pgflow._require_flow(function_name, _lock_schedule.flow_slug);
  select s.* into v_schedule
  from pgflow.schedules s
  where s.flow_slug = _lock_schedule.flow_slug and s.name = _lock_schedule.name
  for update;
  if found
    and not coalesce(pg_has_role(pgflow._caller(), v_schedule.owner_id, 'usage'), false)
    and not has_function_privilege(pgflow._caller(), 'pgflow.cancel_run(uuid, text)', 'execute')
  then
    raise exception 'permission denied for schedule % of flow %', quote_ident(v_schedule.name),
      quote_ident(v_schedule.flow_slug)
      using errcode = 'insufficient_privilege',
            hint = format(
              'It belongs to role %s. It is changed by that role, and with the access "operator".',
              quote_ident(pg_get_userbyid(v_schedule.owner_id))
            );
  end if;
  return v_schedule;
end;
$$;

create or replace function pgflow._require_schedule(function_name text, flow_slug text, name text)
returns pgflow.schedules
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_schedule pgflow.schedules :=
    pgflow._lock_schedule(function_name, _require_schedule.flow_slug, _require_schedule.name);
begin
  if v_schedule.schedule_id is null then
    raise exception 'There is no schedule "%" of flow "%"', _require_schedule.name, _require_schedule.flow_slug
      using errcode = 'PF009';
  end if;
  return v_schedule;
end;
$$;

-- Keeps times of a schedule that its lock's holder was given, those that come after what is planned already: at most
-- 400. Half of them from now on they are to be computed again.
create or replace function pgflow._plan_times(schedule_id uuid, times timestamptz[], local_times text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  if coalesce(cardinality(times), 0) > 400 then
    raise exception 'At most 400 times of a schedule are planned at once' using errcode = 'invalid_parameter_value';
  end if;
  insert into pgflow.schedule_times (schedule_id, due_at, local_time)
  select s.schedule_id, t.due_at, t.local_time
  from pgflow.schedules s
  cross join unnest(times, local_times) t (due_at, local_time)
  where s.schedule_id = _plan_times.schedule_id and t.due_at > s.planned_until
  on conflict on constraint schedule_times_pkey do nothing;
  update pgflow.schedules s
  set planned_until = greatest(s.planned_until, (select max(t.due_at) from unnest(times) t (due_at))),
      problem = null,
      plan_again_at = case when times is null then '-infinity' else coalesce(
        (
          select t.due_at
          from unnest(times) t (due_at)
          where t.due_at > clock_timestamp()
          order by t.due_at
          limit 1 offset (
            select greatest(count(*) / 2 - 1, 0) from unnest(times) u (due_at) where u.due_at > clock_timestamp()
          )
        ),
        'infinity'
      ) end
  where s.schedule_id = _plan_times.schedule_id;
end;
$$;

-- Makes a schedule, or changes the one of this flow and name. times are the next ones by its cron line and time zone,
-- local_times the same as texts of that zone; what was planned of former ones is dropped. With due_as, a member of
-- the input of that name tells each run its time. Without times a worker computes them. Answers whether it is new.
create or replace function pgflow.set_schedule(
  flow_slug text,
  name text,
  cron text,
  time_zone text,
  input jsonb,
  missed text default 'once',
  priority int default 0,
  due_as text default null,
  times timestamptz[] default null,
  local_times text[] default null
)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_known pgflow.schedules;
  v_id uuid := gen_random_uuid();
begin
  perform pgflow._require_flow('set_schedule', set_schedule.flow_slug);
  insert into pgflow.schedules (
    schedule_id, flow_slug, name, cron, time_zone, input, due_as, priority, missed, owner_id
  )
  values (
    v_id, set_schedule.flow_slug, set_schedule.name, set_schedule.cron, set_schedule.time_zone, set_schedule.input,
    set_schedule.due_as, set_schedule.priority, set_schedule.missed, pgflow._caller()
  )
  on conflict on constraint schedules_flow_slug_name_key do nothing;
  if found then
    perform pgflow._plan_times(v_id, set_schedule.times, set_schedule.local_times);
    return true;
  end if;

  v_known := pgflow._require_schedule('set_schedule', set_schedule.flow_slug, set_schedule.name);
  delete from pgflow.schedule_times t
  where t.schedule_id = v_known.schedule_id and t.state = 'planned' and t.asked_at is null;
  update pgflow.schedules s
  set cron = set_schedule.cron,
      time_zone = set_schedule.time_zone,
      input = set_schedule.input,
      due_as = set_schedule.due_as,
      priority = set_schedule.priority,
      missed = set_schedule.missed,
      owner_id = pgflow._caller(),
      revision = s.revision + 1,
      planned_until = clock_timestamp(),
      changed_at = clock_timestamp()
  where s.schedule_id = v_known.schedule_id;
  perform pgflow._plan_times(v_known.schedule_id, set_schedule.times, set_schedule.local_times);
  return false;
end;
$$;

-- Nothing of a paused schedule is started. Answers whether it was not paused before.
create or replace function pgflow.pause_schedule(flow_slug text, name text)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_schedule pgflow.schedules :=
    pgflow._require_schedule('pause_schedule', pause_schedule.flow_slug, pause_schedule.name);
begin
  update pgflow.schedules s
  set paused_at = clock_timestamp()
  where s.schedule_id = v_schedule.schedule_id and s.paused_at is null;
  return found;
end;
$$;

-- The times that passed while it was paused are skipped: they can be asked for by backfill_schedule. Answers whether
-- it was paused.
create or replace function pgflow.resume_schedule(flow_slug text, name text)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_schedule pgflow.schedules :=
    pgflow._require_schedule('resume_schedule', resume_schedule.flow_slug, resume_schedule.name);
begin
  if v_schedule.paused_at is null then
    return false;
  end if;
  update pgflow.schedule_times t
  set state = 'skipped', handled_at = clock_timestamp(), error = 'The schedule was paused'
  where t.schedule_id = v_schedule.schedule_id
    and t.state = 'planned'
    and t.asked_at is null
    and t.due_at <= clock_timestamp();
  update pgflow.schedules s
  set paused_at = null,
      planned_until = greatest(s.planned_until, clock_timestamp()),
      plan_again_at = case when s.planned_until < clock_timestamp() then '-infinity' else s.plan_again_at end
  where s.schedule_id = v_schedule.schedule_id;
  return true;
end;
$$;

-- Removes a schedule; runs that it started stay.
create or replace function pgflow.delete_schedule(flow_slug text, name text)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_schedule pgflow.schedules :=
    pgflow._require_schedule('delete_schedule', delete_schedule.flow_slug, delete_schedule.name);
begin
  delete from pgflow.schedules s where s.schedule_id = v_schedule.schedule_id;
end;
$$;

-- Asks for runs of times that have passed, at most 1000 a call; those that were started are not started again.
-- Answers how many will be started, and how many are known already.
create or replace function pgflow.backfill_schedule(
  flow_slug text,
  name text,
  times timestamptz[],
  local_times text[],
  out asked int,
  out known int
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_schedule pgflow.schedules :=
    pgflow._require_schedule('backfill_schedule', backfill_schedule.flow_slug, backfill_schedule.name);
begin
  if v_schedule.paused_at is not null then
    raise exception 'Schedule "%" of flow "%" is paused', v_schedule.name, v_schedule.flow_slug
      using errcode = 'PF009', hint = 'Resume it first.';
  end if;
  if coalesce(cardinality(times), 0) > 1000 then
    raise exception 'At most 1000 times are asked for at once' using errcode = 'invalid_parameter_value';
  end if;
  with wanted as (
    insert into pgflow.schedule_times as t (schedule_id, due_at, local_time, asked_at)
    select v_schedule.schedule_id, w.due_at, w.local_time, clock_timestamp()
    from unnest(times, local_times) w (due_at, local_time)
    where w.due_at <= clock_timestamp()
    on conflict on constraint schedule_times_pkey do update
      set state = 'planned', asked_at = excluded.asked_at, handled_at = null, error = null
      where t.state in ('skipped', 'failed')
    returning 1
  )
  select count(*) into backfill_schedule.asked from wanted;
  known := coalesce(cardinality(times), 0) - asked;
end;
$$;
