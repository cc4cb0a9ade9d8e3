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

do $$
begin
  if exists (
    select from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'cron'
      and p.proname = 'schedule'
      and array(select unnest(p.proargtypes)) = '{text, text, text}'::regtype[]::oid[]
  ) then
    perform pgflow.setup_fire_schedules_cron();
  end if;
end;
$$;
