-- Ours: what the reference from step_tasks to step_states means for whoever deletes by hand, without a foreign
-- key that would be checked for every spawned row: no task is left without its step. As a foreign key's,
-- the check needs no right of who deletes.
create or replace function pgflow._keep_tasks_with_their_steps()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_key text;
begin
  select format('%s, %s', d.run_id, d.step_slug) into v_key
  from deleted d
  cross join lateral (
    select 1 from pgflow.step_tasks t
    where t.run_id = d.run_id and t.step_slug = d.step_slug
    limit 1
  ) t
  where not exists (select 1 from pgflow.leavings l where l.run_id = d.run_id) -- they are gone soon
  limit 1;
  if found then
    raise exception 'update or delete on table "step_states" violates foreign key constraint "step_tasks_run_id_step_slug_fkey" on table "step_tasks"'
      using errcode = 'foreign_key_violation',
            schema = 'pgflow', table = 'step_tasks', constraint = 'step_tasks_run_id_step_slug_fkey',
            detail = format('Key (run_id, step_slug)=(%s) is still referenced from table "step_tasks".', v_key);
  end if;
  return null;
end;
$$;

-- As "truncate ... cascade", which needs the right to truncate the tasks, too.
create or replace function pgflow._truncate_tasks_with_their_steps()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Where the tasks are truncated by the same command they are gone already, and locked by it.
  if exists (select 1 from pgflow.step_tasks) then
    truncate pgflow.step_tasks;
  end if;
  return null;
end;
$$;

create or replace trigger refuse_to_orphan_tasks
  after delete on pgflow.step_states
  referencing old table as deleted
  for each statement
  execute function pgflow._keep_tasks_with_their_steps();

create or replace trigger truncate_tasks
  after truncate on pgflow.step_states
  for each statement
  execute function pgflow._truncate_tasks_with_their_steps();
