-- Ours: flows and runs are paused and resumed. Of what is paused nothing new is claimed, by whatever way; what is
-- claimed already ends and is recorded, starts are accepted, and retries that come due wait. A claim that is under
-- way at that moment is answered. A pause with a time, until, is none from then on; its row stays, until the next one,
-- or the end of the run.

-- Refuses a flow that is not there.
create or replace function pgflow._require_stored_flow(flow_slug text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from pgflow.flows f where f.flow_slug = _require_stored_flow.flow_slug) then
    raise exception 'There is no flow "%" in this database', coalesce(_require_stored_flow.flow_slug, 'NULL')
      using errcode = 'PF016';
  end if;
end;
$$;

-- Refuses a pause that would be over already.
create or replace function pgflow._check_until(until timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if _check_until.until <= clock_timestamp() then
    raise exception 'A pause cannot end at %, which has passed', _check_until.until
      using errcode = 'invalid_parameter_value';
  end if;
end;
$$;

-- Pauses a flow, all its runs and those to come, until somebody resumes it or it is so late; whether that is new.
create or replace function pgflow.pause_flow(flow_slug text, reason text default null, until timestamptz default null)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pgflow._require_flow('pause_flow', pause_flow.flow_slug);
  perform pgflow._require_stored_flow(pause_flow.flow_slug);
  perform pgflow._check_until(pause_flow.until);
  insert into pgflow.pauses as p (flow_slug, reason, until)
  values (pause_flow.flow_slug, left(pause_flow.reason, 1000), pause_flow.until)
  on conflict (flow_slug) where run_id is null do update
    set until = excluded.until, reason = excluded.reason, paused_at = clock_timestamp()
    where p.until is distinct from excluded.until;
  if not found then
    return false;
  end if;
  perform pg_notify('pgflow_paused', pause_flow.flow_slug);
  return true;
end;
$$;

-- Ends the pause of a flow, but not those of single runs of it; whether there was one.
create or replace function pgflow.resume_flow(flow_slug text)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_until timestamptz;
begin
  perform pgflow._require_flow('resume_flow', resume_flow.flow_slug);
  perform pgflow._require_stored_flow(resume_flow.flow_slug);
  delete from pgflow.pauses p where p.flow_slug = resume_flow.flow_slug and p.run_id is null
  returning p.until into v_until;
  if not found or v_until <= clock_timestamp() then
    return false;
  end if;
  perform pg_notify('pgflow_work', resume_flow.flow_slug);
  return true;
end;
$$;

-- Pauses a run that goes on, until somebody resumes it or it is so late; whether that is new.
create or replace function pgflow.pause_run(run_id uuid, reason text default null, until timestamptz default null)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_flow_slug text;
  v_status text;
begin
  -- So that it does not end meanwhile: its end would have nothing to lift.
  select r.flow_slug, r.status into v_flow_slug, v_status
  from pgflow.runs r
  where r.run_id = pause_run.run_id
  for share;
  if not found then
    raise exception 'There is no run % in this database', pause_run.run_id using errcode = 'PF003';
  end if;
  perform pgflow._require_flow('pause_run', v_flow_slug);
  if v_status <> 'started' then
    raise exception 'Run % is %, only a run that goes on can be paused', pause_run.run_id, v_status
      using errcode = 'PF004';
  end if;
  perform pgflow._check_until(pause_run.until);
  insert into pgflow.pauses as p (flow_slug, run_id, reason, until)
  values (v_flow_slug, pause_run.run_id, left(pause_run.reason, 1000), pause_run.until)
  on conflict (run_id) where run_id is not null do update
    set until = excluded.until, reason = excluded.reason, paused_at = clock_timestamp()
    where p.until is distinct from excluded.until;
  if not found then
    return false;
  end if;
  perform pg_notify('pgflow_paused', v_flow_slug);
  return true;
end;
$$;

-- Ends the pause of a run, but not that of its flow; whether there was one.
create or replace function pgflow.resume_run(run_id uuid)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_flow_slug text;
  v_until timestamptz;
begin
  select r.flow_slug into v_flow_slug from pgflow.runs r where r.run_id = resume_run.run_id;
  if not found then
    raise exception 'There is no run % in this database', resume_run.run_id using errcode = 'PF003';
  end if;
  perform pgflow._require_flow('resume_run', v_flow_slug);
  delete from pgflow.pauses p where p.run_id = resume_run.run_id returning p.until into v_until;
  if not found or v_until <= clock_timestamp() then
    return false;
  end if;
  perform pg_notify('pgflow_work', v_flow_slug);
  return true;
end;
$$;

-- What is paused of the flows that the caller may use, since when, and until when. run_id is null of a flow as a whole.
create or replace function pgflow.list_pauses()
returns table (flow_slug text, run_id uuid, paused_at timestamptz, reason text, until timestamptz)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select p.flow_slug, p.run_id, p.paused_at, p.reason, p.until
  from pgflow.pauses p
  where (p.until is null or p.until > clock_timestamp())
    and coalesce(p.flow_slug = any ((select pgflow._granted_flows('list_pauses'))::text[]), true)
  order by p.paused_at, p.run_id;
$$;

-- The paused runs of a flow; NULL: all of it is paused. Claims ask: see _is_to_be_alone.
create or replace function pgflow._paused_runs(flow_slug text)
returns uuid[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return (
    select case
      when not coalesce(bool_or(p.run_id is null), false) then coalesce(array_agg(p.run_id), '{}')
    end
    from pgflow.pauses p
    where p.flow_slug = _paused_runs.flow_slug and (p.until is null or p.until > clock_timestamp())
  );
end;
$$;

-- Of these messages of a queue those whose tasks are of no paused run, and of none of but_steps; none of a paused flow.
-- For who reads the queue itself: what is left out becomes visible again when the read's own time is over.
create or replace function pgflow._without_paused(
  flow_slug text,
  queue_name text,
  msg_ids bigint[],
  but_steps text[]
)
returns bigint[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_runs uuid[] := pgflow._paused_runs(_without_paused.flow_slug);
begin
  if v_runs is null then
    return null;
  elsif cardinality(v_runs) = 0 and but_steps is null then
    return msg_ids;
  end if;
  return (
    select array_agg(m.id order by m.n)
    from unnest(msg_ids) with ordinality m (id, n)
    where not exists (
      select 1
      from pgflow.step_tasks t
      where t.queue_name = _without_paused.queue_name
        and t.message_id = m.id
        and (t.run_id = any (v_runs) or t.step_slug = any (but_steps))
    )
  );
end;
$$;

-- A pause ends with its run: one that is gone on with later goes on.
create or replace function pgflow._lift_pause()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from pgflow.pauses p where p.run_id = new.run_id;
  return null;
end;
$$;

create or replace trigger lift_pause
  after update of status on pgflow.runs
  for each row
  when (old.status = 'started' and new.status <> 'started')
  execute function pgflow._lift_pause();

-- A run that is started where pgflow.start_after is set, to a time, is paused until then: by that alone, so that who
-- may start runs needs no other right for it, and nobody can hold a run of somebody else.
create or replace function pgflow._start_later()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_until constant timestamptz := current_setting('pgflow.start_after');
begin
  if v_until > clock_timestamp() then
    insert into pgflow.pauses (flow_slug, run_id, until) values (new.flow_slug, new.run_id, v_until);
  end if;
  return null;
end;
$$;

create or replace trigger start_later
  after insert on pgflow.runs
  for each row
  when (current_setting('pgflow.start_after', true) <> '')
  execute function pgflow._start_later();
