-- Jobs of pg_cron (contract sections 14.2 and 15). Without pg_cron these raise a clear error, and the
-- workers of pgflow_mp do the same upkeep.

create or replace function pgflow._require_cron()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regnamespace('cron') is null then
    raise exception 'The extension pg_cron is not installed on this server'
      using errcode = 'feature_not_supported',
            hint = 'Nothing is lost: running workers of pgflow_mp requeue stalled tasks themselves.';
  end if;
  perform pgflow._require_trusted('cron', array['schedule', 'unschedule', 'job', 'job_run_details']);
end;
$$;

-- (Re)schedules a job; answers its id.
create or replace function pgflow._schedule_cron(job_name text, schedule text, command text)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job_id bigint;
begin
  perform pgflow._require_cron();
  execute 'select count(cron.unschedule(j.jobname::text)) from cron.job j where j.jobname = $1' using job_name;
  execute 'select cron.schedule($1, $2, $3)' into v_job_id using job_name, schedule, command;
  return v_job_id;
end;
$$;

-- The job is one transaction: what it gives up, its next run fails.
create or replace function pgflow.setup_requeue_stalled_tasks_cron(cron_interval text default '15 seconds')
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job_id bigint := pgflow._schedule_cron(
    'pgflow_requeue_stalled_tasks',
    cron_interval,
    'select pgflow.requeue_stalled_tasks(), pgflow.fail_stalled_tasks()'
  );
begin
  return format(
    'Scheduled pgflow_requeue_stalled_tasks every "%s" (job id %s)', cron_interval, v_job_id
  );
end;
$$;

-- Has pg_cron call ensure_workers again and again, and remove its old logs; what was set up, in words.
create or replace function pgflow.setup_ensure_workers_cron(cron_interval text default '1 second')
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ensure_id bigint := pgflow._schedule_cron(
    'pgflow_ensure_workers', cron_interval, 'select pgflow.ensure_workers()'
  );
  v_cleanup_id bigint := pgflow._schedule_cron(
    'pgflow_cleanup_logs', '0 * * * *', 'select pgflow.cleanup_ensure_workers_logs()'
  );
begin
  return format(
    'Scheduled pgflow_ensure_workers every "%s" (job id %s) and pgflow_cleanup_logs hourly (job id %s)',
    cron_interval, v_ensure_id, v_cleanup_id
  );
end;
$$;

-- Removes what pg_cron logged of its jobs longer ago than so many hours; how many lines.
create or replace function pgflow.cleanup_ensure_workers_logs(retention_hours int default 24)
returns table (cron_deleted bigint)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow._require_cron();
  execute $query$
    with gone as (
      delete from cron.job_run_details d
      where d.end_time < now() - make_interval(hours => $1)
      returning 1
    )
    select count(*) from gone
  $query$ into cron_deleted using retention_hours;
  return next;
end;
$$;

-- Ours: pg_cron starts what is due, where it is there: also while no worker runs.
create or replace function pgflow.setup_fire_schedules_cron(cron_interval text default '10 seconds')
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job_id bigint := pgflow._schedule_cron(
    'pgflow_fire_schedules', cron_interval, 'select count(*) from pgflow.fire_schedules()'
  );
begin
  return format('Scheduled pgflow_fire_schedules every "%s" (job id %s)', cron_interval, v_job_id);
end;
$$;

-- Supabase has pg_cron: there the upkeep runs, and what is due is started, from the day of installation.
do $$
begin
  if exists (
    select from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'cron'
      and p.proname = 'schedule'
      and array(select unnest(p.proargtypes)) = '{text, text, text}'::regtype[]::oid[]
  ) then
    perform pgflow.setup_requeue_stalled_tasks_cron();
    perform pgflow.setup_fire_schedules_cron();
  end if;
end;
$$;
